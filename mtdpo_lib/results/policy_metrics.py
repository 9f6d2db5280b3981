"""The metrics of one policy on questions that it answered, and of two policies on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtdpo_lib.common.seeds import stream31
from mtdpo_lib.models.policy import Policy
from mtdpo_lib.profiles import EvaluationSettings
from mtdpo_lib.results.metric import Metric, Metrics
from mtdpo_lib.results.stats import Estimate, mean_interval, paired_bootstrap, wilson
from mtdpo_lib.rollout.evaluate import Outcome

# Of an outcome, with their units.
MEANS = {"tool_calls": "calls", "tool_errors": "errors", "tokens": "tokens"}


def policy_metrics(policy: Policy, outcomes: dict[str, list[Outcome]], seed: int) -> Metrics:
    """A policy's metrics on the test problems, each with a 95% interval over questions.

    Args:
        policy: that answered.
        outcomes: "greedy" and, where sampled, "sampled".
        seed: the run's.

    Returns:
        ``accuracy/test/<policy>``, ``accuracy/<suite>/<policy>``, ``sampled/test/<policy>``, and means per problem:
        ``tool-calls/test/<policy>``, ``tool-errors/test/<policy>``, ``tokens/test/<policy>``.
    """
    greedy, metrics = outcomes["greedy"], Metrics()

    def note(kind: str, split: str, estimate: Estimate, n: int, unit: str = "fraction") -> None:
        metrics.append(Metric(kind, *estimate, n, unit, (seed,), split, **_fields(policy)))

    note("accuracy", "test", _share_right(greedy), len(greedy))
    for suite in dict.fromkeys(one.suite for one in greedy):
        mine = [one for one in greedy if one.suite == suite]
        note("accuracy", suite, _share_right(mine), len(mine))
    if sampled := outcomes.get("sampled"):
        note("sampled", "test", _share_right(sampled), len(sampled))
    for name, unit in MEANS.items():
        values = mean_interval([getattr(one, name) for one in greedy])
        note(name.replace("_", "-"), "test", values, len(greedy), unit)
    return metrics


def _fields(policy: Policy) -> dict[str, Any]:
    """What a metric says of the policy that it belongs to."""
    return {"arm": policy.arm, "iteration": policy.iteration, "policy": policy.name}


def _share_right(outcomes: Sequence[Outcome]) -> Estimate:
    right = sum(one.correct for one in outcomes)
    return right / len(outcomes), *wilson(right, len(outcomes))


def paired_metric(
    kind: str,
    policy: Policy,
    ours: Sequence[Outcome],
    theirs: Sequence[Outcome],
    settings: EvaluationSettings,
    seed: int,
    *,
    split: str = "test",
    against: str = "",
) -> Metric:
    """Paired difference of accuracy on the same questions, `ours` minus `theirs`, with a bootstrap interval.

    Args:
        kind: "gain" over SFT, or "difference".
        policy: whose outcomes are `ours`.
        ours, theirs: outcomes of both policies.
        settings: how often to resample.
        seed: the run's.
        split: the questions.
        against: the policy whose outcomes are `theirs`; a gain does not name it.

    Raises:
        ValueError: the two did not answer the same questions in the same order.
    """
    if [one.problem_id for one in ours] != [one.problem_id for one in theirs]:
        raise ValueError(
            "A paired difference needs the same questions in the same order: evaluate both on one split."
        )
    mine, other = ([one.correct for one in side] for side in (ours, theirs))
    estimate = paired_bootstrap(mine, other, settings.bootstrap, stream31(seed, "bootstrap"))
    n = len(ours)
    return Metric(kind, *estimate, n, "fraction", (seed,), split, **_fields(policy), against=against)
