"""Answers: the last ``\\boxed{...}`` of a text, and whether it equals the gold answer.

The verdict on the final answer is the whole preference signal (Example 1 of the paper: u*(x, y) = 1[a_H == gold]).
"""

from __future__ import annotations

import logging
import re
import threading
from fractions import Fraction

# Not more digits than Python reads and a float holds: longer ones are no answer.
_NUMBER = re.compile(r"[-+]?\d{1,300}(\.\d{1,300})?(/\d{1,300})?")


def extract_boxed(text: str) -> str | None:
    r"""Content of the last complete ``\boxed{...}`` of `text`; None when there is none.

    >>> print(extract_boxed(r"First \boxed{3}, no: the answer is \boxed{\frac{1}{2}}."))
    \frac{1}{2}
    """
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth, begin = 0, start + len("\\boxed")
        for position in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[begin + 1 : position].strip()
        start = text.rfind("\\boxed{", 0, start)
    return None


def number(text: str) -> Fraction | None:
    """Read "42", "1,200", "$3.50", "80%" or "3/4" as an exact number; None when it is not one.

    >>> number("$3.50"), number("x")
    (Fraction(7, 2), None)
    """
    plain = text.strip().replace(",", "").replace("$", "").replace("\\%", "").rstrip("%.")
    if not _NUMBER.fullmatch(plain):
        return None
    whole, _, below = plain.partition("/")
    return None if below and int(below) == 0 else Fraction(whole) / (int(below) if below else 1)


def is_correct(answer: str | None, gold: str) -> bool:
    r"""True when `answer` equals `gold`: as exact numbers where both are numbers, else by math-verify.

    Strict where the authors' grader is lenient: a factor of 100 is not forgiven, and no answer outside a box counts.

    >>> is_correct("1,200.0", "1200"), is_correct("0.5", "50"), is_correct(None, "50")
    (True, False, False)
    >>> is_correct(r"\frac{2}{4}", "0.5")
    True
    """
    if answer is None or not answer:
        return False
    if answer == gold:
        return True
    ours, theirs = number(answer), number(gold)
    if ours is not None and theirs is not None:
        return ours == theirs
    return _math_verify(answer, gold)


def _math_verify(answer: str, gold: str) -> bool:
    """Symbolic comparison of LaTeX answers; whatever cannot be parsed is wrong.

    The answer is model-written, so parsing is limited in length and, by signals in the main thread, in time.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    if len(answer) > 100:  # no honest answer is this long
        return False
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "Symbolic answers are checked in the main thread only: math-verify's time limits use signals."
        )
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    config = [LatexExtractionConfig()]
    right, ours = (parse(f"${text}$", extraction_config=config, parsing_timeout=2) for text in (gold, answer))
    return bool(right and ours and verify(right, ours, timeout_seconds=2))
