"""Ten thousand programs in a row, one in twenty hostile, from four threads.

``python tests/benchmarks/sandbox_soak.py [BACKEND [PROGRAMS]]`` writes its record to ``data/records/``. The hostile ones are
those of ``tests/sandbox/attacks``; a wrong answer, a lost one, growth, an orphan or a slow replacement is in the record, and
`tests/sandbox/test_soak.py` fails on any.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox import SandboxPool, ToolResult

ROOT = Path(__file__).parents[2]
SETTINGS = SandboxSettings(seconds=1.0, workers=2, remember=False)
THREADS = 4
HOSTILE = 20  # one program in so many
SAMPLES = 20  # of memory and processes, over the run


def attacks() -> list[str]:
    """The hostile programs, with names that lead nowhere."""
    names = {
        "CANARY": tempfile.gettempdir() + "/no-such-folder",
        "PORT": 9,
        "MIB": 5000,
        "FORKS": 64,
        "TRAINER": os.getpid(),
    }
    prelude = "\n".join(f"{name} = {value!r}" for name, value in {**names, "PREFIX": "SECRET-"}.items())
    return [
        f"{prelude}\n{file.read_text('utf8')}"
        for file in sorted((ROOT / "tests" / "sandbox" / "attacks").glob("*.py"))
    ]


def honest(draw: random.Random) -> tuple[list[str], str]:
    """Cells of one session and what the last one must print."""
    a, b = draw.randint(1, 999), draw.randint(1, 999)
    return draw.choice(
        [
            ([f"print({a} * {b})"], str(a * b)),
            ([f"x = {a}", f"y = x + {b}", "print(x * y)"], str(a * (a + b))),
            ([f"import math\nprint(math.gcd({a}, {b}))"], str(__import__("math").gcd(a, b))),
            ([f"import sympy\nprint(sympy.Integer({a}) ** 3)"], str(a**3)),
            (["total = 0", f"for i in range({a}): total += i", "total"], str(a * (a - 1) // 2)),
            ([f"{a} + undefined"], "NameError: name 'undefined' is not defined"),
        ]
    )


def family_mib() -> float:
    """Memory that this process and its descendants do not share, in MiB."""
    me, total = psutil.Process(), 0
    for process in [me, *me.children(recursive=True)]:
        try:
            memory = process.memory_info()
        except psutil.Error:
            continue
        total += memory.rss - getattr(memory, "shared", 0)
    return total / 2**20


class Soak:
    """The run and what it found."""

    def __init__(self, pool: SandboxPool, programs: int):
        self.pool, self.programs, self.hostile = pool, programs, attacks()
        self.lock = threading.Lock()
        self.done, self.wrong, self.statuses, self.replaced = 0, [], {}, []
        self.memory, self.processes = [], []

    def one(self, number: int) -> None:
        """Program `number`: the same whatever thread runs it."""
        draw = random.Random(number)
        with self.pool.session() as session:
            if number % HOSTILE == HOSTILE - 1:
                self.note(number, session.run(draw.choice(self.hostile)), None)
            else:
                cells, expected = honest(draw)
                for cell in cells:
                    result = session.run(cell)
                self.note(number, result, expected)

    def note(self, number: int, result: ToolResult, expected: str | None) -> None:
        with self.lock:
            self.done += 1
            self.statuses[result.status] = self.statuses.get(result.status, 0) + 1
            if expected is not None and result.text != expected:
                self.wrong.append(
                    {"program": number, "expected": expected, "got": result.text, "status": result.status}
                )
            if (result.status, result.error) == (
                "killed",
                "RecursionError",
            ):  # its worker died and was replaced
                self.replaced.append(result.seconds)
            if self.done % (self.programs // SAMPLES) == 0:
                self.memory.append(round(family_mib()))
                self.processes.append(len(self.pool.pids()))


def soak(backend: str, programs: int) -> dict[str, Any]:
    """Run it and return the record."""
    start = time.perf_counter()
    with SandboxPool(replace(SETTINGS, backend=backend)) as pool:
        run = Soak(pool, programs)
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(run.one, range(programs)))
        time.sleep(0.2)
        idle = len(psutil.Process().children(recursive=True))
        protections = pool.protections
    early, late = run.memory[1:4], run.memory[-3:]
    return {
        "backend": backend,
        "protections": protections,
        "programs": programs,
        "hostile": programs // HOSTILE,
        "threads": THREADS,
        "workers": SETTINGS.workers,
        "answers": run.done,
        "wrong": run.wrong,
        "statuses": dict(sorted(run.statuses.items())),
        "workers_replaced": len(run.replaced),
        "seconds_to_replace": {
            "median": round(statistics.median(run.replaced or [0.0]), 2),
            "highest": round(max(run.replaced, default=0.0), 2),
        },
        "memory_mib": run.memory,
        "memory_growth_mib": round(statistics.median(late) - statistics.median(early)),
        "processes_when_idle": idle,
        "processes_left": len(psutil.Process().children(recursive=True)),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.system(),
        },
    }


def main(backend: str = "wasm", programs: str = "10000") -> None:
    record = soak(backend, int(programs))
    file = ROOT / "data" / "records" / f"sandbox_soak_{backend}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
