"""Arms over seeds: one thing changed each, stages shared, a plan that is exact."""

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
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.experiment.study import Study
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import SettingError

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
    plan = Study("smoke", SMALLEST, [0], ["mdpo", "raft"], tmp_path).plan()
    # One data set, SFT, sampling and pairing for both; a training, selection and evaluation each, and that of SFT;
    # pass@n of SFT and M-DPO.
    assert dict(plan.missing) == {
        "demonstrations": 1, "sft": 1, "rollouts": 1, "pairs": 1, "training": 2, "selection": 2, "evaluation": 3,
        "samples": 2,
    }  # fmt: skip
    assert plan.kept == 0 and plan.seconds is None
    assert "not projected yet" in plan.sentence()
    two = Study("smoke", SMALLEST, [0, 1], ["mdpo", "raft"], tmp_path).plan()
    assert sum(two.missing.values()) == 2 * sum(plan.missing.values())
    known = dict.fromkeys(plan.missing, 60.0)  # seconds of every kind, measured elsewhere
    timed = Study("smoke", SMALLEST, [0], ["mdpo", "raft"], tmp_path, known).plan()
    assert timed.seconds == 60.0 * sum(plan.missing.values())


def test_few_test_problems_are_sampled_often_at_a_small_budget():
    asked = {name: study.pass_questions(get_profile(name)) for name in ("cpu", "small", "paper", "smoke")}
    assert asked == {"cpu": 120, "small": 120, "paper": 120, "smoke": 6}
    assert study.pass_questions(get_profile("small", "budget=reduced")) == 30
    assert study.pass_questions(get_profile("smoke", SMALLEST)) == 1


def test_the_command_plans_and_refuses(tmp_path, capsys):
    assert (
        main(["study", "--plan", "--seeds", "0-1", "--arms", "noisy-corrected", "--out", str(tmp_path)]) == 0
    )
    said = capsys.readouterr().out
    assert "2 arms (noisy, noisy-corrected), seeds 0, 1." in said and "To compute:" in said
    assert main(["study", "--arms", "nothing"]) == 2
    assert "Unknown arm 'nothing'" in capsys.readouterr().err
    assert main(["study", "--profile", "cpuu"]) == 2


def test_a_study_writes_down_which_problems_it_asks(tmp_path, monkeypatch):
    assert Study("smoke", SMALLEST, seeds=[], arms=[], out=tmp_path).run(jobs=1)
    asked = json.loads((tmp_path / "questions.json").read_text())
    problems = Experiment(get_profile("smoke", SMALLEST), 7, tmp_path).test_problems()
    assert list(asked["problems"]) == [problem.id for problem in problems]
    assert asked["world"] == "generated"
    assert set(asked["problems"].values()) == {"gsm-like/packs", "math-like/next_prime"}
    monkeypatch.setattr(study.Questions, "load", lambda _: problems)
    published = Study("small", (), seeds=[], arms=[], out=tmp_path).questions()
    assert published == {"world": "gsm8k", "problems": {one.id: one.id for one in problems}}, "no templates"


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
