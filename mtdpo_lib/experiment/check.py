"""What can be told to be wrong before long work starts: each room looks at its own part of the settings."""

from __future__ import annotations

from pathlib import Path

from mtdpo_lib.common.hub import look_up, missing_model
from mtdpo_lib.common.progress import Say, say
from mtdpo_lib.problems.supply import check_problems
from mtdpo_lib.profiles import Profile
from mtdpo_lib.sandbox.snapshot import private_folder


class WeakStart(ValueError):
    """An SFT policy that is right too seldom to learn preferences from."""


def check_start(right: int, samples: int, least: float) -> None:
    """Refuse to learn preferences from a policy that hardly ever answers rightly.

    Args:
        right, samples: of iteration 1, on fresh prompts; how many are right, and how many there are.
        least: the share that must be, `preference.least_right`.

    Raises:
        WeakStart: the sentence says the share, and what to change.

    >>> check_start(3, 20, least=0.15)
    >>> check_start(2, 20, least=0.15)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    mtdpo_lib.experiment.check.WeakStart: 2 of the 20 samples on fresh prompts are right (10.0%), and ...
    """
    if right < least * samples:
        raise WeakStart(
            f"{right:,} of the {samples:,} samples on fresh prompts are right ({right / samples:.1%}), and preference "
            f"learning begins at {least:.0%} (preference.least_right): give SFT more (problems.demonstrations, sft.epochs, "
            "sft.learning_rate), take a larger model.base, or set preference.least_right=0 to go on all the same."
        )


def check(profile: Profile, say: Say = say) -> None:
    """Refuse settings that cannot work here, in seconds: too few problems, no model, no server, no place for a cache.

    Args:
        profile: all settings of a run.
        say: receives what is worth knowing though nothing is wrong.

    Raises:
        ValueError, SandboxUnavailable: one sentence says what was wanted, what is there and what to do.

    >>> from mtdpo_lib.profiles import get_profile
    >>> check(get_profile("smoke"))
    >>> check(get_profile("habits", "problems.test=100000"))
    Traceback (most recent call last):
    ...
    ValueError: The world of habits has too few problems: 57,600 for problems.test=100000. Ask for no more than that.
    """
    base = profile.model.base
    if (
        "/" in base and not base.endswith(".gguf") and not Path(base).exists()
    ):  # a name on the hub, asked at once
        try:
            look_up(base, "config.json")
        except Exception as error:  # of many classes, as the hub's client raises them
            raise missing_model(base, error) from error
    if base != "tiny":
        from mtdpo_lib.models.bases import check_loadable  # torch takes seconds to import
        from mtdpo_lib.rollout.vllm import check_sampler

        check_loadable(profile.model)
        check_sampler(profile.rollout.sampler)
    if profile.sandbox.backend == "wasm":
        private_folder()
    if notice := check_problems(profile.problems, profile.iterations):
        say(notice)
