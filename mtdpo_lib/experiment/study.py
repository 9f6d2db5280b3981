"""A study: arms of the method over seeds, each differing from another in one thing, from shared stages.

Arms of a seed share what they have in common (demonstrations, SFT, iteration 1's samples), because all keep their stages in
one folder under keys made from content. A study can be stopped and started at any point; seeds and arms can be added later.

    python -m mtdpo_lib study --seeds 0-2 --arms mdpo,fixed --plan     what would be computed, and for how long
    python -m mtdpo_lib study --seeds 0-2 --arms mdpo,fixed            the same, computed

**Paper:** the comparisons of sec. 3.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import write_json
from mtdpo_lib.common.progress import Progress
from mtdpo_lib.common.provenance import versions
from mtdpo_lib.common.seeds import small_stream
from mtdpo_lib.common.stages import Product, StageStore
from mtdpo_lib.experiment.algorithm1 import Experiment, Iteration
from mtdpo_lib.experiment.arms import ARMS, PASS_PROBLEMS, PASS_SAMPLES, PASS_SHARE, PASS_TEMPERATURE, Arm
from mtdpo_lib.experiment.steps import DATA_SEED, load_pairs
from mtdpo_lib.experiment.workers import run_here
from mtdpo_lib.models.bases import check_loadable
from mtdpo_lib.models.policy import Policy, load_for_sampling, load_tokenizer
from mtdpo_lib.problems import load_problems
from mtdpo_lib.profiles.overrides import get_profile, settings_hash
from mtdpo_lib.profiles.sections import (
    ModelSettings,
    PreferenceSettings,
    ProblemSettings,
    Profile,
    RolloutSettings,
    SandboxSettings,
)
from mtdpo_lib.results.study_metrics import kept_seconds, stage_seconds, summarise
from mtdpo_lib.rollout import load_trajectories, rollout
from mtdpo_lib.rollout.evaluate import Outcome
from mtdpo_lib.sandbox import kept_pool

LOOK_SECONDS = 5.0  # between two looks at what is done

# --- The plan ---


class _Planned(Experiment):
    """The same graph of stages, asked but never made."""

    def _get(self, name: str, work: Any, inputs: dict[str, Any], notebook: str | None = None) -> Product:
        product = self.store.product(name, inputs)
        self.made.append(product)
        return product


@dataclass
class Plan:
    """What a study has still to compute.

    Attributes:
        missing: stages to make, by kind.
        kept: stages that are there.
        seconds: projected, from stages of the same kinds here, or in the study that comes with this repository; None
            while a kind has never been made.
    """

    missing: Counter = field(default_factory=Counter)
    kept: int = 0
    seconds: float | None = 0.0

    def sentence(self, jobs: int = 1) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.missing.items()))
        if not kinds:
            return f"Nothing to compute: all {self.kept} stages are kept."
        time_left = (
            "not projected yet" if self.seconds is None else f"about {self.seconds / 60 / jobs:.0f} min"
        )
        return f"To compute: {kinds} ({self.kept} stages are kept); {time_left}."


def make_plan(profile: Profile, seeds: Sequence[int], arms: Sequence[Arm], out: Path) -> Plan:
    """Every stage that `arms` need over `seeds`, once."""
    plan, seen = Plan(), set()
    for seed in seeds:
        for arm in arms:
            planned = _Planned(arm.profile(profile), seed, out)
            run_arm(planned, arm, results=False)
            for product in planned.made:
                if product.path in seen:
                    continue
                seen.add(product.path)
                if planned.store.is_kept(product):
                    plan.kept += 1
                else:
                    plan.missing[product.path.name.rpartition("-")[0]] += 1
    known = kept_seconds(profile.name) | stage_seconds(out)
    unknown = set(plan.missing) - set(known)
    plan.seconds = None if unknown else sum(count * known[kind] for kind, count in plan.missing.items())
    return plan


# --- One arm of one seed ---


def run_arm(experiment: Experiment, arm: Arm, results: bool = True) -> dict[str, Any]:
    """All iterations of an arm and its evaluations.

    Args:
        experiment: of the arm's own profile.
        arm: which.
        results: False only asks for the products.

    Returns:
        The arm's record but for names; empty without `results`.
    """
    policies, iterations = [experiment.sft_policy()], []
    for number in range(1, experiment.profile.iterations + 1):
        name = f"{arm.name}-{number}"
        iterations.append(experiment.iteration(number, policies, name=name, mixture=arm.mixture))
        policies.append(iterations[-1].policy)
    for policy in policies:
        experiment.evaluation(policy)
    often = (policies[0], policies[-1]) if arm.pass_at_n else ()
    many = {policy: sample_often(experiment, policy) for policy in often}
    if not results:
        return {}
    greedy = {policy.name: experiment.outcomes(policy)["greedy"] for policy in policies}
    facts = [iteration_facts(iteration) for iteration in iterations]
    costs = [iteration_cost(iteration, experiment.profile.preference) for iteration in iterations]
    selection = json.loads((iterations[-1].selection.path / "selection.json").read_text(encoding="utf8"))
    return {
        "outcomes": {name: _letters(rows) for name, rows in greedy.items()},
        "policies": [policy.name for policy in policies],
        "right of many": {
            policy.name: json.loads((product.path / "right.json").read_text(encoding="utf8"))
            for policy, product in many.items()
        },
        "development": selection["development"],
        "selected": selection["selected"],
        "iterations": facts,
        "cost": {name: sum(cost[name] for cost in costs) for name in costs[0]},
        "seconds": round(experiment.seconds(), 1),
    }


def iteration_facts(iteration: Iteration) -> dict[str, float]:
    """What an iteration's samples and training were like.

    Returns:
        right: share of right ones among the current policy's samples.
        right_despite_error: share of these right ones whose last tool output is an error; they are no winners.
        distinct: chance that two of the current policy's samples of a prompt differ, where it samples two or more.
        covered: share of prompts that gave a pair.
        margin, luck, tool_gradient_share: means over the training's log, where it has them.
        chosen_ratio, rejected_ratio: log pi/pi_ref of both sides in nats, mean over the last third of the log.
    """
    rows = load_trajectories(iteration.rollouts.path / "trajectories.jsonl")
    own = [row for row in rows if row.policy == iteration.initial.name]
    right = [row for row in own if row.correct]
    report = json.loads((iteration.pairs.path / "report.json").read_text(encoding="utf8"))
    facts = {
        "right": len(right) / len(own),
        "right_despite_error": sum(row.last_tool_failed for row in right) / max(len(right), 1),
        "covered": report["prompts"].get("paired", 0) / sum(report["prompts"].values()),
    }
    by_prompt: dict[str, Counter[tuple[int, ...]]] = {}
    for row in own:
        by_prompt.setdefault(row.problem_id, Counter())[tuple(row.ids)] += 1
    differ = [_chance_of_two_alike(counts) for counts in by_prompt.values() if counts.total() > 1]
    if differ:
        facts["distinct"] = 1 - statistics.mean(differ)
    log = json.loads((iteration.training.path / "log.json").read_text(encoding="utf8"))
    for name, part in (
        *((name, log) for name in ("margin", "luck", "tool_gradient_share")),
        *((name, log[-max(len(log) // 3, 1) :]) for name in ("chosen_ratio", "rejected_ratio")),
    ):
        values = [row[name] for row in part if row.get(name) is not None]
        if values:
            facts[name] = statistics.mean(values)
    return {name: round(value, 6) for name, value in facts.items()}


def _chance_of_two_alike(counts: Counter) -> float:
    """Of two drawn without replacement."""
    total = counts.total()
    return sum(count * (count - 1) for count in counts.values()) / (total * (total - 1))


def iteration_cost(iteration: Iteration, settings: PreferenceSettings) -> dict[str, int]:
    """What an iteration took: trajectories and tokens sampled, pairs, tokens trained on (every pass counted)."""
    rows = load_trajectories(iteration.rollouts.path / "trajectories.jsonl")
    pairs = load_pairs(iteration.pairs, iteration.rollouts)
    sides = 1 if settings.method == "raft" else 2
    trained = sum(len(side.ids) for pair in pairs for side in (pair.chosen, pair.rejected)[:sides])
    return {
        "trajectories": len(rows),
        "sampled tokens": sum(len(row.ids) - row.prompt_length for row in rows),
        "pairs": len(pairs),
        "trained tokens": round(settings.epochs * trained),
    }


def pass_questions(profile: Profile) -> int:
    """How many test problems are sampled often: `PASS_PROBLEMS`, or an eighth of them all where that is less."""
    return min(PASS_PROBLEMS, max(profile.problems.test // PASS_SHARE, 1))


def sample_often(experiment: Experiment, policy: Policy) -> Product:
    """How many of `PASS_SAMPLES` samples are right, for each of some test problems: ``right.json``."""
    profile = experiment.profile
    inputs = {
        "policy": policy,
        "problems": replace(profile.problems, demonstrations=1, prompts_per_iteration=1, development=1),
        "model": profile.model,
        "settings": replace(profile.rollout, samples_current=1, samples_previous=1),
        "sandbox": profile.sandbox,
        "samples": PASS_SAMPLES,
        "temperature": PASS_TEMPERATURE,
        "questions": pass_questions(profile),
        "seed": experiment.seed,
    }
    return experiment._get("samples", make_samples, inputs)


def make_samples(
    folder: Path,
    policy: Policy,
    problems: ProblemSettings,
    model: ModelSettings,
    settings: RolloutSettings,
    sandbox: SandboxSettings,
    samples: int,
    temperature: float,
    questions: int,
    seed: int,
) -> None:
    """Stage work of `sample_often`. The questions are spread evenly over the test problems."""
    tested = load_problems(problems, "test", problems.test, DATA_SEED)
    asked = tested[:: max(len(tested) // questions, 1)][:questions]
    network, tokenizer = load_for_sampling(policy, model), load_tokenizer(policy)
    pool = kept_pool(sandbox)
    rows = rollout(
        network, tokenizer, asked, samples, settings, pool, policy=policy.name,
        seed=small_stream(seed, "pass"), temperature=temperature,
        progress=Progress(f"pass@n of {policy.name}", "trajectories"),
    )  # fmt: skip
    right = Counter(row.problem_id for row in rows if row.correct)
    write_json(folder / "right.json", [right[problem.id] for problem in asked])


def _letters(outcomes: Sequence[Outcome]) -> str:
    return "".join(str(int(one.correct)) for one in outcomes)


def run_arms(
    profile: Profile, tasks: Iterable[tuple[int, str]], out: Path, settings: Sequence[str] = ()
) -> None:
    """Arms of seeds, each given as (seed, arm's name); each leaves ``out/arms/<arm>-seed<seed>.json``.

    Args:
        profile: with `settings` in it.
        tasks: in the order in which they are run.
        out: the study's folder.
        settings: what was set, for the record.
    """
    (out / "arms").mkdir(parents=True, exist_ok=True)
    for seed, name in tasks:
        arm = ARMS[name]
        own = arm.profile(profile)
        record = run_arm(Experiment(own, seed, out), arm)
        head = {"arm": name, "what": arm.what, "against": arm.against, "seed": seed}
        facts = {"profile": profile.name, "settings": " ".join(settings)}
        facts |= {"settings_hash": settings_hash(own, seed), "versions": versions()}
        write_json(out / "arms" / f"{name}-seed{seed}.json", {**head, **facts, **record})


# --- The study ---


def study(
    profile_name: str, settings: Sequence[str], seeds: Sequence[int], arms: Sequence[Arm], out: Path, jobs: int,
    plan_only: bool = False, say: Callable[[str], None] = print, run: Callable[..., bool] = run_here,
) -> int:  # fmt: skip
    """Plan, compute and summarise; see the module.

    Args:
        jobs: arms computed at one time, in as many processes.
        run: computes all: here, or on a cluster (`mtdpo_lib.experiment.cluster.connect`).

    Returns:
        0, or 1 when an arm failed.

    Raises:
        CorruptStage: a kept product is damaged.
    """
    profile = get_profile(profile_name, list(settings))
    check_loadable(profile.model)
    StageStore(out / "stages").verify_all()
    plan, count = make_plan(profile, seeds, arms, out), len(seeds) * len(arms)
    say(f"{len(arms)} arms ({', '.join(arm.name for arm in arms)}), seeds {', '.join(map(str, seeds))}.")
    say(plan.sentence(jobs))
    if plan_only:
        return 0
    start, told = time.time(), 0
    with ThreadPoolExecutor(1) as executor:
        names = [arm.name for arm in arms]
        running = executor.submit(run, profile_name, settings, seeds, names, out, jobs)
        while not wait([running], timeout=LOOK_SECONDS).done:
            done = sum(file.stat().st_mtime > start for file in (out / "arms").glob("*.json"))
            if done > told:
                told, left = done, make_plan(profile, seeds, arms, out).seconds
                rest = "" if left is None else f", about {left / 60 / jobs:.0f} min to go"
                say(f"{done} of {count} arms, {(time.time() - start) / 60:.0f} min{rest}")
    say(f"{count} arms, {(time.time() - start) / 60:.0f} min in all. Results: {summarise(out)}")
    return 0 if running.result() else 1
