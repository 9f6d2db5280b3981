"""Tuning: every method with equally many settings, as arms of a study that looks at development problems only.

    python -m mtdpo_lib tune --methods mdpo,raft --plan     what would be computed, and for how long
    python -m mtdpo_lib tune --methods mdpo,raft            the same, computed

What is chosen is written into `mtdpo_lib.profiles.presets.TUNED`, from where it reaches the arms of a study.

**Paper:** sec. 3.1 tunes M-DPO's rate and eta, and RAFT's rate and trajectories a prompt.
"""

from __future__ import annotations

from mtdpo_lib.profiles import TuneSettings

RATE, SEEDS = "learning_rate", "900,901"  # seeds that no study uses


def second_setting(method: str) -> str:
    """What is tuned beside the rate."""
    return "raft_rows" if method == "raft" else "eta"


def tuning_arms(methods: str, tune: TuneSettings) -> list[str]:
    """Arms, as `mtdpo_lib.experiment.arms.find_arm` reads them: each rate with each value of the second setting.

    Args:
        methods: separated by commas.
        tune: the rates and values.

    >>> tuning_arms("raft", TuneSettings(rates="1e-4,1e-3", raft_rows="1", last_iteration=2))[0]
    'raft-1e-4-1:iterations=2,preference.method=raft,preference.learning_rate=1e-4,preference.raft_rows=1'
    >>> len(tuning_arms("mdpo,raft", TuneSettings()))
    16
    """
    values = {"eta": tune.etas, "raft_rows": tune.raft_rows}
    return [
        f"{method}-{rate}-{value}:iterations={tune.last_iteration},preference.method={method},"
        f"preference.{RATE}={rate},preference.{second_setting(method)}={value}"
        for method in dict.fromkeys(methods.split(","))
        for rate in tune.rates.split(",")
        for value in values[second_setting(method)].split(",")
    ]
