"""The stages of Algorithm 1: what each is made from, in the signature of its ``make``, and what its readers give.

Each ``make`` gets only what decides its product and writes it into `folder`; only the stage itself knows the names of files.
`mtdpo_lib.common.stages` keeps products and finds them again.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtdpo_lib.common.files import read_json, read_jsonl, write_json, write_jsonl
from mtdpo_lib.common.progress import Progress
from mtdpo_lib.common.seeds import stream, stream31
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models.bases import prepare_base
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer
from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
from mtdpo_lib.pairs import Pair, make_pairs
from mtdpo_lib.problems import Demonstration, Questions, load_demonstrations
from mtdpo_lib.profiles import (
    EvaluationSettings,
    ModelSettings,
    PairSettings,
    PreferenceSettings,
    RolloutSettings,
    SandboxSettings,
    SFTSettings,
)
from mtdpo_lib.profiles.sections import Precision, Template
from mtdpo_lib.rollout import Trajectory, load_sampler, load_trajectories, save_trajectories
from mtdpo_lib.rollout import rollout as sample
from mtdpo_lib.rollout.evaluate import Outcome, accuracy, evaluate, load_outcomes, save_outcomes
from mtdpo_lib.sandbox import kept_pool

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


class Demonstrations(Product):
    """The teacher's demonstrations, its tool calls really executed.

    A stage by hand; an `mtdpo_lib.experiment.algorithm1.Experiment` keeps it and gives it its place:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> Demonstrations.make(folder, Questions("demonstrations", count=2), log_lines=0, sandbox=SandboxSettings())
    >>> made = Demonstrations("demonstrations", "key", folder)
    >>> made.counts["total"], [row.problem.suite for row in made.rows()]
    (2, ['gsm-like', 'math-like'])
    """

    @staticmethod
    def make(folder: Path, questions: Questions, log_lines: int, sandbox: SandboxSettings) -> None:
        """Demonstrations of `questions`, the tool's results below a log of up to `log_lines`."""
        settings = replace(questions.world, demonstrations=questions.count, log_lines=log_lines)
        session = kept_pool(sandbox).session
        rows, counts = load_demonstrations(settings, questions.seed, session, Progress("demonstrations"))
        write_jsonl(folder / "demonstrations.jsonl", map(asdict, rows))
        write_json(folder / "counts.json", counts)

    def rows(self) -> list[Demonstration]:
        return [Demonstration.from_dict(row) for row in read_jsonl(self.path / "demonstrations.jsonl")]

    @property
    def counts(self) -> Row:
        """How many, and how many right, by suite, family and strategy; what was dropped, and why."""
        return read_json(self.path / "counts.json")


class Base(Product):
    """The pretrained base, loadable from one folder."""

    @staticmethod
    def make(folder: Path, base: str, dtype: Precision, template: Template) -> None:
        prepare_base(folder, ModelSettings(base=base, dtype=dtype, template=template))


class SFT(Product):
    """SFT from random weights (`base` None, with a tokenizer of its own) or of a new adapter on a pretrained base.

    Its folder holds two policies, ``late`` and ``early``.
    """

    @staticmethod
    def make(
        folder: Path, demonstrations: Demonstrations, base: Policy | None, model: ModelSettings, sft: SFTSettings,
        max_tokens: int, seed: int,
    ) -> None:  # fmt: skip
        from mtdpo_lib.train import sft_dataset, train_sft  # TRL takes seconds to import

        rows = demonstrations.rows()
        if base is None:
            texts = [message["content"] for row in rows for message in row.messages]
            tokenizer = train_tokenizer(texts, model.vocabulary)
            network = tiny_model(model, tokenizer, max_tokens, stream31(seed, "weights"))
        else:
            tokenizer = load_tokenizer(base)
            network = load_for_training(base, model, stream31(seed, "adapter"))
        dataset = sft_dataset(rows, tokenizer, max_tokens)
        log = train_sft(folder, network, tokenizer, dataset, sft, model, stream31(seed, "sft"))
        write_json(folder / "log.json", log)
        write_json(folder / "facts.json", _facts(dataset, len(rows), network))

    @property
    def log(self) -> list[Row]:
        """One row per logged step."""
        return read_json(self.path / "log.json")

    @property
    def facts(self) -> dict[str, int]:
        """Sizes of the data and the model."""
        return read_json(self.path / "facts.json")


def _facts(dataset: Dataset, demonstrations: int, network: torch.nn.Module) -> dict[str, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return {
        "demonstrations": len(dataset),
        "longer than the limit": demonstrations - len(dataset),
        "tokens": sum(map(len, dataset["input_ids"])),
        "scored tokens": sum(sum(label != -100 for label in row) for row in dataset["labels"]),
        "parameters": sum(size for size, _ in sizes),
        "trained parameters": sum(size for size, is_trained in sizes if is_trained),
    }


class Rollouts(Product):
    """Samples of each source policy on an iteration's fresh prompts.

    **Paper:** mixture sampling, sec. 3.1.
    """

    @staticmethod
    def make(
        folder: Path, sources: Sequence[tuple[Policy, int]], questions: Questions, model: ModelSettings,
        rollout: RolloutSettings, sandbox: SandboxSettings, seed: int,
    ) -> None:  # fmt: skip
        prompts, pool = questions.load(), kept_pool(sandbox)
        trajectories: list[Trajectory] = []
        for policy, samples in sources:
            if samples:
                network, tokenizer = load_sampler(policy, model, rollout.sampler), load_tokenizer(policy)
                trajectories += sample(
                    network, tokenizer, prompts, samples, rollout, pool, policy=policy.name,
                    seed=stream31(seed, "rollout", policy.name),
                    progress=Progress(f"rollouts of {policy.name}", "trajectories"),
                )  # fmt: skip
        save_trajectories(folder / "trajectories.jsonl", trajectories)

    def trajectories(self) -> list[Trajectory]:
        return load_trajectories(self.path / "trajectories.jsonl")


class Pairs(Product):
    """Preference pairs of an iteration's rollouts by the paper's rules.

    Kept as positions in the rollouts, whose token ids stay the only copy.
    """

    @staticmethod
    def make(folder: Path, rollouts: Rollouts, pairs: PairSettings, seed: int) -> None:
        trajectories = rollouts.trajectories()
        made, report = make_pairs(trajectories, pairs, seed)
        position = {id(trajectory): number for number, trajectory in enumerate(trajectories)}
        rows = [
            {"chosen": position[id(pair.chosen)], "rejected": position[id(pair.rejected)]} for pair in made
        ]
        write_jsonl(folder / "pairs.jsonl", rows)
        write_json(folder / "report.json", asdict(report))

    def pairs(self) -> list[Pair]:
        """The pairs with their trajectories."""
        trajectories = self.inputs["rollouts"].trajectories()
        rows = read_jsonl(self.path / "pairs.jsonl")
        return [Pair(trajectories[row["chosen"]], trajectories[row["rejected"]]) for row in rows]

    @property
    def report(self) -> Row:
        """What became of every trajectory and prompt: `mtdpo_lib.pairs.PairReport` as a dictionary."""
        return read_json(self.path / "report.json")


class Training(Product):
    """One iteration of preference learning: an adapter at each of a few steps, and the log."""

    @staticmethod
    def make(
        folder: Path, pairs: Pairs, initial: Policy, reference: Policy, preference: PreferenceSettings,
        model: ModelSettings, noise: float, sandbox: SandboxSettings, seed: int,
    ) -> None:  # fmt: skip
        """`noise` and `sandbox` matter with ``stochastic_tool_correction``, which asks the tool again.

        More than one GPU shares the batches.
        """
        from mtdpo_lib.experiment.processes import PreferenceJob, launch
        from mtdpo_lib.train import ask_again, margin_features

        job = PreferenceJob(folder, pairs.pairs(), initial, reference, preference, model, seed)
        answers = preference.stochastic_tool_correction

        def adaptive_margin(
            network: PeftModel, tokenizer: PreTrainedTokenizerBase, sides: Sequence[Trajectory]
        ) -> Tensor:
            again = ask_again(sides, kept_pool(sandbox), answers, noise, stream31(seed, "again"))
            return margin_features(network, tokenizer, sides, again)

        gpus = torch.cuda.device_count()
        log = launch(job, gpus) if gpus > 1 and not answers else job.run(adaptive_margin if answers else None)
        write_json(folder / "log.json", log)

    @property
    def log(self) -> list[Row]:
        """One row per step."""
        return read_json(self.path / "log.json")

    @property
    def steps(self) -> list[str]:
        """Names of the kept steps, which are parts of this product, in order."""
        names = (path.name for path in self.path.glob("step-*"))
        return sorted(names, key=lambda name: int(name.split("-")[1]))


class Selection(Product):
    """Greedy accuracy of each kept step on development prompts, and one step's adapter as the part ``adapter``."""

    @staticmethod
    def make(
        folder: Path, training: Training, base: Policy, questions: Questions, model: ModelSettings,
        rollout: RolloutSettings, evaluation: EvaluationSettings, sandbox: SandboxSettings, choice: str, seed: int,
    ) -> None:  # fmt: skip
        """`choice` "best" takes the best step (the earlier of equals), "random" any."""
        prompts, pool, steps = questions.load(), kept_pool(sandbox), training.steps
        development = {}
        for step in steps:
            policy = Policy(step, training, step, base)
            network, tokenizer = load_sampler(policy, model, rollout.sampler), load_tokenizer(policy)
            outcomes = evaluate(
                network, tokenizer, prompts, rollout, evaluation, pool, policy=step, seed=seed
            )
            development[step] = round(accuracy(outcomes), 6)
        if choice == "random":
            selected = random.Random(stream(seed, "checkpoint", training.name)).choice(steps)
        else:
            selected = max(steps, key=lambda step: development[step])
        write_json(
            folder / "selection.json", {"selected": selected, "development": development, "n": len(prompts)}
        )
        shutil.copytree(training.path / selected, folder / "adapter")

    @property
    def selected(self) -> str:
        return read_json(self.path / "selection.json")["selected"]

    @property
    def development(self) -> dict[str, float]:
        """Accuracy of each step on the development prompts, a fraction."""
        return read_json(self.path / "selection.json")["development"]

    @property
    def n(self) -> int:
        """Number of development prompts."""
        return read_json(self.path / "selection.json")["n"]


class Evaluation(Product):
    """Outcomes of a policy: greedy on all questions, and sampled at temperature 1 on the first `sampled` of them."""

    @staticmethod
    def make(
        folder: Path, policy: Policy, questions: Questions, model: ModelSettings, rollout: RolloutSettings,
        evaluation: EvaluationSettings, sandbox: SandboxSettings, sampled: int, seed: int,
    ) -> None:  # fmt: skip
        problems, pool = questions.load(), kept_pool(sandbox)
        network, tokenizer = load_sampler(policy, model, rollout.sampler), load_tokenizer(policy)
        own = stream31(seed, "evaluate", questions.split)
        for kind, samples, asked in (("greedy", 0, problems), ("sampled", 1, problems[:sampled])):
            if asked:
                outcomes = evaluate(
                    network, tokenizer, asked, rollout, evaluation, pool, policy=policy.name, seed=own, samples=samples
                )  # fmt: skip
                save_outcomes(folder / f"{kind}.jsonl", outcomes)

    def outcomes(self) -> dict[str, list[Outcome]]:
        """Outcomes by kind, "greedy" and, where some were sampled, "sampled"."""
        return {file.stem: load_outcomes(file) for file in sorted(self.path.glob("*.jsonl"))}


class ManySamples(Product):
    """How many of many samples are right, for each of some questions that are spread evenly over all."""

    @staticmethod
    def make(
        folder: Path, policy: Policy, questions: Questions, asked: int, samples: int, temperature: float,
        model: ModelSettings, rollout: RolloutSettings, sandbox: SandboxSettings, seed: int,
    ) -> None:  # fmt: skip
        problems = questions.load()
        problems = problems[:: max(len(problems) // asked, 1)][:asked]
        network, tokenizer = load_sampler(policy, model, rollout.sampler), load_tokenizer(policy)
        rows = sample(
            network, tokenizer, problems, samples, rollout, kept_pool(sandbox), policy=policy.name,
            seed=stream31(seed, "pass"), temperature=temperature,
            progress=Progress(f"pass@n of {policy.name}", "trajectories"),
        )  # fmt: skip
        right = Counter(row.problem_id for row in rows if row.correct)
        write_json(folder / "right.json", [right[problem.id] for problem in problems])

    @property
    def right(self) -> list[int]:
        """Right samples of each question asked."""
        return read_json(self.path / "right.json")
