"""A study: arms of the method over seeds, each differing from another in one thing, from shared stages.

Arms of a seed share what they have in common (demonstrations, SFT, iteration 1's samples), because all keep their stages in
one folder under keys made from content. A study can be stopped and started at any point; seeds and arms can be added later.
Records stand for their stages: with ``arms/`` of a kept study in its folder, a study adds to it without making them again.

    python -m mtdpo_lib study --seeds 0-2 --arms mdpo,fixed --plan     what would be computed, and for how long
    python -m mtdpo_lib study --seeds 0-2 --arms mdpo,fixed            the same, computed

**Paper:** the comparisons of sec. 3.
"""

from __future__ import annotations

import os
import statistics
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mtdpo_lib.chat import Role
from mtdpo_lib.common.code_key import code_key
from mtdpo_lib.common.files import QUESTIONS, UnusableFolder, read_json, write_json
from mtdpo_lib.common.progress import Say, say
from mtdpo_lib.common.provenance import versions
from mtdpo_lib.common.seeds import digest
from mtdpo_lib.common.stages import Product, StageStore, seconds_by_kind
from mtdpo_lib.experiment.algorithm1 import DATA_SEED, Experiment, Iteration
from mtdpo_lib.experiment.arms import PASS_SHARE, PASS_TEMPERATURE, Arm, find_arm
from mtdpo_lib.experiment.check import check
from mtdpo_lib.experiment.parallel import run_here, run_on_ray
from mtdpo_lib.experiment.steps import ManySamples
from mtdpo_lib.models import Policy
from mtdpo_lib.problems import Questions
from mtdpo_lib.problems.supply import fitted
from mtdpo_lib.profiles import Profile, SettingError, get_profile, refuse_misfits, settings_hash
from mtdpo_lib.rollout import Trajectory, accuracy, outcome_string

Record = dict[str, Any]
Task = tuple[int, str]  # a seed and an arm, as `find_arm` reads it

# --- One arm of one seed ---


class ArmRun:
    """An arm of one seed: asking for it makes its products, or finds them again.

    Args:
        experiment: of the arm's own profile.
        arm: which.
        tested: its policies answer the test problems; without that, only the development problems.
    """

    def __init__(self, experiment: Experiment, arm: Arm, tested: bool = True):
        self.experiment = experiment
        self.iterations = experiment.run(arm.name)
        self.policies = [experiment.sft_policy(), *(iteration.policy for iteration in self.iterations)]
        self.start = experiment.evaluation(self.policies[0], "development")
        answering = self.policies if tested else []
        self.evaluations = {policy.name: experiment.evaluation(policy) for policy in answering}
        often = [self.policies[number] for number in arm.often]
        self.many = {policy.name: many_samples(experiment, policy) for policy in often}

    def validation(self) -> dict[str, float]:
        """Accuracy of every policy on the development problems, a fraction; Algorithm 1 gives back the best of them."""
        kept = (iteration.selection for iteration in self.iterations)
        shares = [accuracy(self.start.outcomes()["greedy"]), *(one.development[one.selected] for one in kept)]
        return {policy.name: round(share, 6) for policy, share in zip(self.policies, shares, strict=True)}

    def record(self) -> Record:
        """The arm's record but for its head."""
        greedy = {name: product.outcomes()["greedy"] for name, product in self.evaluations.items()}
        costs = [iteration_cost(iteration) for iteration in self.iterations]
        validation = self.validation()
        return {
            "questions": self.experiment.questions().fingerprint(),
            "outcomes": {name: outcome_string(rows) for name, rows in greedy.items()},
            "policies": [policy.name for policy in self.policies],
            "right of many": {name: list(product.right.values()) for name, product in self.many.items()},
            "samples of many": self.experiment.profile.evaluation.often_samples,
            "asked often": next((list(product.right) for product in self.many.values()), []),
            "validation": validation,
            "selected": max(validation, key=lambda name: validation[name]),  # the earlier of equals
            "development": self.iterations[-1].selection.development,
            "iterations": [iteration_facts(iteration) for iteration in self.iterations],
            "cost": {name: sum(cost[name] for cost in costs) for name in costs[0]},
            "seconds": round(self.experiment.seconds(), 1),
        }


def pass_questions(profile: Profile) -> int:
    """How many test problems are sampled often: as the profile says, or a sixth of them all where that is less.

    >>> [pass_questions(get_profile("cpu", f"problems.test={test}")) for test in (800, 240)]
    [60, 40]
    """
    return min(profile.evaluation.often, max(profile.problems.test // PASS_SHARE, 1))


def many_samples(experiment: Experiment, policy: Policy) -> ManySamples:
    """How many of many samples of a policy are right, for each of some test problems."""
    profile = experiment.profile
    return experiment.make(
        ManySamples, "samples", policy=policy, questions=experiment.questions(), asked=pass_questions(profile),
        samples=profile.evaluation.often_samples, temperature=PASS_TEMPERATURE,
    )  # fmt: skip


def iteration_facts(iteration: Iteration) -> dict[str, float]:
    """What an iteration's samples and training were like.

    Returns:
        right: share of right ones among the current policy's samples.
        right_despite_error: share of these right ones whose last tool output is an error; they are no winners.
        distinct: chance that two of the current policy's samples of a prompt differ, where it samples two or more.
        distinct_right: the same among the right ones.
        entropy: -log pi per token that the current policy wrote, in nats: its mean is the entropy at temperature 1.
        right_nats: -log pi of a right trajectory of the current policy, in nats.
        covered: share of prompts that gave a pair.
        margin, luck, tool_gradient_share: means over the training's log, where it has them.
        chosen_ratio, rejected_ratio: log pi/pi_ref of both sides in nats, mean over the last third of the log.

    Three samples of one prompt, two of them right and the same; a log of three steps:

    >>> from types import SimpleNamespace as Made
    >>> row = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 0, [7, 8], [0, 1], [], "5", True, "answer")
    >>> wrong = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 2, [7, 9], [0, 1], [], "6", False, "answer")
    >>> log = [{"margin": margin, "chosen_ratio": margin / 2} for margin in (0.0, 0.2, 0.4)]
    >>> facts = iteration_facts(Made(
    ...     initial=Made(name="sft"), rollouts=Made(trajectories=lambda: [row, row, wrong]),
    ...     pairs=Made(report={"prompts": {"paired": 1, "all right": 1}}), training=Made(log=log)))
    >>> facts["right"], facts["distinct"], facts["covered"], facts["margin"], facts["chosen_ratio"]
    (0.666667, 0.666667, 0.5, 0.2, 0.2)
    """
    own = [row for row in iteration.rollouts.trajectories() if row.policy == iteration.initial.name]
    right = [row for row in own if row.correct]
    prompts = iteration.pairs.report["prompts"]
    facts = {
        "right": len(right) / len(own),
        "right_despite_error": sum(row.last_tool_failed for row in right) / max(len(right), 1),
        "covered": prompts.get("paired", 0) / sum(prompts.values()),
    }
    for name, rows in (("distinct", own), ("distinct_right", right)):
        if (distinct := chance_of_difference(rows)) is not None:
            facts[name] = distinct
    facts |= surprise(own)
    log = iteration.training.log
    for name, part in (
        *((name, log) for name in ("margin", "luck", "tool_gradient_share")),
        *((name, log[-max(len(log) // 3, 1) :]) for name in ("chosen_ratio", "rejected_ratio")),
    ):
        values = [row[name] for row in part if row.get(name) is not None]
        if values:
            facts[name] = statistics.mean(values)
    return {name: round(value, 6) for name, value in facts.items()}


def chance_of_difference(rows: Sequence[Trajectory]) -> float | None:
    """Of two samples of a prompt, drawn without replacement; mean over the prompts that have two, None without any.

    >>> ids = [[7], [7], [8]]
    >>> rows = [Trajectory("p", "s", "q", "5", "sft", 0, own, [0], [], "5", True, "answer") for own in ids]
    >>> round(chance_of_difference(rows), 2)  # two of the three ways to draw two
    0.67
    """
    by_prompt = defaultdict[str, Counter[tuple[int, ...]]](Counter)
    for row in rows:
        by_prompt[row.problem_id][tuple(row.ids)] += 1
    alike = [
        sum(count * (count - 1) for count in counts.values()) / (counts.total() * (counts.total() - 1))
        for counts in by_prompt.values()
        if counts.total() > 1
    ]
    return 1 - statistics.mean(alike) if alike else None


def surprise(rows: Sequence[Trajectory]) -> dict[str, float]:
    """-log pi of samples: per token, and of a right trajectory, in nats; nothing where the sampler did not tell.

    >>> one = Trajectory("p", "s", "q", "5", "sft", 0, [7, 8, 9], [0, 1, 1], [], "5", True, "answer", nats=3.0)
    >>> surprise([one])
    {'entropy': 1.5, 'right_nats': 3.0}
    """
    told = [(row.nats, row) for row in rows if row.nats is not None]
    written = sum(row.roles.count(Role.ASSISTANT) for _, row in told)
    facts = {"entropy": sum(nats for nats, _ in told) / written} if written else {}
    if right := [nats for nats, row in told if row.correct]:
        facts["right_nats"] = statistics.mean(right)
    return facts


def iteration_cost(iteration: Iteration) -> dict[str, int]:
    """What an iteration took: trajectories and tokens sampled, pairs, optimiser steps, tokens trained on in all steps."""
    rows, log = iteration.rollouts.trajectories(), iteration.training.log
    return {
        "trajectories": len(rows),
        "sampled tokens": sum(len(row.ids) - row.prompt_length for row in rows),
        "pairs": iteration.pairs.report["pairs"],
        "steps": log[-1]["step"],
        "trained tokens": round(log[-1]["tokens"]),
    }


# --- The plan ---


class Planned(Experiment):
    """The same graph of stages, asked but never made."""

    def _find[S: Product](self, stage: type[S], name: str, inputs: dict[str, Any], owner: str) -> S:
        return self.store.product(stage, name, inputs)


@dataclass
class Plan:
    """What a study has still to compute.

    Attributes:
        missing: stages to make, by kind.
        kept: stages that are there.
        seconds: projected, from stages of the same kinds here or in a kept study; None while a kind has never been made.
        recorded: arms of a seed whose records are there, which need no stage.

    >>> Plan(Counter(sft=1, training=3), kept=2, seconds=1200.0).sentence(jobs=2)
    'To compute: 1 sft, 3 training (stages kept: 2, records kept: 0); about 10 min.'
    """

    missing: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    seconds: float | None = 0.0
    recorded: int = 0

    def sentence(self, jobs: int = 1) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.missing.items()))
        there = f"stages kept: {self.kept}, records kept: {self.recorded}"
        if not kinds:
            return f"Nothing to compute; {there}."
        rest = "not projected yet" if self.seconds is None else f"about {self.seconds / 60 / jobs:.0f} min"
        return f"To compute: {kinds} ({there}); {rest}."


# --- The study ---


@dataclass(frozen=True)
class Study:
    """Arms over seeds.

    Attributes:
        profile: its name.
        settings: what is set beside it, for all arms.
        seeds, arms: what is computed; arms as `find_arm` reads them.
        out: the study's folder; each arm of a seed leaves ``out/arms/<arm>-seed<seed>.json``.
        known: seconds of kinds of stages, measured elsewhere, for the plan.
        tested: the arms' policies answer the test problems.

    Seeds take turns, so that processes which work side by side seldom want the same stage:

    >>> Study("smoke", (), seeds=[0, 1], arms=["mdpo", "raft"], out=Path("unused")).tasks()
    [(0, 'mdpo'), (1, 'mdpo'), (0, 'raft'), (1, 'raft')]
    """

    profile: str
    settings: Sequence[str]
    seeds: Sequence[int]
    arms: Sequence[str]
    out: Path
    known: Mapping[str, float] = field(default_factory=dict)
    tested: bool = True

    def settled(self) -> Profile:
        """The profile with `settings` in it, and counts that its data can give."""
        return fitted(get_profile(self.profile, list(self.settings)))

    def questions(self) -> dict[str, Any]:
        """The test problems, in the order in which the arms' records tell the answers, and the world that they are from.

        In the world of habits problems made from one template are a family: they share their luck. Elsewhere each problem is
        a family of its own.

        >>> Study("habits", (), seeds=[], arms=[], out=Path("unused")).questions()["problems"].popitem()
        ('math-like/test/dice/0fcaf734383a', 'math-like/dice')
        """
        world = self.settled().problems
        asked, by_template = Questions.of(world, "test", world.test, DATA_SEED), world.world == "habits"
        families = {one.id: f"{one.suite}/{one.family}" if by_template else one.id for one in asked.load()}
        return {"world": world.world, "problems": families}

    def check(self) -> None:
        """Look for what would stop it, before long work starts.

        Raises:
            ValueError: settings that cannot work, for an arm or here, or other ones in the folder.
            CorruptStage: a kept product is damaged.
        """
        profile = self.settled()
        arms = [find_arm(arm).profile(profile) for arm in self.arms]
        for arm in arms:
            refuse_misfits(arm)
        check(replace(profile, iterations=max(arm.iterations for arm in arms)))
        for file in sorted((self.out / "arms").glob("*.json")):
            kept = read_json(file)
            if (kept["profile"], kept.get("settings", "")) != (self.profile, " ".join(self.settings)):
                raise SettingError(
                    f"The study in {self.out} has profile {kept['profile']} and settings "
                    f"{kept.get('settings') or 'as they are'}: give the same, or another folder with --out."
                )
        StageStore.of_run(self.out).verify_all()

    def needed(self, task: Task) -> list[Product]:
        """The stages behind an arm's record."""
        seed, arm = task[0], find_arm(task[1])
        planned = Planned(arm.profile(self.settled()), seed, self.out)
        ArmRun(planned, arm, self.tested)
        return planned.made

    def made_from(self, task: Task) -> str:
        """Hash of all that an arm's record comes from: the keys of its stages, and the code that reads them."""
        return digest(code_key(ArmRun.record), *sorted({one.path.name for one in self.needed(task)}))

    def is_recorded(self, task: Task) -> bool:
        """Whether the arm's record is there and would be made again as it is: then its stages are not needed."""
        file = self._file(task)
        return file.exists() and read_json(file).get("made_from") == self.made_from(task)

    def _file(self, task: Task) -> Path:
        return self.out / "arms" / f"{find_arm(task[1]).name}-seed{task[0]}.json"

    def plan(self) -> Plan:
        """What is still to compute: every stage that arms without a record need, once."""
        store, todo = StageStore.of_run(self.out), self.unrecorded()
        products = {one.path: one for task in todo for one in self.needed(task)}
        missing = Counter(product.kind for product in products.values() if not store.is_kept(product))
        seconds = {**self.known, **seconds_by_kind(store.root)}
        is_known = missing.keys() <= seconds.keys()
        projected = sum(count * seconds[kind] for kind, count in missing.items()) if is_known else None
        recorded = len(self.tasks()) - len(todo)
        return Plan(missing, len(products) - missing.total(), projected, recorded)

    def tasks(self) -> list[Task]:
        """A seed and an arm each, in the order in which they are begun."""
        return [(seed, arm) for arm in self.arms for seed in self.seeds]

    def unrecorded(self) -> list[Task]:
        """The tasks whose records are still to be made."""
        return [task for task in self.tasks() if not self.is_recorded(task)]

    def compute(self, task: Task) -> tuple[Task, Record | None, str]:
        """What a process does: an arm's record, or None and what went wrong."""
        # Also where torch was imported before the variable was set.
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        seed, arm = task[0], find_arm(task[1])
        profile = arm.profile(self.settled())
        head = {
            "arm": arm.name, "what": arm.what, "against": arm.against, "seed": seed, "profile": profile.name,
            "settings": " ".join(self.settings), "settings_hash": settings_hash(profile, seed), "versions": versions(),
            "preference": asdict(profile.preference), "made_from": self.made_from(task),
        }  # fmt: skip
        try:
            return task, head | ArmRun(Experiment(profile, seed, self.out), arm, self.tested).record(), ""
        except UnusableFolder as error:
            return task, None, str(error)
        except Exception:  # an arm that fails must not take the others with it
            return task, None, traceback.format_exc()

    def run(self, jobs: int, ray: str = "", say: Say = say) -> bool:
        """Compute all, `jobs` arms at one time, or on the Ray cluster at address `ray`; False when an arm failed."""
        StageStore.of_run(self.out)  # a folder with stages is a study's
        (self.out / "arms").mkdir(exist_ok=True)
        write_json(self.out / QUESTIONS, self.questions())
        tasks, profile = self.unrecorded(), self.settled()
        if ray:  # machines need not share a folder, so a seed stays on one
            groups = [[task for task in tasks if task[0] == seed] for seed in self.seeds]
            finished = run_on_ray(self.compute, groups, profile, ray)
        else:
            finished = run_here(self.compute, tasks, profile, jobs, self.out / "stages" / ".locks")
        start, failed = time.time(), 0
        try:
            for done, (task, record, error) in enumerate(finished, 1):
                if record is None:
                    failed += 1
                    say(f"Arm {task[1]} of seed {task[0]} failed:\n{error}")
                else:
                    write_json(self._file(task), record)
                left = self.plan().seconds
                rest = "" if left is None else f", about {left / 60 / jobs:.0f} min to go"
                say(f"{done} of {len(tasks)} arms, {(time.time() - start) / 60:.0f} min{rest}")
        except BrokenProcessPool:
            say("A process was ended from outside, often because the memory was not enough: lower --jobs. "
                "What is finished is kept: the same command goes on from there.")  # fmt: skip
            return False
        finally:
            finished.close()
        return not failed
