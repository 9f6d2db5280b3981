"""Code keys: a hash of the code that a function can run, so that a kept result is made again when that code changes.

The code is found without running it: from the function, every name of its own package that it mentions is followed to the
function, class or constant behind it, and on from there. What is found enters as syntax under the name it has inside its
module. So a comment, a docstring, an order of definitions or the name and place of a module change nothing, and a changed
statement changes the key of exactly those functions that can come to it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mtdpo_lib.common.seeds import digest

SETTINGS_ROOM = "profiles"  # its code is left out: settings are inputs, and enter a key by their values
EFFECTS = "<effects>"  # the statements of a module that define nothing, such as registrations
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORTS = ast.Import | ast.ImportFrom
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Place(NamedTuple):
    """Something in a module: a definition, or the module itself with `name` ""."""

    module: str
    name: str = ""


class Piece(NamedTuple):
    """A definition as text, and what it mentions."""

    text: str
    mentions: set[Place]


class Module:
    """The syntax of one file: the statements behind each of its names, and what its names stand for."""

    def __init__(self, name: str, file: Path):
        self.file = file
        self.package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        self.definitions: dict[str, list[ast.stmt]] = {EFFECTS: []}
        self.names: dict[str, Place] = {}
        for statement in ast.parse(file.read_bytes()).body:
            test = ast.unparse(statement.test) if isinstance(statement, ast.If) else ""
            if "__name__" in test:
                continue  # for a file that is started as a program
            bound = set(bound_names(statement))
            for defined in bound:
                self.definitions.setdefault(defined, []).append(statement)
                self.names[defined] = Place(name, defined)
            if not isinstance(statement, DEFINITIONS):
                self.names |= self.imported(statement)
            assigns = isinstance(statement, ast.Assign | ast.AnnAssign) and bound
            if not (assigns or isinstance(statement, DEFINITIONS | IMPORTS) or "TYPE_CHECKING" in test):
                self.definitions[EFFECTS].append(statement)

    def imported(self, node: ast.AST) -> dict[str, Place]:
        """What the import statements inside `node` bring, under the names they give it."""
        found = {}
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import):
                for alias in inner.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    found[alias.asname or name] = Place(name)
            elif isinstance(inner, ast.ImportFrom):
                source = importlib.util.resolve_name("." * inner.level + (inner.module or ""), self.package)
                found |= {alias.asname or alias.name: Place(source, alias.name) for alias in inner.names}
        return found

    def statements(self, name: str) -> list[ast.stmt]:
        """The statements behind a name, which may be that of a method, ``Class.method``."""
        first, *rest = name.split(".")
        found = self.definitions[first]
        for part in rest:
            inside = itertools.chain.from_iterable(getattr(node, "body", ()) for node in found)
            found = [statement for statement in inside if part in bound_names(statement)]
        return found


def bound_names(node: ast.AST) -> Iterator[str]:
    """The names that a statement gives a value to."""
    if isinstance(node, DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, COMPREHENSIONS):
        for inner in ast.iter_child_nodes(node):
            yield from bound_names(inner)


def syntax(node: object, special: Callable[[ast.AST], str | None] = lambda node: None) -> str:
    """A node without comments and docstrings; where `special` gives a text, that."""
    if isinstance(node, list):
        return "[" + ",".join(filter(None, (syntax(inner, special) for inner in node))) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return ""
    if (text := special(node)) is not None:
        return text
    parts = (syntax(value, special) for name, value in ast.iter_fields(node) if name != "ctx")
    return f"{type(node).__name__}({','.join(parts)})"


class CodeBase:
    """A package's code, each file read once.

    Args:
        root: the folder in which the package is.
        package: its name.

    A package of one file, and the key of a function before and after its helper changes:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> def key(code):
    ...     _ = (folder / "small.py").write_text(code)
    ...     return CodeBase(folder, "small").key(Place("small", "work"))
    >>> first = key("def work(): return help()\\ndef help(): return 1")
    >>> first == key("def help():\\n    'A docstring.'\\n    return 1  # a comment\\ndef work(): return help()")
    True
    >>> first == key("def work(): return help()\\ndef help(): return 2")
    False
    """

    def __init__(self, root: Path, package: str):
        self.root, self.package = root, package
        self._modules: dict[str, Module | None] = {}
        self._pieces: dict[Place, Piece] = {}

    def key(self, start: Place) -> str:
        """Hash of all code that `start` can come to."""
        texts = sorted(piece.text for piece in self.closure(start).values())
        return digest("\n".join(texts))

    def closure(self, start: Place) -> dict[Place, Piece]:
        """Everything that `start` can come to, itself included; of other packages the names only."""
        found: dict[Place, Piece] = {}
        waiting = {start}
        while waiting:
            place = waiting.pop()
            if place not in self._pieces:
                self._pieces[place] = self._read(place)
            found[place] = self._pieces[place]
            waiting |= found[place].mentions - found.keys()
        return found

    def is_own(self, module: str) -> bool:
        return f"{module}.".startswith(f"{self.package}.")

    def module(self, name: str) -> Module | None:
        """A module of the package; None where there is no such file."""
        if name not in self._modules:
            path = self.root.joinpath(*name.split("."))
            files = [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()]
            self._modules[name] = Module(name, files[0]) if files else None
        return self._modules[name]

    def find(self, place: Place) -> Place | None:
        """Where an imported thing is in the end; None for what is not known or left out."""
        if not self.is_own(place.module):
            return place
        module = self.module(place.module)
        if module is None or f"{place.module}.".startswith(f"{self.package}.{SETTINGS_ROOM}."):
            return None
        if not place.name or place.name in module.definitions:
            return place
        meant = module.names.get(place.name, place)
        # A package may import a part of its own by name: it is the module of that name.
        return self.find(Place(f"{place.module}.{place.name}") if meant == place else meant)

    def _read(self, place: Place) -> Piece:
        module = self.module(place.module) if self.is_own(place.module) else None
        if module is None:  # of another package: its name says which
            return Piece(f"{place.module}.{place.name}", set())
        if not place.name:  # a module as an object: all that is in it
            return Piece("", {Place(place.module, name) for name in module.definitions})
        mentions, texts = {Place(place.module, EFFECTS)}, []
        for statement in module.statements(place.name):
            names = module.names | module.imported(statement)

            def special(node: ast.AST, names: dict[str, Place] = names) -> str | None:
                if isinstance(node, IMPORTS):
                    sources = [brought.module for brought in module.imported(node).values()]
                    return "" if any(map(self.is_own, sources)) else None
                if isinstance(node, ast.Call):
                    texts.extend(_files_beside(module.file, node))
                meant = self._meaning(node, names)
                mentions.update([meant] if meant else [])
                return meant.name or "module" if meant and self.is_own(meant.module) else None

            texts.append(f"{place.name}: {syntax(statement, special)}")
        return Piece("\n".join(texts), mentions)

    def _meaning(self, node: ast.AST, names: dict[str, Place]) -> Place | None:
        """What a name, or an attribute of a module of the package, stands for."""
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            return self.find(names[node.id])
        if isinstance(node, ast.Attribute):
            owner = self._meaning(node.value, names)
            if owner is not None and not owner.name and self.is_own(owner.module):
                return self.find(Place(owner.module, node.attr))
        return None


def _files_beside(module: Path, call: ast.Call) -> Iterator[str]:
    """The files that ``Path(__file__).with_name("...")`` brings: programs as syntax, others as their bytes."""
    if not isinstance(call.func, ast.Attribute) or ast.unparse(call.func) != "Path(__file__).with_name":
        return
    path = module.with_name(ast.literal_eval(call.args[0]))
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and "__pycache__" not in file.parts:
            content = file.read_bytes()
            text = syntax(ast.parse(content)) if file.suffix == ".py" else hashlib.sha256(content).hexdigest()
            yield f"{file.relative_to(path.parent).as_posix()}: {text}"


@functools.cache
def code_base(package: str) -> CodeBase:
    """The code of a package, or of a single module, that is imported here."""
    file = Path(sys.modules[package].__file__ or "")
    return CodeBase(file.parents[1] if file.name == "__init__.py" else file.parent, package)


@functools.cache
def code_key(function: Callable[..., object]) -> str:
    """Hash of the code that a function of a module, or a method of one of its classes, can run."""
    module = function.__module__
    return code_base(module.partition(".")[0]).key(Place(module, function.__qualname__))
