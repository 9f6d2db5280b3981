"""The lessons' first code cell, which on Colab brings what is missing there and elsewhere does nothing."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support import copy_repository

from mtdpo_lib.common.files import NOTEBOOKS

sys.path.append(str(NOTEBOOKS / "site"))

import contents

# What the cell clones: the address that the project gives or, as long as it gives none, one that is reserved for examples.
ADDRESS = contents.repository() or "https://example.org/mtdpo"
PLACE = "/content/mtdpo"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
NOT_NEEDED = {"torch", "jupyterlab", "ipykernel", "papermill", "nbformat", "nbclient", "nbconvert"}


def code_of(lesson: Path) -> list[tuple[str, str]]:
    """The code cells of a lesson, each with its first tag."""
    cells = json.loads(lesson.read_text(encoding="utf8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [("".join(cell["metadata"].get("tags", [])[:1]), "".join(cell["source"])) for cell in code]


CELL = dict(code_of(LESSONS[0]))["colab"]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_every_lesson_begins_with_the_cell_and_it_clones_this_project(lesson):
    assert code_of(lesson)[0] == ("colab", CELL)
    assert re.findall(r'"(https?://[^"]+)"', CELL) == [ADDRESS], (
        f"the notebooks clone another address: sed -i 's|OLD|{ADDRESS}|' notebooks/*.ipynb, then `make notebooks`"
    )


def test_elsewhere_the_cell_does_and_says_nothing(monkeypatch, capfd):
    monkeypatch.setattr(os, "system", None)
    names, path, here = {}, list(sys.path), Path.cwd()
    exec(CELL, names)
    assert names.keys() - {"__builtins__"} == {"os", "sys"}
    assert (sys.path, Path.cwd(), capfd.readouterr()) == (path, here, ("", ""))


def test_what_colab_installs_is_what_lessons_need_but_for_torch_and_jupyter():
    lines = (NOTEBOOKS / "colab.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert all(re.search(r"  # \S", line) for line in listed), "each line has its reason"
    needed = [one for one in contents.project()["dependencies"] if Requirement(one).name not in NOT_NEEDED]
    assert [line.partition(" ")[0] for line in listed] == needed


def on_colab(address: str, place: Path, code: str = "") -> str:
    """A program for a Python that looks like Colab's: the cell with another address and place, then `code`."""
    cell = CELL.replace(ADDRESS, address).replace(PLACE, str(place))
    return f"import sys\nsys.modules['google.colab'] = sys\n{cell}\n{code}"


def test_a_clone_that_fails_is_one_sentence_with_the_remedy(tmp_path):
    program = on_colab(f"file://{tmp_path}/nothing", tmp_path / "mtdpo")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.endswith(
        f"OSError: Cannot clone file://{tmp_path}/nothing: unpack it to {tmp_path}/mtdpo, rerun.\n"
    )


def link_colab(folder: Path) -> None:
    """What Colab brings, as links to the installed packages: torch, IPython and all that these two need."""
    folder.mkdir()
    names, linked = ["torch", "ipython"], set()
    while names:
        name = names.pop()
        needed = [Requirement(one) for one in metadata.requires(name) or ()]
        more = {one.name for one in needed if not one.marker or one.marker.evaluate({"extra": ""})} - linked
        names, linked = [*names, *more], linked | more
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))


@pytest.mark.slow
def test_with_what_colab_brings_the_cell_is_enough_for_a_lesson(tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    origin, python = copy_repository(tmp_path / "origin"), tmp_path / "venv" / "bin" / "python"
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], cwd=origin, check=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    link_colab(tmp_path / "colab")  # outside of the environment, so that pip leaves it alone
    (site / "colab.pth").write_text(str(tmp_path / "colab"))
    probe = ["pip", "download", "--retries", "0", "--timeout", "60", "--no-deps", "-d", tmp_path, "pyseccomp"]
    if subprocess.run([python, "-m", *probe], env=clean, capture_output=True).returncode:
        pytest.skip("no package registry can be reached from here")

    lesson = dict(code_of(LESSONS[0]))
    code = [lesson["parameters"].replace('"cpu"', '"smoke"'), lesson["setup"], "import torch"]
    code.append("print(torch.__file__, Lesson.__module__, lesson.out, sep='\\n')")
    program = on_colab(f"file://{origin}", tmp_path / "clone", "\n".join(code))
    done = subprocess.run(
        [python, "-c", program], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=7200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    clone = tmp_path / "clone"
    assert done.stdout.splitlines()[-3:] == [
        str(tmp_path / "colab" / "torch" / "__init__.py"),
        "mtdpo_lib.lessons.lesson",
        str(clone / "runs" / "smoke-seed0"),
    ]
