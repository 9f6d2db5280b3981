"""Composed problems: distinct questions, each in the split that its hash says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems.base import Demonstration, Problem, SessionFactory, named, normalised
from mtdpo_lib.problems.composed.numbers import number_problem
from mtdpo_lib.problems.composed.plan import Draw, Plan, build, is_new
from mtdpo_lib.problems.composed.stories import story
from mtdpo_lib.problems.composed.teacher import Wording, demonstrate
from mtdpo_lib.problems.splits import check_split, question_id, split_of

SUITES: dict[str, Callable[[Draw, int], Plan]] = {"gsm-like": story, "math-like": number_problem}
SESSIONS_AT_ONCE = 4  # enough to keep a few sandbox workers busy


def make_problems(suite: str, split: str, count: int, seed: int, level: int) -> list[Problem]:
    """Make composed problems of one suite; a larger count begins with the same ones.

    Args:
        suite: "gsm-like" or "math-like".
        split: "demonstrations", "preference", "development" or "test". No question is in two splits, and in
            "demonstrations" no two pieces meet that are kept for the others (`plan.is_new`).
        count: How many.
        seed: Which draws.
        level: From 1 to 4, how many steps a problem has.
    """
    check_split(split)
    found: dict[str, Problem] = {}
    draw = named(seed, "composed", suite, split, level)
    while len(found) < count:
        key = f"{draw.getrandbits(48):012x}"
        plan = build(SUITES[suite], level, key)
        text = normalised(plan.question)
        if (
            text in found
            or split_of(plan.question) != split
            or (split == "demonstrations" and is_new(plan.steps))
        ):
            continue
        name = f"{suite}/{split}/{plan.family}/{question_id(plan.question)}"
        found[text] = Problem(name, suite, plan.family, plan.question, plan.answer, notes=f"{level} {key}")
    return list(found.values())


def plan_of(problem: Problem) -> Plan:
    """The plan of a composed problem, made anew from its notes."""
    level, _, key = problem.notes.partition(" ")
    return build(SUITES[problem.suite], int(level), key)


def make_demonstrations(
    problems: Iterable[Problem], seed: int, wordings: int, session_factory: SessionFactory,
    progress: OnProgress | None = None, each: int = 1,
) -> list[Demonstration]:  # fmt: skip
    """Let the teacher answer composed problems; what it shows is executed, and right.

    **Paper:** section 3.1 (the data of supervised fine-tuning, filtered by their answers; up to 50 of one question).

    Args:
        problems: Composed problems.
        seed: With the problem's id it decides the wording.
        wordings: How many interchangeable ones there are at each place, from 1 to 16.
        session_factory: Opens a sandbox session.
        progress: Called with (done, total) after each problem.
        each: How often each problem is shown, every time in other words; more begin with the same ones.

    Returns:
        The demonstrations, those of one problem one after another.
    """

    def work(problem: Problem) -> list[Demonstration]:
        plan, wording = plan_of(problem), Wording(named(seed, "teacher", problem.id), wordings)
        return [_demonstration(problem, plan, wording, session_factory) for _ in range(each)]

    problems, made = list(problems), list[Demonstration]()
    with ThreadPoolExecutor(SESSIONS_AT_ONCE) as threads:
        for demonstrations in threads.map(work, problems):
            made += demonstrations
            if progress:
                progress(len(made), each * len(problems))
    return made


def _demonstration(
    problem: Problem, plan: Plan, wording: Wording, session_factory: SessionFactory
) -> Demonstration:
    messages, answer = demonstrate(plan, wording, session_factory)
    return Demonstration(problem, f"{len(messages) // 2 - 1} calls", messages, answer == problem.answer)
