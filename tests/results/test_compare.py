"""The paired difference of any two runs."""

import json

from mtdpo_lib.__main__ import main
from mtdpo_lib.experiment.algorithm1 import DATA_SEED
from mtdpo_lib.problems import Questions
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.results import stats, write_record

PROFILE = get_profile("smoke", "problems.test=8")
QUESTIONS = Questions.of(PROFILE.problems, "test", 8, DATA_SEED).fingerprint()


def arm(folder, name, last, selected="", questions=QUESTIONS, seed=3):
    outcomes = {"sft": "0" * len(last), f"{name}-1": selected or last, f"{name}-2": last}
    record = {
        "arm": name, "seed": seed, "policies": list(outcomes), "outcomes": outcomes, "questions": questions,
        "selected": f"{name}-1" if selected else f"{name}-2",
    }  # fmt: skip
    file = folder / f"{name}-seed{seed}.json"
    file.write_text(json.dumps(record))
    return str(file)


def run(folder, outcomes):
    write_record(folder / "records", "06_multi_turn_dpo", PROFILE, 0, {"outcomes": outcomes}, {})
    kept = json.loads((folder / "records" / "06_multi_turn_dpo.json").read_text())
    state = {
        "profile": "smoke",
        "seed": 0,
        "settings": "",
        "settings_hash": kept["settings_hash"],
        "complete": True,
        "seconds": {},
    }
    (folder / "run.json").write_text(json.dumps(state))
    return str(folder)


def test_arms_are_compared_by_question_at_the_end_and_where_selected(tmp_path, capsys):
    one, other = arm(tmp_path, "mdpo", "11111100"), arm(tmp_path, "lr-low", "11000011", selected="11111111")
    assert main(["compare", one, other]) == 0
    last, selected = capsys.readouterr().out.splitlines()
    _, low, high = stats.paired_bootstrap([1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1, 1])
    assert last.startswith("last: mdpo (seed 3) minus lr-low (seed 3) +25.0 (")
    assert f"({100 * low:+.1f} to {100 * high:+.1f}) points (75.0 and 50.0 %), n = 8 test problems" in last
    assert selected.startswith("selected: mdpo (seed 3) minus lr-low (seed 3) -25.0 (")


def test_a_run_of_the_notebooks_is_compared_with_an_arm(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    folder = run(tmp_path / "run", {"sft": "00000000", "mdpo-1": "00000000", "mdpo-2": "11110000"})
    assert main(["compare", folder, arm(tmp_path, "raft", "11000000", seed=0)]) == 0
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("last: run (seed 0) minus raft (seed 0) +25.0 (")


def test_runs_on_other_questions_and_what_is_no_run_are_refused(tmp_path, capsys):
    one = arm(tmp_path, "mdpo", "11111100")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[3]")
    (tmp_path / "untested.json").write_text(
        json.dumps({"arm": "x", "seed": 0, "policies": ["sft"], "outcomes": {}})
    )
    for other, sentence in (
        (arm(tmp_path, "longer", "111111001"), "answered different test problems"),
        (
            arm(tmp_path, "elsewhere", "11111100", questions={**QUESTIONS, "families": 3}),
            "answered different test problems",
        ),
        (str(tmp_path / "list.json"), "is neither a finished run folder"),
        (str(tmp_path / "untested.json"), "is neither a finished run folder"),
        (str(tmp_path / "empty"), "is not a run folder"),
        (str(tmp_path / "missing.json"), "is missing, or not the JSON"),
    ):
        assert main(["compare", one, other]) == 2
        assert sentence in capsys.readouterr().err
