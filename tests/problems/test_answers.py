"""Extraction and checking of answers."""

import threading

import pytest

from mtdpo_lib.problems.answers import extract_boxed, is_correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3} and \boxed{4", "3"),  # the last one is cut off
        (r"\boxed{}", ""),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_the_last_complete_box_counts(text, answer):
    assert extract_boxed(text) == answer


@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        ("42", "42", True),
        ("42.0", "42", True),
        ("1,200", "1200", True),
        ("$18", "18", True),
        ("0.5", "1/2", True),
        ("3/4", "0.75", True),
        ("6/8", "3/4", True),
        (r"\frac{1}{2}", "1/2", True),
        ("x+1", "1+x", True),
        ("41", "42", False),
        ("50", "5000", False),  # the authors' grader forgives a factor of 100
        ("0.5", "50", False),
        ("1/0", "1", False),
        ("NameError: name", "7", False),
        ("", "42", False),
        (None, "42", False),
        ("forty-two", "42", False),
        ("9" * 300 + "x", "42", False),
    ],
)
def test_verdicts(answer, gold, verdict):
    assert is_correct(answer, gold) is verdict


def test_symbolic_answers_are_refused_outside_the_main_thread():
    caught = []

    def check():
        try:
            is_correct("x+1", "1+x")
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]
