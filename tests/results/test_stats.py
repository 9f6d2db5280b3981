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
    table = [
        [1, 0, 1, 0],
        [1, 1, 1, 0],
    ]  # seed means 0.5, 0.75; question means 1, 0.5, 1, 0; residuals 1/8 and 3/8
    seeds, questions = 0.25**2 / 2 / 2, np.var([1, 0.5, 1, 0], ddof=1) / 4
    noise = 2 * (3 * 0.125**2 + 0.375**2) / 3 / 8
    variance = seeds + questions - noise
    freedom = variance**2 / (seeds**2 / 1 + questions**2 / 3)
    half = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert stats.over_seeds(table) == pytest.approx((0.625, 0.625 - half, 0.625 + half))
    assert stats.over_seeds([[1, 0], [1, 0], [1, 0]])[0] == 0.5
    assert stats.over_seeds([[1, 1], [1, 1]]) == (1, 1, 1), "nothing varies"
    assert stats.over_seeds([[0.5], [1.0]]) == pytest.approx(stats.mean_interval([0.5, 1.0])), "one question"


def test_a_family_counts_as_often_as_its_problems_and_is_sure_as_one_of_them():
    rng = np.random.default_rng(2)
    table = rng.integers(-1, 2, (4, 30))
    alone = stats.over_seeds(table)
    assert stats.over_seeds(table, families=[f"own/{number}" for number in range(30)]) == pytest.approx(alone)
    copies, names = np.repeat(table, 3, axis=1), np.repeat([f"family {number}" for number in range(30)], 3)
    assert stats.over_seeds(copies, families=names) == pytest.approx(alone)
    shuffled = rng.permutation(90)
    assert stats.over_seeds(copies[:, shuffled], families=names[shuffled]) == pytest.approx(alone)
    assert stats.over_seeds(copies[:1], families=names) == pytest.approx(stats.over_seeds(table[:1]))
    uneven = ["large"] * 20 + [f"own/{number}" for number in range(10)]
    value, low, high = stats.over_seeds(table, families=uneven)
    assert value == pytest.approx(table.mean())
    shifted = stats.over_seeds(table + 5, families=uneven)
    assert shifted == pytest.approx((value + 5, low + 5, high + 5)), (
        "a large family is no more than a large one"
    )


KINDS = {  # the luck of seeds, in fractions: small, large, and one seed in three that has not learnt
    "SD of 0.5 points": lambda rng, shape: rng.normal(0, 0.005, shape),
    "SD of 3 points": lambda rng, shape: rng.normal(0, 0.03, shape),
    "two kinds": lambda rng, shape: np.where(rng.random(shape) < 1 / 3, -0.06, 0.03),
}


def coverage(kind, seeds, knows_families=True, rounds=800, families=24, size=15, truth=0.03):
    """How often the interval holds the true difference of two policies that answer problems of random families."""
    rng = np.random.default_rng(seeds)
    family = np.repeat(np.arange(families), size)
    chance = truth + KINDS[kind](rng, (rounds, seeds, 1)) + rng.normal(0, 0.05, (rounds, seeds, families))
    chance = (chance + rng.normal(0, 0.08, (rounds, 1, families)))[:, :, family]
    chance += rng.normal(0, 0.15, (rounds, 1, len(family)))
    draw = rng.random(
        chance.shape
    )  # both are right or wrong alike, but for one problem in six and these chances
    differences = (draw < np.maximum(chance, 0) + 0.08) * 1 - (draw > 1 - np.maximum(-chance, 0) - 0.08)
    given = family if knows_families else ()
    intervals = (stats.over_seeds(table, families=given) for table in differences)
    return sum(low <= truth <= high for _, low, high in intervals) / rounds


@pytest.mark.parametrize("seeds", [5, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_covers_the_truth_as_often_as_it_says(kind, seeds):
    assert 0.93 <= coverage(kind, seeds) <= 0.98


def test_an_interval_that_does_not_know_the_families_is_too_narrow():
    assert coverage("SD of 3 points", 12, knows_families=False) < 0.9


def test_signs_are_flipped_in_all_ways():
    values = [5, 3, -1, 2]
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=4)]
    assert stats.sign_flip(values) == np.mean(np.array(sums) >= 9)
    assert stats.sign_flip([-value for value in values]) == stats.sign_flip(values)
    assert stats.sign_flip([4, 9, 1, 2, 7]) == 2 / 2**5 and stats.sign_flip(range(1, 13)) == 2 / 2**12
    assert stats.sign_flip([0, 0, 0]) == stats.sign_flip([7]) == 1.0


def test_holm_adjusts_step_by_step_and_keeps_the_order():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.001, 1.0]) == pytest.approx([1.0, 0.003, 1.0])
    assert stats.holm([]) == []


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
