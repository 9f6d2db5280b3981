"""Splits that cannot overlap: the hash of a question says which split it belongs to, whatever the seed."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate

from mtdpo_lib.problems.base import SPLITS, digest, normalised

SHARES = dict(zip(SPLITS, (45, 35, 8, 12), strict=True))  # per cent of all questions


def split_of(question: str) -> str:
    """Return the split that a question belongs to, by the hash of its normalised text."""
    bucket = int(digest("split", normalised(question)), 16) % 100
    return SPLITS[bisect(list(accumulate(SHARES.values())), bucket)]


def question_id(question: str) -> str:
    """Return the hash that names a question in problem ids."""
    return digest("question", normalised(question), size=6)


def check_split(split: str) -> None:
    """Raise ValueError for a name that is no split."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; take one of {', '.join(SPLITS)}.")
