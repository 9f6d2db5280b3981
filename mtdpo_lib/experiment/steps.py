"""TODO: experiment.steps."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mtdpo_lib.common.files import read_jsonl, write_json, write_jsonl
from mtdpo_lib.common.progress import Progress
from mtdpo_lib.common.seeds import small_stream, stream
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models.bases import prepare_base
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer
from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
from mtdpo_lib.pairs import Pair, make_pairs
from mtdpo_lib.problems import BENCHMARKS, load_benchmark, load_demonstrations, load_problems
from mtdpo_lib.problems.base import Demonstration
from mtdpo_lib.profiles.sections import (
    EvaluationSettings,
    ModelSettings,
    PairSettings,
    PreferenceSettings,
    ProblemSettings,
    RolloutSettings,
    SandboxSettings,
    SFTSettings,
)
from mtdpo_lib.rollout import Trajectory, load_sampler, load_trajectories, rollout, save_trajectories
from mtdpo_lib.rollout.evaluate import accuracy, evaluate, save_outcomes
from mtdpo_lib.sandbox import kept_pool

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


DATA_SEED = (
    0  # development and test problems are the same in every run, so runs are compared on the same questions
)


# --- Stage work: each function gets only what decides its product, and writes it into `folder`. ---


def make_demonstrations(folder: Path, problems: ProblemSettings, sandbox: SandboxSettings, seed: int) -> None:
    """The teacher's demonstrations, its tool calls really executed."""
    pool = kept_pool(sandbox)
    rows, counts = load_demonstrations(problems, seed, pool.session, Progress("demonstrations"))
    write_jsonl(folder / "demonstrations.jsonl", (row.to_dict() for row in rows))
    write_json(folder / "counts.json", counts)


def make_base(folder: Path, model: ModelSettings) -> None:
    """The pretrained base, loadable from one folder."""
    prepare_base(folder, model)


def make_sft(
    folder: Path,
    demonstrations: Product,
    base: Policy | None,
    model: ModelSettings,
    sft: SFTSettings,
    max_tokens: int,
    seed: int,
) -> None:
    """SFT from random weights (`base` None, with a tokenizer of its own) or of a new adapter on a pretrained base."""
    from mtdpo_lib.train import sft_dataset, train_sft  # TRL takes seconds to import

    rows = [Demonstration.from_dict(row) for row in read_jsonl(demonstrations.path / "demonstrations.jsonl")]
    if base is None:
        texts = [message["content"] for row in rows for message in row.messages]
        tokenizer = train_tokenizer(texts, model.vocabulary)
        network = tiny_model(model, tokenizer, max_tokens, small_stream(seed, "weights"))
    else:
        tokenizer = load_tokenizer(base)
        network = load_for_training(base, model, small_stream(seed, "adapter"))
    dataset = sft_dataset(rows, tokenizer, max_tokens)
    log = train_sft(folder, network, tokenizer, dataset, sft, model, small_stream(seed, "sft"))
    write_json(folder / "log.json", log)
    scored = sum(sum(label != -100 for label in row) for row in dataset["labels"])
    total = sum(map(len, dataset["input_ids"]))
    facts = {
        "demonstrations": len(dataset),
        "longer than the limit": len(rows) - len(dataset),
        "tokens": total,
        "scored tokens": scored,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "trained parameters": sum(
            parameter.numel() for parameter in network.parameters() if parameter.requires_grad
        ),
    }
    write_json(folder / "facts.json", facts)


def make_rollouts(
    folder: Path,
    sources: Sequence[tuple[Policy, int]],
    problems: ProblemSettings,
    first: int,
    model: ModelSettings,
    settings: RolloutSettings,
    sandbox: SandboxSettings,
    seed: int,
) -> None:
    """Samples of each source policy on this iteration's fresh prompts, `first` onwards (mixture sampling, sec. 3.1)."""
    count = problems.prompts_per_iteration
    prompts = load_problems(problems, "preference", first + count, seed)[first:]
    trajectories: list[Trajectory] = []
    pool = kept_pool(sandbox)
    for policy, samples in sources:
        if samples == 0:
            continue
        network = load_sampler(policy, model, settings.sampler)
        tokenizer = load_tokenizer(policy)
        progress = Progress(f"rollouts of {policy.name}", "trajectories")
        name = policy.name
        own = small_stream(seed, "rollout", name)
        trajectories += rollout(
            network, tokenizer, prompts, samples, settings, pool, policy=name, seed=own, progress=progress
        )
    save_trajectories(folder / "trajectories.jsonl", trajectories)


def make_preference_pairs(folder: Path, rollouts: Product, settings: PairSettings, seed: int) -> None:
    """Pairs by the paper's rules; kept as places in the rollouts, whose token ids stay the only copy."""
    trajectories = load_trajectories(rollouts.path / "trajectories.jsonl")
    pairs, report = make_pairs(trajectories, settings, seed)
    place = {id(trajectory): number for number, trajectory in enumerate(trajectories)}
    rows = [{"chosen": place[id(pair.chosen)], "rejected": place[id(pair.rejected)]} for pair in pairs]
    write_jsonl(folder / "pairs.jsonl", rows)
    write_json(folder / "report.json", asdict(report))


def load_pairs(pairs: Product, rollouts: Product) -> list[Pair]:
    """Pairs of one iteration with their trajectories."""
    trajectories = load_trajectories(rollouts.path / "trajectories.jsonl")
    rows = read_jsonl(pairs.path / "pairs.jsonl")
    return [Pair(trajectories[row["chosen"]], trajectories[row["rejected"]]) for row in rows]


def make_training(
    folder: Path,
    pairs: Product,
    rollouts: Product,
    initial: Policy,
    reference: Policy,
    settings: PreferenceSettings,
    model: ModelSettings,
    seed: int,
    noise: float = 0.0,
    sandbox: SandboxSettings | None = None,
) -> None:
    """One iteration of preference learning: an adapter at each of a few steps, and the log.

    `noise` and `sandbox` matter with `settings.stochastic_tool_correction`, which asks the tool again. More than one GPU
    shares the batches.
    """
    from mtdpo_lib.train import ask_again, margin_features, train_preference

    gpus = torch.cuda.device_count()
    if gpus > 1 and not settings.stochastic_tool_correction:
        from mtdpo_lib.experiment.processes import launch, write_job

        rows = read_jsonl(pairs.path / "pairs.jsonl")
        file = rollouts.path / "trajectories.jsonl"
        launch(write_job(folder, file, rows, initial, reference, settings, model, seed), gpus)
        return

    def luck(network: PeftModel, tokenizer: PreTrainedTokenizerBase, sides: Sequence[Trajectory]) -> Tensor:
        pool = kept_pool(sandbox)
        answers = ask_again(
            sides, pool, settings.stochastic_tool_correction, noise, small_stream(seed, "again")
        )
        return margin_features(network, tokenizer, sides, answers)

    network = load_for_training(initial, model, small_stream(seed, "adapter"))
    log = train_preference(
        folder,
        network,
        load_tokenizer(initial),
        load_pairs(pairs, rollouts),
        initial,
        reference,
        settings,
        model,
        small_stream(seed, "preference"),
        adaptive_margin=luck if settings.stochastic_tool_correction else None,
    )
    write_json(folder / "log.json", log)


def make_selection(
    folder: Path,
    training: Product,
    base: Policy,
    problems: ProblemSettings,
    model: ModelSettings,
    rollout_settings: RolloutSettings,
    evaluation: EvaluationSettings,
    sandbox: SandboxSettings,
    choice: str,
    seed: int,
) -> None:
    """Greedy accuracy of each kept step on development prompts, and the best one (the earlier of equals) or a random one."""
    prompts = load_problems(problems, "development", problems.development, DATA_SEED)
    steps = sorted(
        (path.name for path in training.path.glob("step-*")), key=lambda name: int(name.split("-")[1])
    )
    accuracies = {}
    pool = kept_pool(sandbox)
    for step in steps:
        policy = Policy(step, training, step, base)
        network = load_sampler(policy, model, rollout_settings.sampler)
        tokenizer = load_tokenizer(policy)
        outcomes = evaluate(
            network, tokenizer, prompts, rollout_settings, evaluation, pool, policy=step, seed=seed
        )
        accuracies[step] = round(accuracy(outcomes), 6)
    if choice == "random":
        chosen = random.Random(stream(seed, "checkpoint", training.name)).choice(steps)
    else:
        chosen = max(steps, key=lambda step: accuracies[step])
    write_json(folder / "selection.json", {"selected": chosen, "development": accuracies, "n": len(prompts)})
    shutil.copytree(training.path / chosen, folder / "adapter")


def make_evaluation(
    folder: Path,
    policy: Policy,
    split: str,
    problems: ProblemSettings,
    model: ModelSettings,
    rollout_settings: RolloutSettings,
    evaluation: EvaluationSettings,
    sandbox: SandboxSettings,
    seed: int,
) -> None:
    """Outcomes of a policy on the problems of `split`: greedy, and sampled at temperature 1 where the profile says so.

    `split` may also be the name of a published test set (`problems.benchmarks`); of it at most as many as of the test
    problems.
    """
    if split in BENCHMARKS:
        questions = load_benchmark(split, count=problems.test, seed=DATA_SEED)
    else:
        count = {"test": problems.test, "development": problems.development}[split]
        questions = load_problems(problems, split, count, DATA_SEED)
    network, tokenizer = load_sampler(policy, model, rollout_settings.sampler), load_tokenizer(policy)
    pool = kept_pool(sandbox)
    for name, samples, asked in (
        ("greedy", 0, questions),
        ("sampled", 1, questions[: evaluation.sampled]),
    ):
        if not asked:
            continue
        outcomes = evaluate(
            network,
            tokenizer,
            asked,
            rollout_settings,
            evaluation,
            pool,
            policy=policy.name,
            seed=small_stream(seed, "evaluate", split),
            samples=samples,
        )
        save_outcomes(folder / f"{name}.jsonl", outcomes)
