"""What a call of the sandbox costs: ``python tests/benchmarks/sandbox.py [BACKEND]``.

Compared with a fresh ``python -I`` process for each program, and with the paper's way of keeping state (every turn runs
all earlier blocks again, here in a fresh interpreter). The contestants take turns within each round; figures are medians
with their range over the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox import SandboxPool

ROUNDS = 7
CALLS = 20  # of one kind in a round, where a call takes milliseconds
TINY = 300  # programs in a round of the throughput test
TURNS = 16
QUADRATIC = "import sympy\nx = sympy.symbols('x')\nprint(sympy.solve(x**2 - 5*x + 6, x))"
TRAJECTORY = [
    QUADRATIC,
    "roots = sympy.solve(x**2 - 7*x + 12, x)",
    "print(sum(roots))",
    "print(roots[0] * roots[1])",
]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fresh_process(code: str) -> str:
    """One program in a new interpreter of this machine."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout


def turn_by_replay(cells: list[str]) -> str:
    """The last turn of a trajectory where every turn runs all blocks again, and keeps what the last one printed."""
    silence = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
    earlier = "\n".join("    " + line for cell in cells[:-1] for line in cell.splitlines())
    return fresh_process(f"{silence}{earlier}\n{cells[-1]}")


def one_round(pool: SandboxPool) -> dict[str, float]:
    """Every contestant once, one after the other."""

    def in_session() -> None:
        with pool.session() as session:
            assert session.run(QUADRATIC).text == "[2, 3]"

    def tiny(code: str) -> None:
        sessions = [pool.session() for _ in range(TINY)]
        results = pool.run_many([(session, code.format(number)) for number, session in enumerate(sessions)])
        assert [result.text for result in results] == [str(4 * number) for number in range(TINY)]
        for session in sessions:
            session.close()

    figures = {"fresh process with sympy, s": seconds(lambda: fresh_process(QUADRATIC))}
    figures["session with sympy, s"] = seconds(lambda: [in_session() for _ in range(CALLS)]) / CALLS
    figures["tiny programs a second"] = TINY / seconds(lambda: tiny("print({} * 4)"))
    # A function is more than calculating, so that every session opens an interpreter of its own.
    figures["in interpreters of their own, a second"] = TINY / seconds(
        lambda: tiny("f = lambda: {} * 4\nprint(f())")
    )
    figures["turn 4 by replay, s"] = seconds(lambda: turn_by_replay(TRAJECTORY))
    last_turns = []
    for _ in range(CALLS):
        with pool.session() as session:
            for cell in TRAJECTORY[:-1]:
                session.run(cell)
            last_turns.append(seconds(lambda: session.run(TRAJECTORY[-1])))
    figures["turn 4 in a session, s"] = statistics.mean(last_turns)
    turns = [[] for _ in range(TURNS)]
    for _ in range(CALLS):
        with pool.session() as session:
            for number, costs in enumerate(turns):
                costs.append(
                    seconds(functools.partial(session.run, f"x{number} = {number}\nprint(x{number})"))
                )
    early, late = (statistics.median(itertools.chain(*part)) for part in (turns[1:5], turns[-4:]))
    figures["cost of turns 13 to 16 over turns 2 to 5"] = late / early
    return figures


def main(backend: str = "wasm") -> None:
    settings = SandboxSettings(backend=backend, workers=2, remember=False)
    with SandboxPool(settings) as pool:
        print(f"backend {backend}: {pool.protections}")
        one_round(pool)  # warm
        rounds = [one_round(pool) for _ in range(ROUNDS)]
    median = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    for name, value in median.items():
        values = [figures[name] for figures in rounds]
        print(f"{name:<42} {value:9.4f}   ({min(values):.4f} to {max(values):.4f}, {ROUNDS} rounds)")
    per_round = {
        "times_faster_than_a_fresh_process": [
            figures["fresh process with sympy, s"] / figures["session with sympy, s"] for figures in rounds
        ],
        "times_faster_than_replay_at_turn_4": [
            figures["turn 4 by replay, s"] / figures["turn 4 in a session, s"] for figures in rounds
        ],
        "tiny_programs_per_second": [figures["tiny programs a second"] for figures in rounds],
        "tiny_programs_per_second_in_their_own_interpreters": [
            figures["in interpreters of their own, a second"] for figures in rounds
        ],
        "late_turns_over_early_turns": [
            figures["cost of turns 13 to 16 over turns 2 to 5"] for figures in rounds
        ],
    }
    record = {
        name: {
            "median": round(statistics.median(values), 2),
            "low": round(min(values), 2),
            "high": round(max(values), 2),
        }
        for name, values in per_round.items()
    }
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    print(
        json.dumps(
            {"backend": backend, "rounds": ROUNDS, "workers": settings.workers, **record, "machine": machine}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
