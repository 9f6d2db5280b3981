"""A tool made random: with some probability the last number it prints is off by one.

An interpreter's answer is fixed by its history, and then term C of eq. (13) is zero. This noisy calculator makes C matter,
on purpose and by a known amount.

See: notebook 01_theory.
"""

from __future__ import annotations

import random
import re

from mtdpo_lib.seeds import stream

_LAST_NUMBER = re.compile(r"\d+(?=\D*\Z)")


def disturb(text: str, probability: float, *names: object) -> str:
    """`text` with its last whole number one up or one down, with `probability`; unchanged without a number.

    Args:
        text: what the tool printed.
        probability: of a change, in [0, 1].
        names: of the random stream: the same names give the same answer.
    """
    draw = random.Random(stream(0, "noise", *names))
    if draw.random() >= probability:
        return text
    step = draw.choice((-1, 1))
    return _LAST_NUMBER.sub(lambda number: str(abs(int(number.group()) + step)), text)
