"""Mutants of the solutions: nearly all lose points, and each that does not is listed with the reason why it is equal."""

import signal
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from masters import MASTERS, read_master
from mutants import mutants

# Survivors by exercise and task: the change, and why no test can tell it from the solution.
EQUAL = tomllib.loads((Path(__file__).parent / "equal_mutants.toml").read_text())


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


def survivors(number: str) -> tuple[int, dict[str, set[str]]]:
    """How many mutants there are, and those that get full marks, by task."""
    master, count, alive = read_master(MASTERS[number]), 0, {}
    for task in master.tasks.values():
        for words, code in [] if task.written else mutants(task.solution):
            count += 1
            try:
                with within(5.0):
                    failed = master.failures(task.name, master.variables({task.name: code}))
            except Exception:  # it does not even run, or without end
                continue
            if not failed:
                alive.setdefault(task.name, set()).add(words)
    return count, alive


@pytest.mark.slow
@pytest.mark.parametrize("number", MASTERS)
def test_mutants_lose_points_but_for_those_that_are_argued_equal(number, capsys):
    count, alive = survivors(number)
    listed = {task: set(reasons) for task, reasons in EQUAL.get(number, {}).items()}
    left = sum(map(len, alive.values()))
    with capsys.disabled():
        print(f"\n{number}: {count} mutants, {left} survive, all argued equal: {alive == listed}")
    assert alive == listed
    assert count >= 20 and left <= 0.05 * count
