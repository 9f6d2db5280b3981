"""TODO: results.policy_metrics."""

from __future__ import annotations

from collections.abc import Sequence

from mtdpo_lib.common.seeds import small_stream
from mtdpo_lib.profiles.sections import EvaluationSettings
from mtdpo_lib.results.metric import Metric
from mtdpo_lib.results.stats import mean_interval, paired_bootstrap, wilson
from mtdpo_lib.rollout.evaluate import Outcome


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
