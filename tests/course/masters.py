"""The masters of the exercises as the tests read them: what is given, the tasks, their solutions and their tests.

Otter reads the same marks when it makes the student's copies; here nothing but the masters is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml

from mtdpo_lib.common.files import NOTEBOOKS

EXERCISES = NOTEBOOKS / "exercises"
MASTERS = {file.name[:2]: file for file in sorted(EXERCISES.glob("*.ipynb"))}
WRONG = Path(__file__).parent / "wrong"
sys.path.append(str(EXERCISES))  # the tests of a master import `judge` from there

Test = Callable[[dict[str, Any]], None]


@dataclass
class Task:
    """One task of a master: its name and points, the code of its solution, and its tests."""

    name: str
    points: int
    written: bool
    solution: str = ""
    tests: list[Test] = field(default_factory=list)


@dataclass
class Master:
    """A master: the code cells in order, each with its task (none for what is given), and the tasks by name."""

    cells: list[tuple[str | None, str]]
    tasks: dict[str, Task]

    def variables(self, instead: dict[str, str] | None = None) -> dict[str, Any]:
        """What the notebook defines when it is run with the code in `instead` of a task's solution."""
        space: dict[str, Any] = {"__name__": "__main__"}
        for name, source in self.cells:
            exec(compile((instead or {}).get(name or "", source), f"<{name or 'given'}>", "exec"), space)
        return space

    def failures(self, task: str, space: dict[str, Any]) -> list[str]:
        """What the failing tests of a task say."""
        said = []
        for test in self.tasks[task].tests:
            try:
                test(space)
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        return said


def read_master(file: Path, variant: str = "2026a") -> Master:
    """Read a master with the numbers and hidden cases of a variant."""
    cells: list[tuple[str | None, str]] = []
    tasks: dict[str, Task] = {}
    place: Task | None = None
    in_tests = False
    for cell in nbformat.read(file, 4).cells:
        source = cell.source.replace("2026a", variant)
        mark, _, settings = source.partition("\n")
        if cell.cell_type == "raw":
            if mark == "# BEGIN QUESTION":
                found = yaml.safe_load(settings)
                place = tasks[found["name"]] = Task(
                    found["name"], found["points"], found.get("manual", False)
                )
            elif mark == "# END QUESTION":
                place = None
            in_tests = {"# BEGIN TESTS": True, "# END TESTS": False}.get(mark, in_tests)
        elif cell.cell_type == "code" and in_tests and place:
            place.tests += tests_in(source)
        elif cell.cell_type == "code":
            if place:
                place.solution = source
            cells.append((place.name if place else None, source))
    return Master(cells, tasks)


def tests_in(source: str) -> Iterator[Test]:
    """The test functions that a cell defines."""
    space: dict[str, Any] = {}
    exec(compile(source, "<test>", "exec"), space)
    yield from (value for name, value in space.items() if name.startswith("test_"))
