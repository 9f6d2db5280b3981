"""How a composed problem is put together: steps that build on one another, a question, and sometimes a decision.

Both suites draw their steps from pieces of their own (`stories`, `numbers`) and put them together here. A problem is decided
by its level and one number, so it carries only these, and the teacher rebuilds the plan from them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

LARGEST = 999  # of any quantity: numbers stay short to copy
TRIES = 20  # of a step whose number does not suit, before the whole problem is drawn again
DECIDED = 0.6  # share of problems whose second call does what the first one's output says


class Redraw(Exception):
    """These numbers do not suit the problem; draw again."""


@dataclass(frozen=True)
class Step:
    """One quantity.

    Attributes:
        label: how the question and comments call it.
        sentence: what the question says of it.
        code: the right-hand side of its line.
        kind: of the piece it is made of.
        uses: variables it refers to.
    """

    label: str
    sentence: str
    code: str
    kind: str
    uses: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its variable."""
        return self.label.lower()


@dataclass(frozen=True)
class Decision:
    """What to do with the first call's output.

    Attributes:
        kind: "parity", "threshold" or "compare".
        sentence: what the question says.
        shown: the expression whose value the first call prints.
        output: what the first call prints.
        finding: what the output says, such as "83 is odd".
        code: what the second call prints, in numbers that the first one printed.
    """

    kind: str
    sentence: str
    shown: str
    output: str
    finding: str
    code: str


@dataclass(frozen=True)
class Plan:
    """A composed problem, worked out.

    Attributes:
        steps: in the order in which the question tells them, which is the order of the code.
        noise: sentences with numbers that do not matter, by the number of the step before which they stand.
        request: the sentence that asks; "" where the decision's sentence asks.
        result: the expression that is asked for, before a decision.
        decision: None where the output of the first call is the answer.
    """

    steps: tuple[Step, ...]
    request: str
    result: str
    noise: tuple[tuple[int, str], ...] = ()
    decision: Decision | None = None

    @property
    def question(self) -> str:
        """The text that is asked."""
        told = [step.sentence for step in self.steps]
        for place, sentence in sorted(self.noise, reverse=True):
            told.insert(place, sentence)
        asked = [self.request, self.decision.sentence if self.decision else ""]
        return " ".join(sentence for sentence in (*told, *asked) if sentence)

    @property
    def answer(self) -> str:
        """The gold answer."""
        return str(evaluate(self.decision.code if self.decision else self.result, values(self.steps)))

    @property
    def family(self) -> str:
        """The kind of decision, and whether two pieces meet that no demonstration shows together."""
        kind = self.decision.kind if self.decision else "plain"
        return f"{kind}-new" if is_new(self.steps) else kind


def evaluate(code: str, known: dict[str, int]) -> int:
    """The value of an expression, of our own making, over known variables."""
    return eval(code, {"math": math, **known})


def values(steps: Sequence[Step]) -> dict[str, int]:
    """The value of every variable."""
    known: dict[str, int] = {}
    for step in steps:
        known[step.name] = evaluate(step.code, known)
    return known


def is_new(steps: Sequence[Step]) -> bool:
    """Whether a piece stands on another that it stands on in no demonstration: one pair of kinds in eight.

    Which pairs they are is the same for every seed and level.
    """
    kinds = {step.name: step.kind for step in steps}
    pairs = [(step.kind, kinds[name]) for step in steps for name in step.uses]
    return any(_never_shown(outer, inner) for outer, inner in pairs)


@cache
def _never_shown(outer: str, inner: str) -> bool:
    return inner != "fact" and random.Random(f"{outer} on {inner}").random() < 1 / 8


@dataclass
class Draw:
    """The random choices of one problem, all from one stream."""

    stream: random.Random
    steps: list[Step] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self.stream.randint(low, high)

    def pick[T](self, options: Sequence[T]) -> T:
        """One of the options."""
        return self.stream.choice(options)

    def chance(self, share: float) -> bool:
        """True so often."""
        return self.stream.random() < share

    def earlier(self) -> Step:
        """A step to build on: the last one, or with a chance of 0.4 any."""
        return self.pick(self.steps) if self.chance(0.4) else self.steps[-1]

    def need(self, condition: bool) -> None:
        """Draw the problem again unless the condition holds."""
        if not condition:
            raise Redraw

    def value(self, code: str) -> int:
        """The value of an expression now."""
        return evaluate(code, self.known)

    def add(self, make: Callable[[], Step]) -> None:
        """Take a step in whose value is a whole number from 1 to `LARGEST`; a few are made until one is."""
        for _ in range(TRIES):
            step = make()
            value = Fraction(self.value(step.code.replace("//", "/")))
            if value.denominator == 1 and 1 <= value <= LARGEST:
                self.steps.append(step)
                self.known[step.name] = int(value)
                return
        raise Redraw


BRANCHES = (  # what to do with a result r: in words, as code, and whether it needs an even number
    ("add {n}", "{r} + {n}", False),
    ("subtract {n}", "{r} - {n}", False),
    ("double it", "{r} * 2", False),
    ("multiply it by {n}", "{r} * {n}", False),
    ("halve it", "{r} // 2", True),
)


def decide(draw: Draw, shown: str) -> Decision:
    """A decision on the expression `shown`: is it even, or large?"""
    value, limit = draw.value(shown), draw.number(5, 60)
    by_parity = draw.chance(0.5)
    holds = value % 2 == 0 if by_parity else value > limit
    branches = []
    for fits in (True, False):
        words, code, wants_even = draw.pick(BRANCHES)
        n = draw.number(2, 9) if "multiply" in words else draw.number(2, 40)
        draw.need(not wants_even or (by_parity and fits))
        branches.append((words.format(n=n), code.format(r=value, n=n)))
    draw.need(branches[0][0] != branches[1][0])
    (then, do), (otherwise, instead) = branches
    test, finding = ("even", "even" if holds else "odd") if by_parity else (f"more than {limit}",) * 2
    finding = finding if by_parity or holds else f"not more than {limit}"
    code = do if holds else instead
    draw.need(1 <= draw.value(code) <= 9 * LARGEST)
    wording = draw.pick(
        (
            f"If the result is {test}, {then}. If not, {otherwise}.",
            f"If it is {test}, {then}; otherwise {otherwise}.",
            f"When this is {test}, {then}; else {otherwise}.",
        )
    )
    return Decision(
        "parity" if by_parity else "threshold", wording, shown, str(value), f"{value} is {finding}", code
    )


def compare(draw: Draw, request: Callable[[str], str]) -> Decision:
    """A decision between two of the steps: which is larger?

    Args:
        draw: has the steps.
        request: words the question, given what to do.
    """
    one, two = draw.stream.sample(draw.steps, 2)
    first, second = draw.value(one.name), draw.value(two.name)
    draw.need(first != second)
    larger, smaller = max(first, second), min(first, second)
    times, more = draw.number(2, 9), draw.number(2, 40)
    words, code = draw.pick((
        (f"Multiply the larger number by {times}.", f"{larger} * {times}"),
        (f"Multiply the smaller number by {times}.", f"{smaller} * {times}"),
        (f"Add {more} to the smaller number.", f"{smaller} + {more}"),
        (f"Add {more} to the larger number.", f"{larger} + {more}"),
    ))  # fmt: skip
    sentence = f"{request(f'{one.label} and {two.label}')} {words}"
    relation = "more" if first > second else "less"
    shown, output = f"{one.name}, {two.name}", f"{first} {second}"
    return Decision("compare", sentence, shown, output, f"{first} is {relation} than {second}", code)


def build(suite: Callable[[Draw, int], Plan], level: int, key: str) -> Plan:
    """The suite's problem of one level and draw.

    Args:
        suite: makes a plan from a draw.
        level: 1 to 4, how many steps there are.
        key: the hexadecimal number of the draw.
    """
    stream = random.Random(int(key, 16))
    while True:
        try:
            return suite(Draw(stream), level)
        except Redraw:
            continue
