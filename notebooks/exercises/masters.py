"""The masters of the exercises, read without otter: what is given, the tasks, their solutions, their tests, wrong answers.

Otter reads the same marks when it makes the students' copies. The tests and the instructor's pages read them here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml

EXERCISES = Path(__file__).parent
MASTERS = {file.name[:2]: file for file in sorted(EXERCISES.glob("*.ipynb"))}
WRONG = EXERCISES.parents[1] / "tests" / "course" / "wrong"

Test = Callable[[dict[str, Any]], None]


@dataclass
class Task:
    """One task of a master: its name, points, title and minutes, the code or text of its solution, and its tests."""

    name: str
    points: int
    written: bool
    title: str = ""
    minutes: int = 0
    solution: str = ""
    tests: list[Test] = field(default_factory=list)

    @property
    def stub(self) -> str:
        """What stands in the students' copy in place of the solution."""
        code = re.sub(r"(?ms)^ *# BEGIN SOLUTION.*?# END SOLUTION\n", "", self.solution)
        code = re.sub(r'(?m)^ *""" +# (BEGIN|END) PROMPT$\n?', "", code)
        return re.sub(r"(?m)= .*  # SOLUTION$", "= ...", code)


@dataclass
class Master:
    """A master: its title, the code cells in order, each with its task (none for what is given), and the tasks by name."""

    title: str
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
    notebook = nbformat.read(file, 4)
    for cell in notebook.cells:
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
        elif place and (stated := re.match(r"## (.+)\n\n\*.+?, (\d+) minutes, \d+ points\.\*", source)):
            place.title, place.minutes = stated[1], int(stated[2])
        elif place and cell.cell_type == "markdown":
            place.solution += source
        elif cell.cell_type == "code" and in_tests and place:
            place.tests += tests_in(source)
        elif cell.cell_type == "code":
            if place:
                place.solution = source
            cells.append((place.name if place else None, source))
    return Master(notebook.cells[1].source.partition("\n")[0].removeprefix("# "), cells, tasks)


def tests_in(source: str) -> Iterator[Test]:
    """The test functions that a cell defines."""
    space: dict[str, Any] = {}
    exec(compile(source, "<test>", "exec"), space)
    yield from (value for name, value in space.items() if name.startswith("test_"))


@dataclass
class WrongAnswer:
    """A planted wrong answer: its task, what its feedback must say, its code, and the mistake where that is not said."""

    name: str
    task: str
    must_say: str
    code: str
    mistake: str


def wrong_answers(number: str) -> Iterator[WrongAnswer]:
    """The planted wrong answers to the tasks of a master."""
    for file in sorted((WRONG / number).glob("*.py")):
        marks, code = re.fullmatch(
            r"((?:# \w+: [^\n]+\n)+)(.*)", file.read_text(encoding="utf8"), re.DOTALL
        ).groups()
        said = dict(line[2:].split(": ", 1) for line in marks.splitlines())
        yield WrongAnswer(
            file.stem, file.stem.partition("-")[0], said["feedback"], code, said.get("mistake", "")
        )
