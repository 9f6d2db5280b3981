"""Small changes of a solution, made by machine: each should cost points."""

from __future__ import annotations

import ast
import copy
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from masters import MASTERS, read_master

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of one node: another operator or constant, or one of its terms alone."""
    if isinstance(node, ast.BinOp | ast.BoolOp):
        yield (other := copy.deepcopy(node))
        other.op = OPERATORS[type(node.op)]()
        yield from [node.left, node.right] if isinstance(node, ast.BinOp) else node.values
    elif isinstance(node, ast.Compare):
        yield (other := copy.deepcopy(node))
        other.ops[0] = OPERATORS[type(node.ops[0])]()
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], 0)
    elif isinstance(node, ast.Slice):
        yield from [ast.Slice(None, node.upper)] * bool(node.lower) + [ast.Slice(node.lower)] * bool(
            node.upper
        )
    elif isinstance(node, ast.Call) and len(node.args) == 2 and ast.unparse(node.func) in ("max", "min"):
        yield from node.args


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Each change of `source`, in words and as code."""
    tree = ast.parse(source)
    for place, node in enumerate(ast.walk(tree)):
        for number, _ in enumerate(list(changes(node))):
            other = copy.deepcopy(tree)
            old = list(ast.walk(other))[place]
            new = list(changes(old))[number]
            before = ast.unparse(old) if not isinstance(old, ast.comprehension) else "the condition"
            Swap(old, new).visit(other)
            after = ast.unparse(new) if not isinstance(new, ast.comprehension) else "none"
            yield f"{before} -> {after}", ast.unparse(ast.fix_missing_locations(other))


class Swap(ast.NodeTransformer):
    """Puts one node in place of another."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


class Endless(Exception):
    """It ran for too long."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def survivors(number: str) -> tuple[dict[str, int], dict[str, set[str]]]:
    """How many mutants each task of a master has, and those that get full marks."""
    master, counts, alive = read_master(MASTERS[number]), {}, {}
    for task in master.tasks.values():
        for words, code in [] if task.written else mutants(task.solution):
            counts[task.name] = counts.get(task.name, 0) + 1
            try:
                with within(5.0):
                    failed = master.failures(task.name, master.variables({task.name: code}))
            except Exception:  # it does not even run, or without end
                continue
            if not failed:
                alive.setdefault(task.name, set()).add(words)
    return counts, alive
