"""Lines of code as this project counts them: blank lines, comments and docstrings are not code."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

NO_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
)  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def by_file(package: Path) -> dict[str, int]:
    """Lines of code of each file of `package`, by its path there."""
    files = sorted(package.rglob("*.py"))
    return {
        file.relative_to(package).as_posix(): len(code_lines(file.read_text(encoding="utf8")))
        for file in files
    }


def by_function(package: Path) -> Iterator[tuple[str, int]]:
    """Each function as ``file:name``, and its lines of code, those of functions inside it included."""
    for file in sorted(package.rglob("*.py")):
        source = file.read_text(encoding="utf8")
        lines = code_lines(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, FUNCTIONS):
                own = lines & set(range(node.lineno, node.end_lineno + 1))
                yield f"{file.relative_to(package).as_posix()}:{node.name}", len(own)
