"""The imperfect teacher: it knows good and bad ways for every family, and takes each at a stated rate.

**Paper:** section 3.1. There the demonstrations come from another model and are filtered; here a part of them
is wrong on purpose, so that the supervised model has decisions to get better at.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mtdpo_lib.chat import Message, say
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems.answers import is_correct
from mtdpo_lib.problems.base import Demonstration, Problem, SessionFactory, call, conclude, named
from mtdpo_lib.problems.habits.families import OUT, Case, Plan, build
from mtdpo_lib.problems.habits.generate import SUITES

SESSIONS_AT_ONCE = 4  # enough to keep a few sandbox workers busy

# How often the teacher takes each strategy, reliable ones first.
# Set once, from the regime that supervised fine-tuning should leave: about 55% of the demonstrations right,
# 30% to 80% in every family, and the most common strategy wrong in a quarter of the families (there greedy
# decoding is wrong, but the right way is well known). Never set from what preference learning makes of it.
# A strategy that does not apply to a question (misreading a distractor where there is none) is left out and
# the others are scaled up, so questions without a distractor have a somewhat higher right share.
RATES: dict[str, dict[str, dict[str, float]]] = {
    "gsm-like": {
        "packs": {"multiply": 0.50, "misread": 0.30, "each": 0.10, "mental": 0.10},
        "change": {"cost": 0.47, "misread": 0.25, "one": 0.18, "mental": 0.10},
        "ages": {"both": 0.38, "once": 0.54, "misread": 0.08},  # most common: wrong
        "trip": {"parts": 0.36, "steps": 0.16, "sums": 0.24, "misread": 0.24},
        "percent": {"share": 0.52, "count": 0.28, "misread": 0.20},
        "compare": {"chain": 0.54, "first": 0.27, "misread": 0.19},
        "boxes": {"up": 0.26, "repaired": 0.14, "down": 0.50, "guess": 0.10},  # most common: wrong
        "saving": {"weekly": 0.42, "loop": 0.14, "short": 0.20, "misread": 0.16, "mental": 0.08},
        "trees": {"ends": 0.38, "gaps": 0.54, "misread": 0.08},  # most common: wrong
        "share": {"total": 0.40, "steps": 0.16, "misread": 0.26, "mental": 0.18},
        "fence": {"around": 0.52, "area": 0.18, "half": 0.12, "misread": 0.18},
        "growing": {"daily": 0.52, "short": 0.20, "last": 0.10, "misread": 0.18},
    },
    "math-like": {
        "next_prime": {"power": 0.58, "product": 0.28, "odd": 0.14},
        "divisors": {"square": 0.58, "short": 0.26, "double": 0.16},
        "digits": {"one": 0.38, "two": 0.24, "product": 0.24, "length": 0.14},
        "multiples": {"test": 0.38, "twice": 0.54, "both": 0.08},  # most common: wrong
        "common_multiple": {"lcm": 0.38, "repaired": 0.24, "product": 0.24, "guess": 0.14},
        "teams": {"comb": 0.40, "repaired": 0.22, "ordered": 0.26, "guess": 0.12},
        "sequence": {"listed": 0.40, "loop": 0.20, "index": 0.24, "short": 0.16},
        "roots": {"larger": 0.37, "first": 0.53, "stop": 0.10},  # most common: wrong
        "system": {"solve": 0.38, "search": 0.22, "total": 0.24, "swapped": 0.16},
        "pairs": {"below": 0.26, "repaired": 0.16, "ordered": 0.50, "guess": 0.08},  # most common: wrong
        "bases": {"convert": 0.60, "short": 0.21, "decimal": 0.19},
        "dice": {"count": 0.40, "repaired": 0.22, "sums": 0.25, "guess": 0.13},
    },
}


def case_of(problem: Problem) -> Case:
    """Rebuild the case of a generated problem, with every plan the teacher knows for it.

    Raises:
        ValueError: When the problem was not made by this generator.
    """
    family = SUITES.get(problem.suite, {}).get(problem.family)
    case = build(family, problem.notes) if family and problem.notes else None
    if case is None or case.question != problem.question:
        raise ValueError(
            f"The teacher does not know problem {problem.id!r}; make it anew with make_problems."
        )
    return case


def choose(problem: Problem, case: Case, seed: int) -> str:
    """Draw the strategy for a problem from the stream of (seed, problem), at the table's rates."""
    rates = {name: rate for name, rate in RATES[problem.suite][problem.family].items() if name in case.plans}
    draw = named(seed, "teacher", problem.id)
    return draw.choices(list(rates), weights=list(rates.values()))[0]


def perform(question: str, plan: Plan, session_factory: SessionFactory) -> tuple[list[Message], str]:
    """Work a plan out in a sandbox session.

    Args:
        question: The question.
        plan: The plan; its answer is the last output of the tool unless it brings one of its own.
        session_factory: Opens a sandbox session.

    Returns:
        The messages and the final answer.
    """
    messages, output = [say("user", question)], ""
    if plan.calls:
        with session_factory() as session:
            for sentence, code in plan.calls:
                sentence, code = sentence.replace(OUT, output), code.replace(OUT, output)
                output = session.run(code).text.strip()
                messages += [call(sentence, code), say("tool", output)]
    answer = plan.answer or output
    return [*messages, conclude(answer, plan.closing)], answer


def make_demonstrations(
    problems: Iterable[Problem],
    seed: int,
    session_factory: SessionFactory,
    progress: OnProgress | None = None,
) -> list[Demonstration]:
    """Let the teacher answer generated problems, with one strategy per problem.

    **Paper:** section 3.1 (the data of supervised fine-tuning).

    Args:
        problems: Generated problems.
        seed: The run's seed; with the problem's id it decides the strategy.
        session_factory: Opens a sandbox session.
        progress: Called with (done, total) after each problem.

    Returns:
        One demonstration per problem, right or wrong as the sandbox's output has it.
    """

    def work(problem: Problem) -> tuple[str, list[Message], str]:
        case = case_of(problem)
        strategy = choose(problem, case, seed)
        return strategy, *perform(problem.question, case.plans[strategy], session_factory)

    problems = list(problems)
    demonstrations = []
    with ThreadPoolExecutor(SESSIONS_AT_ONCE) as threads:
        performed = zip(problems, threads.map(work, problems), strict=True)
        for done, (problem, (strategy, messages, answer)) in enumerate(performed, 1):
            right = is_correct(answer, problem.answer)
            demonstrations.append(Demonstration(problem, strategy, messages, right))
            if progress:
                progress(done, len(problems))
    return demonstrations
