"""How a family of problems is written: a draw of numbers and words, a gold answer, and plans to work it out.

A family is one function from a `Draw` to a `Case`. The same draw gives the same case for ever, so a problem
carries only the number of its draw, and the teacher rebuilds every plan from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

NAMES = ("Ana", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ivy", "Jack", "Kim", "Leo")
THINGS = (
    "apples", "books", "cards", "coins", "cookies", "eggs",
    "flowers", "marbles", "pens", "shells", "stamps", "toys",
)  # fmt: skip

OUT = "<out>"  # in a plan's code: the text of the tool's last output
SLIP_RATE = 0.9  # how often arithmetic in the head slips; the rest is right by chance


class Redraw(Exception):
    """These numbers do not suit the family; draw again."""


@dataclass(frozen=True)
class Plan:
    """A way to work a case out.

    Attributes:
        calls: Pairs of a sentence and a block of code, run one after another in one session.
        reliable: Whether the plan reaches the gold answer by design.
        answer: A final answer that does not come from the tool (mental arithmetic, a guess after an
            error); "" takes the last output of the tool.
        closing: The sentence before such an answer.
    """

    calls: tuple[tuple[str, str], ...]
    reliable: bool
    answer: str = ""
    closing: str = ""


@dataclass(frozen=True)
class Case:
    """One question with its gold answer and the plans that apply to it, by strategy."""

    question: str
    answer: str
    plans: dict[str, Plan] = field(default_factory=dict)

    def by(self, **plans: Plan | None) -> Case:
        """The case with its plans, without those that do not apply to it (None)."""
        return replace(self, plans={name: plan for name, plan in plans.items() if plan is not None})


class Draw:
    """The random choices of one case, all from one stream."""

    def __init__(self, stream: random.Random) -> None:
        self.stream = stream
        self.names = stream.sample(NAMES, 3)
        self.thing = stream.choice(THINGS)

    def number(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return self.stream.randint(low, high)

    def numbers(self, *ranges: tuple[int, int]) -> list[int]:
        """Draw a whole number from each range, in order."""
        return [self.number(low, high) for low, high in ranges]

    def pick(self, *options: str) -> str:
        """Draw one of the options, such as the wordings of a question."""
        return self.stream.choice(options)

    def need(self, condition: bool) -> None:
        """Draw the case again unless the condition holds."""
        if not condition:
            raise Redraw

    def distractor(self, who: str, avoid: str = "-") -> tuple[str, int]:
        """Draw a sentence with a number that does not matter; in half the cases there is none: ("", 0).

        Args:
            who: Whom the sentence is about.
            avoid: A unit that the question itself is about.
        """
        number = self.number(3, 29)
        sentences = (
            f"{who} is {number} years old.",
            f"{who} waits {number} minutes.",
            f"{who} walks {number} km.",
        )
        sentence = self.pick(*(one for one in sentences if avoid not in one))
        return (f" {sentence}", number) if self.stream.random() < 0.5 else ("", 0)

    def mental(self, words: str, gold: int) -> Plan:
        """Plan to do the sum in the head: no tool, and nearly always a slip of a carry or a digit."""
        said = slip(gold, self.stream) if self.stream.random() < SLIP_RATE else gold
        return Plan((), reliable=False, answer=str(said), closing=f"In my head, {words} is {said}.")


def slip(gold: int, stream: random.Random) -> int:
    """Return a wrong result as people get it: a lost carry, one digit off, or two digits swapped."""
    digits = str(gold)
    options = {gold + step for step in (1, -1, 10, -10)}
    if len(digits) > 2:
        options |= {gold + 100, gold - 100}
    if len(digits) > 1:
        options.add(int(digits[:-2] + digits[-1] + digits[-2]))
    return stream.choice(sorted(option for option in options if option >= 0 and option != gold))


def _calls(steps: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """A step's first line is said, its other lines are run."""
    return tuple((sentence, code) for sentence, _, code in (step.partition("\n") for step in steps))


def right(*steps: str) -> Plan:
    """Return a plan that reaches the gold answer."""
    return Plan(_calls(steps), reliable=True)


def wrong(*steps: str) -> Plan:
    """Return a plan that runs well and ends in a wrong answer."""
    return Plan(_calls(steps), reliable=False)


def misread(distractor: int, code: str) -> Plan | None:
    """Return the plan that takes a number which does not matter; None where the question has none."""
    return wrong(f"Use all the numbers.\n{code}") if distractor else None


def gives_up(step: str, guess: object) -> Plan:
    """Return a plan whose call fails, and which then guesses."""
    return Plan(_calls((step,)), reliable=False, answer=str(guess), closing="That failed, so I guess.")


Family = Callable[[Draw], Case]


def build(family: Family, key: str) -> Case:
    """Return the family's case of one draw.

    Args:
        family: The family.
        key: The hexadecimal number of the draw.
    """
    stream = random.Random(int(key, 16))
    while True:
        try:
            return family(Draw(stream))
        except Redraw:
            continue
