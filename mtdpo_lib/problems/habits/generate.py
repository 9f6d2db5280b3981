"""Problems drawn from the families: distinct questions, each in the split that its hash says."""

from __future__ import annotations

from functools import partial

from mtdpo_lib.problems.answers import number
from mtdpo_lib.problems.base import Problem, named, normalised, taking_turns
from mtdpo_lib.problems.habits import gsm_like, math_like
from mtdpo_lib.problems.habits.families import Family, build
from mtdpo_lib.problems.splits import SHARES, check_split, question_id, split_of

SUITES: dict[str, dict[str, Family]] = {"gsm-like": gsm_like.FAMILIES, "math-like": math_like.FAMILIES}

PATIENCE = 20_000  # draws in a row without a new question after which a family counts as exhausted
QUESTIONS = 20_000  # a family has at least so many, over all splits
PROBE = 300  # draws from which the share with a small answer is told


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
            small = f" with answers up to {largest_answer}" if largest_answer else ""
            more = f" or raise problems.largest_answer={largest_answer}" if largest_answer else ""
            raise ValueError(
                f"Family {family!r} of {suite} has only {len(found)} distinct questions{small} in split {split!r} where "
                f"{count} are wanted: ask for fewer{more}."
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


def supply(families: int = 0, largest_answer: int = 0) -> dict[str, int]:
    """About how many problems each split gives, told from a few draws; the arguments as in `make_problems`."""
    names = [(suite, family) for suite in SUITES for family in list(SUITES[suite])[: families or None]]
    rarest = min(_share_up_to(largest_answer, *name) for name in names) if largest_answer else 1.0
    return {split: int(len(names) * QUESTIONS * rarest * share / 100) for split, share in SHARES.items()}


def _share_up_to(largest_answer: int, suite: str, family: str) -> float:
    """The share of a family's questions whose answer is at most `largest_answer`."""
    draw = named(0, "probe", suite, family)
    cases = (build(SUITES[suite][family], f"{draw.getrandbits(48):012x}") for _ in range(PROBE))
    return sum((number(case.answer) or 0) <= largest_answer for case in cases) / PROBE
