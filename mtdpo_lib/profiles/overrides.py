"""Overrides: the profile called by name, with single settings changed by text such as ``preference.eta=0.5``."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter

from mtdpo_lib.common.provenance import memory_mib
from mtdpo_lib.common.seeds import digest
from mtdpo_lib.profiles.presets import BUDGETS, PROFILES, TUNED
from mtdpo_lib.profiles.sections import Profile, SettingError, allowed, parse_assignments

# Given beside the settings: options of a command, parameters of a notebook.
OPTIONS = ("seed", "profile", "out")
# Words that other libraries and papers use for ours.
SYNONYMS = {"beta": "eta", "kl": "eta", "lr": "learning_rate", "n": "samples", "r": "rank", "turns": "rounds"}
SYNONYMS |= {"timeout": "seconds", "dataset": "world"}


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(known)}"


def _kin(guess: str, known: list[str]) -> list[str]:
    """Known settings that a guessed name may mean, by its last part: in the guessed section if it has some, else in all.

    A name fits when it is the same, begins with the guess, has it as one of its words or is written almost like it; the
    first of these ways that finds some counts.
    """
    section, _, word = guess.lower().replace("-", "_").rpartition(".")
    word = "_".join(SYNONYMS.get(part, part) for part in word.split("_"))
    inside = [name for name in known if section and name.startswith(section)]
    for names in (inside, known):
        last = {name: name.rpartition(".")[2] for name in names}
        close = difflib.get_close_matches(word, set(last.values()), n=1, cutoff=0.7)
        ways = (
            [name for name in names if last[name] == word],
            [name for name in names if last[name].startswith(word)],
            [name for name in names if word in last[name].split("_")],
            [name for name in names if last[name] in close],
        )
        if best := next(filter(None, ways), []):
            return best
    return []


def _unknown(guess: str, known: list[str]) -> SettingError:
    """The error for a name that is no setting."""
    if guess in OPTIONS:
        return SettingError(
            f"The {guess} is not among the settings: give it as --{guess}, or to a notebook as its parameter {guess}."
        )
    kin = _kin(guess, known)
    hint = f"did you mean {' or '.join(kin[:5])}?" if kin else _nearest(guess, known)
    return SettingError(f"Unknown setting {guess!r}: {hint}")


def setting_values(profile: Profile) -> dict[str, Any]:
    """Every setting that `--set` accepts, by its dotted name, e.g. ``preference.eta``, with its value."""
    values: dict[str, Any] = {}
    for name, value in profile.to_dict().items():
        if isinstance(value, dict):
            values |= {f"{name}.{inner}": item for inner, item in value.items()}
        elif name not in ("name", "claims"):
            values[name] = value
    return values


def _read(name: str, text: str, kind: type) -> Any:
    """The value that `text` spells. Only the setting's own type is read, and what it allows; nothing is coerced."""
    own_type, words = allowed(name)
    try:
        text.encode()  # a path of bytes that are no text could not be written down
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        return TypeAdapter(own_type).validate_python(value, strict=True)
    except (KeyError, ValueError):
        raise SettingError(f"Setting {name} wants {words}, got {text}.") from None


def override(profile: Profile, settings: Mapping[str, str]) -> Profile:
    """`profile` with dotted settings changed, e.g. ``{"preference.eta": "0.5"}``.

    Raises:
        SettingError: unknown name (those it may mean are named), wrong type or value, or values that do not fit each other.
    """
    known, settings = setting_values(profile), dict(settings)
    if (budget := settings.pop("budget", None)) is not None:
        if budget not in BUDGETS:
            raise SettingError(f"Unknown budget {budget!r}: {_nearest(budget, list(BUDGETS))}")
        settings = BUDGETS[budget] | settings
    changes: dict[str, Any] = {}
    for name, text in settings.items():
        if name not in known:
            raise _unknown(name, list(known))
        value = _read(name, text, type(known[name]))
        section, _, inner = name.rpartition(".")
        (changes.setdefault(section, {}) if section else changes)[inner] = value
    changed = profile.changed(**changes)
    refuse_misfits(changed)
    return changed


def tuned(profile: Profile, method: str) -> Profile:
    """`profile` with another method and the settings that `tune` chose for it, where the user has not set them.

    >>> get_profile("cpu").preference.method, tuned(get_profile("cpu"), "raft").preference.method
    ('mdpo', 'raft')
    """
    preset = PROFILES.get(profile.name, profile).preference
    chosen = TUNED.get(profile.name, {}).get(method, {})
    free = {
        name: value
        for name, value in chosen.items()
        if getattr(profile.preference, name) == getattr(preset, name)
    }
    return profile.changed(preference={"method": method, **free})


def refuse_misfits(profile: Profile) -> None:
    """Refuse settings that are right one by one and wrong together.

    Raises:
        SettingError: the first sentence about them, with its remedy.
    """
    for sentence in _misfits(profile):
        raise SettingError(sentence)


def _misfits(profile: Profile) -> Iterator[str]:
    model, sft = profile.model, profile.sft
    hidden, heads, workers = model.hidden, model.heads, profile.sandbox.workers
    if hidden % (2 * heads) or heads % max(heads // 2, 1):
        yield f"Setting model.heads is {heads}: it must be even, and model.hidden ({hidden}) a multiple of twice its value."
    if sft.early_epochs > sft.epochs:
        few, many = sft.epochs, sft.early_epochs
        yield f"Setting sft.early_epochs is {many}, more than the {few} of sft.epochs: set sft.early_epochs={few} or less."
    if sft.start_epochs not in (0, sft.underfit_epochs, *range(1, sft.epochs + 1)):
        yield (
            f"Setting sft.start_epochs is {sft.start_epochs:g}, and SFT keeps the policy after every whole epoch and after "
            f"{sft.underfit_epochs:g} (sft.underfit_epochs): set it to one of these, at most {sft.epochs}."
        )
    counts = [len(values.split(",")) for values in (profile.tune.etas, profile.tune.raft_rows)]
    if counts[0] != counts[1]:
        yield (
            f"Settings tune.etas and tune.raft_rows name {counts[0]} and {counts[1]} values: give equally many, so that "
            "every method is tuned over as many settings."
        )
    cores, memory = os.cpu_count() or 1, memory_mib()
    if workers > (most := max(1, min(max(8, 4 * cores), memory // profile.sandbox.memory_mib))):
        yield (
            f"Setting sandbox.workers is {workers}, more than this machine can serve (with sandbox.memory_mib="
            f"{profile.sandbox.memory_mib} on {cores} cores and {memory} MiB of memory): set {most} or less."
        )
    yield from _training_misfits(profile)
    if model.trains_all:
        yield from _whole_model_misfits(profile)
    if profile.rollout.sampler != "torch" and model.is_tiny:
        yield (
            "Setting rollout.sampler: vLLM is for real models, and the tiny one is sampled here; leave it at torch."
        )


def _whole_model_misfits(profile: Profile) -> Iterator[str]:
    if profile.model.quantization != "none":
        yield "Setting model.adapter=none trains all weights, and those in 4 bits cannot be: set model.quantization=none."
    if profile.rollout.sampler.startswith("http"):
        yield "Setting model.adapter=none makes whole models, and a server has one: set rollout.sampler to torch or vllm."
    if profile.preference.stochastic_tool_correction:
        yield "Setting preference.stochastic_tool_correction is learnt beside an adapter: set model.adapter=lora."


def _training_misfits(profile: Profile) -> Iterator[str]:
    settings, pairs, correction = (
        profile.preference,
        profile.pairs,
        profile.preference.stochastic_tool_correction,
    )
    if settings.batch_size < (least := 2 * pairs.pairs_per_prompt):
        yield (
            f"Setting preference.batch_size is {settings.batch_size}, and M-KTO's KL term needs answers to other prompts: "
            f"set {least} or more, or fewer pairs.pairs_per_prompt than {pairs.pairs_per_prompt}."
        )
    if correction and settings.method != "mdpo":
        yield (
            "Setting preference.stochastic_tool_correction is a term of M-DPO's loss: set preference.method=mdpo, or leave "
            f"it at 0; got method {settings.method!r}."
        )
    if correction and profile.rollout.log_lines:
        yield (
            "Setting preference.stochastic_tool_correction asks the tool again and knows no log: set rollout.log_lines=0."
        )


def get_profile(name: str, settings: Sequence[str] | str | Mapping[str, str] = ()) -> Profile:
    """The profile called `name`, with `settings` changed.

    Args:
        name: "smoke", "cpu", "small", "paper" (or the paper's other bases: "paper-mistral", ...).
        settings: dotted assignments (``"preference.eta=0.5 iterations=2"``) or a dictionary of them.

    Raises:
        SettingError: one clear sentence for an unknown profile, setting, type or value.
    """
    if name not in PROFILES:
        raise SettingError(f"Unknown profile {name!r}: {_nearest(name, list(PROFILES))}")
    changes = settings if isinstance(settings, Mapping) else parse_assignments(settings)
    profile = override(PROFILES[name], changes)
    if profile.problems.world.startswith("gsm8k") and not profile.problems.gsm8k_dir:
        profile = profile.changed(problems={"gsm8k_dir": os.environ.get("MTDPO_GSM8K_DIR", "")})
    return profile


def settings_hash(profile: Profile, seed: int) -> str:
    """Short hash of all settings and the seed. Where data lie on this machine is not part of it."""
    settings = profile.to_dict()
    settings["problems"].pop("gsm8k_dir")
    for name, section in vars(profile).items():
        for item in fields(section) if is_dataclass(section) else ():
            younger = not item.metadata.get("in_hash_at_default", True)
            is_default = getattr(section, item.name) == item.default
            if not item.metadata.get("in_hash", True) or (younger and is_default):
                settings[name].pop(item.name)
    return digest(json.dumps({"profile": settings, "seed": seed}, sort_keys=True), size=6)
