"""No sandbox at all, to show what the attacks do without one: a trainer that forks an interpreter and runs whatever comes.

For the tests only. Both processes are sacrificial: they live in a session of their own, with a limit on memory and CPU time
as the harness's safety net, and everything they can harm is a folder made for them.
Started as ``python -I weak.py CONTROL NAMES``: code arrives as JSON lines on descriptor CONTROL and answers leave there,
an empty one where the interpreter has said nothing for as many seconds as the name PATIENCE gives.
"""

import contextlib
import io
import json
import os
import resource
import select
import socket
import sys

STARTING = 60.0  # seconds until the first answer, on a machine however busy
HELD = {}  # what a trainer has in memory


def interpreter(requests, answers, names):
    """Run each program in this process, and believe it."""
    for line in requests:
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                exec(json.loads(line), {"__name__": "__main__", **names})
            text = output.getvalue()
        except Exception as problem:
            text = f"{type(problem).__name__}: {problem}"
        answers.write(json.dumps({"text": text}) + "\n")
        answers.flush()


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    names = json.loads(sys.argv[2])
    HELD["gold answer"], patience = [names.pop("HELD")], names.pop("PATIENCE")
    limits = {"AS": 2 << 30, "CPU": 20, "CORE": 0}
    for kind, limit in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (limit, limit))
    (code_end, to_code), (answer, answer_end) = os.pipe(), os.pipe()
    if os.fork() == 0:
        control.close()
        os.close(to_code)
        os.close(answer)
        try:
            interpreter(os.fdopen(code_end), os.fdopen(answer_end, "w"), {**names, "TRAINER": os.getppid()})
        finally:
            os._exit(0)
    os.close(code_end)
    os.close(answer_end)
    waiting = bytearray()
    for number, line in enumerate(control.makefile("rb")):
        limit = patience if number else STARTING
        with contextlib.suppress(OSError):
            os.write(to_code, line)
        end = waiting.find(b"\n")
        while end < 0 and select.select([answer], [], [], limit)[0]:
            part = os.read(answer, 1 << 20)
            if not part:  # the interpreter is gone
                waiting += b'{"text": ""}'
                part = b"\n"
            end = len(waiting) + part.index(b"\n") if b"\n" in part else -1
            waiting += part
        control.sendall(waiting[: end + 1] if end >= 0 else b"{}\n")
        del waiting[: end + 1]  # the rest is the next answer: a careless trainer does not ask whose it is


if __name__ == "__main__":
    main()
