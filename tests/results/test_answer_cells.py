"""Answers say what was measured, also where it is not what one hoped for."""

import inspect

import pytest

from mtdpo_lib.results import Metric, Metrics, answers, claims


def paired(kind, value, low, high, against="", seeds=(0, 1, 2), **fields):
    return Metric(kind, value, low, high, 100, seeds=seeds, split="test", against=against, **fields)


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ((4.0, 1.0, 7.0), "A is above B: +4.0 (+1.0 to +7.0) points"),
        ((-4.0, -7.0, -1.0), "A is below B: -4.0 (-7.0 to -1.0) points"),
        ((4.0, -1.0, 9.0), "A is not shown to differ from B: +4.0 (-1.0 to +9.0) points"),
        ((0.0, 0.0, 0.0), "A is not shown to differ from B: +0.0 (+0.0 to +0.0) points"),
    ],
)
def test_the_word_of_a_comparison_follows_from_its_paired_interval(points, words):
    value, low, high = (one / 100 for one in points)
    assert answers.compared(paired("gain", value, low, high), "A", "B") == words
    once = answers.compared(paired("gain", value, low, high, seeds=(4,)), "A", "B")
    assert once == f"{words}, one seed: indicative"


def test_what_was_not_compared_is_not_compared_in_words():
    assert answers.compared(None, "A", "B") == "A was not compared with B here"
    without = Metric("gain", 0.5, seeds=(0,))
    assert answers.compared(without, "A", "B") == "A was not compared with B here"
    assert "was not compared" in answers.last_gain(Metrics())


def test_a_rival_that_is_ahead_is_said_to_be_ahead():
    study = Metrics([
        paired("gain", 0.02, -0.05, 0.09, arm="mdpo"),
        paired("difference", 0.04, 0.01, 0.07, "mdpo", arm="raft"),
        paired("difference", -0.04, -0.07, -0.01, "mdpo", arm="dpo"),
    ])  # fmt: skip
    run = Metrics([paired("gain", -0.1, -0.2, -0.05, arm="mdpo", iteration=3, policy="mdpo-3", seeds=(0,))])
    lost, unclear, rivals = answers.preference(run, study)
    assert lost == (
        "In this run the policy after iteration 3 is below SFT: -10.0 (-20.0 to -5.0) points, one seed: indicative "
        "(100 test problems)."
    )
    assert unclear == (
        "In the kept study (seeds 0, 1, 2) M-DPO is not shown to differ from SFT: +2.0 (-5.0 to +9.0) points."
    )
    assert rivals == (
        "In the kept study (seeds 0, 1, 2) RAFT is above M-DPO: +4.0 (+1.0 to +7.0) points; "
        "single-turn DPO is below M-DPO: -4.0 (-7.0 to -1.0) points."
    )
    study.profile = "habits"
    for sentence in answers.preference(run, study)[1:]:
        assert sentence.startswith("In the kept study (profile habits, seeds 0, 1, 2) ")


def test_the_last_iteration_of_another_method_is_found_by_its_name():
    rows = [paired("gain", 0.1, 0.05, 0.15, arm="mkto", iteration=n, policy=f"mkto-{n}") for n in (1, 2)]
    assert "after iteration 2 is above SFT" in answers.preference(Metrics(rows), Metrics(), "mkto")[0]


def test_without_a_study_or_a_real_run_nothing_is_said_of_them():
    for sentences in (
        answers.preference(Metrics(), Metrics()),
        answers.reference(None, None, Metrics()),
        answers.sampling(0.0, None, Metrics()),
    ):
        assert "No study is kept here" in sentences[2]
    assert answers.real_model(3, 9, 0.09, {})[2] == (
        "What it gave on real problems: no run of a real model is kept here."
    )
    assert "no run is kept here" in answers.start(50, (0.3, -0.4), Metrics())[2]
    assert "was not compared" in answers.theory(1e-8, Metrics(), Metrics())[2]


def test_a_broken_promise_is_named_and_a_missed_optimum_admitted():
    assert (
        "2 promises were attacked once each, and all of them held"
        in answers.sandbox({"a": True, "b": True}, 1.5, 10, 1)[0]
    )
    assert answers.sandbox({"ends": True, "no fork": False}, 1.5, 10, 1)[0].endswith(
        "1 did not hold: no fork."
    )
    assert "near the optimum, not at it" in answers.theory(1e-3, Metrics(), Metrics())[0]
    assert "the optimum of the" in answers.theory(1e-8, Metrics(), Metrics())[0]


def test_a_mask_that_changes_nothing_and_a_mixture_that_covers_less_are_told():
    assert "leaves the sign as it is" in answers.start(50, (0.3, 0.1), Metrics())[1]
    assert "turns the verdict round" in answers.start(50, (0.3, -0.1), Metrics())[1]
    assert "covers 1.5 points fewer" in answers.sampling(-1.5, None, Metrics())[0]
    assert "covers as many prompts as" in answers.sampling(0.0, None, Metrics())[0]


def test_pairs_that_part_at_a_word_of_the_tool_are_counted():
    fates = {"paired": 7, "all wrong": 3}
    first, second, _ = answers.pairs(fates, {"assistant": 5, "tool": 2}, 0, 4)
    assert "7 of 10 prompts give one (3 all wrong)" in first
    assert second == "Of 7 pairs that part, 5 part at a token that the policy wrote."
    assert "none is left out" in answers.pairs({"paired": 1}, {}, 0, 0)[0]


def test_a_late_checkpoint_that_is_worse_is_said_to_be_worse():
    facts = {"demonstrations": 10, "tokens": 200, "scored tokens": 50}
    worse = paired("difference", -0.03, -0.05, -0.01, "sft-early", policy="sft", seeds=(0,))
    first, second, third = answers.sft(Metrics(), facts, worse, 20, 20)
    assert "25 % of their tokens" in first and "an unknown part" in second
    assert "20 of its 20 tool calls end in an error" in second
    assert "the late checkpoint is below the early one" in third


def test_rollouts_without_a_right_answer():
    assert "0 are right, 0.0 %" in answers.rollouts(0, 40, 2, {1: 0.0, 4: 0.0})[1]


def test_verdicts_are_counted_as_they_are_given():
    metrics = Metrics([paired("gain", 0.2, 0.1, 0.3, arm="mdpo", each=(0.1, 0.2, 0.3))])
    judged = claims.judge(metrics, "trends")
    first, second, third = answers.report([], judged, 4)
    assert first == "Of 0 claims of the paper this run says: none was judged."
    primary = [row for row in judged if row.claim.kind == "primary"]
    assert claims.verdict_counts(primary) in second
    assert "of 1 differences in points 4 had the other sign" in third


def test_every_answer_has_three_whole_sentences():
    """All functions that a notebook calls."""
    study = Metrics([paired("difference", 0.01, -0.1, 0.1, "mdpo", arm="raft")])
    given = {
        "own": 55, "margins": (0.3, -0.4), "kept": Metrics(), "sure": 1e-8, "metrics": Metrics(), "study": study,
        "facts": {"demonstrations": 1, "tokens": 2, "scored tokens": 1}, "later": None, "calls": 1, "errors": 0,
        "held": {"ends": True}, "milliseconds": 1.0, "right": 1, "total": 2, "turned": 0, "coverage": {1: 0.0},
        "prompts": {}, "writers": {}, "lucky": 0, "respelt": 0, "updated": None, "low": None, "more": 0.0,
        "mixture": None, "run": [], "flips": 0, "differ": 1, "settings": 2, "lost": 0.1,
    }  # fmt: skip
    found = {
        name: one
        for name, one in vars(answers).items()
        if inspect.isfunction(one) and one.__annotations__.get("return") == "Sentences"
    }
    assert len(found) == 11
    for name, one in found.items():
        unlike = {("report", "study"): [], ("real_model", "kept"): {}}
        names = [key for key in inspect.signature(one).parameters if key != "arm"]
        own = {key: unlike.get((name, key), given[key]) for key in names}
        sentences = one(**own)
        assert len(sentences) == 3, name
        for sentence in sentences:
            assert sentence[0].isupper() and sentence.endswith("."), (name, sentence)
            assert "None" not in sentence and "nan" not in sentence, (name, sentence)
