"""Mutants of the solutions: nearly all lose points, and each that does not is listed with the reason why it is equal."""

import tomllib
from pathlib import Path

import pytest
from masters import MASTERS
from mutants import survivors

# Survivors by exercise and task: the change, and why no test can tell it from the solution.
EQUAL = tomllib.loads((Path(__file__).parent / "equal_mutants.toml").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("number", MASTERS)
def test_mutants_lose_points_but_for_those_that_are_argued_equal(number):
    counts, alive = survivors(number)
    count, left = sum(counts.values()), sum(map(len, alive.values()))
    assert alive == {task: set(reasons) for task, reasons in EQUAL.get(number, {}).items()}
    assert count >= 20 and left <= 0.05 * count
