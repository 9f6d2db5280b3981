"""Questions: which problems a stage asks, as data that can be an input of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mtdpo_lib.problems import benchmarks, composed, gsm8k, gsm8k_math, habits
from mtdpo_lib.problems.base import SUITES, Problem, taking_turns
from mtdpo_lib.problems.published import checksums
from mtdpo_lib.profiles.sections import ProblemSettings


def load_problems(settings: ProblemSettings, split: str, count: int, seed: int) -> list[Problem]:
    """Load problems from the source that the settings name.

    A larger count begins with the same problems: prompts for three iterations are three slices of one call.
    Call "development" and "test" with a fixed seed, so that all runs answer the same questions.

    Args:
        settings: The profile's problem settings.
        split: "demonstrations", "preference", "development" or "test"; no question is in two of them.
        count: How many in total; the generated suites take turns.
        seed: Which ones.

    Raises:
        ValueError: For an unknown split, or when there are too few problems.
    """
    if settings.world == "gsm8k":
        return gsm8k.load_gsm8k(settings.gsm8k_dir, split, count, seed, settings.gsm8k_max_steps)
    if settings.world == "gsm8k-math":
        return gsm8k_math.load(settings, split, count, seed)
    if settings.world == "composed":
        make = partial(composed.make_problems, level=settings.level)
    else:
        make = partial(
            habits.make_problems, families=settings.families, largest_answer=settings.largest_answer
        )
    return taking_turns([partial(make, suite, split, seed=seed) for suite in SUITES], count)


@dataclass(frozen=True)
class Questions:
    """Some problems of one split, or of a published test set.

    Attributes:
        split: "demonstrations", "preference", "development" or "test", or a name of `BENCHMARKS`.
        count: how many; of a published test set at most so many.
        seed: which ones.
        first: so many are left out at the front, so that each iteration gets fresh prompts.
        world: where they come from; the counts in it do not matter.

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
    world: ProblemSettings = field(default_factory=ProblemSettings)

    @classmethod
    def of(cls, settings: ProblemSettings, split: str, count: int, seed: int, first: int = 0) -> Questions:
        """Questions from the world of `settings`."""
        return cls(split, count, seed, first, settings)

    def load(self) -> list[Problem]:
        """The problems.

        Raises:
            ValueError: unknown split, nothing to read, or too few problems; the sentence says what to do.
        """
        if self.split in benchmarks.BENCHMARKS:
            return benchmarks.load_benchmark(self.split, count=self.count, seed=self.seed)
        return load_problems(self.world, self.split, self.first + self.count, self.seed)[self.first :]

    def fingerprint(self) -> dict[str, Any]:
        """What a stage's key says of them: of files the content, never the place, and only what decides the problems."""
        asked = {"split": self.split, "count": self.count, "seed": self.seed, "first": self.first}
        if self.split in benchmarks.BENCHMARKS:
            folder = os.environ.get(benchmarks.FOLDER_VARIABLE, "")
            hub = benchmarks.BENCHMARKS[self.split].hub
            return asked | {"data": checksums(folder, [f"{self.split}.jsonl"]) if folder else {"hub": hub}}
        world = self.world
        if world.world.startswith("gsm8k"):
            folder = gsm8k.data_folder(world.gsm8k_dir)
            data = checksums(folder, gsm8k.PUBLISHED) if folder else {"hub": gsm8k.HUB}
            if world.world == "gsm8k-math":
                data |= {"math": gsm8k_math.data()}
            return asked | {"world": world.world, "max_steps": world.gsm8k_max_steps, "data": data}
        dials = ("level",) if world.world == "composed" else ("families", "largest_answer")
        return asked | {name: getattr(world, name) for name in ("world", *dials)}
