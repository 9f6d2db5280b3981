"""What makes a tool difficult, on purpose and by a known amount: answers wrong at random, results at the end of a log.

An interpreter's answer is fixed by its history, and then term C of eq. (13) is zero: a noisy calculator makes it matter. And
the results of our programs are short, where the paper blames long messages from outside for what scoring them does to
single-turn training: a log above each result makes them as long as one likes.

See: notebooks 01_theory and 06_multi_turn_dpo.
"""

from __future__ import annotations

import random
import re

from mtdpo_lib.common.seeds import stream

_LAST_NUMBER = re.compile(r"\d+(?=\D*\Z)")
# What programs print beside their result: progress, warnings, rows of tables, frames of tracebacks.
_LOG = (
    "step {} done in {} ms",
    "Warning: value {} was rounded to {}",
    "| {} | {} | {} |",
    "File module.py, line {}, in task {}",
)
_LARGEST = 999  # number in a log


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


def below_log(text: str, lines: int, *names: object) -> str:
    """`text` after so many lines of a log, which have nothing to do with it.

    Args:
        text: what the tool printed.
        lines: of the log; 0 leaves the text as it is.
        names: of the random stream: the same names give the same log, and a shorter log is its beginning.
    """
    draw = random.Random(stream(0, "log", *names))
    log = (draw.choice(_LOG).format(*(draw.randint(1, _LARGEST) for _ in range(3))) for _ in range(lines))
    return "\n".join([*log, text])
