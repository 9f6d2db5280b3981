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


def over_seeds(differences: Sequence[Sequence[float]], resamples: int = 10_000, seed: int = 0) -> Estimate:
    """Mean over seeds and questions, with an interval over both.

    The variance of the mean is ``s^2(seed means) / S + s^2(question means) / N``, taken with Student's t at S - 1
    degrees of freedom. Neither term is corrected for the noise that it shares with the other, so the interval is
    somewhat too wide, never too narrow. One seed alone gives an interval over questions only: "indicative".

    Args:
        differences: shape [S seeds, N questions], e.g. right (1) or wrong (0) of a policy minus that of SFT;
            the same questions in every row.
        resamples: bootstrap samples, used when S is 1.
        seed: of that resampling.

    Raises:
        ValueError: not a table of at least one seed and one question.
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"Scores over seeds need a table [seeds, questions], got shape {table.shape}.")
    seeds, questions = table.shape
    if seeds == 1:
        return _bootstrap(table[0], resamples, seed)
    variance = table.mean(axis=1).var(ddof=1) / seeds
    if questions > 1:
        variance += table.mean(axis=0).var(ddof=1) / questions
    return _student(float(table.mean()), float(variance), seeds)


def combine_seeds(values: Sequence[float], half_widths: Sequence[float]) -> Estimate:
    """The interval of `over_seeds` where only each seed's own value and interval are known.

    Args:
        values: one a seed, at least two, on the same questions.
        half_widths: half of each seed's 95% interval over questions; its mean stands for the second variance term.
    """
    array = _one_row(values)
    half = float(np.mean(half_widths))
    variance = array.var(ddof=1) / len(array) + (half / stats.norm.ppf(0.975)) ** 2
    return _student(float(array.mean()), float(variance), len(array))


def of_proportion(estimate: Estimate) -> Estimate:
    """The same between 0 and 1: Student's interval knows no bounds, a proportion does."""
    value, low, high = estimate
    return value, max(low, 0.0), min(high, 1.0)


def _one_row(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"An interval needs one row of at least one number, got shape {array.shape}.")
    return array


def _student(mean: float, variance: float, seeds: int) -> Estimate:
    half = float(stats.t.ppf(0.975, seeds - 1)) * variance**0.5
    return mean, mean - half, mean + half


def _bootstrap(values: np.ndarray, resamples: int, seed: int) -> Estimate:
    support, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(draws @ support / len(values), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
