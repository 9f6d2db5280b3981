"""Arms over seeds: one thing changed each, stages shared, a plan that is exact, results from records alone."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import psutil
import pytest

from mtdpo_lib.__main__ import main
from mtdpo_lib.experiment import arms, study
from mtdpo_lib.lessons import publish
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import SettingError
from mtdpo_lib.results import Metrics, claims, readme, report, stats, study_metrics

SMALLEST = [
    "iterations=1", "problems.demonstrations=64", "problems.prompts_per_iteration=16", "problems.development=4",
    "problems.test=8", "sft.epochs=1", "sft.early_epochs=1", "evaluation.sampled=0", "preference.checkpoints=1",
]  # fmt: skip


def changed(arm, base):
    """Dotted names of the settings in which an arm's profile differs."""
    one, other = asdict(arm.profile(base)), asdict(base)
    names = set()
    for section, values in one.items():
        if isinstance(values, dict):
            names |= {f"{section}.{key}" for key, value in values.items() if value != other[section][key]}
        elif values != other[section]:
            names.add(section)
    return names


def test_every_arm_differs_from_its_rival_in_one_thing():
    base = get_profile("cpu")
    for arm in arms.ARMS.values():
        if arm.against == arms.BASE:
            continue
        rival = arms.ARMS[arm.against]
        own = changed(arm, base) ^ changed(rival, base)
        both = changed(arm, base) & changed(rival, base)
        own |= {name for name in both if _value(arm, base, name) != _value(rival, base, name)}
        # Two numbers that are one thing: how many samples, and how long SFT is.
        one_thing = [
            {"rollout.samples_current", "rollout.samples_previous"},
            {"sft.epochs", "sft.early_epochs"},
        ]
        things = len(own - set.union(*one_thing)) + sum(bool(own & names) for names in one_thing)
        assert things + (arm.mixture != rival.mixture) == 1, arm.name
        assert arm.iterations == rival.iterations


def _value(arm, base, name):
    section, _, key = name.rpartition(".")
    profile = arm.profile(base)
    return getattr(getattr(profile, section) if section else profile, key)


def test_seeds_and_arms_are_read_or_refused():
    assert arms.parse_seeds("0-2,5") == [0, 1, 2, 5]
    assert arms.parse_seeds("3") == [3]
    for text in ("a", "2-1", ""):
        with pytest.raises(SettingError, match="written like 0-2"):
            arms.parse_seeds(text)
    assert [arm.name for arm in arms.parse_arms("fixed")] == ["mdpo", "fixed"]  # with its rival
    assert len(arms.parse_arms("")) == len(arms.ARMS)
    with pytest.raises(SettingError, match="Unknown arm 'fixd': known are mdpo"):
        arms.parse_arms("fixd")


def test_the_plan_counts_shared_stages_once(tmp_path):
    profile = get_profile("smoke", SMALLEST)
    plan = study.make_plan(profile, [0], arms.parse_arms("mdpo,raft"), tmp_path, {})
    # One data set, SFT, sampling and pairing for both; a training, selection and evaluation each, and that of SFT;
    # pass@n of SFT and M-DPO.
    assert dict(plan.missing) == {
        "demonstrations": 1, "sft": 1, "rollouts": 1, "pairs": 1, "training": 2, "selection": 2, "evaluation": 3,
        "samples": 2,
    }  # fmt: skip
    assert plan.kept == 0 and plan.seconds is None
    assert "not projected yet" in plan.sentence()
    two = study.make_plan(profile, [0, 1], arms.parse_arms("mdpo,raft"), tmp_path, {})
    assert sum(two.missing.values()) == 2 * sum(plan.missing.values())
    known = dict.fromkeys(plan.missing, 60.0)  # seconds of every kind, measured elsewhere
    timed = study.make_plan(profile, [0], arms.parse_arms("mdpo,raft"), tmp_path, known)
    assert timed.seconds == 60.0 * sum(plan.missing.values())


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
    assert "fixed | the SFT policy stays" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "figures" / "arms.png").exists()


def test_iterations_are_contrasted_and_claims_get_verdicts(tmp_path):
    for seed in (0, 1):
        record(tmp_path, "mdpo", seed, "1111", first="1100")
        record(tmp_path, "eta-low", seed, "1111", first="1110")
    file = study_metrics.summarise(tmp_path)
    found = {metric["name"]: metric["value"] for metric in json.loads(file.read_text())}
    assert found["accuracy/2-minus-1/mdpo"] == 0.5
    assert found["accuracy/1/eta-low-minus-mdpo"] == 0.25
    assert found["difference/test/eta-low-minus-mdpo"] == 0
    words = {row["name"]: row["verdict"] for row in json.loads(file.read_text()) if "verdict" in row}
    assert words["claim/mdpo-sft"] == claims.AGREES and words["claim/eta-low-first"] == claims.TREND
    assert words["claim/fixed-mdpo"] == claims.UNTESTED


def test_gains_from_different_starts_are_compared(tmp_path):
    record(tmp_path, "mdpo", 0, "1111", sft="1100")
    record(tmp_path, "sft-2", 0, "1110", sft="0000")
    found = {metric["name"]: metric for metric in json.loads(study_metrics.summarise(tmp_path).read_text())}
    assert found["gain/test/sft-2-minus-mdpo"]["value"] == 3 / 4 - 2 / 4


def test_the_last_checkpoint_is_compared_with_the_first(tmp_path):
    for seed, last in ((0, 0.75), (1, 0.5)):
        steps = {"step-9": 0.75, "step-18": 1.0, "step-100": last}
        record(tmp_path, "mdpo", seed, "1111", development=steps)
    found = {metric["name"]: metric for metric in json.loads(study_metrics.summarise(tmp_path).read_text())}
    metric = found["development/last-minus-first/mdpo"]
    assert (metric["each"], metric["unit"], metric["n"]) == ([0.0, -0.25], "fraction", 2)
    assert found["claim/early-optimum"]["verdict"] == claims.TREND


def test_iterations_tell_what_changed(tmp_path):
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


def test_few_test_problems_are_sampled_often_at_a_small_budget():
    asked = {name: study.pass_questions(get_profile(name)) for name in ("cpu", "small", "paper", "smoke")}
    assert asked == {"cpu": 120, "small": 120, "paper": 120, "smoke": 6}
    assert study.pass_questions(get_profile("small", "budget=reduced")) == 30
    assert study.pass_questions(get_profile("smoke", SMALLEST)) == 1


def test_pass_at_n_is_paired_with_sft(tmp_path):
    many = arms.PASS_SAMPLES
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
    for n in arms.PASS_AT:
        assert found[f"pass/{n}/mdpo"] == 0.75 and found[f"pass/{n}/mdpo/sft"] == 0.5
        assert found[f"pass/{n}/mdpo-minus-sft"] == 0.25


def test_a_study_is_kept_without_its_stages(tmp_path):
    out, target = tmp_path / "out", tmp_path / "kept"
    (out / "stages").mkdir(parents=True)
    record(out, "mdpo", 0, "11")
    home = study_metrics.keep(out, target)
    assert home == target / "cpu" / "study"
    assert sorted(file.name for file in home.rglob("*.*")) == [
        "mdpo-seed0.json",
        "report.json",
        "report.md",
        "seconds.json",
    ]


def test_a_first_plan_is_projected_from_the_kept_study(tmp_path):
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
    kinds = ("demonstrations", "rollouts", "pairs", "training", "selection", "evaluation", "samples")
    known |= dict.fromkeys(kinds, 1.0)
    plan = study.make_plan(
        get_profile("smoke", SMALLEST), [0], arms.parse_arms("mdpo"), tmp_path / "new", known
    )
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


def test_a_study_of_a_budget_is_kept_beside_its_runs_and_other_settings_are_refused(tmp_path):
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
    assert "| mdpo | M-DPO as the paper runs it" in block and "75.0" in block and "+50.0" in block
    assert "`python -m mtdpo_lib study --profile small --arms mdpo,raft --set budget=reduced`." in block
    record(out, "mdpo", 0, "1101", profile="small", settings="preference.eta=0.1")
    (out / "arms" / "raft-seed0.json").unlink()
    with pytest.raises(ValueError, match=r"without --set .but for a budget.* --set preference\.eta=0\.1"):
        study_metrics.keep(out, target)


def test_a_kept_folder_tells_its_profile():
    for profile, settings in (("cpu", ""), ("small", "budget=reduced"), ("paper-gemma2", "budget=tiny")):
        assert report.profile_of(report.kept_name(profile, settings)) == profile


def test_the_command_plans_and_refuses(tmp_path, capsys):
    assert (
        main(["study", "--plan", "--seeds", "0-1", "--arms", "noisy-corrected", "--out", str(tmp_path)]) == 0
    )
    said = capsys.readouterr().out
    assert "2 arms (noisy, noisy-corrected), seeds 0, 1." in said and "To compute:" in said
    assert main(["study", "--arms", "nothing"]) == 2
    assert "Unknown arm 'nothing'" in capsys.readouterr().err
    assert main(["study", "--profile", "cpuu"]) == 2


@pytest.mark.slow
def test_a_small_study_from_start_to_end_and_again(tmp_path, capsys):
    command = [
        "study",
        "--profile",
        "smoke",
        "--seeds",
        "0",
        "--arms",
        "noisy-corrected",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 0
    records = {file.name: json.loads(file.read_text()) for file in (tmp_path / "arms").glob("*.json")}
    assert set(records) == {"noisy-seed0.json", "noisy-corrected-seed0.json"}
    assert main([*command, "--plan"]) == 0
    assert "Nothing to compute" in capsys.readouterr().out
    facts = records["noisy-corrected-seed0.json"]["iterations"]
    assert len(facts) == 1 and {"right", "covered", "luck", "chosen_ratio"} <= set(facts[0])
    assert 0 <= facts[0]["right_despite_error"] <= 1


def command(out):
    arguments = [
        "--profile",
        "smoke",
        "--seeds",
        "0-1",
        "--arms",
        "raft",
        "--jobs",
        "2",
        "--set",
        "iterations=1",
    ]
    return [sys.executable, "-m", "mtdpo_lib", "study", *arguments, "--out", str(out)]


def started(out):
    """A study in a session of its own that has begun to compute in both of its processes."""
    running = subprocess.Popen(command(out), start_new_session=True)
    while len(list(out.glob("stages/demonstrations-*/manifest.json"))) < 2:
        assert running.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    return running


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_records(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    running = started(killed)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert len(list((killed / "arms").glob("*.json"))) < 4
    assert subprocess.run(command(killed)).returncode == subprocess.run(command(whole)).returncode == 0
    found = []
    for out in (killed, whole):
        rows = {file.name: json.loads(file.read_text()) for file in (out / "arms").glob("*.json")}
        found.append({name: {**row, "seconds": 0} for name, row in rows.items()})
    assert len(found[0]) == 4 and found[0] == found[1]


@pytest.mark.slow
def test_an_interrupted_study_ends_its_processes(tmp_path):
    running = started(tmp_path)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)  # to the first process alone
    assert running.wait(timeout=60) == 130
    assert not psutil.wait_procs(family, timeout=60)[1]
