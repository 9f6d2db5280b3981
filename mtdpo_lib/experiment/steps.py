"""The stages of Algorithm 1: what each is made from, in the signature of its ``make``, and what its readers give.

Each ``make`` gets only what decides its product and writes it into `folder`; only the stage itself knows the names of files.
`mtdpo_lib.common.stages` keeps products and finds them again.
"""

from __future__ import annotations

import functools
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtdpo_lib.common.files import read_json, read_jsonl, write_json, write_jsonl
from mtdpo_lib.common.progress import Progress
from mtdpo_lib.common.seeds import stream, stream31
from mtdpo_lib.common.stages import UNFINISHED, Product
from mtdpo_lib.models.bases import prepare_base
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer
from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
from mtdpo_lib.pairs import Pair, make_pairs, right_trajectories
from mtdpo_lib.problems import Demonstration, Problem, Questions, load_demonstrations
from mtdpo_lib.profiles import sections
from mtdpo_lib.rollout import Journal, Trajectory, load_sampler, load_trajectories, rollout, save_trajectories
from mtdpo_lib.rollout.evaluate import Outcome, accuracy, evaluate, load_outcomes, save_outcomes
from mtdpo_lib.sandbox import kept_pool

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mtdpo_lib.rollout.vllm import TurnSampler

Row = dict[str, Any]
ROLES = ("current", "previous")  # of the policies that sample in one iteration


@dataclass(frozen=True)
class Sampling:
    """How policies are sampled: the model's precision, the limits of a trajectory, the tool, and the run's seed.

    All of it decides what a policy answers, so it is one input of every stage that samples.
    """

    model: sections.ModelSettings
    rollout: sections.RolloutSettings
    sandbox: sections.SandboxSettings
    seed: int

    def load(self, policy: Policy) -> tuple[PreTrainedModel | TurnSampler, PreTrainedTokenizerBase]:
        """The policy ready to sample, and its tokenizer."""
        return load_sampler(policy, self.model, self.rollout.sampler), load_tokenizer(policy)

    def sample(
        self, policy: Policy, problems: list[Problem], samples: int, what: str, seed: int,
        temperature: float | None = None, journal: Journal | None = None,
    ) -> list[Trajectory]:  # fmt: skip
        """`samples` trajectories per problem, at the profile's temperature unless one is given; `what` names them."""
        return rollout(
            *self.load(policy), problems, samples, self.rollout, kept_pool(self.sandbox), policy=policy.name, seed=seed,
            temperature=temperature, progress=Progress(f"{what} of {policy.name}", "trajectories"), journal=journal,
        )  # fmt: skip


class Demonstrations(Product):
    """The teacher's demonstrations, its tool calls really executed.

    A stage by hand; an `mtdpo_lib.experiment.algorithm1.Experiment` keeps it and gives it its place:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> questions, sandbox = Questions("demonstrations", count=2), sections.SandboxSettings()
    >>> Demonstrations.make(folder, questions, each=1, wordings=8, log_lines=0, sandbox=sandbox)
    >>> made = Demonstrations("demonstrations", "key", folder)
    >>> made.counts["total"], [row.problem.suite for row in made.rows()]
    (2, ['gsm-like', 'math-like'])
    """

    @staticmethod
    def make(
        folder: Path,
        questions: Questions,
        each: int,
        wordings: int,
        log_lines: int,
        sandbox: sections.SandboxSettings,
    ) -> None:
        """As many demonstrations as `questions` counts, the tool's results below a log of up to `log_lines`.

        `each` of a composed question, one after another, in interchangeable `wordings`.
        """
        own = {"demonstrations_each": each, "wordings": wordings, "log_lines": log_lines}
        settings = replace(questions.world, demonstrations=questions.count, **own)
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
    def make(
        folder: Path, base: str, content: str, dtype: sections.Precision, template: sections.Template
    ) -> None:
        """`content` says what the base is where its name alone does not."""
        prepare_base(folder, sections.ModelSettings(base=base, dtype=dtype, template=template))


class SFT(Product):
    """SFT from random weights (`base` None, with a tokenizer of its own) or of a new adapter on a pretrained base.

    Its folder holds the policies after every epoch and after a part of the first: ``epoch-1``, ``epoch-2``, ``epoch-0.2``.
    """

    @staticmethod
    def make(
        folder: Path, demonstrations: Demonstrations, base: Policy | None, model: sections.ModelSettings,
        sft: sections.SFTSettings, max_tokens: int, seed: int,
    ) -> None:  # fmt: skip
        from mtdpo_lib.experiment.processes import launch

        gpus = torch.cuda.device_count()
        given = (folder, demonstrations.rows(), base, model, sft, max_tokens, seed)
        train = functools.partial(_fine_tune, *given)
        log, facts = launch(train, gpus, "SFT") if gpus > 1 else train()
        write_json(folder / "log.json", log)
        write_json(folder / "facts.json", facts)

    @property
    def log(self) -> list[Row]:
        """One row per logged step."""
        return read_json(self.path / "log.json")

    @property
    def facts(self) -> dict[str, int]:
        """Sizes of the data and the model."""
        return read_json(self.path / "facts.json")


def _fine_tune(
    folder: Path, rows: Sequence[Demonstration], base: Policy | None, model: sections.ModelSettings,
    sft: sections.SFTSettings, max_tokens: int, seed: int,
) -> tuple[list[Row], dict[str, int]]:  # fmt: skip
    """What each process of SFT does: the log, and sizes of the data and the model."""
    from mtdpo_lib.train import sft_dataset, train_sft  # TRL takes seconds to import

    if base is None:
        texts = [message["content"] for row in rows for message in row.messages]
        tokenizer = train_tokenizer(texts, model.vocabulary)
        network = tiny_model(model, tokenizer, max_tokens, stream31(seed, "weights"))
    else:
        tokenizer = load_tokenizer(base)
        network = load_for_training(base, model, stream31(seed, "adapter"))
    dataset = sft_dataset(rows, tokenizer, max_tokens)
    log = train_sft(folder, network, tokenizer, dataset, sft, model, stream31(seed, "sft"))
    return log, _facts(dataset, len(rows), network)


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
    """Samples of the current policy, and mostly of the previous one, on an iteration's fresh prompts.

    Random numbers belong to the role of a policy, not to its name: two arms that sample in the same iteration draw the same
    ones, and the two policies of one iteration do not share theirs.

    **Paper:** mixture sampling, sec. 3.1.
    """

    @staticmethod
    def make(
        folder: Path, sources: Sequence[tuple[Policy, int]], questions: Questions, sampling: Sampling, seed: int
    ) -> None:  # fmt: skip
        prompts, trajectories = questions.load(), list[Trajectory]()
        for role, (policy, samples) in zip(ROLES, sources, strict=False):
            journal = Journal(folder / UNFINISHED, role)
            rows = sampling.sample(
                policy, prompts, samples, "rollouts", stream31(seed, role), journal=journal
            )
            trajectories += [replace(row, policy=role) for row in rows]
        save_trajectories(folder / "trajectories.jsonl", trajectories)

    def trajectories(self) -> list[Trajectory]:
        """All samples, with the names that their policies have where they are asked for."""
        names = dict(zip(ROLES, (policy.name for policy, _ in self.inputs["sources"]), strict=False))
        rows = load_trajectories(self.path / "trajectories.jsonl")
        return [replace(row, policy=names[row.policy]) for row in rows]


class Pairs(Product):
    """Preference pairs of an iteration's rollouts by the paper's rules, and the right trajectories that RAFT learns from.

    Kept as positions in the rollouts, whose token ids stay the only copy.
    """

    @staticmethod
    def make(folder: Path, rollouts: Rollouts, pairs: sections.PairSettings, seed: int) -> None:
        trajectories = rollouts.trajectories()
        made, report = make_pairs(trajectories, pairs, seed)
        position = {id(trajectory): number for number, trajectory in enumerate(trajectories)}
        rows = [
            {"chosen": position[id(pair.chosen)], "rejected": position[id(pair.rejected)]} for pair in made
        ]
        write_jsonl(folder / "pairs.jsonl", rows)
        right = right_trajectories(trajectories, pairs, seed)
        write_json(folder / "right.json", [position[id(trajectory)] for trajectory in right])
        write_json(folder / "report.json", asdict(report))

    def pairs(self) -> list[Pair]:
        """The pairs with their trajectories."""
        trajectories = self.inputs["rollouts"].trajectories()
        rows = read_jsonl(self.path / "pairs.jsonl")
        return [Pair(trajectories[row["chosen"]], trajectories[row["rejected"]]) for row in rows]

    def right(self) -> list[Trajectory]:
        """What RAFT learns from: right trajectories, also of prompts that give no pair."""
        trajectories = self.inputs["rollouts"].trajectories()
        return [trajectories[position] for position in read_json(self.path / "right.json")]

    @property
    def report(self) -> Row:
        """What became of every trajectory and prompt: `mtdpo_lib.pairs.PairReport` as a dictionary."""
        return read_json(self.path / "report.json")


class Training(Product):
    """One iteration of preference learning: an adapter at each of a few steps, and the log."""

    @staticmethod
    def make(
        folder: Path, pairs: Pairs, initial: Policy, reference: Policy, preference: sections.PreferenceSettings,
        sampling: Sampling,
    ) -> None:  # fmt: skip
        """`sampling` is that of the pairs: ``stochastic_tool_correction`` asks the same tool again.

        More than one GPU shares the batches.
        """
        from mtdpo_lib.experiment.processes import launch
        from mtdpo_lib.train import PreferenceJob, ask_again, margin_features, train_preference

        seed, answers = sampling.seed, preference.stochastic_tool_correction
        right = pairs.right() if preference.method == "raft" else ()
        job = PreferenceJob(
            folder, pairs.pairs(), initial, reference, preference, sampling.model, seed, right
        )

        def adaptive_margin(
            network: PeftModel, tokenizer: PreTrainedTokenizerBase, sides: Sequence[Trajectory]
        ) -> Tensor:
            noise = sampling.rollout.tool_noise
            again = ask_again(sides, kept_pool(sampling.sandbox), answers, noise, stream31(seed, "again"))
            return margin_features(network, tokenizer, sides, again)

        gpus, margin = torch.cuda.device_count(), adaptive_margin if answers else None
        train = functools.partial(train_preference, job, margin)
        log = launch(train, gpus, "Preference training") if gpus > 1 and margin is None else train()
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
        folder: Path, training: Training, base: Policy | None, questions: Questions, sampling: Sampling,
        evaluation: sections.EvaluationSettings, choice: str,
    ) -> None:  # fmt: skip
        """`choice` "best" takes the best step (the earlier of equals), "random" any."""
        prompts, pool, steps, development = questions.load(), kept_pool(sampling.sandbox), training.steps, {}
        for step in steps:
            loaded = sampling.load(Policy(step, training, step, base))
            outcomes = evaluate(
                *loaded, prompts, sampling.rollout, evaluation, pool, policy=step, seed=sampling.seed,
                journal=Journal(folder / UNFINISHED, step),
            )  # fmt: skip
            development[step] = round(accuracy(outcomes), 6)
        if choice == "random":
            selected = random.Random(stream(sampling.seed, "checkpoint", training.name)).choice(steps)
        else:
            selected = max(steps, key=lambda step: development[step])
        facts = {"selected": selected, "development": development, "n": len(prompts)}
        write_json(folder / "selection.json", facts)
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
        folder: Path, policy: Policy, questions: Questions, sampling: Sampling, evaluation: sections.EvaluationSettings,
        sampled: int,
    ) -> None:  # fmt: skip
        problems, pool, loaded = questions.load(), kept_pool(sampling.sandbox), sampling.load(policy)
        seed = stream31(sampling.seed, "evaluate", questions.split)
        for kind, samples, asked in (("greedy", 0, problems), ("sampled", 1, problems[:sampled])):
            if asked:
                outcomes = evaluate(
                    *loaded, asked, sampling.rollout, evaluation, pool, policy=policy.name, seed=seed, samples=samples,
                    journal=Journal(folder / UNFINISHED, kind),
                )  # fmt: skip
                save_outcomes(folder / f"{kind}.jsonl", outcomes)

    def outcomes(self) -> dict[str, list[Outcome]]:
        """Outcomes by kind, "greedy" and, where some were sampled, "sampled"."""
        return {file.stem: load_outcomes(file) for file in sorted(self.path.glob("*.jsonl"))}


class ManySamples(Product):
    """How many of many samples are right, for each of some questions, drawn from all: the same for every policy."""

    @staticmethod
    def make(
        folder: Path, policy: Policy, questions: Questions, asked: int, samples: int, temperature: float,
        sampling: Sampling,
    ) -> None:  # fmt: skip
        problems = random.Random(asked).sample(questions.load(), asked)
        rows = sampling.sample(
            policy, problems, samples, "pass@n", stream31(sampling.seed, "pass"), temperature,
            Journal(folder / UNFINISHED, "samples"),
        )  # fmt: skip
        right = Counter(row.problem_id for row in rows if row.correct)
        write_json(folder / "right.json", {problem.id: right[problem.id] for problem in problems})

    @property
    def right(self) -> dict[str, int]:
        """Right samples of each question asked, by the problem's id."""
        return read_json(self.path / "right.json")
