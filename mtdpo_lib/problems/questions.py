"""Questions: which problems a stage asks, as data that can be an input of it."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtdpo_lib.problems import benchmarks, gsm8k
from mtdpo_lib.problems.base import Problem
from mtdpo_lib.profiles.sections import ProblemSettings

WORLD = ("source", "families", "largest_answer", "gsm8k_dir", "gsm8k_max_steps")


@dataclass(frozen=True)
class Questions:
    """Some problems of one split, or of a published test set.

    Attributes:
        split: "demonstrations", "preference", "development" or "test", or a name of `BENCHMARKS`.
        count: how many; of a published test set at most so many.
        seed: which ones.
        first: so many are left out at the front, so that each iteration gets fresh prompts.
        source, families, largest_answer, gsm8k_dir, gsm8k_max_steps: the world, as in `ProblemSettings`.

    Two prompts of the second iteration, which asks two in each:

    >>> prompts = Questions("preference", count=2, seed=0, first=2)
    >>> [problem.suite for problem in prompts.load()]
    ['gsm-like', 'math-like']
    >>> prompts.load() == Questions("preference", count=4, seed=0).load()[2:]
    True
    """

    split: str
    count: int
    seed: int = 0
    first: int = 0
    source: str = "generated"
    families: int = 0
    largest_answer: int = 0
    gsm8k_dir: str = ""
    gsm8k_max_steps: int = 0

    @classmethod
    def of(cls, settings: ProblemSettings, split: str, count: int, seed: int, first: int = 0) -> Questions:
        """Questions from the world of `settings`; its counts do not matter."""
        return cls(split, count, seed, first, **{name: getattr(settings, name) for name in WORLD})

    def settings(self, **others: Any) -> ProblemSettings:
        """The world as settings, with `others` beside it."""
        return replace(ProblemSettings(), **{name: getattr(self, name) for name in WORLD}, **others)

    def load(self) -> list[Problem]:
        """The problems.

        Raises:
            ValueError: unknown source or split, nothing to read, or too few problems; the sentence says what to do.
        """
        from mtdpo_lib.problems import load_problems  # the room's door, which imports this file

        if self.split in benchmarks.BENCHMARKS:
            return benchmarks.load_benchmark(self.split, count=self.count, seed=self.seed)
        return load_problems(self.settings(), self.split, self.first + self.count, self.seed)[self.first :]

    def fingerprint(self) -> dict[str, Any]:
        """What a stage's key says of them: of files the content, never the place, and only what decides the problems."""
        asked: dict[str, Any] = {
            "split": self.split,
            "count": self.count,
            "seed": self.seed,
            "first": self.first,
        }
        if self.split in benchmarks.BENCHMARKS:
            folder = os.environ.get(benchmarks.FOLDER_VARIABLE, "")
            data = _content(folder, [f"{self.split}.jsonl"], benchmarks.BENCHMARKS[self.split].hub)
            return asked | {"data": data}
        if self.source == "gsm8k":
            folder = self.gsm8k_dir or os.environ.get(gsm8k.FOLDER_VARIABLE, "")
            data = _content(folder, gsm8k.PUBLISHED, gsm8k.HUB)
            return asked | {"source": self.source, "max_steps": self.gsm8k_max_steps, "data": data}
        world = {"source": self.source, "families": self.families, "largest_answer": self.largest_answer}
        return asked | world


def _content(folder: str, names: Iterable[str], hub: str) -> dict[str, str]:
    """SHA-256 of those files that are in the folder; without a folder, the name on the hub."""
    files = [Path(folder) / name for name in names] if folder else []
    found = {file.name: _sha256(file, file.stat().st_mtime_ns) for file in files if file.is_file()}
    return found if folder else {"hub": hub}


@functools.lru_cache(maxsize=16)
def _sha256(file: Path, changed: int) -> str:
    """A file's checksum, computed again when it was `changed` at another time."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
