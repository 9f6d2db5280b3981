"""Cells that only calculate: they may share an interpreter, because they can change nothing in it but their own variables.

Most cells that a model writes add, multiply, loop and print. Starting an interpreter for such a cell costs several times
what running it costs. What is allowed here is a short list; all else, and all whose result could depend on the interpreter
it ran in (addresses, memory, depth), takes the way of its own interpreter. This list guards sessions from each other: what
guards the machine is the same for both. Loaded into the guest after ``guest.py``.
"""

import ast
import builtins
import json
import math
import sys

OFFERED = frozenset(
    ("abs", "all", "any", "bool", "divmod", "float", "int", "len", "list", "max", "min", "pow", "print", "range", "round",
     "sorted", "str", "sum", "tuple")
)  # fmt: skip
NUMBERS = frozenset(name for name in vars(math) if isinstance(getattr(math, name), float))
FUNCTIONS = frozenset(name for name in vars(math) if name[0] != "_") - NUMBERS
CALLED = FUNCTIONS | {"append"}
IMPORTED = {"math": FUNCTIONS | NUMBERS, "fractions": {"Fraction"}}
# A generator shows its address, so it only stands where it is used up at once.
CONSUMERS = frozenset(["all", "any", "list", "max", "min", "sorted", "sum", "tuple"])
METHOD_CONSUMERS = frozenset(("prod", "fsum"))
STATEMENTS = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Break, ast.Continue, ast.Pass,
    ast.Import, ast.ImportFrom, ast.alias,
)  # fmt: skip
EXPRESSIONS = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword, ast.Starred, ast.Constant, ast.Name,
    ast.List, ast.Tuple, ast.Subscript, ast.Slice, ast.ListComp, ast.GeneratorExp, ast.comprehension, ast.Attribute,
    ast.JoinedStr, ast.FormattedValue,
)  # fmt: skip
SYMBOLS = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
CONSTANTS = (int, float, str, type(None))
UNSURE = frozenset(("MemoryError", "RecursionError", "SystemError", "SystemExit", "KeyboardInterrupt"))


def _may_be_bound(name):
    """No builtin: its name means the same everywhere in a cell."""
    return name == "_" or not (name.startswith("_") or hasattr(builtins, name))


def _may_share(node, called, consumed):
    """Whether one node is on the list.

    Args:
        called: ids of the attributes that are called at once.
        consumed: ids of the generators that are used up at once.
    """
    kind = type(node)
    if kind is ast.Name:
        return _may_be_bound(node.id) or (node.id in OFFERED and type(node.ctx) is ast.Load)
    if kind is ast.Attribute:
        return type(node.ctx) is ast.Load and node.attr in (CALLED if id(node) in called else NUMBERS)
    if kind is ast.Constant:
        return isinstance(node.value, CONSTANTS)
    if kind is ast.GeneratorExp:
        return id(node) in consumed
    if kind is ast.comprehension:
        return not node.is_async
    if kind is ast.Import:
        return all(part.name == "math" for part in node.names)
    if kind is ast.ImportFrom:
        names = IMPORTED.get(node.module, ()) if node.level == 0 else ()
        return all(part.name in names for part in node.names)
    if kind is ast.alias:
        return _may_be_bound(node.asname or node.name)
    if isinstance(node, (ast.Is, ast.IsNot)):
        return False
    return kind in STATEMENTS or kind in EXPRESSIONS or isinstance(node, SYMBOLS)


def _only_calculates(tree):
    """Whether a cell is on the list, all of it."""
    nodes = list(ast.walk(tree))
    called, consumed = set(), set()
    for node in nodes:
        if type(node) is ast.Call:
            called.add(id(node.func))
            uses_up = (type(node.func) is ast.Name and node.func.id in CONSUMERS) or (
                type(node.func) is ast.Attribute and node.func.attr in METHOD_CONSUMERS
            )
            if uses_up:
                consumed.update(map(id, node.args[:1]))  # sum's second argument may come back as it is
    return all(_may_share(node, called, consumed) for node in nodes)


def _shared_report(source, limit, space):
    """The report of a cell that only calculates; None for any other, and where its text may tell the interpreter."""
    tree = None
    try:
        tree = ast.parse(source, "<cell>")
    except SyntaxError:
        pass  # nothing of it runs
    except Exception:
        return None
    if tree is not None and not _only_calculates(tree):
        return None
    report = _mtdpo_report(source, limit, space, tree)  # noqa: F821  # pyrefly: ignore[unknown-name] - of guest.py, loaded first
    shown = f"{report['head']}{report['tail']}{report['message']}"
    return None if report["error"] in UNSURE or "0x" in shown else report


_SPACES = {}  # the variables of each session that shares this interpreter


def _mtdpo_shared_cell(number, source, limit, gone):
    """Run a cell of session `number` and write its report, or ``null`` if it needs an interpreter of its own.

    Args:
        gone: sessions whose variables are not needed any more.
    """
    for old in gone:
        _SPACES.pop(old, None)
    report = _shared_report(source, limit, _SPACES.setdefault(number, {"__name__": "__main__"}))
    if report is None:
        del _SPACES[number]
    sys.stdout.write(json.dumps(report))
