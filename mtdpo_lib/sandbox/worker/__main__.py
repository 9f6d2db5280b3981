"""A sandbox worker: a process apart from the trainer, with an empty environment and nothing worth stealing.

Started as ``python -s -P worker/ BACKEND SETTINGS``. Requests come as JSON lines on standard input; answers leave on a
private copy of descriptor 1, because a guest's raw ``os.write(1, ...)`` may land on the real descriptor 1, which is closed
off here, as is 2. It ends when its input ends or its parent does.
"""

import contextlib
import importlib
import json
import os
import sys
from collections import OrderedDict

import walls

LIVE_SESSIONS = (
    256  # interpreters kept at once; the least recently used of more is replayed when needed again
)
LIVE_MEMORY = 4  # and together at most this many times one program's limit


class Sessions:
    """Which sessions live in this worker, how many cells each has run, and its memory in MiB."""

    def __init__(self, backend, memory_mib):
        self.backend, self.budget = backend, LIVE_MEMORY * memory_mib
        self.live = OrderedDict()

    def run(self, number, turn, code):
        """Run a session's cell number `turn`.

        Returns:
            A dictionary whose "status" is "ran" (with the guest's "report"), "timeout", "killed" (the program ended its
            interpreter, or that had to be ended), "gone" (the cells before it are not here) or "died" (the interpreter
            ended by a signal, with its negative number as "cause", or could not be had, with the reason).
        """
        cells, _ = self.live.get(number, (0, 0))
        if cells != turn:
            self.forget(number)
            return {"status": "gone"}
        try:
            answer = self.backend.run(number, code)
        except Exception as problem:  # no memory, no process to be had: nothing that a program did
            answer = {"status": "died", "cause": f"{type(problem).__name__}: {problem}"}
        if answer["status"] != "ran":
            self.forget(number)
            return answer
        self.live[number] = (turn + 1, answer.pop("mib"))
        self.live.move_to_end(number)
        while len(self.live) > LIVE_SESSIONS or sum(mib for _, mib in self.live.values()) > self.budget:
            self.forget(next(iter(self.live)))
        return answer

    def forget(self, number):
        self.live.pop(number, None)
        self.backend.forget(number)


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf8")
    hole = os.open(os.devnull, os.O_RDWR)
    os.dup2(hole, 1)
    os.dup2(hole, 2)
    walls.end_with_parent(os.getppid())  # one that is gone already closed the input, which ends this too

    def send(answer):
        print(json.dumps(answer), file=answers, flush=True)

    settings = json.loads(sys.argv[2])
    try:
        backend = importlib.import_module(sys.argv[1]).Backend(settings)
        backend.make_ready()
    except Exception as problem:
        send({"status": "refused", "why": f"{type(problem).__name__}: {problem}"})
        return
    sessions = Sessions(backend, settings["memory_mib"])
    send({"status": "ready", "walls": backend.walls})
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "run":
            send(sessions.run(request["session"], request["turn"], request["code"]))
            with contextlib.suppress(Exception):  # tried again when a cell needs it
                backend.make_ready()
        else:
            sessions.forget(request["session"])


if __name__ == "__main__":
    main()
