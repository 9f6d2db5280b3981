"""Intervals against closed formulas, plain resampling and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mtdpo_lib.results import stats


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (10, 10), (893, 1200)])
def test_wilson_equals_its_closed_formula(successes, n):
    z = 1.959963984540054
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert stats.wilson(successes, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="proportion"):
        stats.wilson(successes, n)


def test_mean_interval_equals_the_one_sample_t_interval():
    values = [1, 2, 2, 3, 5, 0, 1]
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert stats.mean_interval(values) == pytest.approx((2.0, expected.low, expected.high))
    assert stats.mean_interval([3]) == (3.0, 3.0, 3.0)


def test_paired_bootstrap_equals_resampling_question_by_question():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    picks = rng.integers(0, 300, size=(20_000, 300))
    low, high = np.quantile((a - b)[picks].mean(axis=1), [0.025, 0.975])
    value, ours_low, ours_high = stats.paired_bootstrap(a, b, 20_000, seed=3)
    assert value == pytest.approx((a - b).mean())
    assert (ours_low, ours_high) == pytest.approx((low, high), abs=0.006)
    assert stats.paired_bootstrap(a, b, 500, seed=3) == stats.paired_bootstrap(a, b, 500, seed=3)


def test_pairing_makes_the_interval_of_a_constant_gain_a_point():
    a = np.array([0.0, 1.0, 0.5, 0.25] * 20)
    assert stats.paired_bootstrap(a + 0.5, a) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="same questions"):
        stats.paired_bootstrap([1, 0], [1])


def test_over_seeds_on_a_table_worked_out_by_hand():
    table = [[1, 0, 1, 0], [1, 1, 1, 0]]  # seed means 0.5, 0.75; question means 1, 0.5, 1, 0
    variance = (0.25**2 / 2) / 2 + np.var([1, 0.5, 1, 0], ddof=1) / 4
    half = 12.706204736432095 * math.sqrt(variance)  # t quantile with one degree of freedom
    assert stats.over_seeds(table) == pytest.approx((0.625, 0.625 - half, 0.625 + half))


def test_over_seeds_covers_the_truth_where_seeds_and_questions_both_vary():
    rng = np.random.default_rng(0)
    hits, naive_hits, rounds = 0, 0, 600
    for _ in range(rounds):
        seeds, questions = rng.normal(0, 0.02, (3, 1)), rng.normal(0, 0.3, (1, 200))
        table = 0.05 + seeds + questions + rng.normal(0, 0.3, (3, 200))
        _, low, high = stats.over_seeds(table)
        hits += low <= 0.05 <= high
        _, low, high = stats.mean_interval(table.ravel())  # pretends that 600 answers are independent
        naive_hits += low <= 0.05 <= high
    assert hits / rounds >= 0.95
    assert naive_hits / rounds < 0.93, "the oracle must tell a wrong interval from a right one"


def test_over_one_seed_is_the_bootstrap_over_questions():
    row = [1, 0, 1, 1, 0, 1]
    assert stats.over_seeds([row]) == stats.paired_bootstrap(row, [0] * 6)
    with pytest.raises(ValueError, match="table"):
        stats.over_seeds(row)


def test_combine_seeds_agrees_with_over_seeds_when_questions_carry_the_variance():
    rng = np.random.default_rng(5)
    table = (rng.random((3, 2000)) < 0.7).astype(float)
    table[:] = table[0]  # every seed answers alike: question means vary as one seed's answers do
    halves = [(high - low) / 2 for _, low, high in (stats.paired_bootstrap(row, row * 0) for row in table)]
    assert stats.combine_seeds(table.mean(axis=1), halves) == pytest.approx(
        stats.over_seeds(table), abs=0.004
    )


def test_the_interval_of_a_proportion_ends_at_nought_and_one():
    assert stats.of_proportion((0.5, -0.2, 1.2)) == (0.5, 0.0, 1.0)
    assert stats.of_proportion((0.5, 0.4, 0.6)) == (0.5, 0.4, 0.6)


def test_pass_at_n_is_the_mean_over_all_subsets():
    right = [1, 0, 0, 1, 0, 0]
    for n in range(1, 7):
        subsets = list(itertools.combinations(right, n))
        expected = sum(map(any, subsets)) / len(subsets)
        assert stats.pass_at_n(2, 6, n) == pytest.approx(expected)
    assert stats.pass_at_n(0, 6, 6) == 0 and stats.pass_at_n(6, 6, 1) == 1
    for wrong in ((7, 6, 1), (-1, 6, 1), (1, 6, 0), (1, 6, 7)):
        with pytest.raises(ValueError, match="pass@n needs"):
            stats.pass_at_n(*wrong)
