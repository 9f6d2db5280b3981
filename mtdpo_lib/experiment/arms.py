"""The arms of a study: ways to run the method, each differing from another in one thing.

**Paper:** the comparisons of sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mtdpo_lib.profiles.sections import Profile, SettingError

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


def _sft_epochs(count: int) -> Change:
    """A shorter SFT. The paper's 1 and 2 of 3 epochs are 2 and 3 of 4 here: after one epoch from random weights the policy
    solves 3% and gives no pairs."""
    return section("sft", epochs=count, early_epochs=min(count, 2))


def _logs(lines: int, **preference: Any) -> tuple[Change, ...]:
    """Results below a log of so many lines, from one SFT policy that knows logs of every length, with room for them."""

    def longer(profile: Profile) -> Profile:
        most = profile.rollout.max_tokens * 8 // 5
        profile = section("rollout", max_tokens=most, log_lines=lines)(profile)
        return section("problems", log_lines=max(LOGS))(section("pairs", max_tokens=most)(profile))

    return (longer, section("preference", **preference))


NOISE = 0.3  # of the random tool: three answers of ten are off by one
LOGS = (0, 2, 6)  # lines above each result: the doses of long tool output


@dataclass(frozen=True)
class Arm:
    """One way to run the method.

    Attributes:
        name: short, for files and figures.
        what: what it is, in words.
        against: the arm that differs in one thing only, "sft" for none.
        changes: what is changed in the profile.
        mixture: False samples from the current policy only.
        iterations: how many; 0: the profile's.
        pass_at_n: samples SFT and the last policy many times on some test problems.
    """

    name: str
    what: str
    against: str = "mdpo"
    changes: tuple[Change, ...] = ()
    mixture: bool = True
    iterations: int = 0
    pass_at_n: bool = False

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


def _method(name: str, what: str, against: str = "mdpo", **more: Any) -> Arm:
    return Arm(name, what, against, changes=(section("preference", method=name),), **more)


_NOISY = section("rollout", tool_noise=NOISE)
_CORRECTED = section("preference", stochastic_tool_correction=16)
# Long arms first: at the end of a study no process is left alone with one.
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("mdpo", "M-DPO as the paper runs it: updated reference, mixture sampling", BASE,
            pass_at_n=True),
        _method("mkto", "M-KTO"),
        _method("raft", "RAFT: right trajectories only"),
        _method("dpo", "single-turn DPO: the tool's output is scored"),
        _method("kto", "single-turn KTO: the tool's output is scored", "mkto"),
        Arm("fixed", "the SFT policy stays the reference", changes=(section("preference", reference="fixed"),),
            pass_at_n=True),
        Arm("eta-low", "a tenth of the KL coefficient", changes=(times_eta(0.1),)),
        Arm("eta-high", "five times the KL coefficient", changes=(times_eta(5.0),)),
        Arm("on-policy", "all samples from the current policy", mixture=False),
        Arm("n-3", "a third of the samples a prompt",
            changes=(section("rollout", samples_current=2, samples_previous=1),)),
        Arm("n-18", "twice the samples a prompt",
            changes=(section("rollout", samples_current=12, samples_previous=6),)),
        Arm("nll", "with the NLL term, coefficient 1", changes=(section("preference", nll_coefficient=1.0),)),
        Arm("random-step", "a random one of the kept steps instead of the best on development prompts",
            changes=(section("preference", checkpoint_choice="random"),)),
        Arm("raft-3", "one iteration of RAFT with up to three right trajectories a prompt", BASE,
            changes=(section("preference", method="raft"), section("pairs", pairs_per_prompt=3)), iterations=1),
        Arm("noisy", f"one iteration with a tool that is one off with probability {NOISE}", BASE,
            changes=(_NOISY,), iterations=1),
        Arm("noisy-corrected", "the same with the adaptive margin, 16 further answers each", "noisy",
            changes=(_NOISY, _CORRECTED), iterations=1),
        Arm("noisy-dpo", "the same with the tool's output scored", "noisy",
            changes=(_NOISY, section("preference", method="dpo")), iterations=1),
        Arm("underfit", "one iteration from two epochs of SFT", BASE, changes=(_sft_epochs(2),), iterations=1),
        Arm("underfit-nll", "the same with the NLL term", "underfit",
            changes=(_sft_epochs(2), section("preference", nll_coefficient=1.0)), iterations=1),
        Arm("sft-2", "from two epochs of SFT", changes=(_sft_epochs(2),)),
        Arm("sft-3", "from three epochs of SFT", changes=(_sft_epochs(3),)),
        *(Arm(f"log-{lines}", f"one iteration, the tool's results below {lines} lines of a log", BASE,
              changes=_logs(lines), iterations=1) for lines in LOGS),
        *(Arm(f"log-{lines}-dpo", "the same with the tool's output scored", f"log-{lines}",
              changes=_logs(lines, method="dpo"), iterations=1) for lines in LOGS),
    )
}  # fmt: skip
# pass@n, Figure 2: samples a question, at a temperature, on some test problems, of few an eighth; and the n that are told.
PASS_SAMPLES, PASS_TEMPERATURE, PASS_PROBLEMS, PASS_SHARE = 64, 0.7, 120, 8
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
    "sampling": ("mdpo", "on-policy", "n-3", "n-18"),
}


def parse_seeds(text: str) -> list[int]:
    """Seeds and ranges of seeds, separated by commas, to the seeds, each once.

    Raises:
        SettingError: not of that form.

    >>> parse_seeds("0-2,5")
    [0, 1, 2, 5]
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        raise SettingError(f"Seeds are written like 0-2 or 0,3,5; got {text!r}.") from None
    if not seeds:
        raise SettingError(f"Seeds are written like 0-2 or 0,3,5; {text!r} names none.")
    return list(dict.fromkeys(seeds))


def parse_arms(text: str) -> list[Arm]:
    """Names, separated by commas, to arms with those they are compared with; empty: all.

    Raises:
        SettingError: an unknown name.

    >>> [arm.name for arm in parse_arms("eta-low,kto")]  # single-turn KTO is compared with M-KTO
    ['mdpo', 'mkto', 'kto', 'eta-low']
    """
    wanted = [name for name in text.split(",") if name] or list(ARMS)
    for name in wanted:
        if name not in ARMS:
            raise SettingError(f"Unknown arm {name!r}: known are {', '.join(ARMS)}.")
    needed = [ARMS[name].against for name in wanted if ARMS[name].against != BASE]
    return [arm for name, arm in ARMS.items() if name in {*wanted, *needed}]
