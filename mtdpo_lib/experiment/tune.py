"""Tuning: every method with equally many settings, as arms of a study that looks at development problems only.

    python -m mtdpo_lib tune --methods mdpo,raft --plan     what would be computed, and for how long
    python -m mtdpo_lib tune --methods mdpo,raft            the same, computed

Every setting takes one iteration; of each method the best few, the finalists, take the following ones too.
What is chosen is written into `mtdpo_lib.profiles.presets.TUNED`, from where it reaches the arms of a study.

**Paper:** sec. 3.1 tunes M-DPO's rate and eta, and RAFT's rate and trajectories a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtdpo_lib.profiles import TuneSettings

RATE, SEEDS = "learning_rate", "900,901"  # seeds that no study uses


def second_setting(method: str) -> str:
    """What is tuned beside the rate."""
    return "raft_rows" if method == "raft" else "eta"


def tuning_arms(methods: str, tune: TuneSettings) -> list[str]:
    """The arms of the first round: each rate with each value of the second setting.

    Args:
        methods: separated by commas.
        tune: the rates and values.

    >>> tuning_arms("raft", TuneSettings(rates="1e-4,1e-3", raft_rows="1"))[0]
    'raft-0.0001-1:iterations=1,preference.method=raft,preference.learning_rate=0.0001,preference.raft_rows=1'
    >>> len(tuning_arms("mdpo,raft", TuneSettings()))
    16
    """
    values = {"eta": tune.etas, "raft_rows": tune.raft_rows}
    return [
        tuning_arm(method, {RATE: float(rate), second_setting(method): float(value)}, 1)
        for method in dict.fromkeys(methods.split(","))
        for rate in tune.rates.split(",")
        for value in values[second_setting(method)].split(",")
    ]


def tuning_arm(method: str, setting: Mapping[str, Any], iterations: int) -> str:
    """So many iterations of a method with a rate and a second setting, as `mtdpo_lib.experiment.arms.find_arm` reads it.

    >>> tuning_arm("mdpo", {"learning_rate": 3e-4, "eta": 0.5}, 2)
    'mdpo-0.0003-0.5-2:iterations=2,preference.method=mdpo,preference.learning_rate=0.0003,preference.eta=0.5'
    """
    given = ",".join(f"preference.{name}={value:g}" for name, value in setting.items())
    values = "-".join(f"{value:g}" for value in setting.values())
    name = f"{method}-{values}" + (f"-{iterations}" if iterations > 1 else "")
    return f"{name}:iterations={iterations},preference.method={method},{given}"
