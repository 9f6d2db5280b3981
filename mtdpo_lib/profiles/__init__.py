"""Profiles: one name picks every size, model and budget; the algorithm never changes.

A `Profile` is a frozen tree of small sections. A computation receives only the sections it needs, and its stored result
is keyed by exactly what it received (see `mtdpo_lib.common.stages`), so changing one setting redoes only what depends on it.
"""

from mtdpo_lib.profiles.overrides import (
    get_profile,
    override,
    refuse_misfits,
    setting_values,
    settings_hash,
    tuned,
)
from mtdpo_lib.profiles.presets import BUDGETS, PROFILES, TINY_THREADS
from mtdpo_lib.profiles.sections import (
    EvaluationSettings,
    ModelSettings,
    PairSettings,
    PreferenceSettings,
    ProblemSettings,
    Profile,
    RolloutSettings,
    SandboxSettings,
    SettingError,
    SFTSettings,
    TuneSettings,
    parse_assignments,
)

__all__ = [
    "BUDGETS", "PROFILES", "TINY_THREADS", "EvaluationSettings", "ModelSettings", "PairSettings", "PreferenceSettings",
    "ProblemSettings", "Profile", "RolloutSettings", "SFTSettings", "SandboxSettings", "SettingError", "TuneSettings",
    "get_profile", "override", "parse_assignments", "refuse_misfits", "setting_values", "settings_hash", "tuned",
]  # fmt: skip
