"""The arms of a study: ways to run the method, each differing from another in one thing.

**Paper:** the comparisons of sec. 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtdpo_lib.profiles import Profile, SettingError, override, parse_assignments, tuned

Change = Callable[[Profile], Profile]
BASE = "sft"  # what every arm's gain is taken over: the SFT policy under the arm's own tool


def section(name: str, **values: Any) -> Change:
    """A change of settings in one section of a profile.

    >>> from mtdpo_lib.profiles import get_profile
    >>> section("preference", reference="fixed")(get_profile("smoke")).preference.reference
    'fixed'
    """
    return lambda profile: replace(profile, **{name: replace(getattr(profile, name), **values)})


def times_eta(factor: float) -> Change:
    """Another KL coefficient, relative to the profile's own.

    >>> from mtdpo_lib.profiles import get_profile
    >>> times_eta(0.1)(get_profile("cpu", "preference.eta=0.5")).preference.eta
    0.05
    """
    return lambda profile: section("preference", eta=profile.preference.eta * factor)(profile)


def _method(name: str) -> Change:
    """Another method, with the settings that were tuned for it."""
    return lambda profile: tuned(profile, name)


def _on_policy(profile: Profile) -> Profile:
    """As many samples, all from the current policy."""
    samples = profile.rollout.samples_current + profile.rollout.samples_previous
    return section("rollout", samples_current=samples, samples_previous=0)(profile)


def _thrice_right(profile: Profile) -> Profile:
    return section("pairs", right_per_prompt=3 * profile.pairs.right_per_prompt)(profile)


def _less_sft(epochs: int) -> Change:
    """The policy so many epochs before the end of the same SFT, but at least one from its start.

    The paper's 1 and 2 of 3 epochs are 2 and 3 of 4 where a model learns from random weights (after one it solves 3% and
    gives no pairs), and 1 of 2, both times, where SFT has two.
    """

    def shorter(profile: Profile) -> Profile:
        return section("sft", start_epochs=float(max(profile.sft.epochs - epochs, 1)))(profile)

    return shorter


def _underfit(profile: Profile) -> Profile:
    return section("sft", start_epochs=profile.sft.underfit_epochs)(profile)


def _logs(lines: int, *others: Change) -> tuple[Change, ...]:
    """Results below a log of so many lines, from one SFT policy that knows logs of every length, with room for them."""

    def longer(profile: Profile) -> Profile:
        most = profile.rollout.max_tokens * 8 // 5
        profile = section("rollout", max_tokens=most, log_lines=lines)(profile)
        return section("problems", log_lines=max(LOGS))(section("pairs", max_tokens=most)(profile))

    return (longer, *others)


NOISE = 0.3  # of the random tool: three answers of ten are off by one
LOGS = (0, 2, 6)  # lines above each result: the doses of long tool output
FIRST_AND_LAST, ALL_OF_FIVE = (0, -1), tuple(range(6))  # policies of an arm; 0 is SFT


@dataclass(frozen=True)
class Arm:
    """One way to run the method.

    Attributes:
        name: short, for files and figures.
        what: what it is, in words.
        against: the arm that differs in one thing only, "sft" for none.
        changes: what is changed in the profile.
        iterations: how many; 0: the profile's.
        often: the policies that are sampled many times on some test problems, by iteration.
    """

    name: str
    what: str
    against: str = "mdpo"
    changes: tuple[Change, ...] = ()
    iterations: int = 0
    often: tuple[int, ...] = ()

    def profile(self, base: Profile) -> Profile:
        """The profile with this arm's changes; arms are compared by their greedy answers only.

        >>> from mtdpo_lib.profiles import get_profile
        >>> base = get_profile("smoke", "preference.eta=0.5")
        >>> ARMS["eta-low"].profile(base).preference.eta, ARMS["mdpo"].profile(base).preference.eta
        (0.05, 0.5)
        """
        base = section("evaluation", sampled=0)(base)
        for change in self.changes:
            base = change(base)
        return replace(base, iterations=self.iterations) if self.iterations else base


_RAFT, _DPO, _NLL = _method("raft"), _method("dpo"), section("preference", nll_coefficient=1.0)
_NOISY = section("rollout", tool_noise=NOISE)
_CORRECTED = section("preference", stochastic_tool_correction=16)
# Long arms first: at the end of a study no process is left alone with one.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("mdpo-5", "five iterations of M-DPO", BASE, iterations=5, often=ALL_OF_FIVE),
        Arm("raft-5", "five iterations of RAFT", "mdpo-5", (_RAFT,), iterations=5, often=ALL_OF_FIVE),
        Arm("raft-2", "two iterations of RAFT", BASE, (_RAFT,), iterations=2),
        Arm("mdpo-2", "two iterations of M-DPO", "raft-2", iterations=2),
        Arm("mdpo", "M-DPO: as the paper runs it, updated reference, mixture sampling", BASE, often=FIRST_AND_LAST),
        Arm("mkto", "M-KTO", changes=(_method("mkto"),)),
        Arm("raft", "RAFT: right trajectories only", changes=(_RAFT,)),
        Arm("dpo", "single-turn DPO: the tool's output is scored", changes=(_DPO,)),
        Arm("kto", "single-turn KTO: the tool's output is scored", "mkto", (_method("kto"),)),
        Arm("fixed", "a fixed reference: the SFT policy stays it", changes=(section("preference", reference="fixed"),),
            often=FIRST_AND_LAST),
        Arm("on-policy", "all samples from the current policy", changes=(_on_policy,)),
        Arm("replicate", "M-DPO with other random numbers in sampling", changes=(section("rollout", replicate=1),)),
        Arm("eta-low", "a tenth of the KL coefficient", changes=(times_eta(0.1),)),
        Arm("eta-high", "five times the KL coefficient", changes=(times_eta(5.0),)),
        Arm("n-3", "a third of the samples per prompt",
            changes=(section("rollout", samples_current=2, samples_previous=1),)),
        Arm("n-18", "twice the samples per prompt",
            changes=(section("rollout", samples_current=12, samples_previous=6),)),
        Arm("nll", "with an NLL term that at first pulls as much as the DPO term", changes=(_NLL,)),
        Arm("random-step", "a random one of the kept steps instead of the best on development prompts",
            changes=(section("preference", checkpoint_choice="random"),)),
        Arm("raft-3", "one iteration of RAFT with three times as many right trajectories per prompt", BASE,
            (_RAFT, _thrice_right), iterations=1),
        Arm("noisy", f"one iteration with a tool that is one off with probability {NOISE}", BASE,
            (_NOISY,), iterations=1),
        Arm("noisy-corrected", "the same with the adaptive margin, 16 further answers each", "noisy",
            (_NOISY, _CORRECTED), iterations=1),
        Arm("noisy-dpo", "the same with the tool's output scored", "noisy", (_NOISY, _DPO), iterations=1),
        Arm("underfit", "one iteration from an SFT that was stopped early", BASE, (_underfit,), iterations=1),
        Arm("underfit-nll", "the same with the NLL term", "underfit", (_underfit, _NLL), iterations=1),
        Arm("sft-2", "from two epochs less of SFT", changes=(_less_sft(2),)),
        Arm("sft-3", "from one epoch less of SFT", changes=(_less_sft(1),)),
        *(Arm(f"log-{lines}", f"one iteration, the tool's results below {lines} lines of a log", BASE,
              _logs(lines), iterations=1) for lines in LOGS),
        *(Arm(f"log-{lines}-dpo", "the same with the tool's output scored", f"log-{lines}",
              _logs(lines, _DPO), iterations=1) for lines in LOGS),
    )
}  # fmt: skip
# pass@n, Figure 2: the temperature, on some test problems (a sixth of few), and the n that are told
PASS_TEMPERATURE, PASS_SHARE = 0.7, 6
PASS_AT = (1, 2, 4, 8, 16, 32, 64)
# Differences beside those of each arm and its rival: in accuracy after the last iteration, after the first one, and in the
# gain over an SFT policy of one's own.
CONTRASTS = (("dpo", "raft"),)
FIRST_CONTRASTS = (("raft-3", "raft"),)
GAIN_CONTRASTS = (("sft-2", "mdpo"), ("sft-3", "mdpo"))

# Arms that are looked at together.
GROUPS = {
    "methods": ("mdpo", "mkto", "raft", "dpo", "kto", "nll"),
    "reference_and_kl": ("mdpo", "fixed", "eta-low", "eta-high"),
    "sampling": ("mdpo", "on-policy", "n-3", "n-18", "replicate"),
    "five_iterations": ("mdpo-5", "raft-5"),
}


# The seeds of the primary claims, written down before any of them was run.
PLANNED_SEEDS = {"cpu": range(100, 112)}
MOST_SEEDS = 50  # a plan of all arms for so many takes seconds


def parse_seeds(text: str) -> list[int]:
    """Seeds and ranges of seeds, separated by commas, to the seeds, each once.

    Raises:
        SettingError: not of that form, or too many.

    >>> parse_seeds("0-2,5")
    [0, 1, 2, 5]
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)[: MOST_SEEDS + 1]
    except ValueError:
        raise SettingError(f"Seeds are written like 0-2 or 0,3,5; got {text!r}.") from None
    if not seeds:
        raise SettingError(f"Seeds are written like 0-2 or 0,3,5; {text!r} names none.")
    if len(seeds := list(dict.fromkeys(seeds))) > MOST_SEEDS:
        raise SettingError(f"A study takes up to {MOST_SEEDS} seeds, and {text!r} names more: name fewer.")
    return seeds


def find_arm(text: str) -> Arm:
    """The arm of that name, or a new one that is written ``name:key=value,key=value``: M-DPO with these settings.

    Raises:
        SettingError: an unknown name, one that cannot be given, or no settings.

    >>> from mtdpo_lib.profiles import get_profile
    >>> find_arm("lr-low:preference.learning_rate=1e-4").profile(get_profile("cpu")).preference.learning_rate
    0.0001
    """
    name, colon, settings = text.partition(":")
    if not colon:
        if name not in ARMS:
            raise SettingError(f"Unknown arm {name!r}: known are {', '.join(ARMS)}.")
        return ARMS[name]
    if name in (*ARMS, BASE) or not re.fullmatch("[a-z0-9.-]+", name):
        raise SettingError(
            "A new arm is written name:key=value,key=value, with a name of its own in small letters, digits, dots and "
            f"hyphens; got {text!r}."
        )
    changes = parse_assignments(settings.split(","))
    return Arm(name, f"M-DPO with {settings}", changes=(lambda profile: override(profile, changes),))


def known_arm(name: str) -> Arm:
    """The arm of that name, which may be one that was written on a command line.

    >>> known_arm("kto").against, known_arm("lr-low").against
    ('mkto', 'mdpo')
    """
    return ARMS.get(name) or Arm(name, "M-DPO with settings of one's own")


def in_full(name: str) -> str:
    """What an arm is, without "the same", which means the arm that it is compared with.

    >>> in_full("underfit-nll")
    'one iteration from an SFT that was stopped early with the NLL term'
    """
    arm = known_arm(name)
    return arm.what.replace("the same", ARMS[arm.against].what, 1) if arm.against in ARMS else arm.what


def in_few_words(name: str) -> str:
    """What an arm is, in few words; the name of one that was written on a command line.

    >>> in_few_words("mdpo"), in_few_words("sft"), in_few_words("lr-low")
    ('M-DPO', 'SFT', 'lr-low')
    """
    return in_full(name).partition(":")[0] if name in ARMS else {BASE: "SFT"}.get(name, name)


def parse_arms(text: str, new: Sequence[str] = ()) -> list[str]:
    """Names, separated by commas, with those that they are compared with, and `new` arms as `find_arm` reads them.

    Without any of both: all arms.

    Raises:
        SettingError: one that cannot be found.

    >>> parse_arms("eta-low,kto")  # single-turn KTO is compared with M-KTO
    ['mdpo', 'mkto', 'kto', 'eta-low']
    >>> parse_arms("", ["lr-low:preference.learning_rate=1e-4"])
    ['mdpo', 'lr-low:preference.learning_rate=1e-4']
    """
    found = [find_arm(name) for name in [*filter(None, text.split(",")), *new] or ARMS]
    if len({arm.name for arm in found[-len(new) :]}) < len(new):
        raise SettingError(f"Two new arms have one name: give each its own; got {', '.join(new)}.")
    wanted = {name for arm in found for name in (arm.name, arm.against)}
    return [name for name in ARMS if name in wanted] + list(new)
