"""Supply: whether a source has as many problems as a run will ask for, told before the run starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtdpo_lib.problems import gsm8k, habits
from mtdpo_lib.problems.base import SPLITS

if TYPE_CHECKING:
    from mtdpo_lib.profiles.sections import ProblemSettings


COMPOSED = 100_000  # of each split: the questions do not run out, but more take longer to make than to answer


def check_problems(settings: ProblemSettings, iterations: int) -> str:
    """Refuse settings that ask for more problems than their source has, in any iteration.

    Args:
        settings: The profile's problem settings.
        iterations: How many a run has; each takes fresh prompts.

    Returns:
        What a user should know about the data, in a sentence; mostly nothing.

    Raises:
        ValueError: The data cannot be read, or are too few; the sentence says what to do.
    """
    if settings.world == "gsm8k":
        records = gsm8k.read_records(settings.gsm8k_dir)
        have, notice = gsm8k.supply(records, settings.gsm8k_max_steps), records.notice()
        source, limits = "GSM8K", ["gsm8k_max_steps"]
    elif settings.world == "composed":
        have, notice = dict.fromkeys(SPLITS, COMPOSED), ""
        source, limits = "The composed world", []
    else:
        have, notice = habits.supply(settings.families, settings.largest_answer), ""
        source, limits = "The world of habits", ["largest_answer", "families"]
    asked = [
        ("demonstrations", 1, "problems.demonstrations", settings.demonstrations),
        ("preference", iterations, "problems.prompts_per_iteration", settings.prompts_per_iteration),
        ("development", 1, "problems.development", settings.development),
        ("test", 1, "problems.test", settings.test),
    ]
    lacks = [
        f"{have[split]:,} for " + (f"{times} iterations of " if times > 1 else "") + f"{name}={each}"
        for split, times, name, each in asked
        if have[split] < times * each
    ]
    if lacks:
        limited = [f"problems.{name}={value}" for name in limits if (value := getattr(settings, name))]
        more = f", or raise {limited[0]} (0: no limit)" if limited else ""
        raise ValueError(
            f"{source} has too few problems: {', '.join(lacks)}. Ask for no more than that{more}."
        )
    return notice
