"""What `make course` built: nothing that a student should not see, notebooks that run, and grades that cannot be forged."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
import yaml
from masters import EXERCISES, MASTERS, WRONG, read_master, wrong_answers

from mtdpo_lib.common.files import ROOT
from mtdpo_lib.lessons import grade

pytest.importorskip("otter", reason="needs `make course`")
COURSE = ROOT / "dist" / "course"
BUILT = sorted((COURSE / "student").glob("*.ipynb"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BUILT, reason="needs `make course`"),
]


def test_the_build_is_that_of_the_present_masters():
    files = [file for file in EXERCISES.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    newest = max(file.stat().st_mtime for file in files)
    assert [file.name for file in BUILT] == [file.name for file in MASTERS.values()]
    assert min(file.stat().st_mtime for file in BUILT) >= newest, "run `make course` again"


def test_the_handout_is_the_masters_and_what_they_need():
    names = {file.name for file in MASTERS.values()} | {"judge.py", "README.md", "AGENTS.md"}
    assert {file.name for file in (COURSE / "student").iterdir()} == names


@pytest.mark.parametrize("number", MASTERS)
def test_students_see_no_solution_no_hidden_test_and_no_output(number):
    text = (COURSE / "student" / MASTERS[number].name).read_text()
    for mark in ("SOLUTION", "PROMPT", "BEGIN TESTS", "hidden=True", "Rubric", "_elsewhere"):
        assert mark not in text, mark
    notebook = nbformat.reads(text, 4)
    for cell in notebook.cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    master = read_master(MASTERS[number])
    for task in master.tasks.values():
        for line in [] if task.written else map(str.strip, task.solution.splitlines()):
            kept = line.startswith(("def ", '"""', "#", "raise ", "else", "return None")) or len(line) < 12
            assert kept or line.partition("  # SOLUTION")[0] not in code, line


@pytest.mark.parametrize("number", MASTERS)
def test_a_students_copy_runs_through_and_the_executed_solutions_pass_their_checks(number, tmp_path):
    handout, out = shutil.copytree(COURSE / "student", tmp_path / "student"), tmp_path / "out.ipynb"
    call = [sys.executable, "-m", "papermill", handout / MASTERS[number].name, out, "--cwd", handout]
    done = subprocess.run(call, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    solved = (COURSE / "instructor" / "solutions" / MASTERS[number].name).read_text()
    assert out.read_text().count("failed") > 2 and "Test case failed" not in solved and "passed!" in solved


def test_the_instructors_pages_are_made_and_fetch_nothing():
    pages = {file.name: file.read_text(encoding="utf8") for file in (COURSE / "instructor").glob("*.*")}
    assert pages.keys() == {"COURSE.md", "MISTAKES.md", "PLANS.md", "QUIZ.md", "SLIDES.html", "SLIDES.ipynb"}
    assert not re.search(r"\{\w+", pages["PLANS.md"])
    planted = [answer for number in MASTERS for answer in wrong_answers(number)]
    assert (
        pages["MISTAKES.md"].count("<summary>") == pages["MISTAKES.md"].count("Read notebook") == len(planted)
    )
    slides = pages["SLIDES.html"]
    assert slides.count("<section>") == 10 and slides.count("<img") == slides.count('src="data:image/png')
    assert slides.count("<img") + slides.count("Nothing is kept") >= 6, "a figure, or a sentence in its place"
    assert not re.search(r"<script|<link|@import|url\(", slides)


def submission(
    number: str, instead: dict[str, str] | None = None, first: str = "", last: str = "", solved: bool = True
) -> str:
    """A student's notebook: solved or as it was handed out, with other answers, and code that runs first and last."""
    notebook = nbformat.read(COURSE / "student" / MASTERS[number].name, 4)
    answers = {task.name: task.solution for task in read_master(MASTERS[number]).tasks.values() if solved}
    answers |= instead or {}
    tasks = iter(task.name for task in read_master(MASTERS[number]).tasks.values() if not task.written)
    for cell in notebook.cells:
        if "otter_answer_cell" in cell.metadata.get("tags", []) and cell.cell_type == "code":
            cell.source = answers.get(next(tasks), cell.source)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(first))
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    return nbformat.writes(notebook)


def hostile(place: Path) -> dict[str, str]:
    """Programs of students who would rather not solve the tasks; `place` holds what they are after."""
    solutions = f"{str(COURSE / 'instructor' / 'solutions' / MASTERS['06'].name)!r}"
    always = "class Right(float):\n    def __eq__(self, other): return True\n    def __repr__(self): return '0.5'\n"
    return {
        "forks": "import os\nwhile True:\n    os.fork()",
        "loops": "while True:\n    pass",
        "deletes": f"import shutil\nshutil.rmtree({str(place)!r})\nshutil.rmtree('.')",
        "edits_tests": f"for name in ('judge.py', {str(COURSE / 'student' / 'judge.py')!r}):\n"
        "    open(name, 'w').write('def expect(*all, **more): ...')",
        "patches_judge": "import sys, types\nsys.modules['judge'] = types.ModuleType('judge')\n"
        "sys.modules['judge'].expect = lambda *all, **more: None\nimport math\nmath.isclose = lambda *all, **more: True",
        "prints_score": "print('mdpo_loss: 4 of 4\\n17 of 17 points')\nprint(repr(1.0))",
        "reads_solutions": f"import json\nfor cell in json.load(open({solutions}))['cells']:\n"
        "    if cell['cell_type'] == 'code' and 'grader' not in ''.join(cell['source']):\n"
        "        exec(''.join(cell['source']))",
        "calls_home": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:8000').read()",
        "fills_memory": "hoard = []\nwhile True:\n    hoard.append(bytearray(10**7))",
        "fills_disk": "with open('large', 'wb') as file:\n    while True:\n        file.write(bytes(10**7))",
        "prints_on_and_on": "while True:\n    print('x' * 1000)",
        "ends": "import os\nos._exit(0)",
        "kills": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "equals_everything": f"{always}mdpo_loss = lambda *all: Right()",
        "redefines_repr": "repr = lambda value: '0.455'\ncallable = lambda value: True",
        "recurses": "def deep(n):\n    return deep(n + 1)\ndeep(0)",
        "nests": "masked = eval('[' * 90 + ']' * 90)\nunmasked = float('nan')",
    }


def write_submissions(folder: Path) -> None:
    """Some thirty submissions to 06: honest ones, hostile ones, and what is no notebook."""
    wrong = (WRONG / "06" / "mdpo_gradient-sign.py").read_text()
    files = {
        "ada/06_multi_turn_dpo": submission("06"),
        "bob_06_multi_turn_dpo_late": submission("06", {"mdpo_gradient": wrong}),
        "cyd/06_multi_turn_dpo": submission("06", solved=False),
        "dan/06_multi_turn_dpo": submission("06", first="%matplotlib inline\n!ls\nprint('notes')"),
        "eve/06_multi_turn_dpo": submission("06", first="while True:\n    pass"),
        "fay/06_multi_turn_dpo": submission(
            "06", {"mdpo_loss": "def mdpo_loss(*all):\n    while True:\n        pass"}
        ),
        "gus/06_multi_turn_dpo": submission("06")[:1000],
        "hal/06_multi_turn_dpo": "",
        "ida/homework": submission("06"),
        "jon/06_multi_turn_dpo": json.dumps(
            {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        ),
    }
    files |= {
        f"{name}/06_multi_turn_dpo": submission("06", last=code, solved=False)  # no stub may undo it
        for name, code in hostile(folder).items()
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.ipynb").write_text(text)
    (folder / "kim").mkdir()
    (folder / "kim" / "06_multi_turn_dpo.ipynb").symlink_to(
        COURSE / "instructor" / "solutions" / MASTERS["06"].name
    )


def contents(*folders: Path) -> dict[str, str]:
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Iterator[tuple[dict[str, grade.Graded], Path]]:
    """All submissions graded in one call, with the folder of grades; nothing else may have changed."""
    folder, out = tmp_path_factory.mktemp("submissions"), tmp_path_factory.mktemp("grades")
    write_submissions(folder)
    before, own = contents(folder, COURSE), os.getpid()
    found = {
        one.submission.removeprefix("./").partition("/")[0]: one
        for one in grade.grade(folder, COURSE / "autograder", out)
    }
    assert contents(folder, COURSE) == before and os.getpid() == own
    yield found, out


def test_honest_submissions_get_their_points(graded):
    found, _ = graded
    full = found["ada"].possible
    assert full == sum(task.points for task in read_master(MASTERS["06"]).tasks.values() if not task.written)
    assert {name: found[name].points for name in ("ada", "dan", "eve", "cyd", "jon")} == {
        "ada": full, "dan": full, "eve": full, "cyd": 0, "jon": 0,
    }  # fmt: skip
    (late,) = (one for name, one in found.items() if name.startswith("bob"))
    assert late.points == full - 4
    told = {name: said for name, _, _, said in late.tasks}
    assert told["mdpo_gradient"][0].startswith("A margin of 0.5 * (1 - (-1)) = 1: expected ")
    assert (
        "the sign is turned round" in told["mdpo_gradient"][0] and "expect(" not in told["mdpo_gradient"][0]
    )


def test_hostile_submissions_get_no_points_and_cost_nobody_else_any(graded, tmp_path):
    found, _ = graded
    programs = hostile(tmp_path)
    assert {name: found[name].points for name in programs} == dict.fromkeys(programs, 0)
    exec(programs["reads_solutions"], space := {})
    assert space["mdpo_loss"]([], [], 1.0) == space["math"].log(2), "read, it would have been the solution"
    assert found["fay"].points == 7  # what needs no loss: z_0 and the slope
    assert any("longer than" in said for _, _, _, told in found["fay"].tasks for said in told)


def test_what_cannot_be_graded_is_told_why(graded):
    found, _ = graded
    for name in ("gus", "hal"):
        assert "cannot be read as a notebook" in found[name].problems[0]
    assert "06_multi_turn_dpo" in found["ida.ipynb" if "ida.ipynb" in found else "ida"].problems[0]
    assert "ordinary" in found["kim"].problems[0]


def test_there_is_a_row_and_a_page_for_each(graded):
    found, out = graded
    rows = list(csv.DictReader((out / "grades.csv").open()))
    assert {row["submission"]: float(row["points"]) for row in rows} == {
        one.submission: one.points for one in found.values()
    }
    pages = {row["submission"]: (out / "feedback" / row["feedback"]).read_text() for row in rows}
    assert len(set(pages)) == len(rows) == len(list((out / "feedback").iterdir()))
    assert "the sign is turned round" in pages["./bob_06_multi_turn_dpo_late.ipynb"]


def test_every_solution_gets_all_points_and_no_handout_gets_any(tmp_path):
    for number in MASTERS:
        for solved in (True, False):
            file = tmp_path / "in" / str(solved) / MASTERS[number].name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(submission(number, solved=solved))
    found = list(grade.grade(tmp_path / "in", COURSE / "autograder", tmp_path / "out"))
    assert len(found) == 2 * len(MASTERS) and not any(one.problems for one in found)
    for one in found:
        tasks = read_master(MASTERS[one.exercise[:2]]).tasks.values()
        assert one.possible == sum(task.points for task in tasks if not task.written)
        assert one.points == (one.possible if "True" in one.submission else 0), one


def otter_run(python: str | Path, number: str, solved: bool, place: Path) -> float:
    """The share of the points that `otter run` gives a solution or a handout, with the zip alone, in the folder `place`."""
    file, autograder = place / MASTERS[number].name, COURSE / "autograder" / f"{MASTERS[number].stem}.zip"
    file.write_text(submission(number, solved=solved))
    call = [python, "-m", "otter", "run", "-a", autograder, file, "-o", place, "--no-logo"]
    subprocess.run(call, check=True, capture_output=True, cwd=place, timeout=1800)
    asked = [one for one in json.loads((place / "results.json").read_text())["tests"] if one.get("max_score")]
    return sum(one["score"] for one in asked) / sum(one["max_score"] for one in asked)


@pytest.mark.parametrize("number", MASTERS)
def test_otter_grades_the_solutions_and_the_students_copy_with_the_zip_alone(number, tmp_path):
    with ZipFile(COURSE / "autograder" / f"{MASTERS[number].stem}.zip") as archive:
        assert not any(name.endswith(".ipynb") for name in archive.namelist())
    for solved in (True, False):
        assert otter_run(sys.executable, number, solved, tmp_path) == solved


def test_an_environment_made_from_what_the_zips_state_grades_the_solutions(tmp_path_factory):
    """A new one, which holds nothing of this repository; the folder is empty but for the notebook that is graded."""
    zips = sorted((COURSE / "autograder").glob("*.zip"))
    (stated,) = {ZipFile(file).read("environment.yml") for file in zips}
    stated = yaml.safe_load(stated)["dependencies"]
    wanted = [one for one in stated if isinstance(one, str) and not one.startswith(("python", "pip"))]
    wanted += next(one["pip"] for one in stated if isinstance(one, dict))
    home = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    python = home / "bin" / "python"
    if subprocess.run([python, "-m", "pip", "install", "-q", *wanted]).returncode:
        pytest.skip("needs a package index")
    assert subprocess.run([python, "-c", "import mtdpo_lib"], cwd=home, capture_output=True).returncode
    shares = {number: otter_run(python, number, True, tmp_path_factory.mktemp(number)) for number in MASTERS}
    assert shares == dict.fromkeys(MASTERS, 1.0)
