"""What tests may see of a submission, and what is refused: no otter is needed for these."""

import os
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from mtdpo_lib.__main__ import main
from mtdpo_lib.lessons import course, grade


@pytest.fixture
def answers(pool):
    """The variables of a small submission."""
    with pool.session() as session:
        found = grade.Answers(session)
        found.run("share = 0.25\ndef double(x):\n    print('noise')\n    return {'twice': (2 * x, [x])}")
        yield found


def test_values_and_functions_come_through_as_literals(answers):
    assert answers["share"] == 0.25
    assert answers["double"](3) == {"twice": (6, [3])}


def test_what_is_no_literal_is_refused(answers):
    answers.run("class Right(float):\n    def __eq__(self, other):\n        return True")
    answers.run("odd, missing = object(), float('nan')\ndef right(): return Right(1)")
    for name in ("odd", "missing"):
        with pytest.raises(grade.Refused, match="should give numbers"):
            answers[name]
    assert answers["right"]() != 2.0


def test_errors_and_missing_names_are_told(answers):
    with pytest.raises(grade.Refused, match="NameError: name 'nothing' is not defined"):
        answers["nothing"]
    with pytest.raises(grade.Refused, match="TypeError"):
        answers["double"](1, 2)


def test_what_failed_is_named_and_so_is_what_was_left_open(answers):
    answers.run("open_ = ...\ndef broken(x):\n    return 1 / x")
    with pytest.raises(grade.Refused, match=r"^broken\(0\): .*ZeroDivisionError"):
        answers["broken"](0)
    with pytest.raises(grade.Refused, match=r"^open_: It is still `\.\.\.`"):
        answers["open_"]


def test_the_time_of_a_submission_ends(answers, monkeypatch):
    monkeypatch.setattr(answers, "_end", 0.0)
    with pytest.raises(grade.Refused, match="are over"):
        answers["share"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"cells": 3}', "[" * 100_000])
def test_a_broken_notebook_is_refused(tmp_path, content):
    file = tmp_path / "06.ipynb"
    file.write_text(content)
    with pytest.raises(grade.Refused, match="cannot be read as a notebook"):
        grade.code_cells(file)


def test_links_pipes_and_large_files_are_refused(tmp_path):
    (tmp_path / "link.ipynb").symlink_to(__file__)
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "large.ipynb").write_bytes(bytes(grade.SUBMISSION_BYTES + 1))
    for file in tmp_path.iterdir():
        with pytest.raises(grade.Refused, match="no ordinary file"):
            grade.code_cells(file)


def test_a_page_of_feedback_shows_markup_as_text():
    told = grade.Graded("<b>", "06", [("task", 1, 2, ["<script>"])], ["<i>"])
    page = grade.feedback(told)
    assert "1 of 2" in page and not any(mark in page for mark in ("<script>", "<b>", "<i>"))


def test_tasks_stand_in_the_order_of_the_notebook(pool, tmp_path):
    def tests(name):
        return SimpleNamespace(name=name, score=0, possible=1, test_case_results=[], run=lambda answers: None)

    cells = [nbformat.v4.new_code_cell(f'grader.check("{name}")') for name in ("mask", "loss", "a_sum")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "06.ipynb")
    exercises = {"06": [tests("a_sum"), tests("loss"), tests("mask")]}  # by name, as an archive gives them
    graded = grade.grade_one(tmp_path / "06.ipynb", "06.ipynb", exercises, pool)
    assert [name for name, *_ in graded.tasks] == ["mask", "loss", "a_sum"]


def test_without_otter_one_sentence_says_what_to_do(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(course, "find_spec", lambda name: None)
    assert main(["grade", str(tmp_path)]) == main(["course", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("run `make course`") == 2


@pytest.mark.parametrize(("built", "remedy"), [(False, "run `make course`"), (True, "name the folder")])
def test_nothing_to_grade_or_to_grade_with_is_one_sentence(monkeypatch, tmp_path, built, remedy):
    monkeypatch.setattr(grade, "need_otter", lambda: None)
    monkeypatch.setattr(grade, "tests_of", lambda file: [])
    if built:
        (tmp_path / "06.zip").touch()
    with pytest.raises(ValueError, match=remedy):
        list(grade.grade(tmp_path / "none", tmp_path, tmp_path / "out"))
    assert not Path(tmp_path / "out").exists()


def test_a_variant_that_is_no_word_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(course, "need_otter", lambda: None)
    with pytest.raises(ValueError, match=r"got '\.\./x'"):
        list(course.build("../x", tmp_path))
