"""Algorithm 1 of the paper as a graph of kept stages: demonstrations, SFT, and rounds of rollout, pairs, training.

An `Experiment` belongs to one profile, seed and folder. Asking it for a product makes the product or finds it again; in a
notebook it makes only what that notebook is about and says which notebook to run for the rest.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mtdpo_lib.common.seeds import stream31
from mtdpo_lib.common.stages import Product, StageStore
from mtdpo_lib.experiment import steps
from mtdpo_lib.experiment.check import check_start
from mtdpo_lib.models.bases import content
from mtdpo_lib.models.policy import Policy
from mtdpo_lib.problems import Problem, Questions
from mtdpo_lib.profiles import Profile
from mtdpo_lib.rollout.evaluate import Outcome

# Development and test problems are the same in every run, so that runs are compared on the same questions.
DATA_SEED = 0

# Which notebook makes what. Iteration 1 is made step by step in 04 and 05; 06 makes the rest of the main run.
NOTEBOOK_OF = {
    **dict.fromkeys(("demonstrations", "base", "sft", "evaluation/sft", "evaluation/sft-early"), "02_sft"),
    "rollouts/1": "04_rollouts_and_answers",
    "pairs/1": "05_preference_pairs",
}
MAIN_RUN = "06_multi_turn_dpo"

Sources = Sequence[tuple[Policy, int]]


@dataclass(frozen=True)
class Iteration:
    """What one iteration used and made.

    Its passport answers where a policy came from. Here its stages are only named, not made:

    >>> from types import SimpleNamespace as Made
    >>> from mtdpo_lib.profiles import sections
    >>> first, new = (Policy(name, Product(name, "key", Path())) for name in ("sft", "mdpo-1"))
    >>> setup = steps.Sampling(sections.ModelSettings(), sections.RolloutSettings(), sections.SandboxSettings(), seed=0)
    >>> rollouts = steps.Rollouts("rollouts/1", "key", Path(), {"sampling": setup, "questions": Questions("preference", 8)})
    >>> report = {"trajectories": {"right": 30}, "pairs": 5, "prompts": {"paired": 5}, "dropped_trajectories": {}}
    >>> kept = Made(development={"step-9": 0.5}, selected="step-9")
    >>> iteration = Iteration(1, new, first, first, [(first, 6)], rollouts, Made(report=report), Made(), kept)
    >>> passport = iteration.passport
    >>> passport["policy"], passport["reference"], passport["data source"], passport["prompts"], passport["selected"]
    ('mdpo-1', 'sft', [{'policy': 'sft', 'samples a prompt': 6}], 8, 'step-9')
    """

    number: int
    policy: Policy
    initial: Policy
    reference: Policy
    sources: Sources
    rollouts: steps.Rollouts
    pairs: steps.Pairs
    training: steps.Training
    selection: steps.Selection

    @property
    def passport(self) -> dict[str, Any]:
        """Where it came from: policies, data, temperature, what was kept and dropped, the checkpoint chosen."""
        report, selection = self.pairs.report, self.selection
        sampled = self.rollouts.inputs
        return {
            "iteration": self.number,
            "policy": self.policy.name,
            "initial policy": self.initial.name,
            "reference": self.reference.name,
            "data source": [
                {"policy": policy.name, "samples a prompt": n} for policy, n in self.sources if n
            ],
            "temperature": sampled["sampling"].rollout.temperature,
            "prompts": sampled["questions"].count,
            "trajectories": report["trajectories"],
            "pairs": report["pairs"],
            "prompts by fate": report["prompts"],
            "dropped": report["dropped_trajectories"],
            "development": selection.development,
            "selected": selection.selected,
        }


class Experiment:
    """Algorithm 1 for one profile and seed, its products kept under `out`.

    Args:
        profile: all settings.
        seed: of everything random.
        out: the run's folder; products lie in ``out/stages``, records in ``out/records``.
        notebook: makes only this notebook's products and requires the others'; None makes everything.

    What is asked for is made, and found again when it is asked for a second time:

    >>> import tempfile
    >>> from mtdpo_lib.profiles import get_profile
    >>> profile = get_profile("smoke", "problems.demonstrations=4")
    >>> experiment = Experiment(profile, seed=0, out=tempfile.mkdtemp())
    >>> made = experiment.demonstrations()
    >>> made.counts["total"], made == experiment.demonstrations()
    (4, True)

    See: notebook 00_start_here.
    """

    def __init__(self, profile: Profile, seed: int, out: Path | str, notebook: str | None = None):
        self.profile, self.seed, self.out, self.notebook = profile, seed, Path(out), notebook
        self.store = StageStore.of_run(self.out)
        self.made: list[Product] = []

    def make[S: Product](self, stage: type[S], name: str, notebook: str | None = None, **given: Any) -> S:
        """The product of `stage`, made by `notebook`.

        Args:
            stage: says in the signature of its ``make`` what it needs: `given`, sections of the profile, and the seed.
            name: of the product, as in `NOTEBOOK_OF`.
            notebook: the one that makes it; default by its name.
            given: what is particular to this product.
        """
        wanted = list(inspect.signature(stage.make).parameters)[1:]  # the first one is the folder
        profile = self.profile
        sampling = steps.Sampling(profile.model, profile.rollout, profile.sandbox, self.seed)
        common = {**vars(profile), "sampling": sampling, "seed": self.seed}
        inputs = {item: given[item] if item in given else common[item] for item in wanted}
        product = self._find(stage, name, inputs, notebook or NOTEBOOK_OF.get(name, MAIN_RUN))
        self.made.append(product)
        return product

    def _find[S: Product](self, stage: type[S], name: str, inputs: dict[str, Any], owner: str) -> S:
        if self.notebook is None or owner == self.notebook:
            return self.store.make(stage, name, inputs)
        return self.store.require(stage, name, inputs, owner)

    def seconds(self) -> float:
        """Computing time of all products asked for so far, kept ones included, in seconds."""
        return sum(self.store.seconds(product) for product in dict.fromkeys(self.made))

    # Ingredients

    @property
    def is_tiny(self) -> bool:
        return self.profile.model.is_tiny

    def questions(self, split: str = "test") -> Questions:
        """The test or development problems, or those of a published test set; the same for every seed."""
        problems = self.profile.problems
        count = problems.development if split == "development" else problems.test
        return Questions.of(problems, split, count, DATA_SEED)

    def test_problems(self) -> list[Problem]:
        """The test problems, the same for every seed."""
        return self.questions().load()

    def _prompts(self, iteration: int) -> Questions:
        problems, count = self.profile.problems, self.profile.problems.prompts_per_iteration
        return Questions.of(problems, "preference", count, self.seed, first=(iteration - 1) * count)

    def prompts(self, iteration: int) -> list[Problem]:
        """The fresh preference prompts of an iteration."""
        return self._prompts(iteration).load()

    def demonstrations(self) -> steps.Demonstrations:
        """The teacher's demonstrations."""
        problems = self.profile.problems
        questions = Questions.of(problems, "demonstrations", problems.demonstrations, self.seed)
        given = {
            "questions": questions, "each": problems.demonstrations_each, "wordings": problems.wordings,
            "log_lines": problems.log_lines,
        }  # fmt: skip
        return self.make(steps.Demonstrations, "demonstrations", **given)

    def base(self) -> Policy | None:
        """The pretrained base; None for the tiny model, which SFT trains from nothing."""
        if self.profile.model.base == "tiny":
            return None
        model = self.profile.model
        product = self.make(
            steps.Base,
            "base",
            base=model.base,
            content=content(model.base),
            dtype=model.dtype,
            template=model.template,
        )
        return Policy("base", product, arm="base")

    def sft(self) -> steps.SFT:
        """SFT, with a part for each epoch."""
        given = {"demonstrations": self.demonstrations(), "base": self.base()}
        return self.make(steps.SFT, "sft", max_tokens=self.profile.rollout.max_tokens, **given)

    def sft_policy(self, part: str = "late") -> Policy:
        """The SFT policy pi_0 (`part` "late"), or the one that iteration 1 also samples from ("early").

        The early one is the same however early pi_0 is taken (``sft.start_epochs``).
        """
        settings, name = self.profile.sft, "sft" if part == "late" else "sft-early"
        epochs = settings.start_epochs or settings.epochs if part == "late" else settings.early_epochs
        base = None if self.profile.model.trains_all else self.base()
        return Policy(name, self.sft(), f"epoch-{epochs:g}", base, arm=name, iteration=0)

    def base_of(self, policy: Policy) -> Policy | None:
        """The whole model under the adapters that a policy is trained to; None where whole models are trained."""
        return None if self.profile.model.trains_all else policy.base or policy

    # One iteration

    def rollouts(self, number: int, sources: Sources, notebook: str | None = None) -> steps.Rollouts:
        """Trajectories of iteration `number` from each source policy."""
        seed = stream31(self.seed, "rollouts", number, self.profile.rollout.replicate)
        given = {"sources": sources, "questions": self._prompts(number), "seed": seed}
        return self.make(steps.Rollouts, f"rollouts/{number}", notebook, **given)

    def pairs(self, number: int, rollouts: steps.Rollouts, notebook: str | None = None) -> steps.Pairs:
        """Preference pairs from an iteration's trajectories."""
        return self.make(steps.Pairs, f"pairs/{number}", notebook, rollouts=rollouts)

    def sources(self, number: int, policies: Sequence[Policy]) -> Sources:
        """Who samples in iteration `number`, and how often: the current and mostly the previous policy (sec. 3.1).

        Args:
            number: iteration, from 1.
            policies: SFT and every iteration's policy so far; the last is the current one.
        """
        settings = self.profile.rollout
        current = (policies[-1], settings.samples_current)
        if not settings.samples_previous:
            return [current]
        return [
            current,
            (policies[-2] if number > 1 else self.sft_policy("early"), settings.samples_previous),
        ]

    def changed(self, **settings: Any) -> Self:
        """The same experiment with other settings of preference learning, sampling or pairs; the first that has one gets it.

        >>> from mtdpo_lib.profiles import get_profile
        >>> import tempfile
        >>> other = Experiment(get_profile("smoke"), 0, tempfile.mkdtemp()).changed(eta=0.1, temperature=0.7)
        >>> other.profile.preference.eta, other.profile.rollout.temperature
        (0.1, 0.7)
        """
        sections: dict[str, dict[str, Any]] = {"preference": {}, "rollout": {}, "pairs": {}}
        for name, value in settings.items():
            homes = (section for section in sections if hasattr(getattr(self.profile, section), name))
            sections[next(homes, "preference")][name] = value
        other = copy.copy(self)
        other.profile = self.profile.changed(**sections)
        return other

    def iteration(
        self, number: int, policies: Sequence[Policy], *, name: str = "", arm: str = "", notebook: str | None = None,
        **settings: Any,
    ) -> Iteration:  # fmt: skip
        """One iteration from the last of `policies`.

        Args:
            number: iteration, from 1.
            policies: the SFT policy and every iteration's policy so far.
            name: of the new policy; default ``<arm>-<number>``.
            arm: of the new policy; default the name without the number, or the method.
            notebook: the one that makes what this call trains, and samples where that differs; default the main run's.
            settings: what differs from the profile, as `changed` takes it: ``reference="fixed"``, ``temperature=0.7``, ...

        Returns:
            Everything the iteration used and made; `policy` is the new one.
        """
        own = self.changed(**settings)
        preference, initial = own.profile.preference, policies[-1]
        arm = arm or name.replace(f"-{number}", "", 1) or preference.method
        reference = policies[0] if preference.reference == "fixed" else initial
        same_data = (own.profile.rollout, own.profile.pairs) == (self.profile.rollout, self.profile.pairs)
        sources, sampled_by = own.sources(number, policies), None if same_data else notebook
        rollouts = own.rollouts(number, sources, sampled_by)
        pairs = own.pairs(number, rollouts, sampled_by)
        if number == 1 and self.store.is_kept(pairs):  # a plan makes none
            verdicts = pairs.report["trajectories"]
            check_start(verdicts["right"], sum(verdicts.values()), preference.least_right)
        training = own.make(
            steps.Training, f"training/{number}", notebook, pairs=pairs, initial=initial, reference=reference
        )
        base = self.base_of(initial)
        selection = own.make(
            steps.Selection, f"selection/{number}", notebook, training=training, base=base,
            questions=self.questions("development"), choice=preference.checkpoint_choice,
        )  # fmt: skip
        policy = Policy(name or f"{arm}-{number}", selection, "adapter", base, arm, number)
        return Iteration(number, policy, initial, reference, sources, rollouts, pairs, training, selection)

    def run(self, arm: str = "") -> list[Iteration]:
        """All iterations of the main run, or of another `arm`, in order."""
        policies, iterations = [self.sft_policy()], list[Iteration]()
        for number in range(1, self.profile.iterations + 1):
            iterations.append(self.iteration(number, policies, arm=arm))
            policies.append(iterations[-1].policy)
        return iterations

    # Results

    def evaluation(
        self, policy: Policy, split: str = "test", notebook: str | None = None
    ) -> steps.Evaluation:
        """The evaluation of `policy` on `split`, which is one of ours or a published test set's name."""
        given = {"questions": self.questions(split), "sampled": self.profile.evaluation.sampled}
        return self.make(steps.Evaluation, f"evaluation/{policy.name}", notebook, policy=policy, **given)

    def outcomes(
        self, policy: Policy, split: str = "test", notebook: str | None = None
    ) -> dict[str, list[Outcome]]:
        """Outcomes of `policy` by kind: "greedy", and "sampled" where the profile samples."""
        return self.evaluation(policy, split, notebook).outcomes()
