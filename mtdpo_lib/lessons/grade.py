"""Grades submitted notebooks: their code runs in the sandbox of notebook 03, the tests run here and see values only.

A submission is a stranger's program. It has a session of its own without files, network or further processes, and with
limits of time and memory. Whatever it prints or redefines, a test receives what its functions return, as plain literals, and
decides outside. What does not end costs its own points.

See: ``COURSE.md`` in the instructor's pack.
"""

from __future__ import annotations

import ast
import csv
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from zipfile import ZipFile

import nbformat
from nbformat import NotebookNode

from mtdpo_lib.lessons.course import need_otter
from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox import SandboxPool, Session

LIMITS = replace(SandboxSettings(), seconds=5.0, output_characters=20_000, remember=False, workers=1)
SUBMISSION_SECONDS = 60.0
SUBMISSION_BYTES = 5 * 2**20
# The notebook's own checks ask for otter, which the sandbox does not have; the autograder's tests run instead.
WITHOUT_OTTER = """
import sys, types
class Notebook:
    def __init__(self, *names, **settings): ...
    def __getattr__(self, name): return lambda *names, **settings: None
sys.modules["otter"] = types.ModuleType("otter")
sys.modules["otter"].Notebook = Notebook
del Notebook, sys, types
"""


class Refused(ValueError):
    """A submission, or an answer in it, that cannot be graded; the text is for the student."""


@dataclass
class Graded:
    """One submission: its exercise, and for each task the points, those that can be had, and what the tests said."""

    submission: str
    exercise: str = ""
    tasks: list[tuple[str, float, float, list[str]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def points(self) -> float:
        return sum(points for _, points, _, _ in self.tasks)

    @property
    def possible(self) -> float:
        return sum(possible for _, _, possible, _ in self.tasks)


class Answers(dict[str, Any]):
    """The variables of a submission as its tests see them: values are copies, functions are called in the sandbox."""

    def __init__(self, session: Session):
        super().__init__()
        self._session, self._end = session, time.monotonic() + SUBMISSION_SECONDS

    def __missing__(self, name: str) -> Any:
        return Function(self, name) if self.value(f"callable({name})") is True else self.asked(name)

    def run(self, code: str) -> str:
        """Run code of the submission and return what it prints.

        Raises:
            Refused: it failed, or took too long.
        """
        if time.monotonic() > self._end:
            raise Refused(f"The {SUBMISSION_SECONDS:.0f} s for one notebook are over.")
        result = self._session.run(code)
        if result.status == "timeout":
            raise Refused(f"It ran longer than {LIMITS.seconds:.0f} s.")
        if result.status != "ok":
            raise Refused(result.text)
        return result.text

    def value(self, code: str) -> Any:
        """The value of an expression; never more than numbers, text, and lists, tuples, sets and dictionaries of them."""
        shown = self.run(f"print('', repr({code}), sep='\\n')").rpartition("\n")[2]
        if shown == "Ellipsis":
            raise Refused("It is still `...`: write your answer in its place.")
        try:
            return ast.literal_eval(shown)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise Refused(
                f"It gave {shown[:200]}, and should give numbers, text, or lists of them."
            ) from error

    def asked(self, code: str) -> Any:
        """`value` for a test, which names the case where it fails: that is what helps an author."""
        try:
            return self.value(code)
        except Refused as problem:
            raise Refused(f"{code if len(code) < 300 else code[:300] + ' ...'}: {problem}") from None


@dataclass
class Function:
    """A function of a submission."""

    answers: Answers
    name: str

    def __call__(self, *arguments: Any) -> Any:
        return self.answers.asked(f"{self.name}({', '.join(map(repr, arguments))})")

    def __repr__(self) -> str:
        return self.name


def code_cells(file: Path) -> list[str]:
    """The code of a submitted notebook, without the lines that only Jupyter understands.

    Raises:
        Refused: it is no notebook.
    """
    try:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > SUBMISSION_BYTES:
            raise Refused(f"It is no ordinary file, or larger than {SUBMISSION_BYTES // 2**20} MiB.")
        cells = cast(NotebookNode, nbformat.reads(file.read_text(encoding="utf8"), as_version=4)).cells
        return [re.sub(r"(?m)^[%!].*", "", cell.source) for cell in cells if cell.cell_type == "code"]
    except Refused:
        raise
    except Exception as error:  # whatever a broken file makes the reader raise
        raise Refused(
            "The file cannot be read as a notebook: save it in Jupyter and hand it in again."
        ) from error


def tests_of(autograder: Path) -> list[Any]:
    """The test files of an autograder, by task; what they import from beside them becomes importable."""
    from otter.test_files import ExceptionTestFile

    with ZipFile(autograder) as archive:
        for name in archive.namelist():
            if name.startswith("files/") and name.endswith(".py"):
                module = sys.modules[Path(name).stem] = ModuleType(Path(name).stem)
                exec(archive.read(name), module.__dict__)
        names = sorted(name for name in archive.namelist() if name.startswith("tests/"))
        return [ExceptionTestFile.from_string(archive.read(name).decode(), path=name) for name in names]


def grade_one(file: Path, name: str, exercises: dict[str, list[Any]], pool: SandboxPool) -> Graded:
    """Grade one notebook against the exercise that its file's name holds."""
    graded = Graded(name)
    exercise = next((one for one in exercises if one in file.stem), None)
    if exercise is None:
        graded.problems.append(f"The file's name holds none of {', '.join(exercises)}.")
        return graded
    graded.exercise = exercise
    cells: list[str] = []
    with pool.session() as session:
        answers = Answers(session)
        try:
            cells = code_cells(file)
            for number, code in enumerate([WITHOUT_OTTER, *cells]):
                try:
                    answers.run(code)
                except Refused as problem:
                    graded.problems.append(f"Code cell {number} stopped. {problem}")
        except Refused as problem:
            graded.problems.append(str(problem))
        text = "\n".join(cells)  # whose checks name the tasks in the notebook's order
        for tests in sorted(exercises[exercise], key=lambda tests: text.find(f'.check("{tests.name}")')):
            tests.run(answers)
            failed = [str(one.message) for one in tests.test_case_results if not one.passed]
            # Otter shows the line of the test first, which is not for students.
            said = [re.split(r"(?m)^\w+: ", message, maxsplit=1)[-1] for message in failed]
            graded.tasks.append((tests.name, tests.score, tests.possible, said))
    return graded


def grade(folder: Path, autograders: Path, out: Path) -> Iterator[Graded]:
    """Grade every notebook below `folder`; writes ``grades.csv`` and a page of feedback for each.

    Raises:
        NoOtter: otter-grader is missing.
        ValueError: there is nothing to grade, or nothing to grade it with.
    """
    need_otter()
    exercises = {file.stem: tests_of(file) for file in sorted(autograders.glob("*.zip"))}
    files = sorted(folder.rglob("*.ipynb"))
    if not exercises or not files:
        raise ValueError(
            f"There is no autograder in {autograders}: run `make course`."
            if not exercises
            else f"There is no notebook below {folder}: name the folder of the submissions."
        )
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    how = {"encoding": "utf8", "errors": "backslashreplace"}  # a file's name may be no text
    with SandboxPool(LIMITS) as pool, (out / "grades.csv").open("w", newline="", **how) as table:
        rows = csv.writer(table)
        rows.writerow(["submission", "exercise", "points", "possible", "feedback", "problems"])
        for number, file in enumerate(files, 1):
            name = f"./{file.relative_to(folder).as_posix()}"  # a name that begins with = would be a formula
            graded = grade_one(file, name, exercises, pool)
            page = f"{number:03}-{file.stem[:60]}.html"
            (out / "feedback" / page).write_text(feedback(graded), **how)
            scored = [graded.exercise, graded.points, graded.possible]
            rows.writerow([name, *scored, page, " ".join(graded.problems)])
            yield graded


def feedback(graded: Graded) -> str:
    """One submission's page."""
    lines = [f"<!doctype html><meta charset='utf-8'><title>{escape(graded.submission)}</title>"]
    lines += [f"<h1>{escape(graded.exercise or graded.submission)}</h1>"]
    lines += [
        f"<p>{graded.points:g} of {graded.possible:g} points for the tasks that are graded by tests.</p>"
    ]
    lines += [f"<p>{escape(problem)}</p>" for problem in graded.problems]
    for name, points, possible, said in graded.tasks:
        lines += [f"<h2>{escape(name)}: {points:g} of {possible:g}</h2>"]
        lines += [f"<pre style='white-space: pre-wrap'>{escape(one)}</pre>" for one in said]
    return "\n".join(lines) + "\n"
