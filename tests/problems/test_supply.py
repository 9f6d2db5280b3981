"""Whether there will be enough problems is told before a run starts, in one sentence that says how many there are."""

import pytest

from mtdpo_lib.problems import SUITES, load_problems
from mtdpo_lib.problems.habits import supply
from mtdpo_lib.problems.supply import check_problems
from mtdpo_lib.profiles import PROFILES, get_profile


@pytest.mark.parametrize("name", ["smoke", "cpu", "composed"])
def test_the_generated_profiles_have_enough(name):
    assert check_problems(PROFILES[name].problems, PROFILES[name].iterations) == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            "problems.test=60000",
            "has too few problems: 57,600 for problems.test=60000. Ask for no more than that.",
        ),
        (
            "iterations=1000 problems.families=1",
            "14,000 for 1000 iterations of problems.prompts_per_iteration=480. Ask for no more than that, or raise "
            "problems.families=1 (0: no limit).",
        ),
        ("problems.demonstrations=9999999", "216,000 for problems.demonstrations=9999999."),
    ],
)
def test_more_than_a_world_is_sure_to_have_is_refused_at_once(settings, sentence):
    profile = get_profile("cpu", settings)
    with pytest.raises(ValueError, match="The world of habits has too few") as caught:
        check_problems(profile.problems, profile.iterations)
    assert sentence in str(caught.value)


def test_more_composed_problems_than_can_be_made_in_minutes_are_refused():
    profile = get_profile("composed", "problems.test=200000")
    with pytest.raises(
        ValueError, match=r"The composed world has too few problems: 100,000 for problems\.test=200000"
    ):
        check_problems(profile.problems, profile.iterations)


def test_where_small_answers_are_the_cause_the_advice_is_to_allow_larger_ones():
    profile = get_profile("smoke", "problems.largest_answer=1")
    with pytest.raises(
        ValueError, match=r"for problems\.demonstrations=480, .* raise problems\.largest_answer=1 \(0"
    ):
        check_problems(profile.problems, 2)
    assert set(supply(largest_answer=1).values()) == {0}


def test_what_supply_promises_is_found():
    promised = supply(families=1, largest_answer=20)
    settings = get_profile("smoke").problems
    for split, count in promised.items():
        assert count > 150 and len(load_problems(settings, split, 30, seed=5)) == 30
    assert supply() == {
        split: 2 * 12 * 200 * share for split, share in zip(promised, (45, 35, 8, 12), strict=True)
    }
    assert all(len(families) == 12 for families in SUITES.values())
