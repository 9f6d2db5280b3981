"""Intervals: every reported number rests on a count of questions, and on seeds, and says how sure it is.

All intervals are 95%. Accuracies are fractions. "Paired" means two policies on the same questions in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

Interval = tuple[float, float]
Estimate = tuple[float, float, float]  # value, low, high
MANY = 1e6  # degrees of freedom of what is known well


def wilson(successes: int, n: int) -> Interval:
    """Wilson score interval of a proportion.

    Args:
        successes: right answers.
        n: questions, at least 1.

    Raises:
        ValueError: not ``0 <= successes <= n`` or no questions.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"A proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}.")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean of counts or seconds with its Student t interval; a single value is its own interval.

    Args:
        values: one number a question, e.g. tool calls; at least one.
    """
    array = _one_row(values)
    mean = float(array.mean())
    if len(array) == 1:
        return mean, mean, mean
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return mean, mean - float(half), mean + float(half)


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of ``a - b`` over questions with its percentile bootstrap interval.

    Differences of right and wrong take three values only, so a resample is one multinomial draw of how often each
    value appears: the same distribution as drawing question by question, and much faster.

    Args:
        a: score of the first policy, one a question.
        b: score of the second on the same questions in the same order.
        resamples: bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: different lengths, or no questions.
    """
    first, second = _one_row(a), _one_row(b)
    if len(first) != len(second):
        raise ValueError(f"Paired scores need the same questions, got {len(first)} and {len(second)}.")
    return _bootstrap(first - second, resamples, seed)


def pass_at_n(right: int, samples: int, n: int) -> float:
    """Chance that `n` of the `samples` answers to a question, drawn without replacement, hold a right one; unbiased.

    Args:
        right: of the samples.
        samples: drawn at one temperature.
        n: at most `samples`.

    Raises:
        ValueError: not ``0 <= right <= samples`` or not ``1 <= n <= samples``.
    """
    if not 0 <= right <= samples or not 1 <= n <= samples:
        raise ValueError(
            f"pass@n needs 0 <= right <= samples and 1 <= n <= samples, got {right}, {samples}, {n}."
        )
    return 1.0 - math.comb(samples - right, n) / math.comb(samples, n)


def over_seeds(
    differences: Sequence[Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
    families: Sequence[str] = (),
) -> Estimate:
    """Mean over seeds and questions, with an interval for other seeds and other families of questions.

    Two-way analysis of variance: each seed has its luck, each family has its luck, and both hold the noise that is left, so
    it is taken off once. The variance of the mean is ``s^2(seed means) / S + s^2(family means) / F - s^2(rest) / (S F)``, at
    least the larger of the first two, under Student's t at Satterthwaite's degrees of freedom. Simulations in the
    tests hold its coverage for 5 and 12 seeds to 93 to 98%. One seed alone gives a bootstrap over families: "indicative".

    Args:
        differences: shape [S seeds, N questions], e.g. right (1) or wrong (0) of a policy minus that of SFT;
            the same questions in every row.
        resamples: bootstrap samples, used when S is 1.
        seed: of that resampling.
        families: of the N questions; those of one family, e.g. made from one template, share their luck. Every question is
            its own family where none are given.

    Raises:
        ValueError: not a table of at least one seed and one question.
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"Scores over seeds need a table [seeds, questions], got shape {table.shape}.")
    table = _by_family(table, families)
    seeds, count = table.shape
    if seeds == 1:
        return _bootstrap(table[0], resamples, seed)
    mean, by_seed, by_family = table.mean(), table.mean(axis=1), table.mean(axis=0)
    if count == 1:
        return mean_interval(list(by_seed))
    rest = table - by_seed[:, None] - by_family + mean
    doubled = (rest**2).sum() / ((seeds - 1) * (count - 1)) / table.size
    parts = [(by_seed.var(ddof=1) / seeds, seeds - 1), (by_family.var(ddof=1) / count, count - 1)]
    return _student(float(mean), parts, float(doubled))


def combine_seeds(values: Sequence[float], half_widths: Sequence[float]) -> Estimate:
    """The interval of `over_seeds` where only each seed's own value and interval are known.

    Args:
        values: one a seed, at least two, on the same questions.
        half_widths: half of each seed's 95% interval over questions; its mean stands for the second variance term.
    """
    array = _one_row(values)
    questions = float(np.mean(half_widths) / stats.norm.ppf(0.975)) ** 2
    seeds = float(array.var(ddof=1)) / len(array)
    return _student(float(array.mean()), [(seeds, len(array) - 1), (questions, MANY)])


def sign_flip(values: Sequence[float]) -> float:
    """Exact two-sided p-value of "the sign of every value could as well be the other one".

    All ``2^S`` ways to set the signs are counted, so no p-value is below ``2 / 2^S``.

    Args:
        values: one a seed; whole numbers where ties should be exact, e.g. by how many questions a policy is ahead.
    """
    if len(values) < 2:
        return 1.0
    all_ways = {"permutation_type": "samples", "n_resamples": np.inf, "batch": 10_000}
    return float(stats.permutation_test((values,), np.sum, vectorized=True, **all_ways).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, adjusted for being several: each step of Holm's method, in the order given.

    Args:
        p_values: of all hypotheses of the family, those not tested with 1.
    """
    order = np.argsort(p_values)
    stepped = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()


def of_proportion(estimate: Estimate) -> Estimate:
    """The same between 0 and 1: Student's interval knows no bounds, a proportion does."""
    value, low, high = estimate
    return value, max(low, 0.0), min(high, 1.0)


def _one_row(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"An interval needs one row of at least one number, got shape {array.shape}.")
    return array


def _by_family(table: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """A column per family instead of one per question; its mean over the table stays."""
    if not len(families):
        return table
    _, number = np.unique(families, return_inverse=True)
    member = np.eye(number.max() + 1)[number]
    # Deviations are added up, not values: a family's size alone says nothing about its luck.
    return table.mean() + (table - table.mean()) @ member * (member.shape[1] / len(number))


def _student(mean: float, parts: Sequence[tuple[float, float]], doubled: float = 0.0) -> Estimate:
    """An interval from parts of the variance, each with its degrees of freedom; `doubled` is in both of them."""
    variance = max(sum(part for part, _ in parts) - doubled, *(part for part, _ in parts))
    if not variance:
        return mean, mean, mean
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    half = float(stats.t.ppf(0.975, freedom) * variance**0.5)
    return mean, mean - half, mean + half


def _bootstrap(values: np.ndarray, resamples: int, seed: int) -> Estimate:
    support, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(draws @ support / len(values), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
