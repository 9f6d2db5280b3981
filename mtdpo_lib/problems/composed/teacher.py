"""The teacher: it works a composed problem out with the tool, always rightly, in one of many interchangeable wordings.

**Paper:** section 3.1. There the demonstrations come from another model and only those with the right answer are kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

from mtdpo_lib.chat import Message, say
from mtdpo_lib.problems.base import SessionFactory, call, conclude
from mtdpo_lib.problems.composed.plan import Plan

MOST_WORDINGS = 16


def _sixteen(*halves: str) -> tuple[str, ...]:
    """Every first half with every second half."""
    return tuple(map("".join, product(*(half.split("|") for half in halves))))


# What may be said at each place of a demonstration: all of it means the same, so each choice is worth log(wordings) nats.
WORDINGS = {
    "opening": _sixteen(
        "Let us |I will |We can |I want to ", "use Python.|write code.|compute this.|work it out."
    ),
    "line": _sixteen("now |next |then |so ", "{label}|find {label}|get {label}|work out {label}"),
    "finding": _sixteen(
        "We see that |The tool shows that |Now |So ", "{it}.|{it} here.|{it}, then.|{it}, I see."
    ),
    "closing": _sixteen(
        "So |Thus |Hence |Therefore ", "the result is {it}.|we get {it}.|it comes to {it}.|I find {it}."
    ),
}
FORGETS = (
    0.08  # share of the programs that need an import whose first call lacks it, so that repairs are shown too
)


class Wording:
    """Draws of one demonstration's words.

    Args:
        stream: of the draws.
        count: how many of the interchangeable wordings are in use, from 1 to `MOST_WORDINGS`.
    """

    def __init__(self, stream: random.Random, count: int):
        self.stream, self.count = stream, count

    def __call__(self, place: str, **values: str) -> str:
        return WORDINGS[place][self.stream.randrange(self.count)].format(**values)


def imports(plan: Plan) -> list[str]:
    """What a plan's program has to import first."""
    return ["import math"] if any("math." in step.code for step in plan.steps) else []


def program(plan: Plan, wording: Wording) -> str:
    """The code of the first call: one line for each step below a comment, then what is shown."""
    lines = [f"# {wording('line', label=step.label)}\n{step.name} = {step.code}" for step in plan.steps]
    shown = plan.decision.shown if plan.decision else plan.result
    return "\n".join([*imports(plan), *lines, f"print({shown})"])


def calls(plan: Plan, wording: Wording) -> Iterator[tuple[str, str]]:
    """A sentence and a block of code for each call."""
    code, opening = program(plan, wording), wording("opening")
    if code.startswith("import") and wording.stream.random() < FORGETS:
        yield opening, code.partition("\n")[2]
        yield "An import is missing.", code
    else:
        yield opening, code
    if plan.decision:
        yield wording("finding", it=plan.decision.finding), f"print({plan.decision.code})"


def demonstrate(plan: Plan, wording: Wording, session_factory: SessionFactory) -> tuple[list[Message], str]:
    """Work a plan out in a sandbox session: the messages and the final answer."""
    messages, output = [say("user", plan.question)], ""
    with session_factory() as session:
        for sentence, code in calls(plan, wording):
            output = session.run(code).text.strip()
            messages += [call(sentence, code), say("tool", output)]
    return [*messages, conclude(output, wording("closing", it=output))], output
