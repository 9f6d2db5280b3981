"""A metric's name follows from its fields, its words from its numbers, and JSON keeps both."""

import json

import pytest

from mtdpo_lib.results import Metric, Metrics, in_words, rests_on, study_metrics

MDPO_3 = {"arm": "mdpo", "iteration": 3, "policy": "mdpo-3"}
NAMES = {
    "accuracy/test/mdpo-3": {"kind": "accuracy", "split": "test", **MDPO_3},
    "accuracy/gsm-like/sft": {"kind": "accuracy", "split": "gsm-like", "arm": "sft", "iteration": 0},
    "difference/test/mdpo-3-minus-mdpo-3-fixed": {
        "kind": "difference", "split": "test", **MDPO_3, "against": "mdpo-3-fixed",
    },
    "accuracy/2/mdpo": {"kind": "accuracy", "iteration": 2, "arm": "mdpo"},
    "accuracy/2/fixed-minus-mdpo": {"kind": "accuracy", "iteration": 2, "arm": "fixed", "against": "mdpo"},
    "distinct/3-minus-1/mdpo": {"kind": "distinct", "iteration": 3, "since": 1, "arm": "mdpo"},
    "pass/8/mdpo/sft": {"kind": "pass", "split": "8", "arm": "mdpo", "iteration": 0, "policy": "mdpo/sft"},
    "pass/8/mdpo-minus-sft": {"kind": "pass", "split": "8", "arm": "mdpo", "against": "sft"},
    "cost/pairs/mdpo": {"kind": "cost", "split": "pairs", "arm": "mdpo", "unit": "pairs"},
    "development/last-minus-first/mdpo": {"kind": "development", "split": "last-minus-first", "arm": "mdpo"},
    "seconds/02_sft": {"kind": "seconds", "split": "02_sft", "unit": "s"},
    "theory/tv/random/mdpo": {"kind": "theory/tv", "split": "random", "arm": "mdpo"},
    "theory/sample-exponent": {"kind": "theory/sample-exponent", "unit": "exponent"},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_made_from_fields_and_json_keeps_them(name):
    metric = Metric(value=0.25, low=0.125, high=0.5, n=8, seeds=(0, 1), each=(0.2, 0.3), **NAMES[name])
    assert metric.name == name
    written = json.loads(json.dumps(metric.to_dict()))
    assert written["name"] == name and set(NAMES[name]) <= set(written)
    assert not {key for key, value in written.items() if value in ("", None)}
    assert Metric.from_dict(written) == metric


def test_a_metric_without_fields_or_with_another_name_is_refused():
    old = {"name": "accuracy/test/sft", "value": 0.5, "low": None, "high": None, "n": 2, "unit": "fraction"}
    with pytest.raises(ValueError, match=r"accuracy/test/sft was written by an older version"):
        Metric.from_dict(old)
    with pytest.raises(ValueError, match=r"called accuracy/test/sft, and its fields say accuracy/test/raft"):
        Metric.from_dict({**old, "kind": "accuracy", "split": "test", "arm": "raft"})


def test_numbers_are_kept_to_six_digits():
    metric = Metric("gain", 1 / 3, 1 / 7, 2 / 3, each=(1 / 3,))
    assert (metric.value, metric.low, metric.high, metric.each) == (0.333333, 0.142857, 0.666667, (0.333333,))


def test_numbers_are_said_in_their_unit():
    share = Metric("accuracy", 0.612, 0.5838, 0.6391)
    assert share.in_words() == "61.2 (58.4 to 63.9)" and share.value_in_words() == "61.2"
    assert share.in_words(sign=True) == "+61.2 (+58.4 to +63.9)"
    assert share.interval_in_words(sign=True) == "+58.4 to +63.9"
    assert Metric("gain", 0.0312).in_words(sign=True) == "+3.1"
    assert Metric("margin", -1.5, -2, -1, unit="nats").in_words(sign=True) == "-1.50 (-2.00 to -1.00) nats"
    assert Metric("cost", 1234567, unit="sampled tokens").value_in_words(digits=0) == "1,234,567"
    assert in_words(None) == "" and in_words(None, missing="not measured") == "not measured"


def test_metrics_are_found_by_what_they_are():
    metrics = Metrics(
        Metric(value=0.5, seeds=(number,), **fields) for number, fields in enumerate(NAMES.values())
    )
    assert metrics.get("accuracy", "test", "mdpo-3") is metrics[0]
    assert (
        metrics.get("accuracy", policy="fixed", iteration=2, against="mdpo").name
        == "accuracy/2/fixed-minus-mdpo"
    )
    assert metrics.get("accuracy", "test", "sft") is None and metrics.named("nothing") is None
    assert [one.name for one in metrics.select(kind="pass", arm="mdpo")] == list(NAMES)[6:8]
    assert metrics.seeds() == list(range(len(NAMES)))


def test_accuracies_come_with_the_gains_that_were_measured():
    metrics = Metrics(Metric(kind, 0.5, split="test", arm=arm) for kind, arm in (
        ("accuracy", "sft"), ("accuracy", "mdpo"), ("gain", "mdpo"), ("gain", "raft"),
    ))  # fmt: skip
    assert metrics.with_gains(["mdpo", "raft", "sft"]) == {
        "mdpo": (metrics[1], metrics[2]),
        "sft": (metrics[0], None),
    }


def test_the_line_of_a_run_leaves_its_variants_out():
    policies = {"sft": ("sft", 0), "sft-early": ("sft", 0), "mdpo-1": ("mdpo", 1), "mdpo-1-eta-low": ("mdpo", 1),
                "mkto-1": ("mkto", 1)}  # fmt: skip
    metrics = Metrics(
        Metric("accuracy", 0.5, split="test", arm=arm, iteration=iteration, policy=policy)
        for policy, (arm, iteration) in policies.items()
    )
    assert {number: one.policy for number, one in metrics.by_iteration("accuracy").items()} == {
        0: "sft",
        1: "mdpo-1",
    }


def test_one_sentence_says_what_numbers_rest_on():
    one, two = Metric("gain", 0.1, n=1008, seeds=(0,)), Metric("gain", 0.1, n=1008, seeds=(0, 1))
    assert rests_on([one]) == "n = 1,008 problems, one seed (0): indicative; 95% intervals over questions."
    assert rests_on([two], "test problems").startswith("n = 1,008 test problems, seeds 0, 1; 95% intervals")
    assert "seeds 0, 1; some have fewer; " in rests_on([one, two])
    assert rests_on([one], bars="Bars.") == "n = 1,008 problems, seed 0 (one seed: indicative). Bars."
    assert rests_on([two], bars="Bars.") == "n = 1,008 problems, seeds 0, 1 (over seeds and questions). Bars."
    by_seed = [Metric("right", 0.1, n=2, seeds=(0, 1))]
    assert rests_on(by_seed, bars="Bars.") == "Seeds 0, 1. Bars: 95% intervals over seeds."
    assert rests_on([]) == "Nothing measured yet."


def test_kept_studies_say_what_their_metrics_are():
    kept = study_metrics.kept()
    assert len(kept) > 1000 and len({metric.name for metric in kept}) == len(kept)


def test_a_metric_is_called_by_words_in_tables():
    def named(kind, **fields):
        return Metric(kind, 0.5, **fields).full_name

    assert named("gain", split="test", arm="mdpo", iteration=2, policy="mdpo-2") == "gain over SFT, M-DPO 2"
    assert named("accuracy", split="gsm-like", policy="sft") == "greedy accuracy, SFT, on gsm-like"
    words = "difference, M-DPO 3 minus M-DPO 3 fixed"
    assert named("difference", split="test", policy="mdpo-3", against="mdpo-3-fixed") == words
    assert named("theory/sample-exponent") == "exponent of the sampling error"
