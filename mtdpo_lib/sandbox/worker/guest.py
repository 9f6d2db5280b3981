"""The rules of a notebook cell, for the side where model-written code runs; never imported by the trainer.

What was printed is shown, a bare last expression is echoed, an error is reduced to its class, message and line. The same
text runs in both backends: the WebAssembly snapshot is built with it and a zygote loads it, so the rules do not depend on
the backend. Programs can still tell the interpreters apart: "wasm" is CPython 3.14 on 32 bits with a small stack, a zygote
this machine's own; they differ in some words of messages, last digits of some functions, depths of recursion, and modules
beyond those of ``preload.py``. What it defines lives in the interpreter of each session, apart from a program's names.
"""

import ast
import io
import json
import sys


class _Capped(io.TextIOBase):
    """Keeps the head and the tail of what is written and counts the rest: endless printing costs no memory."""

    def __init__(self, limit):
        self.room = limit - limit // 2
        self.keep = limit // 2
        self.head, self.tail, self.cut = [], "", 0

    def writable(self):
        return True

    def write(self, text):
        size = len(text)
        if self.room:
            self.head.append(text[: self.room])
            text = text[self.room :]
            self.room -= len(self.head[-1])
        if text:
            before = len(self.tail) + len(text)
            self.tail = (self.tail + text[-self.keep :])[-self.keep :] if self.keep else ""
            self.cut += before - len(self.tail)
        return size


def _line_of(problem, source):
    """The cell's line that `problem` came from: its number and text."""
    number = getattr(problem, "lineno", None) if isinstance(problem, SyntaxError) else None
    step = problem.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<cell>":
            number = step.tb_lineno
        step = step.tb_next
    lines = source.splitlines()
    return f"line {number}: {lines[number - 1].strip()}" if number and number <= len(lines) else ""


def _mtdpo_report(source, limit, space, tree=None):
    """Run one cell with the variables in `space`: head and tail of the output, what was cut, error class, message, line.

    Args:
        tree: of `source`, if it is known.
    """
    real, capture = sys.stdout, _Capped(limit)
    error = message = line = None
    sys.stdout = capture
    try:
        tree = tree or ast.parse(source, "<cell>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
            if value is not None:
                capture.write(repr(value) + "\n")
    except BaseException as problem:  # SystemExit and KeyboardInterrupt end the cell, not the session
        error = type(problem).__name__
        try:
            message = str(problem)[:limit].partition("\n")[0]
            line = _line_of(problem, source)[:limit]
        except BaseException:
            message = ""
    finally:
        sys.stdout = real
    report = {"head": "".join(capture.head), "tail": capture.tail, "cut": capture.cut}
    return {**report, "error": error, "message": message, "line": line}


def _mtdpo_cell(source, limit, space={"__name__": "__main__"}):
    """Run one cell and write its report as one JSON object."""
    report = _mtdpo_report(source, limit, space)
    sys.stdout.write(json.dumps(report))
