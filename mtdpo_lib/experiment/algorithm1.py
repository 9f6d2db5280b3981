"""Algorithm 1 of the paper as a graph of kept stages: demonstrations, SFT, and rounds of rollout, pairs, training.

An `Experiment` belongs to one profile, seed and folder. Asking it for a product makes the product or finds it again; in a
notebook it makes only what that notebook is about and says which notebook to run for the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtdpo_lib.common.stages import Product, StageStore
from mtdpo_lib.experiment.steps import (
    DATA_SEED,
    make_base,
    make_demonstrations,
    make_evaluation,
    make_preference_pairs,
    make_rollouts,
    make_selection,
    make_sft,
    make_training,
)
from mtdpo_lib.models.policy import Policy
from mtdpo_lib.problems import load_problems
from mtdpo_lib.problems.base import Problem
from mtdpo_lib.profiles.sections import ModelSettings, ProblemSettings, Profile
from mtdpo_lib.rollout.evaluate import Outcome, load_outcomes

# --- The graph. ---

# Which notebook makes what. Iteration 1 is made step by step in 04 and 05; 06 makes the rest of the main run.
NOTEBOOK_OF = {
    "demonstrations": "02_sft",
    "base": "02_sft",
    "sft": "02_sft",
    "evaluation/sft": "02_sft",
    "evaluation/sft-early": "02_sft",
    "rollouts/1": "04_rollouts_and_answers",
    "pairs/1": "05_preference_pairs",
}
MAIN_RUN = "06_multi_turn_dpo"


@dataclass(frozen=True)
class Iteration:
    """What one iteration used and made."""

    number: int
    policy: Policy
    initial: Policy
    reference: Policy
    sources: tuple[tuple[Policy, int], ...]
    rollouts: Product
    pairs: Product
    training: Product
    selection: Product


class Experiment:
    """Algorithm 1 for one profile and seed, its products kept under `out`.

    Args:
        profile: all settings.
        seed: of everything random.
        out: the run's folder; products lie in ``out/stages``, records in ``out/records``.
        notebook: makes only this notebook's products and requires the others'; None makes everything.

    See: notebook 00_start_here.
    """

    def __init__(self, profile: Profile, seed: int, out: Path | str, notebook: str | None = None):
        self.profile, self.seed, self.out, self.notebook = profile, seed, Path(out), notebook
        self.store = StageStore(self.out / "stages")
        self.made: list[Product] = []

    def _get(self, name: str, work: Any, inputs: dict[str, Any], notebook: str | None = None) -> Product:
        owner = notebook or NOTEBOOK_OF.get(name, MAIN_RUN)
        if self.notebook is None or owner == self.notebook:
            product = self.store.make(name, work, inputs)
        else:
            product = self.store.require(name, inputs, owner)
        self.made.append(product)
        return product

    def seconds(self) -> float:
        """Computing time of all products asked for so far, kept ones included, in seconds."""
        return sum(self.store.seconds(product) for product in dict.fromkeys(self.made))

    # Ingredients

    @property
    def is_tiny(self) -> bool:
        return self.profile.model.base == "tiny"

    def test_problems(self) -> list[Problem]:
        """The test problems, the same for every seed."""
        return load_problems(self.profile.problems, "test", self.profile.problems.test, DATA_SEED)

    def prompts(self, iteration: int) -> list[Problem]:
        """The fresh preference prompts of an iteration."""
        count = self.profile.problems.prompts_per_iteration
        return load_problems(self.profile.problems, "preference", iteration * count, self.seed)[-count:]

    def demonstrations(self) -> Product:
        """The teacher's demonstrations: ``demonstrations.jsonl`` and ``counts.json``."""
        inputs = {
            "problems": self._demonstration_settings(),
            "sandbox": self.profile.sandbox,
            "seed": self.seed,
        }
        return self._get("demonstrations", make_demonstrations, inputs)

    def _demonstration_settings(self) -> ProblemSettings:
        """Only what demonstrations depend on: other counts must not make them anew."""
        return replace(self.profile.problems, prompts_per_iteration=1, development=1, test=1)

    def _prompt_settings(self) -> ProblemSettings:
        return replace(self.profile.problems, demonstrations=1, development=1, test=1, log_lines=0)

    def _question_settings(self, split: str) -> ProblemSettings:
        other = "test" if split == "development" else "development"  # which this evaluation does not ask
        counts = {"demonstrations": 1, "prompts_per_iteration": 1, other: 1}
        return replace(self.profile.problems, log_lines=0, **counts)

    def base(self) -> Policy | None:
        """The pretrained base; None for the tiny model, which SFT trains from nothing."""
        if self.is_tiny:
            return None
        return Policy("base", self._get("base", make_base, {"model": self._base_settings()}))

    def _base_settings(self) -> ModelSettings:
        model = self.profile.model
        return replace(ModelSettings(), base=model.base, dtype=model.dtype, template=model.template)

    def sft(self) -> Product:
        """SFT: ``late`` and ``early`` checkpoints, ``log.json`` and ``facts.json``."""
        inputs = {
            "demonstrations": self.demonstrations(),
            "base": self.base(),
            "model": self.profile.model,
            "sft": self.profile.sft,
            "max_tokens": self.profile.rollout.max_tokens,
            "seed": self.seed,
        }
        return self._get("sft", make_sft, inputs)

    def sft_policy(self, part: str = "late") -> Policy:
        """The SFT policy pi_0 (`part` "late"), or the one that iteration 1 also samples from ("early")."""
        name = "sft" if part == "late" else "sft-early"
        return Policy(name, self.sft(), part, self.base(), arm="sft", iteration=0)

    def base_of(self, policy: Policy) -> Policy:
        """The whole model under a policy."""
        return policy.base or policy

    # One iteration

    def rollouts(
        self, number: int, sources: Sequence[tuple[Policy, int]], notebook: str | None = None
    ) -> Product:
        """Trajectories of iteration `number` from each source policy."""
        settings = replace(self.profile.rollout, samples_current=1, samples_previous=1)
        inputs = {
            "sources": [(policy, samples) for policy, samples in sources],
            "problems": self._prompt_settings(),
            "first": (number - 1) * self.profile.problems.prompts_per_iteration,
            "model": self.profile.model,
            "settings": settings,
            "sandbox": self.profile.sandbox,
            "seed": self.seed,
        }
        return self._get(f"rollouts/{number}", make_rollouts, inputs, notebook)

    def pairs(self, number: int, rollouts: Product, notebook: str | None = None) -> Product:
        """Preference pairs from an iteration's trajectories."""
        inputs = {"rollouts": rollouts, "settings": self.profile.pairs, "seed": self.seed}
        return self._get(f"pairs/{number}", make_preference_pairs, inputs, notebook)

    def sources(
        self, number: int, policies: Sequence[Policy], mixture: bool = True
    ) -> list[tuple[Policy, int]]:
        """Who samples in iteration `number`: the current and the previous policy (sec. 3.1), or the current one only.

        Args:
            number: iteration, from 1.
            policies: SFT and every iteration's policy so far; the last is the current one.
            mixture: False gives the same number of samples, all from the current policy.
        """
        settings = self.profile.rollout
        if not mixture:
            return [(policies[-1], settings.samples_current + settings.samples_previous)]
        previous = policies[-2] if number > 1 else self.sft_policy("early")
        return [(policies[-1], settings.samples_current), (previous, settings.samples_previous)]

    def iteration(
        self,
        number: int,
        policies: Sequence[Policy],
        *,
        name: str | None = None,
        mixture: bool = True,
        notebook: str | None = None,
        **changes: Any,
    ) -> Iteration:
        """One iteration from the last of `policies`.

        Args:
            number: iteration, from 1.
            policies: the SFT policy and every iteration's policy so far.
            name: of the new policy; default ``<method>-<number>``.
            mixture: sample from the previous policy too.
            notebook: the one that makes what this call trains; default the main run's.
            changes: preference settings that differ from the profile's, e.g. ``reference="fixed"``.

        Returns:
            Everything the iteration used and made; `policy` is the new one.
        """
        settings = replace(self.profile.preference, **changes)
        initial = policies[-1]
        reference = policies[0] if settings.reference == "fixed" else initial
        sources = self.sources(number, policies, mixture)
        sampled_by = None if mixture else notebook
        rollouts = self.rollouts(number, sources, sampled_by)
        pairs = self.pairs(number, rollouts, sampled_by)
        inputs = {
            "pairs": pairs,
            "rollouts": rollouts,
            "initial": initial,
            "reference": reference,
            # The reference itself is an input, its word is not; and the choice comes later.
            "settings": replace(settings, reference="updated", checkpoint_choice="best"),
            "model": self.profile.model,
            "seed": self.seed,
        }
        if settings.stochastic_tool_correction:
            inputs |= {"noise": self.profile.rollout.tool_noise, "sandbox": self.profile.sandbox}
        training = self._get(f"training/{number}", make_training, inputs, notebook)
        selection_inputs = {
            "training": training,
            "base": self.base_of(initial),
            "problems": self._question_settings("development"),
            "model": self.profile.model,
            "rollout_settings": self.profile.rollout,
            "evaluation": replace(self.profile.evaluation, bootstrap=1),
            "sandbox": self.profile.sandbox,
            "choice": settings.checkpoint_choice,
            "seed": self.seed,
        }
        selection = self._get(f"selection/{number}", make_selection, selection_inputs, notebook)
        own = name or f"{settings.method}-{number}"
        line = {"arm": settings.method, "iteration": number}
        policy = Policy(own, selection, "adapter", self.base_of(initial), **line)
        return Iteration(
            number, policy, initial, reference, tuple(sources), rollouts, pairs, training, selection
        )

    def run(self) -> list[Iteration]:
        """All iterations of the main run, in order."""
        policies, iterations = [self.sft_policy()], []
        for number in range(1, self.profile.iterations + 1):
            iterations.append(self.iteration(number, policies))
            policies.append(iterations[-1].policy)
        return iterations

    # Results

    def outcomes(
        self, policy: Policy, split: str = "test", notebook: str | None = None
    ) -> dict[str, list[Outcome]]:
        """Outcomes of `policy`: "greedy", and "sampled" where the profile samples; `split` as in `make_evaluation`."""
        product = self.evaluation(policy, split, notebook)
        return {file.stem: load_outcomes(file) for file in sorted(product.path.glob("*.jsonl"))}

    def evaluation(self, policy: Policy, split: str = "test", notebook: str | None = None) -> Product:
        """The product that `outcomes` reads."""
        inputs = {
            "policy": policy,
            "split": split,
            "problems": self._question_settings(split),
            "model": self.profile.model,
            "rollout_settings": self.profile.rollout,
            "evaluation": replace(self.profile.evaluation, bootstrap=1),
            "sandbox": self.profile.sandbox,
            "seed": self.seed,
        }
        return self._get(f"evaluation/{policy.name}", make_evaluation, inputs, notebook)

    def passport(self, iteration: Iteration) -> dict[str, Any]:
        """Where an iteration came from: policies, data, temperature, what was kept and dropped, the checkpoint chosen."""
        report = json.loads((iteration.pairs.path / "report.json").read_text(encoding="utf8"))
        selection = json.loads((iteration.selection.path / "selection.json").read_text(encoding="utf8"))
        return {
            "iteration": iteration.number,
            "policy": iteration.policy.name,
            "initial policy": iteration.initial.name,
            "reference": iteration.reference.name,
            "data source": [
                {"policy": policy.name, "samples a prompt": count}
                for policy, count in iteration.sources
                if count
            ],
            "temperature": self.profile.rollout.temperature,
            "prompts": self.profile.problems.prompts_per_iteration,
            "trajectories": report["trajectories"],
            "pairs": report["pairs"],
            "prompts by fate": report["prompts"],
            "dropped": report["dropped_trajectories"],
            "development": selection["development"],
            "selected": selection["selected"],
        }
