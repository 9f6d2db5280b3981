"""Problems drawn from the families: distinct questions, each in the split that its hash says."""

from __future__ import annotations

from functools import partial

from mtdpo_lib.problems.answers import number
from mtdpo_lib.problems.base import Problem, named, normalised, taking_turns
from mtdpo_lib.problems.habits import gsm_like, math_like
from mtdpo_lib.problems.habits.families import Family, build
from mtdpo_lib.problems.splits import check_split, question_id, split_of

SUITES: dict[str, dict[str, Family]] = {"gsm-like": gsm_like.FAMILIES, "math-like": math_like.FAMILIES}

PATIENCE = 20_000  # draws in a row without a new question after which a family counts as exhausted


def family_problems(
    suite: str, family: str, split: str, seed: int, largest_answer: int, count: int
) -> list[Problem]:
    """Draw `count` distinct problems of one family and split; see `make_problems`."""
    found: dict[str, Problem] = {}
    draw, idle = named(seed, "problems", suite, family, split), 0
    while len(found) < count:
        key = f"{draw.getrandbits(48):012x}"
        case = build(SUITES[suite][family], key)
        text, idle = normalised(case.question), idle + 1
        fits = not largest_answer or (number(case.answer) or 0) <= largest_answer
        if fits and text not in found and split_of(case.question) == split:
            name = f"{suite}/{split}/{family}/{question_id(case.question)}"
            found[text] = Problem(name, suite, family, case.question, case.answer, notes=key)
            idle = 0
        if idle > PATIENCE:
            raise ValueError(
                f"Family {family!r} of {suite} has only {len(found)} distinct questions in split {split!r} "
                f"where {count} are wanted; ask for fewer problems."
            )
    return list(found.values())


def make_problems(
    suite: str, split: str, count: int, seed: int, families: int = 0, largest_answer: int = 0
) -> list[Problem]:
    """Make problems of one suite, the families taking turns.

    A larger count begins with the same problems: fresh prompts for several iterations are slices of one call.

    Args:
        suite: "gsm-like" or "math-like".
        split: "demonstrations", "preference", "development" or "test". No question is in two splits.
        count: How many.
        seed: Which draws; the same seed gives the same problems.
        families: Only the suite's first so many families; 0 for all.
        largest_answer: Only problems whose answer is at most this; 0 for all.

    Returns:
        Problems with distinct questions.

    Raises:
        ValueError: For an unknown suite or split, or when a family runs out of questions.
    """
    check_split(split)
    if suite not in SUITES:
        raise ValueError(f"Unknown suite {suite!r}; take one of {', '.join(SUITES)}.")
    if count < 0:
        raise ValueError(f"The number of problems is {count}; it must not be negative.")
    names = list(SUITES[suite])[: families or None]
    makers = [partial(family_problems, suite, family, split, seed, largest_answer) for family in names]
    return taking_turns(makers, count)
