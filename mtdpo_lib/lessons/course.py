"""Coursework from the masters in ``notebooks/exercises``: otter-grader makes the students' copies and the autograders.

See: ``COURSE.md`` in the instructor's pack.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from mtdpo_lib.common.files import NOTEBOOKS, ROOT

EXERCISES = NOTEBOOKS / "exercises"
VARIANT = "2026a"  # as it stands in the masters, where every number and hidden case is drawn from it


class NoOtter(ValueError):
    """otter-grader is not installed."""


def need_otter() -> None:
    """Raises NoOtter, which says what to do, where otter-grader is missing."""
    if find_spec("otter") is None:
        raise NoOtter("Coursework needs otter-grader: run `make course`, which installs it.")


def build(variant: str, out: Path) -> Iterator[Path]:
    """Write the folders ``student``, ``autograder`` and ``instructor`` of a variant below `out`, in place of earlier ones.

    Args:
        variant: any word of letters, digits, dots and dashes; other numbers, seeds and hidden cases for each.
        out: where the three folders go.

    Yields:
        The folders.

    Raises:
        NoOtter: otter-grader is missing.
        ValueError: the variant is no such word.
    """
    need_otter()
    if not re.fullmatch(r"[\w.-]+", variant):
        raise ValueError(f"A variant is a word of letters, digits, dots and dashes; got {variant!r}.")
    with TemporaryDirectory() as place:
        masters = Path(place) / "masters"
        shutil.copytree(EXERCISES, masters)
        pack = Path(place) / "out"
        shutil.copytree(masters / "student", pack / "student")
        shutil.copytree(masters / "instructor", pack / "instructor")
        for folder in ("autograder", "instructor/solutions"):
            (pack / folder).mkdir()
        for master in sorted(masters.glob("*.ipynb")):
            master.write_text(master.read_text(encoding="utf8").replace(VARIANT, variant), encoding="utf8")
            _assign(master, pack)
        _execute(pack / "instructor" / "SLIDES.ipynb", ROOT)
        sys.path.append(str(EXERCISES))  # what is the course's own stands beside the masters
        import_module("pages").write(pack / "instructor", variant)
        for folder in sorted(pack.iterdir()):
            shutil.rmtree(out / folder.name, ignore_errors=True)
            yield Path(shutil.copytree(folder, out / folder.name))


def _assign(master: Path, pack: Path) -> None:
    """One master's copy for students, autograder and executed solutions."""
    from otter import assign

    made = master.parent / "made" / master.stem
    assign.main(str(master), str(made), no_run_tests=True)
    for file in (made / "student").iterdir():
        shutil.copy(file, pack / "student")
    (archive,) = (made / "autograder").glob("*.zip")
    shutil.copy(archive, pack / "autograder" / f"{master.stem}.zip")
    solutions = Path(shutil.copy(made / "autograder" / master.name, pack / "instructor" / "solutions"))
    _execute(solutions, made / "autograder")


def _execute(notebook: Path, place: Path) -> None:
    """Run a notebook in the folder `place` and keep its outputs."""
    import nbformat
    from nbclient import NotebookClient

    cells = cast(nbformat.NotebookNode, nbformat.read(notebook, 4))
    quiet = ["--log-level=CRITICAL"]  # of the kernel: its notes about itself are not for readers
    NotebookClient(cells, resources={"metadata": {"path": str(place)}}, extra_arguments=quiet).execute()
    nbformat.write(cells, notebook)
