"""Evaluation: greedy accuracy of a policy on problems, with what its tool calls looked like. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtdpo_lib.problems.base import Problem
from mtdpo_lib.profiles import EvaluationSettings, RolloutSettings
from mtdpo_lib.progress import Progress
from mtdpo_lib.records import Metric
from mtdpo_lib.rollout import Trajectory, read_jsonl, rollout, write_jsonl
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.seeds import small_stream
from mtdpo_lib.stats import mean_interval, paired_bootstrap, wilson

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Outcome:
    """How one trajectory on one problem went."""

    problem_id: str
    suite: str
    sample: int
    correct: bool
    stop: str
    tool_calls: int
    tool_errors: int
    tokens: int


def outcome(trajectory: Trajectory) -> Outcome:
    """The facts of a trajectory that evaluation keeps."""
    return Outcome(
        trajectory.problem_id,
        trajectory.suite,
        trajectory.sample,
        trajectory.correct,
        trajectory.stop,
        trajectory.tool_calls,
        trajectory.tool_errors,
        len(trajectory.ids),
    )


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    rollout_settings: RolloutSettings,
    settings: EvaluationSettings,
    pool: SandboxPool,
    *,
    policy: str,
    seed: int,
    samples: int = 0,
) -> list[Outcome]:
    """Greedy outcomes (`samples` = 0, the paper's zero-shot pass@1), or `samples` sampled ones at temperature 1."""
    trajectories = rollout(
        model,
        tokenizer,
        problems,
        max(samples, 1),
        replace(rollout_settings, batch_size=settings.batch_size),
        pool,
        policy=policy,
        seed=seed,
        temperature=1.0 if samples else 0.0,
        progress=Progress(f"evaluate {policy} ({'sampled' if samples else 'greedy'})", "trajectories"),
    )
    return [outcome(trajectory) for trajectory in trajectories]


def save_outcomes(file: Path, outcomes: Sequence[Outcome]) -> None:
    write_jsonl(file, map(asdict, outcomes))


def load_outcomes(file: Path) -> list[Outcome]:
    return [Outcome(**row) for row in read_jsonl(file)]


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of right answers, a fraction."""
    return sum(one.correct for one in outcomes) / len(outcomes)


def policy_metrics(policy: str, outcomes: dict[str, list[Outcome]], seed: int) -> list[Metric]:
    """A policy's figures on the test problems, each with a 95% interval over questions.

    Args:
        policy: name used in the figures' names.
        outcomes: "greedy" and, where sampled, "sampled".
        seed: the run's.

    Returns:
        ``accuracy/test/<policy>``, ``accuracy/<suite>/<policy>``, ``sampled/test/<policy>``, and means a problem:
        ``tool-calls/test/<policy>``, ``tool-errors/test/<policy>``, ``tokens/test/<policy>``.
    """
    greedy = outcomes["greedy"]
    metrics = [_proportion(f"accuracy/test/{policy}", [one.correct for one in greedy], seed)]
    for suite in dict.fromkeys(one.suite for one in greedy):
        mine = [one.correct for one in greedy if one.suite == suite]
        metrics.append(_proportion(f"accuracy/{suite}/{policy}", mine, seed))
    if outcomes.get("sampled"):
        metrics.append(
            _proportion(f"sampled/test/{policy}", [one.correct for one in outcomes["sampled"]], seed)
        )
    for name, unit in (("tool_calls", "calls"), ("tool_errors", "errors"), ("tokens", "tokens")):
        value, low, high = mean_interval([getattr(one, name) for one in greedy])
        label = f"{name.replace('_', '-')}/test/{policy}"
        metrics.append(
            Metric(label, round(value, 6), round(low, 6), round(high, 6), len(greedy), unit, (seed,))
        )
    return metrics


def _proportion(name: str, correct: Sequence[bool], seed: int) -> Metric:
    low, high = wilson(sum(correct), len(correct))
    return Metric(
        name,
        round(sum(correct) / len(correct), 6),
        round(low, 6),
        round(high, 6),
        len(correct),
        "fraction",
        (seed,),
    )


def gain_metric(
    name: str, ours: Sequence[Outcome], theirs: Sequence[Outcome], settings: EvaluationSettings, seed: int
) -> Metric:
    """Paired difference of accuracy on the same questions, `ours` minus `theirs`, with a bootstrap interval.

    Raises:
        ValueError: the two did not answer the same questions in the same order.
    """
    if [one.problem_id for one in ours] != [one.problem_id for one in theirs]:
        raise ValueError(
            "A paired difference needs the same questions in the same order: evaluate both on one split."
        )
    value, low, high = paired_bootstrap(
        [one.correct for one in ours],
        [one.correct for one in theirs],
        settings.bootstrap,
        small_stream(seed, "bootstrap"),
    )
    return Metric(name, round(value, 6), round(low, 6), round(high, 6), len(ours), "fraction", (seed,))


def outcome_string(outcomes: Sequence[Outcome]) -> str:
    """One character a question, "1" for right: what comparisons across runs need."""
    return "".join("1" if one.correct else "0" for one in outcomes)
