"""What travels out of this room: a problem, and a demonstration of how a teacher works it out."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtdpo_lib.chat import Message, say
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.common.seeds import stream
from mtdpo_lib.sandbox import Session

SPLITS = ("demonstrations", "preference", "development", "test")

SUITES = ("gsm-like", "math-like")  # of the two worlds that are generated

SessionFactory = Callable[[], Session]


@dataclass(frozen=True)
class Problem:
    """One question with its gold answer.

    Attributes:
        id: Suite, split, family and the hash of the question, joined by slashes.
        suite: "gsm-like", "math-like" or "gsm8k".
        family: The kind of question inside the suite.
        question: The text the model is asked.
        answer: The gold answer in canonical text, such as "42" or "3/4".
        notes: What only the teacher reads: the draw from which the family rebuilds a generated
            question, or the worked solution of a GSM8K one. Never shown to a model.
    """

    id: str
    suite: str
    family: str
    question: str
    answer: str
    notes: str = ""


@dataclass(frozen=True)
class Demonstration:
    """One tool-integrated answer of the teacher, right or wrong.

    **Paper:** section 3.1: supervised fine-tuning uses another model's tool-integrated trajectories
    (Open-MathInstruct), before any preference learning.

    Attributes:
        problem: The problem it answers.
        strategy: The name of the teacher's strategy.
        messages: Messages of roles "user", "assistant" and "tool", in order, without a system message.
        correct: Whether the final answer equals the gold answer.
    """

    problem: Problem
    strategy: str
    messages: list[Message]
    correct: bool

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Demonstration:
        """Rebuild a demonstration from its fields as JSON keeps them."""
        fields: dict[str, Any] = {**record, "problem": Problem(**record["problem"])}
        return cls(**fields)


def keep(
    made: Iterator[Demonstration | str], wanted: int, progress: OnProgress | None = None
) -> tuple[list[Demonstration], dict[str, int]]:
    """The first `wanted` demonstrations, and how many were kept and, by reason, dropped on the way to them.

    Args:
        made: one demonstration after the other, or the reason why there is none.
        wanted: no more than so many are made.
        progress: called with (kept so far, wanted).

    >>> keep(iter(["the program fails", "the program fails"]), wanted=1)
    ([], {'kept': 0, 'dropped: the program fails': 2})
    """
    kept: list[Demonstration] = []
    counts: Counter[str] = Counter(kept=0)
    while len(kept) < wanted and (one := next(made, None)) is not None:
        if isinstance(one, str):
            counts[f"dropped: {one}"] += 1
            continue
        kept.append(one)
        counts["kept"] += 1
        if progress:
            progress(len(kept), wanted)
    return kept, dict(counts)


def taking_turns(makers: Sequence[Callable[[int], list[Problem]]], count: int) -> list[Problem]:
    """`count` problems: the first of each maker, then the second of each, and so on; a maker is told how many."""
    columns = [make(len(range(first, count, len(makers)))) for first, make in enumerate(makers)]
    return [columns[index % len(columns)][index // len(columns)] for index in range(count)]


def digest(*names: object, size: int = 8) -> str:
    """Return the blake2b hash of the names, in hexadecimal digits, `size` bytes long."""
    text = "\x1f".join(str(name) for name in names)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def named(seed: int, *names: object) -> random.Random:
    """Return the random stream of these names, which no other call or order of calls can change."""
    return random.Random(stream(seed, *names))


def normalised(question: str) -> str:
    """Return the question in lower case with single spaces: what makes two questions the same."""
    return re.sub(r"\s+", " ", question).strip().lower()


def call(sentence: str, code: str) -> Message:
    """Return an assistant's message: one sentence of reasoning, then a block of Python for the tool."""
    return say("assistant", f"{sentence}\n```python\n{code}\n```")


def conclude(answer: str, sentence: str = "") -> Message:
    """Return the assistant's last message, with the boxed answer."""
    lead = f"{sentence}\n" if sentence else ""
    return say("assistant", f"{lead}The answer is \\boxed{{{answer}}}.")
