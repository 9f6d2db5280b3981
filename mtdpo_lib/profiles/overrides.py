"""Profiles: one name picks every size, model and budget; the algorithm never changes.

A `Profile` is a frozen tree of small sections. A computation receives only the sections it needs, and its stored result
is keyed by exactly what it received (see `mtdpo_lib.common.stages`), so changing one setting redoes only what depends on it.

Every value names its source: a section of arXiv 2409.02392v2, or the reason for ours.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from dataclasses import fields, replace
from typing import Any

from mtdpo_lib.profiles.presets import BUDGETS, PROFILES
from mtdpo_lib.profiles.sections import Profile, SettingError


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"


def setting_names(profile: Profile) -> list[str]:
    """Dotted names of all settings that `--set` accepts, e.g. ``preference.eta``."""
    names = []
    for item in fields(profile):
        value = getattr(profile, item.name)
        if dataclasses.is_dataclass(value):
            names += [f"{item.name}.{inner.name}" for inner in fields(value)]
        elif item.name not in ("name", "claims"):
            names.append(item.name)
    return names


def _parse(name: str, text: str, kind: type) -> Any:
    """Text to a value of the setting's own type; a wrong one is refused, never coerced."""
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        example = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise SettingError(f"Setting {name} wants {example}, got {text!r}.") from None


CHOICES: dict[str, tuple[str, ...]] = {
    "problems.source": ("generated", "gsm8k"),
    "model.template": ("", "mistral"),
    "model.quantization": ("none", "nf4"),
    "model.dtype": ("float32", "bfloat16"),
    "sandbox.backend": ("wasm", "zygote"),
    "preference.method": ("mdpo", "mkto", "dpo", "kto", "raft"),
    "preference.step": ("plain", "fast"),
    "preference.checkpoint_choice": ("best", "random"),
    "sft.step": ("plain", "fast"),
    "preference.reference": ("updated", "fixed"),
}
# Settings that may be zero; every other number must be positive.
MAY_BE_ZERO = {
    "problems.families",
    "problems.largest_answer",
    "problems.gsm8k_max_steps",
    "sft.warmup_fraction",
    "rollout.samples_previous",
    "preference.nll_coefficient",
    "preference.rows_at_once",
    "preference.stochastic_tool_correction",
    "problems.log_lines",
    "rollout.log_lines",
    "rollout.tool_noise",
    "preference.warmup_fraction",
    "evaluation.sampled",
}


def _check(name: str, value: Any) -> None:
    if name in CHOICES and value not in CHOICES[name]:
        raise SettingError(f"Setting {name} wants one of {', '.join(CHOICES[name])}, got {value!r}.")
    if name == "rollout.sampler" and value not in ("torch", "vllm") and not value.startswith("http"):
        raise SettingError(f"Setting {name} wants torch, vllm or the URL of a vLLM server, got {value!r}.")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "rollout.tool_noise" and value > 1:
        raise SettingError(f"Setting {name} is a probability, between 0 and 1; got {value!r}.")
    if is_number and (value < 0 or (value == 0 and name not in MAY_BE_ZERO)):
        raise SettingError(f"Setting {name} wants a number above zero, got {value!r}.")


def override(profile: Profile, settings: dict[str, str]) -> Profile:
    """`profile` with dotted settings changed, e.g. ``{"preference.eta": "0.5"}``.

    Raises:
        SettingError: unknown name (nearest known ones are named), wrong type or value.
    """
    known = setting_names(profile)
    settings = dict(settings)
    budget = settings.pop("budget", None)
    if budget is not None:
        if budget not in BUDGETS:
            raise SettingError(f"Unknown budget {budget!r}: {_nearest(budget, list(BUDGETS))}")
        settings = {**BUDGETS[budget], **settings}
    for name, text in settings.items():
        if name not in known:
            raise SettingError(f"Unknown setting {name!r}: {_nearest(name, known)}")
        section, _, inner = name.rpartition(".")
        holder = getattr(profile, section) if section else profile
        value = _parse(name, text, type(getattr(holder, inner)))
        _check(name, value)
        holder = replace(holder, **{inner: value})
        profile = replace(profile, **{section: holder}) if section else holder
    return profile


def parse_assignments(assignments: list[str] | str) -> dict[str, str]:
    """``["preference.eta=0.5"]`` (or one string, separated by spaces) to a dictionary.

    Raises:
        SettingError: an item without ``=``.
    """
    items = assignments.split() if isinstance(assignments, str) else assignments
    settings = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise SettingError(f"A setting is written name=value, e.g. preference.eta=0.5; got {item!r}.")
        settings[name] = value
    return settings


def get_profile(name: str, settings: list[str] | str | dict[str, str] = ()) -> Profile:
    """The profile called `name`, with `settings` changed.

    Args:
        name: "smoke", "cpu", "small", "paper" (or the paper's other bases: "paper-mistral", ...).
        settings: dotted assignments (``"preference.eta=0.5 iterations=2"``) or a dictionary of them.

    Raises:
        SettingError: one clear sentence for an unknown profile, setting, type or value.
    """
    if name not in PROFILES:
        raise SettingError(f"Unknown profile {name!r}: {_nearest(name, list(PROFILES))}")
    changes = settings if isinstance(settings, dict) else parse_assignments(settings or [])
    profile = override(PROFILES[name], changes)
    if profile.preference.stochastic_tool_correction and profile.preference.method != "mdpo":
        raise SettingError(
            "Setting preference.stochastic_tool_correction is a term of M-DPO's loss: set preference.method=mdpo, or leave "
            f"it at 0; got method {profile.preference.method!r}."
        )
    if profile.preference.stochastic_tool_correction and profile.rollout.log_lines:
        raise SettingError(
            "Setting preference.stochastic_tool_correction asks the tool again and knows no log: set rollout.log_lines=0."
        )
    if profile.rollout.sampler != "torch" and profile.model.base == "tiny":
        raise SettingError(
            "Setting rollout.sampler: vLLM serves adapters on a pretrained base, and the tiny model has none; leave it at "
            "torch."
        )
    if profile.problems.source == "gsm8k" and not profile.problems.gsm8k_dir:
        folder = os.environ.get("MTDPO_GSM8K_DIR", "")
        profile = replace(profile, problems=replace(profile.problems, gsm8k_dir=folder))
    return profile


def settings_hash(profile: Profile, seed: int) -> str:
    """Short hash of all settings and the seed. Where data lie on this machine is not part of it."""
    settings = profile.to_dict()
    settings["problems"].pop("gsm8k_dir")
    text = json.dumps({"profile": settings, "seed": seed}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
