"""What a study found: paired intervals, contrasts and verdicts from records alone, and what is kept of it."""

import json

import pytest

from mtdpo_lib.common.files import REFERENCE_RUNS, write_json
from mtdpo_lib.experiment import arms
from mtdpo_lib.experiment.study import Study
from mtdpo_lib.lessons import publish
from mtdpo_lib.results import Metrics, claims, readme, report, stats, study_metrics


def record(
    out, arm, seed, own, sft="0000", first="", iterations=(), development=None, profile="cpu", settings=""
):
    facts = {
        "arm": arm, "seed": seed, "profile": profile, "settings": settings, "policies": ["sft", f"{arm}-1", f"{arm}-2"],
        "outcomes": {"sft": sft[: len(own)], f"{arm}-1": first or own, f"{arm}-2": own},
        "cost": {"trajectories": 9, "pairs": 3, "sampled tokens": 900, "trained tokens": 500},
        "seconds": 1.5, "iterations": list(iterations), "development": development or {"step-9": 0.5},
    }  # fmt: skip
    (out / "arms").mkdir(exist_ok=True, parents=True)
    (out / "arms" / f"{arm}-seed{seed}.json").write_text(json.dumps(facts))


@pytest.fixture
def undrawn(monkeypatch):
    """Numbers alone are looked at: drawing takes nearly all of the time."""
    monkeypatch.setattr(study_metrics, "draw", lambda *_: [])


def test_results_are_paired_over_seeds_and_questions(tmp_path):
    for seed, (one, other) in enumerate([("1110", "1100"), ("1111", "0101")]):
        record(tmp_path, "mdpo", seed, one, sft="1000")
        record(tmp_path, "fixed", seed, other, sft="1000")
    file = study_metrics.summarise(tmp_path)
    found = {metric["name"]: metric for metric in json.loads(file.read_text())}
    assert found["accuracy/test/mdpo"]["value"] == 7 / 8
    assert found["gain/test/mdpo"]["value"] == pytest.approx(5 / 8)
    value, low, high = stats.over_seeds([[0, 0, -1, 0], [-1, 0, -1, 0]])
    difference = found["difference/test/fixed-minus-mdpo"]
    assert (difference["value"], difference["low"]) == (pytest.approx(value), pytest.approx(low, abs=1e-6))
    assert (difference["high"], difference["seeds"]) == (pytest.approx(high, abs=1e-6), [0, 1])
    assert found["claim/mdpo-sft"]["value"] == pytest.approx(5 / 8)
    assert "fixed | a fixed reference: " in (tmp_path / "report.md").read_text()
    assert (tmp_path / "figures" / "arms.png").exists()


def test_problems_of_one_family_share_their_luck(tmp_path, undrawn):
    rows = ["11110000", "11100000", "11010000"]
    for seed, right in enumerate(rows):
        record(tmp_path, "mdpo", seed, right, sft="00000000")
    families = {f"id-{number}": f"family {number // 2}" for number in range(8)}
    write_json(tmp_path / "questions.json", {"world": "small", "problems": families})
    found = {metric["name"]: metric for metric in json.loads(study_metrics.summarise(tmp_path).read_text())}
    table = [list(map(int, right)) for right in rows]
    gain, expected = found["gain/test/mdpo"], stats.over_seeds(table, families=list(families.values()))
    assert (gain["value"], gain["low"], gain["high"]) == pytest.approx(expected, abs=1e-6)
    assert gain["high"] > stats.over_seeds(table)[2] + 0.01, "problems that are not independent tell less"


def test_every_answer_can_be_read_again(tmp_path):
    record(tmp_path, "mdpo", 0, "1101", sft="1000")
    record(tmp_path, "fixed", 3, "0111")
    read = study_metrics.answers(tmp_path)
    assert set(read) == {("mdpo", 0), ("fixed", 3)}
    assert read["mdpo", 0]["sft"] == [1, 0, 0, 0] and read["fixed", 3]["fixed-2"] == [0, 1, 1, 1]
    assert study_metrics.questions(tmp_path) == {"world": "", "problems": {}}


def test_the_kept_study_holds_every_answer_and_names_its_problems():
    home = REFERENCE_RUNS / study_metrics.worlds()[0] / "study"
    problems, read = study_metrics.questions(home)["problems"], study_metrics.answers(home)
    assert {len(right) for policies in read.values() for right in policies.values()} == {len(problems)}
    kept = study_metrics.kept()
    for arm in study_metrics.measured_arms(kept):
        accuracy = kept.get("accuracy", "test", arm)
        last = [list(read[arm, seed].values())[-1] for seed in accuracy.seeds]
        assert [sum(right) / len(right) for right in last] == pytest.approx(accuracy.each, abs=1e-6)


def test_iterations_are_contrasted_and_claims_get_verdicts(tmp_path, undrawn):
    for seed in (0, 1):
        record(tmp_path, "mdpo", seed, "1111", first="1100")
        record(tmp_path, "eta-low", seed, "1111", first="1110")
    file = study_metrics.summarise(tmp_path)
    found = {metric["name"]: metric["value"] for metric in json.loads(file.read_text())}
    assert found["accuracy/2-minus-1/mdpo"] == 0.5
    assert found["accuracy/1/eta-low-minus-mdpo"] == 0.25
    assert found["difference/test/eta-low-minus-mdpo"] == 0
    words = {row["name"]: row["verdict"] for row in json.loads(file.read_text()) if "verdict" in row}
    assert words["claim/mdpo-sft"] == claims.TOWARDS and words["claim/eta-low-first"] == claims.INCONCLUSIVE
    assert words["claim/fixed-mdpo"] == claims.NOT_EXERCISED


def test_gains_from_different_starts_are_compared(tmp_path, undrawn):
    record(tmp_path, "mdpo", 0, "1111", sft="1100")
    record(tmp_path, "sft-2", 0, "1110", sft="0000")
    found = {metric["name"]: metric for metric in json.loads(study_metrics.summarise(tmp_path).read_text())}
    assert found["gain/test/sft-2-minus-mdpo"]["value"] == 3 / 4 - 2 / 4


def test_the_last_checkpoint_is_compared_with_the_first(tmp_path, undrawn):
    for seed, last in ((0, 0.75), (1, 0.5)):
        steps = {"step-9": 0.75, "step-18": 1.0, "step-100": last}
        record(tmp_path, "mdpo", seed, "1111", development=steps)
    found = {metric["name"]: metric for metric in json.loads(study_metrics.summarise(tmp_path).read_text())}
    metric = found["development/last-minus-first/mdpo"]
    assert (metric["each"], metric["unit"], metric["n"]) == ([0.0, -0.25], "fraction", 2)
    assert found["claim/early-optimum"]["verdict"] == claims.INCONCLUSIVE


def test_iterations_tell_what_changed(tmp_path, undrawn):
    for arm, shift in (("mdpo", 0.0), ("fixed", 0.1)):
        for seed in (0, 1):
            rows = [
                {"right": 0.5 + seed / 10 + shift, "chosen_ratio": 1.0},
                {"right": 0.75 + shift, "chosen_ratio": -1.0},
            ]
            record(tmp_path, arm, seed, "11", iterations=rows)
    found = {metric["name"]: metric for metric in json.loads(study_metrics.summarise(tmp_path).read_text())}
    assert found["right/1/mdpo"]["each"] == [0.5, 0.6] and found["right/1/mdpo"]["n"] == 2
    assert found["right/2-minus-1/mdpo"]["value"] == pytest.approx(0.2)
    assert found["right/2/fixed-minus-mdpo"]["value"] == pytest.approx(0.1)
    assert found["chosen_ratio/2-minus-1/fixed"]["unit"] == "nats"
    facts = {name for name in found if name.startswith("right/")}
    one_arm = {f"right/{when}/{arm}" for when in ("1", "2", "2-minus-1") for arm in ("mdpo", "fixed")}
    assert facts == one_arm | {f"right/{when}/fixed-minus-mdpo" for when in ("1", "2")}


def test_pass_at_n_is_paired_with_sft(tmp_path, monkeypatch):
    many = 64
    for seed, (sft, ours) in enumerate([([0, many], [many, many]), ([0, many], [0, many])]):
        record(tmp_path, "mdpo", seed, "1111", first="1111")
        file = tmp_path / "arms" / f"mdpo-seed{seed}.json"
        facts = json.loads(file.read_text()) | {"right of many": {"sft": sft, "mdpo-2": ours}}
        file.write_text(json.dumps(facts))
    found = {
        metric["name"]: metric["value"]
        for metric in json.loads(study_metrics.summarise(tmp_path).read_text())
    }
    assert (tmp_path / "figures" / "pass_at_n.png").exists()
    rows = json.loads((tmp_path / "report.json").read_text())
    metrics = Metrics.from_dicts(row for row in rows if "verdict" not in row)
    told = study_metrics.pass_sentence(metrics)
    assert told.startswith(f"Sampled {many} times, mdpo: pass@1 50.0 (") and "after; pass@64 50.0 (" in told
    assert told.endswith("n = 2 test problems.") and study_metrics.pass_sentence(Metrics()) == ""
    monkeypatch.setattr(study_metrics, "draw", lambda *_: [])
    families = dict(zip("abcd", ("one", "other", "one", "third"), strict=True))
    write_json(tmp_path / "questions.json", {"world": "small", "problems": families})
    rows = {row["name"]: row for row in json.loads(study_metrics.summarise(tmp_path).read_text())}
    gain = rows["pass/1/mdpo-minus-sft"]  # on every second problem: of one family
    assert (gain["low"], gain["high"]) == pytest.approx(stats.mean_interval([0.5, 0.0])[1:], abs=1e-6)
    for seed in range(2):
        add(tmp_path, "mdpo", seed, **{"asked often": ["a", "d"]})
    rows = {row["name"]: row for row in json.loads(study_metrics.summarise(tmp_path).read_text())}
    apart = rows["pass/1/mdpo-minus-sft"]  # the same answers, of two families
    assert (apart["low"], apart["high"]) != (gain["low"], gain["high"])
    for n in arms.PASS_AT:
        assert found[f"pass/{n}/mdpo"] == 0.75 and found[f"pass/{n}/mdpo/sft"] == 0.5
        assert found[f"pass/{n}/mdpo-minus-sft"] == 0.25


def test_a_record_tells_how_many_samples_there_were(tmp_path):
    for seed in (0, 1):
        record(tmp_path, "mdpo", seed, "1111", first="1111")
        add(
            tmp_path,
            "mdpo",
            seed,
            **{"right of many": {"sft": [1, 2], "mdpo-2": [2, 4]}, "samples of many": 4},
        )
    rows = json.loads(study_metrics.summarise(tmp_path).read_text())
    found = {row["name"]: row["value"] for row in rows if row["name"].startswith("pass/")}
    assert {name.split("/")[1] for name in found} == {"1", "2", "4"}
    assert found["pass/4/mdpo"] == 1.0 and found["pass/1/mdpo/sft"] == pytest.approx(3 / 8)
    told = study_metrics.pass_sentence(Metrics.from_dicts(row for row in rows if "verdict" not in row))
    assert told.startswith("Sampled 4 times, mdpo: pass@1 37.5") and "pass@4 100.0" in told
    for seed in (0, 1):
        add(
            tmp_path,
            "mdpo",
            seed,
            **{"right of many": {"sft": [0, 1], "mdpo-2": [1, 1]}, "samples of many": 1},
        )
    rows = json.loads(study_metrics.summarise(tmp_path).read_text())
    told = study_metrics.pass_sentence(Metrics.from_dicts(row for row in rows if "verdict" not in row))
    assert told.startswith("Sampled 1 times, mdpo: pass@1 50.0"), "once is told too"


def add(out, arm, seed, **facts):
    file = out / "arms" / f"{arm}-seed{seed}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def found_in(out):
    return {row["name"]: row["value"] for row in json.loads(study_metrics.summarise(out).read_text())}


def test_the_selected_policy_is_reported_beside_the_last(tmp_path):
    for seed, selected in ((0, "mdpo-1"), (1, "sft")):
        record(tmp_path, "mdpo", seed, "1000", sft="1100", first="1111")
        record(tmp_path, "fixed", seed, "1000", sft="1100")
        add(tmp_path, "mdpo", seed, selected=selected)
        add(tmp_path, "fixed", seed, selected="fixed-2")
    found = found_in(tmp_path)
    assert (found["accuracy/test/mdpo"], found["accuracy/selected/mdpo"]) == (0.25, 0.75)
    assert (found["gain/test/mdpo"], found["gain/selected/mdpo"]) == (-0.25, 0.25)
    assert found["difference/selected/fixed-minus-mdpo"] == -0.5


def test_what_many_samples_solve_is_followed_over_the_iterations_where_all_were_sampled(tmp_path):
    for arm, policies in (("mdpo-5", ("sft", "mdpo-5-1", "mdpo-5-2")), ("mdpo", ("sft", "mdpo-2"))):
        record(tmp_path, arm, 0, "1111")
        many = {name: [number, 0, 0, 64] for number, name in enumerate(policies)}
        add(tmp_path, arm, 0, **{"right of many": many})
    found = found_in(tmp_path)
    curve = {name: value for name, value in found.items() if name.startswith("pass_64/")}
    assert curve == {"pass_64/0/mdpo-5": 0.25, "pass_64/1/mdpo-5": 0.5, "pass_64/2/mdpo-5": 0.5}


def test_an_arm_of_the_command_line_is_compared_with_mdpo(tmp_path):
    record(tmp_path, "mdpo", 0, "1100")
    record(tmp_path, "lr-low", 0, "1110")
    assert found_in(tmp_path)["difference/test/lr-low-minus-mdpo"] == 0.25
    assert "| lr-low | M-DPO with settings of one's own |" in (tmp_path / "report.md").read_text()


def test_a_study_is_kept_without_its_stages(tmp_path, undrawn):
    out, target = tmp_path / "out", tmp_path / "kept"
    (out / "stages").mkdir(parents=True)
    record(out, "mdpo", 0, "11")
    write_json(out / "questions.json", {"world": "small", "problems": {"a": "a", "b": "b"}})
    home = study_metrics.keep(out, target)
    assert home == target / "cpu" / "study"
    assert sorted(file.name for file in home.rglob("*.*")) == [
        "mdpo-seed0.json",
        "questions.json",
        "report.json",
        "report.md",
        "seconds.json",
    ]


def test_a_first_plan_is_projected_from_the_kept_study(tmp_path, undrawn):
    out, reference = tmp_path / "out", tmp_path / "kept"
    record(out, "mdpo", 0, "11", profile="smoke")
    for number, seconds in enumerate((10.0, 30.0, 20.0)):
        (out / "stages" / f"sft-{number}").mkdir(parents=True)
        (out / "stages" / f"sft-{number}" / "manifest.json").write_text(json.dumps({"seconds": seconds}))
    study_metrics.keep(out, reference)
    study_metrics.keep(out, reference)
    assert study_metrics.kept_seconds("smoke", reference) == {"sft": 20.0}
    for stage in (out / "stages").rglob("manifest.json"):
        stage.unlink()
    study_metrics.keep(out, reference)  # a study whose stages are gone keeps the times that are known
    known = study_metrics.kept_seconds("smoke", reference)
    assert known == {"sft": 20.0}
    kinds = ("base", "demonstrations", "rollouts", "pairs", "training", "selection", "evaluation", "samples")
    known |= dict.fromkeys(kinds, 1.0)
    plan = Study("smoke", ["iterations=1"], [0], ["mdpo"], tmp_path / "new", known).plan()
    assert plan.seconds == 20.0 + sum(plan.missing.values()) - plan.missing["sft"]
    assert "about 0 min" in plan.sentence(jobs=2)


def test_records_of_two_profiles_and_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="run the study first"):
        study_metrics.summarise(tmp_path)
    record(tmp_path, "mdpo", 0, "1")
    record(tmp_path, "fixed", 0, "1", profile="small")
    with pytest.raises(ValueError, match="one folder for each"):
        study_metrics.summarise(tmp_path)
    record(tmp_path, "fixed", 0, "1", settings="preference.eta=0.1")
    with pytest.raises(ValueError, match="one folder for each"):
        study_metrics.summarise(tmp_path)


def test_studies_of_a_budget_and_with_other_settings_are_kept_in_their_own_places(tmp_path):
    out, target = tmp_path / "out", tmp_path / "kept"
    record(out, "mdpo", 0, "1101", sft="1000", profile="small", settings="budget=reduced")
    record(out, "raft", 0, "1100", sft="1000", profile="small", settings="budget=reduced")
    home = study_metrics.keep(out, target)
    assert home == target / "small-reduced" / "study"
    assert "at profile small, `--set budget=reduced`" in (home / "report.md").read_text()
    assert publish.draw_figures(tmp_path / "figures", target) == [
        tmp_path / "figures" / "small-reduced" / "study"
    ]
    block = readme.arms_text(home.parent)
    assert "n = 4 test problems, one seed (0): indicative; 95% intervals over questions." in block
    assert "| mdpo | M-DPO: as the paper runs it" in block and "75.0" in block and "+50.0" in block
    assert "`python -m mtdpo_lib study --profile small --arms mdpo,raft --set budget=reduced`." in block
    record(out, "mdpo", 0, "1101", profile="small", settings="preference.eta=0.1")
    (out / "arms" / "raft-seed0.json").unlink()
    assert study_metrics.keep(out, target) == target / "small/set/preference.eta=0.1/study"
    found = study_metrics.variants("small", target)
    assert found["preference.eta=0.1"].get("accuracy", "test", "mdpo").value == 0.75
    assert study_metrics.variants("cpu", target) == {}
    names = {
        str(folder.relative_to(tmp_path / "again"))
        for folder in publish.draw_figures(tmp_path / "again", target)
    }
    assert names == {"small-reduced/study", "small/set/preference.eta=0.1/study"}


def test_a_kept_folder_tells_its_profile():
    for profile, settings in (
        ("cpu", ""),
        ("small", "budget=reduced"),
        ("paper-gemma2", "budget=tiny"),
        ("paper-gemma2", "iterations=1 preference.eta=0.1"),
    ):
        assert report.profile_of(report.kept_name(profile, settings)) == profile
    one, other = (
        report.kept_name("cpu", text) for text in ("iterations=1 sft.epochs=3", "sft.epochs=3 iterations=1")
    )
    assert one == other == "cpu/set/iterations=1,sft.epochs=3"
