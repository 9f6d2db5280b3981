"""The world of composed problems: plans hold together, demonstrations are right, and what is kept back stays so."""

import math
from collections import Counter

import pytest

from mtdpo_lib.problems import Questions, load_demonstrations
from mtdpo_lib.problems.base import SPLITS, SUITES, named, normalised
from mtdpo_lib.problems.composed import make_demonstrations, make_problems, plan_of
from mtdpo_lib.problems.composed.numbers import PIECES
from mtdpo_lib.problems.composed.plan import _never_shown, is_new, values
from mtdpo_lib.problems.composed.stories import RELATIONS
from mtdpo_lib.problems.composed.teacher import MOST_WORDINGS, WORDINGS, Wording, calls
from mtdpo_lib.problems.composed.texts import base_texts
from mtdpo_lib.profiles import get_profile

SOME = 60


@pytest.fixture(scope="module")
def problems():
    """Problems of every suite and split, level 2."""
    return {
        (suite, split): make_problems(suite, split, SOME, seed=0, level=2)
        for suite in SUITES
        for split in SPLITS
    }


def test_no_question_is_in_two_splits_or_twice(problems):
    texts = [normalised(problem.question) for rows in problems.values() for problem in rows]
    assert len(set(texts)) == len(texts) == SOME * len(SUITES) * len(SPLITS)


@pytest.mark.parametrize("suite", SUITES)
def test_a_larger_count_begins_with_the_same_problems(suite, problems):
    assert make_problems(suite, "preference", 20, seed=0, level=2) == problems[suite, "preference"][:20]
    assert make_problems(suite, "preference", 20, seed=1, level=2) != problems[suite, "preference"][:20]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("level", [1, 4])
def test_the_level_says_how_many_steps_there_are(suite, level):
    plans = [plan_of(problem) for problem in make_problems(suite, "test", 40, seed=0, level=level)]
    assert {len(plan.steps) for plan in plans} == {level + 1, level + 2}


def test_demonstrations_keep_back_an_eighth_of_the_combinations(problems):
    kinds = {"gsm-like": [*RELATIONS], "math-like": [*PIECES]}
    for suite in SUITES:
        pairs = [(outer, inner) for outer in kinds[suite] for inner in kinds[suite]]
        kept_back = sum(_never_shown(*pair) for pair in pairs) / len(pairs)
        assert 0.05 < kept_back < 0.2
        assert not any(is_new(plan_of(problem).steps) for problem in problems[suite, "demonstrations"])
        new = sum(problem.family.endswith("-new") for problem in problems[suite, "test"]) / SOME
        assert new > 0.05


@pytest.mark.parametrize("suite", SUITES)
def test_four_in_ten_depend_on_what_the_tool_said(suite, problems):
    rows = [problem for split in SPLITS for problem in problems[suite, split]]
    decided = [problem for problem in rows if plan_of(problem).decision]
    assert len(decided) / len(rows) >= 0.4
    for problem in decided:
        decision = plan_of(problem).decision
        assert decision.code.split()[0] in decision.output.split()
    kinds = Counter(plan_of(problem).decision.kind for problem in decided)
    assert set(kinds) == {"parity", "threshold", "compare"}


def test_every_decision_could_go_the_other_way(problems):
    findings = Counter(
        (decision.kind, decision.finding.split(" is ")[1].split()[0])
        for rows in problems.values() for problem in rows if (decision := plan_of(problem).decision)
    )  # fmt: skip
    assert {("parity", "even"), ("parity", "odd"), ("threshold", "more"), ("threshold", "not")} <= set(
        findings
    )
    assert {("compare", "more"), ("compare", "less")} <= set(findings)
    assert min(findings.values()) > 5


def test_demonstrations_are_executed_and_right(pool):
    settings = get_profile("cpu", "problems.demonstrations=60").problems
    rows, report = load_demonstrations(settings, 0, pool.session)
    assert report["total"] == report["correct"] == len(rows) == 60
    assert {message["role"] for row in rows for message in row.messages} == {"user", "assistant", "tool"}
    assert {row.strategy for row in rows} >= {"1 calls", "2 calls"}


def test_a_question_is_shown_several_times_in_other_words(pool, problems):
    rows = problems["gsm-like", "demonstrations"][:4]
    once, often = (make_demonstrations(rows, 0, 8, pool.session, each=each) for each in (1, 3))
    assert often[::3] == once and [row.problem for row in often] == [row for row in rows for _ in range(3)]
    assert all(len({str(row.messages) for row in often[at : at + 3]}) == 3 for at in range(0, 12, 3))
    settings = get_profile("cpu", "problems.demonstrations=10 problems.demonstrations_each=4").problems
    asked = Counter(row.problem.id for row in load_demonstrations(settings, 0, pool.session)[0])
    assert sorted(asked.values()) == [2, 4, 4]


def test_wordings_mean_the_same_and_are_worth_their_logarithm(problems):
    assert all(len(set(words)) == MOST_WORDINGS for words in WORDINGS.values())
    problem = next(one for one in problems["gsm-like", "test"] if plan_of(one).decision is None)
    plan = plan_of(problem)
    told = {str(list(calls(plan, Wording(named(seed, "words"), 2)))) for seed in range(400)}
    places = len(plan.steps) + 1  # a comment above each line, and the opening
    assert math.log(len(told)) == pytest.approx(places * math.log(2), abs=0.2)
    assert len({str(list(calls(plan, Wording(named(seed, "words"), 1)))) for seed in range(9)}) == 1


def test_the_base_reads_no_question_of_another_split(pool, problems):
    texts = base_texts(80, 80, seed=0, session_factory=pool.session)
    asked = {normalised(text[0]["content"]) for text in texts}
    kept = {
        normalised(one.question)
        for (_, split), rows in problems.items()
        if split != "demonstrations"
        for one in rows
    }
    assert not asked & kept
    assert len(texts) > 3 * 80
    assert not any(
        "-new" in problem.family for problem in make_problems("math-like", "demonstrations", 50, 0, 3)
    )


def test_values_of_variables_are_those_that_python_gives(problems):
    for rows in problems.values():
        for problem in rows[:20]:
            plan, space = plan_of(problem), {"math": math}
            for step in plan.steps:
                exec(f"{step.name} = {step.code}", space)
            assert values(plan.steps) == {step.name: space[step.name] for step in plan.steps}


def test_only_what_decides_the_questions_is_in_their_key():
    def key(*settings):
        world = get_profile("cpu", settings).problems
        return Questions.of(world, "test", 5, 0).fingerprint()

    assert key() == key("problems.wordings=3") == key("problems.families=2") != key("problems.level=3")


def test_demonstrations_of_another_seed_differ_in_words(pool, problems):
    rows = problems["math-like", "demonstrations"][:5]
    one, same, two = (make_demonstrations(rows, seed, 8, pool.session) for seed in (0, 0, 1))
    assert one == same != two
