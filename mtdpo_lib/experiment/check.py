"""What can be told to be wrong before long work starts: each room looks at its own part of the settings."""

from __future__ import annotations

from mtdpo_lib.common.progress import Say, say
from mtdpo_lib.problems.supply import check_problems
from mtdpo_lib.profiles import Profile
from mtdpo_lib.sandbox.snapshot import private_folder


def check(profile: Profile, say: Say = say) -> None:
    """Refuse settings that cannot work here, in seconds: too few problems, no model, no server, no place for a cache.

    Args:
        profile: all settings of a run.
        say: receives what is worth knowing though nothing is wrong.

    Raises:
        ValueError, SandboxUnavailable: one sentence says what was wanted, what is there and what to do.

    >>> from mtdpo_lib.profiles import get_profile
    >>> check(get_profile("smoke"))
    >>> check(get_profile("cpu", "problems.test=100000"))
    Traceback (most recent call last):
    ...
    ValueError: The world of habits has too few problems: 57,600 for problems.test=100000. Ask for no more than that.
    """
    if profile.model.base != "tiny":
        from mtdpo_lib.models.bases import check_loadable  # torch takes seconds to import
        from mtdpo_lib.rollout.vllm import check_sampler

        check_loadable(profile.model)
        check_sampler(profile.rollout.sampler)
    if profile.sandbox.backend == "wasm":
        private_folder()
    if notice := check_problems(profile.problems, profile.iterations):
        say(notice)
