"""Claims are data, the rule is fixed, and every claim can be measured by a study."""

import dataclasses

import pytest

from mtdpo_lib.results import Metric, Metrics, claims, study_metrics


def measured(value, low, high, unit="fraction", seeds=(0, 1), each=()):
    return Metric("gain", value, low, high, 100, unit, seeds, "test", "mdpo", each=each)


RULE = [  # in points, in the direction of the claim
    ((16.7, 7.8, 25.6), claims.AGREES),
    ((1.6, 0.1, 3.1), claims.AGREES),
    ((0.02, -0.1, 0.1), claims.NO_EFFECT),
    ((0.5, 0.1, 0.9), claims.NO_EFFECT),
    ((4.1, -0.9, 9.1), claims.TOWARDS),
    ((0.1, -0.9, 1.1), claims.TOWARDS),
    ((5.1, -1.1, 11.3), claims.INCONCLUSIVE),
    ((0.0, -2.0, 2.0), claims.INCONCLUSIVE),
]
OPPOSITE = {claims.AGREES: claims.DISAGREES, claims.TOWARDS: claims.AGAINST}


@pytest.mark.parametrize(("points", "word"), RULE)
def test_the_rule_treats_both_directions_alike(points, word):
    value, low, high = (number / 100 for number in points)
    for_it, against_it = measured(value, low, high), measured(-value, -high, -low)
    opposite = OPPOSITE.get(word, word)
    assert [claims.verdict(for_it, "more"), claims.verdict(against_it, "more")] == [word, opposite]
    assert [claims.verdict(against_it, "less"), claims.verdict(for_it, "less")] == [word, opposite]


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ((0.4, -0.1, 0.9), claims.AGREES),
        ((0.7, 0.5, 0.9), claims.AGREES),
        ((0.6, -0.4, 1.6), claims.TOWARDS),
        ((1.3, -0.4, 3.1), claims.AGAINST),
        ((4.1, 0.6, 7.7), claims.AGAINST),
        ((4.0, 1.1, 6.9), claims.DISAGREES),
        ((0.1, -5.0, 5.2), claims.INCONCLUSIVE),
    ],
)
def test_the_rule_where_the_paper_says_that_nothing_changes(points, word):
    value, low, high = (number / 100 for number in points)
    assert claims.verdict(measured(value, low, high), "same") == word
    assert claims.verdict(measured(-value, -high, -low), "same") == word


def test_a_primary_claim_needs_its_adjusted_p_too():
    one = measured(0.1, 0.05, 0.15)
    assert claims.verdict(one, "more", 0.04) == claims.AGREES
    assert claims.verdict(one, "more", 0.06) == claims.TOWARDS
    assert claims.verdict(one, "less", 0.04) == claims.DISAGREES
    assert claims.verdict(one, "less", 0.06) == claims.AGAINST


def test_each_unit_has_its_margin_and_what_has_no_interval_is_inconclusive():
    assert claims.verdict(measured(0.01, -0.02, 0.04, "nats")) == claims.NO_EFFECT
    assert claims.verdict(measured(0.07, -0.04, 0.18, "nats")) == claims.TOWARDS
    assert claims.verdict(measured(0.1, None, None)) == claims.INCONCLUSIVE
    assert claims.verdict(None) == claims.NOT_EXERCISED
    with pytest.raises(ValueError, match="known are more, less, same"):
        claims.verdict(measured(1, 1, 1), "better")
    rule = " ".join(claims.verdict.__doc__.split())
    margin = f"{100 * claims.MARGIN['fraction']:g} point, or {claims.MARGIN['nats']} nats"
    assert margin in rule and f"below {claims.LEVEL}" in rule, "the page shows this text"
    words = (*OPPOSITE, *OPPOSITE.values(), claims.NO_EFFECT, claims.INCONCLUSIVE, claims.NOT_EXERCISED)
    assert all(f"**{word}**" in rule for word in words)


PRIMARY = {"mdpo-sft", "raft-mdpo", "dpo-mdpo", "kto-mkto", "fixed-mdpo", "on-policy-mdpo"}


def test_six_claims_are_primary_and_none_of_them_is_smaller_than_the_margin_in_the_paper():
    primary = [claim for claim in claims.read_claims() if claim.kind == "primary"]
    assert {claim.name for claim in primary} == PRIMARY
    assert min(abs(claim.paper) for claim in primary) >= 100 * claims.MARGIN["fraction"]
    of_one_run = claims.read_claims("run_claims", first="mdpo-1", second="mdpo-2", last="mdpo-3")
    assert {claim.kind for claim in of_one_run} == {"exploratory"}


def test_primary_claims_are_tested_over_seeds_and_adjusted_for_all_six():
    each = [0.05 + number / 100 for number in range(12)]
    gain = measured(0.1, 0.05, 0.15, seeds=range(100, 112), each=each)
    few = Metric("difference", -0.1, -0.15, -0.05, 100, seeds=range(5), split="test", arm="raft", against="mdpo",
                 each=(-0.1, -0.2, -0.05, -0.1, -0.05))  # fmt: skip
    rows = {row.claim.name: row for row in claims.judge(Metrics([gain, few]), "trends")}
    assert rows["mdpo-sft"].p == 2 / 2**12 and rows["mdpo-sft"].adjusted == pytest.approx(6 * 2 / 2**12)
    assert rows["mdpo-sft"].verdict == claims.AGREES
    assert rows["raft-mdpo"].p == 2 / 2**5 and rows["raft-mdpo"].adjusted == pytest.approx(5 * 2 / 2**5)
    assert rows["raft-mdpo"].verdict == claims.TOWARDS, "five seeds cannot show it"
    assert rows["fixed-mdpo"].p is None and rows["mkto-sft"].p is None
    head, table = claims.rows(list(rows.values()))
    shown = {row[0]: dict(zip(head, row, strict=True)) for row in table}
    raft = shown["RAFT stays below M-DPO"]
    assert (raft["p"], raft["Holm p"], raft["seeds"]) == ("0.062", "0.31", "5: -----")
    assert shown["M-KTO is better than SFT"]["p"] == "exploratory"
    exploratory = [row for row in rows.values() if row.claim.kind == "exploratory"]
    assert "p" not in claims.rows(exploratory)[0]


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
        first, *others = claim.metric.split(" or ")
        assert not others or first.partition("/")[0] in study_metrics.FACTS, claim.name
        # They measure the same of the same policies, so a wrong letter in any of them is found
        assert {name.partition("/")[2] for name in others} <= {first.partition("/")[2]}, claim.name
        assert {first, *others} & made or claim.metric == "none", claim.name


def test_of_several_metrics_of_a_claim_the_first_that_was_measured_counts():
    chance = Metric("distinct", -0.1, -0.2, 0.0, 4, "fraction", (0, 1), policy="mdpo", iteration=3, since=1)
    nats = dataclasses.replace(chance, kind="right_nats", unit="nats", value=-2.0, low=-3.0, high=-1.0)
    for found, wanted in (([chance], chance), ([chance, nats], nats)):
        judged = {row.claim.name: row for row in claims.judge(Metrics(found), "trends, over seeds")}
        assert judged["diversity-falls"].measured == wanted
        assert judged["diversity-falls"].to_dict()["metric"] == wanted.name


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
    assert shown["M-DPO is better than SFT"] == "not measured: it needs arms that were not run"
    assert {row.verdict for row in judged} == {claims.NOT_EXERCISED} and all(row.reason for row in judged)


def test_a_profile_that_claims_nothing_exercises_nothing():
    judged = claims.judge(Metrics([measured(0.1, 0.05, 0.15)]), "nothing: it shows that every step runs")
    assert {row.verdict for row in judged} == {claims.NOT_EXERCISED}
    reason = "not measured: this profile claims nothing: it shows that every step runs"
    assert claims.rows(judged)[1][0][2] == reason


def test_one_seed_is_indicative():
    one = measured(0.1, 0.05, 0.15, seeds=(0,), each=(0.1,))
    judged = claims.judge(Metrics([one]), "trends, over seeds")
    rows = {row.claim.name: row for row in judged}
    assert rows["mdpo-sft"].verdict == claims.TOWARDS and rows["mdpo-sft"].measured == one
    assert rows["mdpo-sft"].verdict_in_words == "leans towards (one seed: indicative)"
    assert rows["fixed-mdpo"].verdict == claims.NOT_EXERCISED and rows["fixed-mdpo"].measured is None
    head, table = claims.rows(judged)
    shown = {row[0]: row for row in table}
    assert all(len(row) == len(head) for row in table)
    assert shown["M-DPO is better than SFT"][1:7] == [
        "+5.8 (Table 1)", "+10.0 (+5.0 to +15.0)", "1", "1", "100", "1: +",
    ]  # fmt: skip
    assert claims.verdict_counts(judged).endswith("1 leans towards (one seed: indicative)")
    assert rows["mdpo-sft"].to_dict() == {
        "name": "claim/mdpo-sft", "value": 0.1, "low": 0.05, "high": 0.15, "n": 100, "unit": "fraction",
        "seeds": [0], "metric": "gain/test/mdpo", "kind": "primary", "p": 1.0, "holm_p": 1.0,
        "verdict": "leans towards (one seed: indicative)",
    }  # fmt: skip


def test_the_ledger_of_assumptions_is_complete():
    for line in claims.paper_table("assumptions"):
        assert all(line.values()) and None not in line, line
