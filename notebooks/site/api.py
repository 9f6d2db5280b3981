"""The reference of the library, read from its source: nothing is imported, so a build needs neither PyTorch nor a GPU."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from sphinx.ext.napoleon import Config, GoogleDocstring

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "mtdpo_lib"
NAPOLEON = Config(napoleon_use_param=True, napoleon_use_rtype=False, napoleon_use_ivar=True)

CODE_OR_BAR = re.compile(r"(`+[^`]*`+)|\|")
Definition = ast.FunctionDef | ast.ClassDef


def rooms(root: Path = ROOT) -> list[str]:
    """The rooms of the library in the direction of its data, as the import rules list them."""
    rules = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["tool"]["importlinter"]
    layers = rules["contracts"][0]["layers"]
    return [room for room in reversed(layers) if not room.startswith("__")]


def source_of(module: str, root: Path = ROOT) -> Path:
    """The file of a dotted module."""
    place = root.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def parsed(module: str) -> ast.Module:
    """The syntax of a module."""
    return ast.parse(source_of(module).read_text(encoding="utf8"))


def definitions(module: str) -> Iterator[tuple[str, Definition]]:
    """What a room shows: the names of its ``__all__``, or the public definitions of its modules where it has none."""
    tree, place = parsed(module), source_of(module)
    names = next((ast.literal_eval(node.value) for node in tree.body if is_all(node)), None)
    if names is not None:
        found = ((name, definition(module, name)) for name in names)
        yield from ((name, node) for name, node in found if node)
    else:
        for node in tree.body:
            if isinstance(node, Definition) and not node.name.startswith("_") and ast.get_docstring(node):
                yield node.name, node
        if place.name == "__init__.py":
            for file in sorted(place.parent.glob("[!_]*.py")):
                yield from (
                    (f"{file.stem}.{name}", node) for name, node in definitions(f"{module}.{file.stem}")
                )


def is_all(node: ast.stmt) -> bool:
    """The statement gives ``__all__``."""
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def definition(module: str, name: str) -> Definition | None:
    """Where `name` of a room is defined, in any of its modules; None for a constant and for what another room defines."""
    for node in parsed(module).body:
        if isinstance(node, Definition) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(str(node.module), alias.name)
    return None


def signature(node: Definition) -> str:
    """``(one: int, other: str = '') -> bool``; of a class, what makes an object of it."""
    if isinstance(node, ast.FunctionDef):
        given, result = node.args, f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"({without_self(given)}){result}"
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return f"({without_self(method.args)})"
    if any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return f"({', '.join(ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign))})"
    return ""


def without_self(given: ast.arguments) -> str:
    """The arguments as they are written, but for ``self`` or ``cls``."""
    words = ast.unparse(given)
    first = given.args[0].arg if given.args else ""
    return words.removeprefix(first).removeprefix(", ") if first in ("self", "cls") else words


def described(node: Definition | ast.Module, what: str) -> list[str]:
    """A docstring in reStructuredText, its lists of arguments as fields; bars outside of code are bars."""
    lines = GoogleDocstring(ast.get_docstring(node) or "", NAPOLEON, what=what).lines()
    return [
        line if line.lstrip().startswith(">>>") else CODE_OR_BAR.sub(lambda found: found[1] or r"\|", line)
        for line in lines
    ]


def directive(kind: str, name: str, node: Definition, inside: str = "") -> list[str]:
    """A definition as a directive of Sphinx's domain for Python, a class with its public methods."""
    head = [
        f".. py:{kind}:: {name}{'' if kind == 'property' else signature(node)}",
        *filter(None, [inside]),
        "",
    ]
    body = described(node, "class" if kind == "class" else "function")
    for method in node.body if isinstance(node, ast.ClassDef) else ():
        if (
            isinstance(method, ast.FunctionDef)
            and not method.name.startswith("_")
            and ast.get_docstring(method)
        ):
            marks = {ast.unparse(one) for one in method.decorator_list}
            how = "property" if "property" in marks else "method"
            option = next((f"   :{mark}:" for mark in ("classmethod", "staticmethod") if mark in marks), "")
            body += ["", *directive(how, method.name, method, option)]
    return [*head, *(f"   {line}" if line else "" for line in body), ""]


def page(room: str) -> str:
    """The page of a room in reStructuredText."""
    module = f"{LIBRARY}.{room}"
    lines = [
        module,
        "=" * len(module),
        "",
        *described(parsed(module), "module"),
        "",
        f".. py:module:: {module}",
        "",
    ]
    for name, node in definitions(module):
        lines += directive("class" if isinstance(node, ast.ClassDef) else "function", name, node)
    return "\n".join(lines)
