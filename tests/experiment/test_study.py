"""Arms over seeds: one thing changed each, stages shared, a plan that is exact."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import psutil
import pytest
from support import judged, trajectory

from mtdpo_lib.__main__ import main
from mtdpo_lib.common.files import REFERENCE_RUNS, read_json, write_json
from mtdpo_lib.experiment import arms, study
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.experiment.study import Study
from mtdpo_lib.experiment.tune import tuning_arms
from mtdpo_lib.profiles import SettingError, get_profile, tuned
from mtdpo_lib.profiles.presets import TUNED

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


# Several settings that are one thing: how many samples and of whom, and what a method brings with it.
ONE_THING = [
    {"rollout.samples_current", "rollout.samples_previous"},
    {"preference.method", "preference.learning_rate", "preference.eta", "preference.raft_rows"},
]


def things(arm, rival, base):
    """In how many things two arms' resolved profiles differ."""
    own = changed(arm, base) ^ changed(rival, base)
    both = changed(arm, base) & changed(rival, base)
    own |= {name for name in both if _value(arm, base, name) != _value(rival, base, name)}
    grouped = [names for names in ONE_THING if own & names]
    return len(own - set().union(*grouped)) + len(grouped)


@pytest.mark.parametrize(
    "chosen", [{}, {"raft": {"learning_rate": 1e-3, "raft_rows": 2}, "kto": {"eta": 0.1}}]
)
def test_every_arm_differs_from_its_rival_in_one_thing(monkeypatch, chosen):
    monkeypatch.setitem(TUNED, "cpu", chosen)
    base = get_profile("cpu")
    for arm in arms.ARMS.values():
        if arm.against == arms.BASE:
            continue
        rival = arms.ARMS[arm.against]
        assert things(arm, rival, base) == 1, arm.name
        assert arm.iterations == rival.iterations
    assert things(arms.ARMS["raft-3"], arms.ARMS["raft"], base) == 2  # k, and one iteration only


def _value(arm, base, name):
    section, _, key = name.rpartition(".")
    profile = arm.profile(base)
    return getattr(getattr(profile, section) if section else profile, key)


def test_tuned_settings_reach_every_arm_of_the_method_but_where_the_user_sets_them(monkeypatch):
    monkeypatch.setitem(TUNED, "cpu", {"raft": {"learning_rate": 1e-3, "raft_rows": 2}, "dpo": {"eta": 0.1}})
    base = get_profile("cpu")

    def resolved(name, base=base):
        preference = arms.find_arm(name).profile(base).preference
        return preference.method, preference.learning_rate, preference.eta, preference.raft_rows

    rate, eta = base.preference.learning_rate, base.preference.eta
    assert resolved("mdpo") == ("mdpo", rate, eta, 1)
    assert resolved("raft") == resolved("raft-3") == resolved("raft-5") == ("raft", 1e-3, eta, 2)
    assert resolved("dpo") == resolved("noisy-dpo") == ("dpo", rate, 0.1, 1)
    assert resolved("raft", get_profile("cpu", "preference.learning_rate=5e-4")) == ("raft", 5e-4, eta, 2)
    tried = tuning_arms("raft", base.tune)[0]  # a sweep says everything itself
    assert resolved(tried) == ("raft", 3e-5, eta, 1)


def test_the_presets_hold_what_the_kept_tunings_chose():
    for file in REFERENCE_RUNS.glob("*/tune/tune.json"):
        found = read_json(file)
        base = get_profile(found["profile"], found["settings"])
        for method, setting in found["chosen"].items():
            preference = asdict(tuned(base, method).preference)
            assert setting == {name: preference[name] for name in setting}, f"{file}: {method}"


def test_seeds_and_arms_are_read_or_refused():
    assert arms.parse_seeds("0-2,5") == [0, 1, 2, 5]
    assert arms.parse_seeds("3") == [3]
    for text in ("a", "2-1", ""):
        with pytest.raises(SettingError, match="written like 0-2"):
            arms.parse_seeds(text)
    assert arms.parse_arms("fixed") == ["mdpo", "fixed"]  # with its rival
    assert arms.parse_arms("") == list(arms.ARMS)
    with pytest.raises(SettingError, match="Unknown arm 'fixd': known are mdpo"):
        arms.parse_arms("fixd")


def test_an_arm_can_be_written_on_the_command_line():
    text = "hot:rollout.temperature=1.2,preference.eta=0.25"
    assert arms.parse_arms("", [text]) == ["mdpo", text]
    assert arms.parse_arms("kto", [text]) == ["mdpo", "mkto", "kto", text]
    arm, base = arms.find_arm(text), get_profile("cpu")
    assert changed(arm, base) - changed(arms.ARMS["mdpo"], base) == {"rollout.temperature", "preference.eta"}
    assert (arm.name, arm.against) == ("hot", "mdpo")


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (["lr-low"], "Unknown arm 'lr-low': known are"),
        (["mdpo:preference.eta=0.1"], "with a name of its own in small letters"),
        (["../x:preference.eta=0.1"], "with a name of its own in small letters"),
        (["x:"], "A setting is written name=value"),
        (["x:preference.eta"], "A setting is written name=value"),
        (["x:preference.beta=0.1"], "did you mean preference.eta?"),
        (
            ["x:preference.eta=nan"],
            "Setting preference.eta wants a number above zero, at most 10000000, got nan.",
        ),
        (["x:sft.start_epochs=9"], "set it to one of these, at most"),
        (["x:preference.eta=0.1", "x:preference.eta=0.2"], "Two new arms have one name"),
    ],
)
def test_a_badly_written_arm_is_refused_before_work_starts(tmp_path, capsys, new, sentence):
    options = [part for text in new for part in ("--arm", text)]
    assert main(["study", "--plan", "--profile", "smoke", "--out", str(tmp_path), *options]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0-99999999", f"0-{10**30}", "0-20,100-130", "1,5-77"])
def test_more_seeds_than_a_study_takes_are_refused_at_once(text, capsys):
    assert main(["study", "--seeds", text, "--plan"]) == 2
    assert f"A study takes up to 50 seeds, and {text!r} names more" in capsys.readouterr().err
    assert len(arms.parse_seeds("1-30,11-50")) == 50


def test_jobs_are_a_whole_number(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["study", "--jobs", "-3"])
    assert stopped.value.code == 2
    assert "--jobs: wants a whole number, zero or more; got -3" in capsys.readouterr().err


def test_the_plan_counts_shared_stages_once(tmp_path):
    plan = Study("smoke", SMALLEST, [0], ["mdpo", "raft"], tmp_path).plan()
    # One data set, SFT, sampling and pairing for both; a training, selection and evaluation each, and that of SFT, which
    # answers the development problems too; pass@n of SFT and M-DPO.
    assert dict(plan.missing) == {
        "base": 1, "demonstrations": 1, "sft": 1, "rollouts": 1, "pairs": 1, "training": 2, "selection": 2, "evaluation": 4,
        "samples": 2,
    }  # fmt: skip
    assert plan.kept == 0 and plan.seconds is None
    assert "not projected yet" in plan.sentence()
    two = Study("smoke", SMALLEST, [0, 1], ["mdpo", "raft"], tmp_path).plan()
    assert sum(two.missing.values()) == 2 * sum(plan.missing.values()) - 1  # seeds share the base
    known = dict.fromkeys(plan.missing, 60.0)  # seconds of every kind, measured elsewhere
    timed = Study("smoke", SMALLEST, [0], ["mdpo", "raft"], tmp_path, known).plan()
    assert timed.seconds == 60.0 * sum(plan.missing.values())


def test_arms_that_begin_alike_share_what_is_alike(tmp_path):
    def missing(*names):
        plan = Study("smoke", ["iterations=3", *SMALLEST[1:]], [0], names, tmp_path).plan()
        return {kind: plan.missing[kind] for kind in ("sft", "rollouts", "training", "evaluation")}

    alone = missing("mdpo")
    assert alone == {"sft": 1, "rollouts": 3, "training": 3, "evaluation": 5}
    assert missing("mdpo", "mdpo-5") == {"sft": 1, "rollouts": 5, "training": 5, "evaluation": 7}
    # The fixed reference is another one from iteration 2 on; the second iteration's samples are still the same.
    assert missing("mdpo", "fixed") == {"sft": 1, "rollouts": 4, "training": 5, "evaluation": 7}
    assert missing("mdpo", "sft-2")["sft"] == 1


def test_a_tuning_makes_its_start_once_and_asks_no_test_problem(tmp_path):
    base = get_profile("smoke")
    names = tuning_arms("mdpo,mkto,dpo,kto,raft", base.tune)
    assert len(names) == 5 * 4 * 2, "every method has as many settings"
    plan = Study("smoke", SMALLEST, [900], names, tmp_path, tested=False).plan()
    assert dict(plan.missing) == {
        "base": 1, "demonstrations": 1, "sft": 1, "rollouts": 1, "pairs": 1, "training": 40, "selection": 40,
        "evaluation": 1,
    }  # fmt: skip


# Seconds: an untrained policy, whose samples are called right and wrong by turns, and for the first prompt all right.
UNTRAINED = [
    "iterations=1", "problems.demonstrations=24", "problems.prompts_per_iteration=6", "problems.development=2",
    "problems.test=2", "sft.epochs=1", "sft.early_epochs=1", "preference.checkpoints=1", "preference.batch_size=2",
    "rollout.max_new_tokens=12", "model.base=tiny", "model.vocabulary=512", "model.hidden=96", "model.layers=3",
    "model.heads=4", "model.intermediate=256",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records of some arms after one iteration, by name."""
    out, records = tmp_path_factory.mktemp("study"), {}
    for name in ("mdpo", "mkto", "raft", "on-policy", "replicate"):
        arm = arms.ARMS[name]
        experiment = Experiment(arm.profile(get_profile("smoke", UNTRAINED)), 0, out)
        rollouts = experiment.rollouts(1, experiment.sources(1, [experiment.sft_policy()]))
        judged(rollouts, lambda problem, sample: problem == 0 or sample % 2 == 0)
        records[name] = study.ArmRun(experiment, replace(arm, often=())).record()
    return records


def test_arms_of_one_budget_consume_the_same(made):
    costs = {name: record["cost"] for name, record in made.items()}
    budget = costs["mdpo"]
    assert budget["trajectories"] == 6 * 6 and budget["pairs"] == 5 and budget["steps"] == 2
    assert costs["mkto"] == budget
    # RAFT has six right trajectories for five pairs, goes through as many steps, and half of a pair is rejected.
    raft = costs["raft"]
    for name in ("trajectories", "sampled tokens", "pairs", "steps"):
        assert raft[name] == budget[name]
    assert 0.3 < raft["trained tokens"] / budget["trained tokens"] < 0.7
    for name in ("on-policy", "replicate"):  # other samples, as many of them
        same = {key: costs[name][key] for key in ("trajectories", "pairs", "steps")}
        assert same == {key: budget[key] for key in same}
        assert made[name]["iterations"][0]["entropy"] != made["mdpo"]["iterations"][0]["entropy"]


def test_a_record_has_the_last_and_the_selected_policy(made):
    for name, record in made.items():
        validation = record["validation"]
        assert list(validation) == record["policies"] == ["sft", f"{name}-1"]
        assert record["selected"] == ("sft" if validation["sft"] >= validation[f"{name}-1"] else f"{name}-1")
        assert record["outcomes"].keys() == validation.keys()
        assert record["questions"] == made["mdpo"]["questions"]


def test_facts_tell_the_entropy_and_the_diversity_of_right_samples(made):
    (facts,) = made["mdpo"]["iterations"]
    assert 4 < facts["entropy"] < 6.3, "untrained: nearly uniform over 512 tokens, log 512 = 6.2"
    assert facts["right_nats"] > 12 * 4 and facts["distinct_right"] == 1


def test_diversity_is_counted_among_right_samples():
    """Right ones alike, wrong ones all different."""
    rows = [
        trajectory("a", True, 1),
        trajectory("a", True, 1),
        trajectory("a", False, 2),
        trajectory("a", False, 3),
    ]
    assert study.chance_of_difference([row for row in rows if row.correct]) == 0
    assert study.chance_of_difference(rows) == pytest.approx(5 / 6)


def test_few_test_problems_are_sampled_often_at_a_small_budget():
    asked = {name: study.pass_questions(get_profile(name)) for name in ("cpu", "small", "paper", "smoke")}
    assert asked == {"cpu": 60, "small": 200, "paper": 200, "smoke": 8}
    assert study.pass_questions(get_profile("small", "budget=reduced")) == 40
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
    settings = [*SMALLEST, "problems.families=1"]
    assert Study("habits", settings, seeds=[], arms=[], out=tmp_path).run(jobs=1)
    asked = json.loads((tmp_path / "questions.json").read_text())
    problems = Experiment(get_profile("habits", settings), 7, tmp_path / "other").test_problems()
    assert list(asked["problems"]) == [problem.id for problem in problems]
    assert asked["world"] == "habits"
    assert set(asked["problems"].values()) == {"gsm-like/packs", "math-like/next_prime"}
    monkeypatch.setattr(study.Questions, "load", lambda _: problems)
    monkeypatch.setattr(study, "fitted", lambda profile: profile)  # which reads the data
    published = Study("small", (), seeds=[], arms=[], out=tmp_path).questions()
    assert published == {"world": "gsm8k", "problems": {one.id: one.id for one in problems}}, "no templates"


def test_a_study_with_other_settings_in_its_folder_is_refused_before_anything_starts(tmp_path, capsys):
    def plan(*more):
        return main(
            ["study", "--profile", "smoke", "--arms", "raft", "--out", str(tmp_path), "--plan", *more]
        )

    (tmp_path / "stages").mkdir()
    (tmp_path / "arms").mkdir()
    for settings in ("iterations=1", ""):
        record = {"profile": "smoke", "settings": settings, "arm": "mdpo", "seed": 0}
        (tmp_path / "arms" / "mdpo-seed0.json").write_text(json.dumps(record))
        assert plan(*(["--set", settings] if settings else [])) == 0
        capsys.readouterr()
        assert plan("--set", "iterations=2") == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err == (
            f"error: The study in {tmp_path} has profile smoke and settings {settings or 'as they are'}: give the same, or "
            "another folder with --out.\n"
        )
    assert main(["study", "--profile", "cpu", "--out", str(tmp_path), "--plan"]) == 2
    assert "has profile smoke" in capsys.readouterr().err
    assert not list(tmp_path.glob("stages/*-*"))


def test_an_arm_that_the_settings_make_impossible_is_refused_before_anything_starts(tmp_path, capsys):
    arguments = [
        "study",
        "--profile",
        "smoke",
        "--out",
        str(tmp_path),
        "--plan",
        "--set",
        "rollout.log_lines=2",
        "--arms",
    ]
    assert main([*arguments, "noisy"]) == 0
    assert main([*arguments, "noisy-corrected"]) == 2
    assert "knows no log: set rollout.log_lines=0" in capsys.readouterr().err


def test_a_record_stands_for_its_stages_until_what_it_is_made_from_changes(tmp_path, monkeypatch):
    asked = Study("smoke", SMALLEST, [0], ["mdpo"], tmp_path)
    assert asked.plan().recorded == 0 and asked.plan().missing["training"] == 1
    record = {"profile": "smoke", "settings": " ".join(SMALLEST), "made_from": asked.made_from((0, "mdpo"))}
    (tmp_path / "arms").mkdir()
    file = write_json(tmp_path / "arms" / "mdpo-seed0.json", record)
    assert asked.plan().sentence() == "Nothing to compute; stages kept: 0, records kept: 1."
    assert asked.run(jobs=1) and read_json(file) == record, "nothing was computed"
    assert asked.unrecorded() == [] and replace(asked, seeds=[1]).unrecorded() == [(1, "mdpo")]
    assert replace(asked, settings=["preference.eta=0.3"]).unrecorded(), "another setting"
    assert replace(asked, tested=False).unrecorded(), "other stages"
    monkeypatch.setattr(study, "code_key", lambda function: "another code")
    assert asked.unrecorded(), "what a record says may have changed"


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


def started(out, stages=2):
    """A study in a session of its own that computes: so many stages are kept, the first two one in each process."""
    running = subprocess.Popen(command(out), start_new_session=True)
    while len(list(out.glob("stages/*/manifest.json"))) < stages:
        assert running.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    return running


@pytest.mark.slow
def test_a_study_that_is_killed_three_times_goes_on_to_the_same_records(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for stages in (2, 5, 9):
        running = started(killed, stages)
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
def test_a_small_tuning_from_start_to_end_and_again(tmp_path, capsys):
    grid = "tune.rates=1e-4,1e-3 tune.etas=0.5 tune.raft_rows=1 tune.finalists=1"
    options = [part for setting in grid.split() for part in ("--set", setting)]
    command = [
        "tune",
        "--profile",
        "smoke",
        "--methods",
        "mdpo,raft",
        "--seeds",
        "900",
        "--out",
        str(tmp_path),
        *options,
    ]
    assert main([*command, "--plan"]) == 0
    assert "4 training" in capsys.readouterr().out
    assert main(command) == 0
    found = read_json(tmp_path / "tune.json")
    assert found["chosen"].keys() == {"mdpo", "raft"} and len(found["tried"]) == 6
    assert sorted(row["iterations"] for row in found["tried"]) == [1, 1, 1, 1, 2, 2]
    assert not any(read_json(file)["outcomes"] for file in (tmp_path / "arms").glob("*.json"))
    assert main([*command, "--plan"]) == 0
    assert "Nothing to compute" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_study_ends_its_processes(tmp_path):
    running = started(tmp_path)
    family = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)  # to the first process alone
    assert running.wait(timeout=60) == 130
    assert not psutil.wait_procs(family, timeout=60)[1]
