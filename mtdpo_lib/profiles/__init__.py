"""Profiles: one name picks every size, model and budget; the algorithm never changes."""

from mtdpo_lib.profiles.overrides import get_profile, parse_assignments, setting_names, settings_hash
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
)

__all__ = [
    "BUDGETS",
    "PROFILES",
    "TINY_THREADS",
    "EvaluationSettings",
    "ModelSettings",
    "PairSettings",
    "PreferenceSettings",
    "ProblemSettings",
    "Profile",
    "RolloutSettings",
    "SFTSettings",
    "SandboxSettings",
    "SettingError",
    "get_profile",
    "parse_assignments",
    "setting_names",
    "settings_hash",
]
