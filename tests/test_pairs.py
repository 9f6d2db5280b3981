"""The paper's pair rules on trajectories written by hand."""

from collections import Counter
from dataclasses import replace

import pytest
from support import trajectory

from mtdpo_lib.pairs import drop_reason, make_pairs, right_trajectories
from mtdpo_lib.profiles.sections import PairSettings
from mtdpo_lib.rollout import Turn

SETTINGS = PairSettings(max_tokens=10)


def test_a_pair_is_a_right_and_a_wrong_trajectory_of_one_prompt():
    pairs, report = make_pairs(
        [trajectory("a", True), trajectory("b", True), trajectory("b", False, 1)], SETTINGS, 0
    )
    assert [(pair.chosen.problem_id, pair.chosen.correct, pair.rejected.correct) for pair in pairs] == [
        ("b", True, False)
    ]
    assert report.prompts == {"all right": 1, "paired": 1}
    assert report.trajectories == {"right": 2, "wrong": 1}
    assert report.pairs == 1


def test_winners_with_an_error_in_the_last_tool_output_are_dropped_and_losers_are_not():
    pairs, report = make_pairs(
        [
            trajectory("a", True, 0, error="NameError"),
            trajectory("a", True, 1),
            trajectory("a", False, 2, error="NameError"),
        ],
        SETTINGS,
        0,
    )
    assert [(pair.chosen.sample, pair.rejected.sample) for pair in pairs] == [(1, 2)]
    assert report.dropped_trajectories == {"right, but the last tool output is an error": 1}


def test_the_error_rule_can_be_switched_off():
    kept = replace(SETTINGS, drop_winner_errors=False)
    assert drop_reason(trajectory("a", True, error="NameError"), kept) is None


def test_only_the_last_tool_output_counts():
    early = replace(
        trajectory("a", True), turns=[Turn("c", "x", "e", "NameError"), Turn("c", "x", "3"), Turn("done")]
    )
    assert drop_reason(early, SETTINGS) is None


def test_over_long_trajectories_are_dropped_on_both_sides():
    pairs, report = make_pairs(
        [
            trajectory("a", True, 0, 11),
            trajectory("a", True, 1),
            trajectory("a", False, 2, 11),
            trajectory("a", False, 3, 10),
        ],
        SETTINGS,
        0,
    )
    assert [(pair.chosen.sample, pair.rejected.sample) for pair in pairs] == [(1, 3)]
    assert report.dropped_trajectories == {"longer than the limit": 2}


def test_every_prompt_and_every_drop_is_counted():
    rows = [
        trajectory("right", True), trajectory("wrong", False), trajectory("both", True), trajectory("both", False, 1),
        trajectory("dropped", True, 0, 11), trajectory("dropped", False, 1),
    ]  # fmt: skip
    _, report = make_pairs(rows, SETTINGS, 0)
    assert report.prompts == {"all right": 1, "all wrong": 1, "paired": 1, "one side dropped": 1}
    assert sum(report.trajectories.values()) == len(rows)


def test_the_choice_is_random_uniform_and_repeatable():
    rows = [trajectory("a", True, sample) for sample in range(4)] + [trajectory("a", False, 9)]
    chosen = Counter(make_pairs(rows, SETTINGS, seed)[0][0].chosen.sample for seed in range(2000))
    assert set(chosen) == {0, 1, 2, 3}
    assert all(abs(count / 2000 - 0.25) < 0.05 for count in chosen.values())
    assert make_pairs(rows, SETTINGS, 5)[0] == make_pairs(rows, SETTINGS, 5)[0]


def test_other_prompts_do_not_change_a_prompts_choice():
    rows = [trajectory("a", True, sample) for sample in range(4)] + [trajectory("a", False, 9)]
    more = [trajectory("z", True, 7), trajectory("z", False, 8), *rows]
    alone, among = make_pairs(rows, SETTINGS, 3)[0][0], make_pairs(more, SETTINGS, 3)[0][1]
    assert alone == among


@pytest.mark.parametrize(("wanted", "made"), [(1, 1), (2, 2), (5, 3)])
def test_several_pairs_a_prompt_use_no_trajectory_twice(wanted, made):
    rows = [trajectory("a", True, sample) for sample in range(4)] + [
        trajectory("a", False, sample) for sample in (7, 8, 9)
    ]
    pairs, _ = make_pairs(rows, replace(SETTINGS, pairs_per_prompt=wanted), 0)
    assert len(pairs) == made
    for side in ("chosen", "rejected"):
        assert len({getattr(pair, side).sample for pair in pairs}) == made


def test_no_trajectories_give_no_pairs():
    pairs, report = make_pairs([], SETTINGS, 0)
    assert pairs == [] and report.pairs == 0


def told(rows):
    return [(row.problem_id, row.sample) for row in rows]


def test_raft_learns_from_prompts_whose_samples_are_all_right():
    rows = [
        trajectory("all right", True), trajectory("all wrong", False), trajectory("both", True, 1),
        trajectory("both", False, 2), trajectory("from memory", True, 3, error="NameError"),
        trajectory("too long", True, 4, 11),
    ]  # fmt: skip
    assert told(right_trajectories(rows, SETTINGS, 0)) == [("all right", 0), ("both", 1)]


@pytest.mark.parametrize(("wanted", "made"), [(1, 1), (2, 2), (5, 3)])
def test_raft_takes_at_most_k_trajectories_of_a_prompt_and_no_two_alike(wanted, made):
    rows = [trajectory("a", True, sample) for sample in (1, 2, 3, 1, 2, 3, 1)]
    chosen = right_trajectories(rows, replace(SETTINGS, right_per_prompt=wanted), 0)
    assert len(chosen) == len({tuple(row.ids) for row in chosen}) == made


def test_raft_s_one_trajectory_is_a_random_right_one():
    """As the winner of a pair: what is sampled three times of four is drawn three times of four."""
    rows = [trajectory("a", True, sample) for sample in (1, 1, 1, 2)]
    drawn = Counter(right_trajectories(rows, SETTINGS, seed)[0].ids[0] for seed in range(2000))
    assert abs(drawn[1] / 2000 - 0.75) < 0.05
    alone = right_trajectories(rows, SETTINGS, 3)
    assert right_trajectories([trajectory("z", True, 7), *rows], SETTINGS, 3)[1:] == alone
