"""Supply: how many problems a source has, and whether they are as many as a run will ask for, told before the run starts."""

from __future__ import annotations

from mtdpo_lib.problems import gsm8k, gsm8k_math, habits
from mtdpo_lib.problems.base import SPLITS
from mtdpo_lib.profiles.presets import PROFILES
from mtdpo_lib.profiles.sections import ProblemSettings, Profile

COMPOSED = 100_000  # of each split: the questions do not run out, but more take longer to make than to answer
# The setting that says how many of each split are asked.
COUNTS = {
    "demonstrations": "demonstrations", "preference": "prompts_per_iteration", "development": "development",
    "test": "test",
}  # fmt: skip


def fitted(profile: Profile) -> Profile:
    """The profile, where its source is published, with no larger counts than that source can give.

    A count that the user has set stays as it is; the others are a preset's, mostly the paper's, and mean "at most". All
    training questions are then used: shared by the iterations, whose prompts are fresh, and for demonstrations.

    Raises:
        ValueError: The data cannot be read; the sentence says what to do.
    """
    wanted, preset = profile.problems, PROFILES.get(profile.name, profile).problems
    own = {split: name for split, name in COUNTS.items() if getattr(wanted, name) == getattr(preset, name)}
    if not wanted.world.startswith("gsm8k") or not own:
        return profile
    have = _have(wanted)[0]
    have["preference"] //= profile.iterations
    counts = {name: min(getattr(wanted, name), max(have[split], 1)) for split, name in own.items()}
    return profile.changed(problems=counts)


def _have(settings: ProblemSettings) -> tuple[dict[str, int], str]:
    """How many problems the source has by split, and what a user should know about it; mostly nothing."""
    if settings.world == "gsm8k":
        records = gsm8k.read_records(settings.gsm8k_dir)
        return gsm8k.supply(records, settings.gsm8k_max_steps), records.notice()
    if settings.world == "gsm8k-math":
        loaded = {split: len(gsm8k_math.load(settings, split, None, 0)) for split in SPLITS[1:]}
        return loaded | {"demonstrations": len(gsm8k_math.answers())}, ""
    if settings.world == "composed":
        return dict.fromkeys(SPLITS, COMPOSED), ""
    return habits.supply(settings.families, settings.largest_answer), ""


# By world: its name in a sentence, and the settings that leave some of its problems out.
SOURCES = {
    "gsm8k": ("GSM8K", ["gsm8k_max_steps"]),
    "gsm8k-math": ("GSM8K with MATH", ["gsm8k_max_steps"]),
    "composed": ("The composed world", []),
    "habits": ("The world of habits", ["largest_answer", "families"]),
}


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
    (have, notice), (source, limits) = _have(settings), SOURCES[settings.world]
    lacks = []
    for split, name in COUNTS.items():
        each, times = getattr(settings, name), iterations if split == "preference" else 1
        if have[split] < times * each:
            several = f"{times} iterations of " if times > 1 else ""
            lacks.append(f"{have[split]:,} for {several}problems.{name}={each}")
    if lacks:
        limited = [f"problems.{name}={value}" for name in limits if (value := getattr(settings, name))]
        more = f", or raise {limited[0]} (0: no limit)" if limited else ""
        raise ValueError(
            f"{source} has too few problems: {', '.join(lacks)}. Ask for no more than that{more}."
        )
    return notice
