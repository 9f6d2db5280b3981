"""The code that runs inside the WebAssembly guest: one notebook cell at a time.

This file is executed once while the snapshot is built, never imported by the trainer. What it defines lives in every
session.
The rules are those of a notebook cell: what was printed is shown, a bare last expression is echoed, an error is reduced to
its type and message.
"""

import ast
import io
import json
import sys

# In the snapshot already, so that a program's own import of them costs nothing. Programs have a namespace of their own: one
# that forgets its import still fails.
import bisect, cmath, collections, datetime, decimal, fractions, functools, heapq, itertools
import math, operator, random, re, statistics, string


class _Capped(io.TextIOBase):
    """Keeps the first characters written and counts the rest, so endless printing costs no memory."""

    def __init__(self, limit):
        self.limit, self.kept, self.length, self.lost = limit, [], 0, 0

    def writable(self):
        return True

    def write(self, text):
        room = max(self.limit - self.length, 0)
        if room:
            self.kept.append(text[:room])
            self.length += min(len(text), room)
        self.lost += max(len(text) - room, 0)
        return len(text)


def _mtdpo_cell(source, limit, space={"__name__": "__main__"}):
    """Run one cell and write one JSON line: output, how much was cut, error class, error message."""
    real, capture = sys.stdout, _Capped(limit)
    error = message = None
    sys.stdout = capture
    try:
        tree = ast.parse(source, "<cell>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
            if value is not None:
                print(repr(value))
    except (
        BaseException
    ) as problem:  # SystemExit and KeyboardInterrupt too: they end the cell, not the session
        error = type(problem).__name__
        try:
            message = str(problem)[:limit].partition("\n")[0]
        except BaseException:
            message = ""
    finally:
        sys.stdout = real
    json.dump(
        {"output": "".join(capture.kept), "lost": capture.lost, "error": error, "message": message}, real
    )
