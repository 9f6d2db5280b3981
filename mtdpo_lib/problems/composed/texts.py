"""What the tiny base is pretrained on: several kinds of text of this world, and none of its test problems.

Short ones show one skill each (sentences and their lines of code, a program and its output, a decision); long ones are whole
demonstrations of short problems in every wording. All come from the split "demonstrations".
"""

from __future__ import annotations

from mtdpo_lib.chat import Message, say
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems.base import SUITES, Problem, SessionFactory, call
from mtdpo_lib.problems.composed.generate import make_demonstrations, make_problems, plan_of
from mtdpo_lib.problems.composed.plan import Plan, values
from mtdpo_lib.problems.composed.teacher import MOST_WORDINGS, imports

# Share of each. Longer plans are left to SFT: from a base that had seen 14,000 of all levels, no method gained on
# development problems (data/reference_runs/cpu/first_base); after 8,000 of these little could be gained (second_base).
LEVELS = {1: 0.8, 2: 0.2}


def _problems(shares: dict[int, float], count: int, seed: int) -> list[Problem]:
    """About `count` problems of both suites."""
    return [
        problem
        for level, share in shares.items()
        for suite in SUITES
        for problem in make_problems(suite, "demonstrations", round(count * share / len(SUITES)), seed, level)
    ]


def _program(told: str, plan: Plan, shown: str, output: str) -> list[Message]:
    """A program without a word of explanation, and what the tool says."""
    code = [*imports(plan), *(f"{step.name} = {step.code}" for step in plan.steps), f"print({shown})"]
    return [say("user", told), call("", "\n".join(code)), say("tool", output)]


def whole_program(plan: Plan) -> list[Message]:
    """A question and its program alone."""
    if plan.decision:
        return _program(plan.question, plan, plan.decision.shown, plan.decision.output)
    return _program(plan.question, plan, plan.result, plan.answer)


def every_line(plan: Plan) -> list[Message]:
    """What a question tells, and the value of every line."""
    known = values(plan.steps)
    told = " ".join(step.sentence for step in plan.steps)
    return _program(told, plan, ", ".join(known), " ".join(map(str, known.values())))


def decision_alone(plan: Plan) -> list[Message] | None:
    """A decision and what it is about; None where the problem has none."""
    if (decision := plan.decision) is None:
        return None
    told = [
        say("user", decision.sentence),
        call("", f"print({decision.shown})"),
        say("tool", decision.output),
    ]
    return [*told, call(f"{decision.finding}.", f"print({decision.code})"), say("tool", plan.answer)]


def base_texts(
    problems: int,
    decisions: int,
    seed: int,
    session_factory: SessionFactory,
    progress: OnProgress | None = None,
) -> list[list[Message]]:
    """Texts around `problems` problems, each with its demonstration in one of all wordings, and around easy `decisions`.

    A demonstration is executed; the short texts are worked out by the generator.
    """
    told = _problems(LEVELS, problems, seed)
    plans, easy = [plan_of(problem) for problem in told], _problems({1: 1.0}, decisions, seed + 1)
    texts = [
        one.messages for one in make_demonstrations(told, seed, MOST_WORDINGS, session_factory, progress)
    ]
    texts += [text(plan) for plan in plans for text in (whole_program, every_line)]
    return texts + [text for problem in easy if (text := decision_alone(plan_of(problem)))]
