"""Claims are data, the rule is fixed, and every claim can be measured by a study."""

import pytest

from mtdpo_lib.results import Metric, Metrics, claims, study_metrics


def measured(value, low, high, unit="fraction", seeds=(0, 1)):
    return Metric("gain", value, low, high, 100, unit, seeds, "test", "mdpo")


@pytest.mark.parametrize(
    ("relation", "figures", "word"),
    [
        ("more", (0.1, 0.05, 0.15), claims.AGREES),
        ("more", (0.1, -0.05, 0.25), claims.TREND),
        ("more", (-0.1, -0.2, -0.01), claims.DISAGREES),
        ("more", (-0.1, -0.3, 0.1), claims.UNTESTED),
        ("more", (0.0, 0.0, 0.0), claims.UNTESTED),
        ("less", (-0.1, -0.15, -0.05), claims.AGREES),
        ("less", (-0.1, -0.25, 0.05), claims.TREND),
        ("less", (0.1, 0.01, 0.2), claims.DISAGREES),
        ("same", (0.005, -0.01, 0.015), claims.AGREES),
        ("same", (0.01, -0.05, 0.07), claims.TREND),
        ("same", (0.1, 0.05, 0.15), claims.DISAGREES),
        ("same", (-0.1, -0.15, -0.05), claims.DISAGREES),
        ("same", (0.1, -0.05, 0.25), claims.UNTESTED),
    ],
)
def test_the_rule(relation, figures, word):
    assert claims.verdict(measured(*figures), relation) == word
    assert (
        claims.verdict(measured(*figures), relation, "nothing: it shows that every step runs")
        == claims.UNTESTED
    )


def test_nothing_measured_is_not_testable_and_an_unknown_relation_is_refused():
    assert claims.verdict(None) == claims.UNTESTED
    with pytest.raises(ValueError, match="known are more, less, same"):
        claims.verdict(measured(1, 1, 1), "better")


def test_the_papers_differences_come_from_its_tables():
    known = {claim.name: claim for claim in claims.read_claims()}
    assert len(known) == len(claims.paper_table("claims"))
    assert known["mdpo-sft"].paper == pytest.approx((83.9 + 51.2 - 77.5 - 46.1) / 2)
    assert known["fixed-mdpo"].paper == pytest.approx((79.9 + 48.0 - 83.9 - 51.2) / 2)
    assert known["pass-at-n"].paper is None
    for claim in known.values():
        assert claim.relation in claims.RELATIONS
        if claim.paper is not None and claim.relation != "same":
            assert (claim.paper > 0) == (claim.relation == "more"), claim.name
    with pytest.raises(ValueError, match="0 rows of table1"):
        claims.paper_average("table1", "method=magic")


def test_every_claim_names_a_metric_that_the_kept_study_made():
    made = {metric.name for metric in study_metrics.kept()}
    for claim in claims.read_claims():
        assert claim.metric in made or claim.metric == "none", claim.name


def test_the_claims_of_one_run_name_its_own_policies():
    policies = {"first": "mdpo-1", "second": "mdpo-2", "last": "mdpo-3"}
    known = {claim.name: claim for claim in claims.read_claims("run_claims", **policies)}
    assert known["later-iterations"].metric == "difference/test/mdpo-3-minus-mdpo-1"
    assert known["mixture-onpolicy"].metric == "difference/test/mdpo-2-minus-mdpo-2-onpolicy"
    paper = [claim.paper for claim in known.values()]
    assert paper == [5.75, 2.25, 3.6, None, 1.25], "as the paper's tables give them"


def test_a_claim_without_a_measurement_says_why_and_no_other_does():
    for claim in claims.read_claims():
        assert bool(claim.untested) == (claim.metric == "none"), claim.name
    judged = claims.judge(Metrics(), "trends")
    shown = {row[0]: row[2] for row in claims.rows(judged)[1]}
    assert shown["leaving out winners whose tool failed helps"].startswith("not measured: such winners")
    assert shown["M-DPO is better than SFT"] == "not measured"


def test_one_seed_is_indicative():
    one = measured(0.1, 0.05, 0.15, seeds=(0,))
    judged = claims.judge(Metrics([one]), "trends, over seeds")
    rows = {row.claim.name: row for row in judged}
    assert rows["mdpo-sft"].verdict == claims.AGREES and rows["mdpo-sft"].measured == one
    assert rows["mdpo-sft"].verdict_in_words == "agrees (one seed: indicative)"
    assert rows["fixed-mdpo"].verdict == claims.UNTESTED and rows["fixed-mdpo"].measured is None
    head, table = claims.rows(judged)
    shown = {row[0]: row for row in table}
    assert all(len(row) == len(head) for row in table)
    assert shown["M-DPO is better than SFT"][1:5] == ["+5.8 (Table 1)", "+10.0 (+5.0 to +15.0)", "100", "1"]
    assert claims.verdict_counts(judged).endswith("1 agrees (one seed: indicative)")
    assert rows["mdpo-sft"].to_dict() == {
        "name": "claim/mdpo-sft", "value": 0.1, "low": 0.05, "high": 0.15, "n": 100, "unit": "fraction",
        "seeds": [0], "metric": "gain/test/mdpo", "verdict": "agrees (one seed: indicative)",
    }  # fmt: skip


def test_the_ledger_of_assumptions_is_complete():
    for line in claims.paper_table("assumptions"):
        assert all(line.values()) and None not in line, line
