"""Stories, the GSM-like suite: who has how many of something, told one after another, each in terms of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mtdpo_lib.problems.composed.plan import DECIDED, Draw, Plan, Step, compare, decide

NAMES = ("Ana", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ivy", "Jack", "Kim", "Leo")
THINGS = ("apples", "books", "cards", "coins", "eggs", "pens", "shells", "toys")
NOISE = ("{who} is {n} years old.", "{who} waits {n} minutes.", "{who} has {n} hats.", "{who} walks {n} km.")

# Each relation: its code, the range of n, and its wordings. {x} is the new person, {y} the earlier one; an inverse relation
# says something of the earlier one.
RELATIONS = {
    "more": (
        "{y} + {n}", (2, 60),
        "{x} has {n} more {things} than {y}.",
        "{x} has {n} more than {y}.",
        "Compared with {y}, {x} has {n} more.",
    ),
    "fewer": (
        "{y} - {n}", (2, 60),
        "{x} has {n} fewer {things} than {y}.",
        "{x} has {n} fewer than {y}.",
        "Compared with {y}, {x} has {n} fewer.",
    ),
    "times": (
        "{y} * {n}", (2, 9),
        "{x} has {n} times as many {things} as {y}.",
        "{x} has {n} times as many as {y}.",
        "For each one that {y} has, {x} has {n}.",
    ),
    "part": (
        "{y} // {n}", (2, 9),
        "{x} has as many {things} as {y}, divided by {n}.",
        "For every {n} that {y} has, {x} has one.",
        "{x} has one for each {n} of {y}.",
    ),
    "together": (
        "{n} - {y}", (10, 120),
        "{x} and {y} have {n} {things} together.",
        "Together {x} and {y} have {n}.",
        "{y} and {x} have {n} in total.",
    ),
    "inverse more": (
        "{y} - {n}", (2, 60),
        "{y} has {n} more {things} than {x}.",
        "{y} has {n} more than {x}.",
        "Compared with {x}, {y} has {n} more.",
    ),
    "inverse fewer": (
        "{y} + {n}", (2, 60),
        "{y} has {n} fewer {things} than {x}.",
        "{y} has {n} fewer than {x}.",
        "Compared with {x}, {y} has {n} fewer.",
    ),
    "inverse times": (
        "{y} // {n}", (2, 9),
        "{y} has {n} times as many {things} as {x}.",
        "{y} has {n} times as many as {x}.",
        "For each one that {x} has, {y} has {n}.",
    ),
}  # fmt: skip


def _fact(draw: Draw, who: str, things: str) -> Step:
    n = draw.number(5, 80)
    sentence = draw.pick(
        ("{x} has {n} {things}.", "There are {n} {things} with {x}.", "{x} starts with {n} {things}.")
    )
    return Step(who, sentence.format(x=who, n=n, things=things), str(n), "fact")


def _relation(draw: Draw, who: str, things: str) -> Step:
    kind, earlier = draw.pick(list(RELATIONS)), draw.earlier()
    code, (low, high), *wordings = RELATIONS[kind]
    n = draw.number(low, high)
    sentence = draw.pick(wordings).format(x=who, y=earlier.label, n=n, things=things)
    return Step(who, sentence, code.format(y=earlier.name, n=n), kind, (earlier.name,))


def _asked(draw: Draw, things: str) -> tuple[str, str]:
    """The question, and the expression it asks for: one of the later quantities, a sum, or a difference."""
    kind, last = draw.pick(("one", "sum", "difference", "all")), draw.steps[-1]
    if kind == "one":
        one = draw.pick(draw.steps[1:])
        return draw.pick(
            (f"How many {things} does {one.label} have?", f"How many does {one.label} have?")
        ), one.name
    if kind == "all":
        return f"How many {things} do they all have?", " + ".join(step.name for step in draw.steps)
    other = draw.pick(draw.steps[:-1])
    one, two = (last, other) if draw.chance(0.5) else (other, last)
    if kind == "sum":
        names = f"{one.label} and {two.label}"
        request = draw.pick(
            (f"How many {things} do {names} have together?", f"How many do {names} have in all?")
        )
        return request, f"{one.name} + {two.name}"
    larger, smaller = sorted((one, two), key=lambda step: -draw.value(step.name))
    request = f"How many more {things} does {larger.label} have than {smaller.label}?"
    return request, f"{larger.name} - {smaller.name}"


def _noise(draw: Draw, count: int, people: Sequence[str]) -> tuple[int, str]:
    """A sentence that does not matter, and the number of the step that it stands before."""
    return draw.number(0, count), draw.pick(NOISE).format(who=draw.pick(people), n=draw.number(2, 60))


def story(draw: Draw, level: int) -> Plan:
    """A story of `level` + 1 or `level` + 2 quantities."""
    count = level + draw.number(1, 2)
    *people, stranger = draw.stream.sample(NAMES, count + 1)
    things = draw.pick(THINGS)
    for who in people:
        is_fact = not draw.steps or draw.chance(0.15)
        draw.add(partial(_fact if is_fact else _relation, draw, who, things))
    noise = [_noise(draw, count, (stranger, *people)) for _ in range(draw.pick((0, 0, 1, 1, 2)))]
    if draw.chance(DECIDED * 0.3):
        decision = compare(draw, lambda pair: f"Look at how many {things} {pair} have.")
        return Plan(tuple(draw.steps), "", decision.shown, tuple(noise), decision)
    request, result = _asked(draw, things)
    draw.need(draw.value(result) >= 1)
    decision = decide(draw, result) if draw.chance(DECIDED * 0.85) else None
    return Plan(tuple(draw.steps), request, result, tuple(noise), decision)
