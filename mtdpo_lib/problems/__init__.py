"""Problems with gold answers, and a teacher's demonstrations: generated suites, or published ones."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtdpo_lib.chat import say
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems import composed, gsm8k_math
from mtdpo_lib.problems.answers import extract_boxed, is_correct
from mtdpo_lib.problems.base import SPLITS, Demonstration, Problem, SessionFactory, named, normalised
from mtdpo_lib.problems.benchmarks import BENCHMARKS, load_benchmark
from mtdpo_lib.problems.gsm8k import gsm8k_demonstrations, load_gsm8k, sources
from mtdpo_lib.problems.habits import RATES, SUITES, make_demonstrations, make_problems
from mtdpo_lib.problems.questions import Questions, load_problems
from mtdpo_lib.problems.splits import split_of
from mtdpo_lib.sandbox.effects import below_log

if TYPE_CHECKING:
    from mtdpo_lib.profiles.sections import ProblemSettings

__all__ = [
    "BENCHMARKS", "RATES", "SPLITS", "SUITES", "Demonstration", "Problem", "Questions", "extract_boxed",
    "gsm8k_demonstrations", "is_correct", "load_benchmark", "load_demonstrations", "load_gsm8k", "load_problems",
    "make_demonstrations", "make_problems", "normalised", "split_of",
]  # fmt: skip


def load_demonstrations(
    settings: ProblemSettings, seed: int, session_factory: SessionFactory, progress: OnProgress | None = None
) -> tuple[list[Demonstration], dict[str, Any]]:
    """Make the demonstrations that supervised fine-tuning starts from.

    **Paper:** section 3.1 (Open-MathInstruct there).

    Args:
        settings: The profile's problem settings.
        seed: The run's seed.
        session_factory: Opens a sandbox session; every block of code is run, and its output is what is shown.
        progress: Called with (done, total).

    Returns:
        The demonstrations, of published data perhaps fewer than asked, and a report: "total", "correct", counts by "suite"
        and "family" (each with its total and correct) and "strategy" (the same, under "suite/family/strategy"), "dropped" by
        reason, and "data": the files they come from.

    Raises:
        ValueError: When a generated world has too few problems, or a published source none whose demonstration can be kept.
    """
    counts: dict[str, int] = {}
    data = {"generated": "by this library"}
    if settings.world == "gsm8k":
        pool = load_gsm8k(settings.gsm8k_dir, "demonstrations", None, seed, settings.gsm8k_max_steps)
        demonstrations, counts = gsm8k_demonstrations(
            pool, session_factory, settings.demonstrations, progress
        )
        data = sources(settings.gsm8k_dir)
    elif settings.world == "gsm8k-math":
        demonstrations, counts = gsm8k_math.demonstrations(settings, seed, progress)
        data = {**sources(settings.gsm8k_dir), "math": str(gsm8k_math.data())}
    else:
        each = settings.demonstrations_each if settings.world == "composed" else 1
        problems = load_problems(settings, "demonstrations", math.ceil(settings.demonstrations / each), seed)
        if settings.world == "composed":
            demonstrations = composed.make_demonstrations(
                problems, seed, settings.wordings, session_factory, progress, each
            )[: settings.demonstrations]
        else:
            demonstrations = make_demonstrations(problems, seed, session_factory, progress)
    dropped = {name: number for name, number in counts.items() if name != "kept"}
    if not demonstrations:
        reasons = ", ".join(f"{number:,} {name}" for name, number in dropped.items())
        raise ValueError(
            f"The data give no demonstration ({reasons or 'no training question'}): take other data."
        )
    demonstrations = [below_logs(one, settings.log_lines, seed) for one in demonstrations]
    return demonstrations, summary(demonstrations) | {"dropped": dropped, "data": data}


def below_logs(demonstration: Demonstration, most: int, seed: int) -> Demonstration:
    """The demonstration with a log of none to `most` lines above each result of its tool, equally many above all."""
    names = (seed, "demonstration", demonstration.problem.id)
    lines = named(*names, "log").randint(0, most)
    messages = [
        say("tool", below_log(message["content"], lines, *names, turn))
        if message["role"] == "tool"
        else message
        for turn, message in enumerate(demonstration.messages)
    ]
    return replace(demonstration, messages=messages)


def summary(demonstrations: list[Demonstration]) -> dict[str, Any]:
    """Count demonstrations, all and right, by suite, family and strategy."""
    tables: dict[str, dict[str, Counter[str]]] = {"suite": {}, "family": {}, "strategy": {}}
    for one in demonstrations:
        suite, family = one.problem.suite, f"{one.problem.suite}/{one.problem.family}"
        for group, name in (("suite", suite), ("family", family), ("strategy", f"{family}/{one.strategy}")):
            count = tables[group].setdefault(name, Counter(total=0, correct=0))
            count.update(total=1, correct=int(one.correct))
    counts = {
        group: {name: dict(count) for name, count in sorted(table.items())} for group, table in tables.items()
    }
    return {"total": len(demonstrations), "correct": sum(one.correct for one in demonstrations), **counts}
