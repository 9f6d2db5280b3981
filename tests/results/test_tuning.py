"""The rule that chooses each method's settings, from records made by hand."""

import json

import pytest

from mtdpo_lib.common.files import REFERENCE_RUNS
from mtdpo_lib.experiment.arms import find_arm
from mtdpo_lib.lessons import publish
from mtdpo_lib.profiles import PROFILES, TuneSettings, get_profile
from mtdpo_lib.profiles.presets import TUNED
from mtdpo_lib.results import figures, tuning


def record(out, method, rate, second, seed, *development):
    """A record after as many iterations as `development` has numbers beyond the first, which is SFT's."""
    name = "raft_rows" if method == "raft" else "eta"
    preference = {"method": method, "learning_rate": rate, "eta": 0.5, "raft_rows": 1, name: second}
    facts = {
        "arm": f"{method}-{rate}-{second}-{len(development)}", "seed": seed, "profile": "cpu", "settings": "",
        "preference": preference, "seconds": 2.0,
        "validation": {f"policy-{number}": value for number, value in enumerate(development)},
    }  # fmt: skip
    (out / "arms").mkdir(exist_ok=True, parents=True)
    (out / "arms" / f"{facts['arm']}-seed{seed}.json").write_text(json.dumps(facts))


@pytest.fixture
def swept(tmp_path):
    """M-DPO's middle rate is best in the end, and its largest after the first iteration; RAFT's two best are equal."""
    for seed, more in ((900, 0.0), (901, 0.02)):
        for rate, first, last in ((1e-4, 0.5, None), (3e-4, 0.55, 0.62), (1e-3, 0.6, 0.5)):
            record(tmp_path, "mdpo", rate, 0.5, seed, 0.5, round(first + more, 6))
            record(tmp_path, "mdpo", rate, 0.1, seed, 0.5, first - 0.2)
            if last:
                record(tmp_path, "mdpo", rate, 0.5, seed, 0.5, round(first + more, 6), round(last + more, 6))
        for rate in (3e-4, 1e-3):
            record(tmp_path, "raft", rate, 1, seed, 0.5, 0.6)
            record(tmp_path, "raft", rate, 1, seed, 0.5, 0.6, 0.6)
    record(tmp_path, "raft", 3e-3, 1, 900, 0.5, 0.9)  # its other seed has failed
    return tmp_path


def test_the_best_after_one_iteration_go_on(swept):
    arms = tuning.finalists(swept, TuneSettings(finalists=2, last_iteration=3))
    assert [arm.partition(":")[0] for arm in arms] == [
        "mdpo-0.001-0.5-3", "mdpo-0.0003-0.5-3", "raft-0.0003-1-3", "raft-0.001-1-3"
    ]  # fmt: skip
    arm = find_arm(arms[0]).profile(get_profile("cpu"))
    assert (arm.iterations, arm.preference.learning_rate, arm.preference.eta) == (3, 1e-3, 0.5)


def test_the_setting_follows_from_the_rule(swept, capsys):
    found = json.loads(tuning.summarise(swept).read_text())
    assert found["chosen"] == {
        "mdpo": {"learning_rate": 3e-4, "eta": 0.5},  # the last iteration counts
        "raft": {
            "learning_rate": 3e-4,
            "raft_rows": 1,
        },  # of equals the smaller rate, and no setting that lacks a seed
    }
    (row,) = (row for row in found["tried"] if row["method"] == "mdpo" and row["mean"] == 0.63)
    assert row["seeds"] == [900, 901] and row["development"] == [[0.5, 0.55, 0.62], [0.5, 0.57, 0.64]]
    assert len(found["tried"]) == 13 and (swept / "figures" / "tuning.png").exists()
    said = capsys.readouterr().out
    assert "mdpo: learning_rate 0.0003, eta 0.5 (63.0 % of 500 development problems)" in said
    assert (
        "raft: learning_rate 0.0003, raft_rows 1 (60.0 % of 500 development problems; its rate is the last"
        in said
    )


def test_a_tuning_is_kept_beside_the_study_of_its_profile(swept, tmp_path):
    home = tuning.keep(swept, tmp_path / "kept")
    assert home == tmp_path / "kept" / "cpu" / "tune"
    assert json.loads((home / "tune.json").read_text())["chosen"]["mdpo"]["eta"] == 0.5
    with pytest.raises(ValueError, match="no arm's record"):
        tuning.keep(tmp_path / "nothing")


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_have_the_settings_that_their_kept_tuning_chose(name):
    file = REFERENCE_RUNS / name / "tune" / "tune.json"
    found = json.loads(file.read_text()) if file.exists() else {"chosen": {}, "tried": []}
    rows = tuning.chosen(found["tried"])
    assert found["chosen"] == {method: row["setting"] for method, row in rows.items()} == TUNED.get(name, {})
    preference, mdpo = get_profile(name).preference, found["chosen"].get("mdpo", {})
    assert {setting: getattr(preference, setting) for setting in mdpo} == mdpo


def test_a_kept_tuning_is_redrawn_from_its_record(swept, tmp_path):
    tuning.keep(swept, tmp_path / "kept")
    folders = publish.draw_figures(tmp_path / "drawn", tmp_path / "kept")
    assert folders == [tmp_path / "drawn" / "cpu" / "tune"]
    assert (folders[0] / "tuning.png").read_bytes() == (swept / "figures" / "tuning.png").read_bytes()


def test_the_figure_has_a_line_for_each_method_at_its_best_second_setting(swept):
    figure = figures.tuning(json.loads(tuning.summarise(swept).read_text()))
    lines = {
        line.get_label(): line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")
    }
    assert list(lines["M-DPO"].get_ydata()) == pytest.approx([51, 56, 61])
    assert list(lines["M-DPO"].get_xdata()) == pytest.approx([1e-4, 3e-4, 1e-3])
    assert figure.headline.replace("\n", " ").endswith("M-DPO 0.0003, RAFT 0.0003")
