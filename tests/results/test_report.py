"""Reports, tables and the README are made from records and from nothing else."""

import json
import re

import numpy as np
import pytest

from mtdpo_lib.common.files import write_json
from mtdpo_lib.lessons import publish
from mtdpo_lib.results import (
    Metric,
    Metrics,
    claims,
    paper_rows,
    readme,
    report,
    result_rows,
    stats,
    study_metrics,
)

POLICIES = {"sft": ("sft", 0), "mdpo-1": ("mdpo", 1), "mdpo-2": ("mdpo", 2), "mdpo-2-fixed": ("mdpo", 2)}


def record(name, seed, results, settings=None):
    return {
        "record": name,
        "profile": "cpu",
        "claims": "trends, over seeds",
        "seed": seed,
        "settings": settings or {"iterations": 2},
        "settings_hash": f"hash-{seed}",
        "results": results,
        "provenance": {
            "versions": {"python": "3.12.1", "torch": "2.15.0"},
            "machine": {"system": "Linux", "cores": 2},
            "commit": "0123456789ab",
            "peak_memory_mib": 900.0 + seed,
        },
    }


def results(seed, n=200):
    rng = np.random.default_rng(seed)
    base = rng.random(n)
    right = {name: (base < 0.6 + 0.1 * number).astype(int) for number, name in enumerate(POLICIES)}
    metrics = []
    for name, row in right.items():
        low, high = stats.wilson(row.sum(), n)
        metrics.append(metric("accuracy", name, (row.mean(), low, high), seed, n))
        suite = (row[:100].mean(), low, high)
        metrics.append(metric("accuracy", name, suite, seed, 100, split="gsm-like"))
        if name != "sft":
            gain = stats.paired_bootstrap(row, right["sft"], 500)
            metrics.append(metric("gain", name, gain, seed, n))
    metrics.append(metric("tool-calls", "sft", (1.234, 1.1, 1.3), seed, n, unit="calls"))
    return {
        "metrics": metrics,
        "outcomes": {name: "".join(map(str, row)) for name, row in right.items()},
        "passports": [
            {
                "iteration": 1,
                "policy": "mdpo-1",
                "reference": "sft",
                "data source": [{"policy": "sft", "samples a prompt": 6}],
                "prompts by fate": {"paired": 30, "all right": 60, "all <wrong>": 10},
            }
        ],
        "logs": {
            "sft": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}],
            "mdpo-1": [{"step": 1, "loss": 0.69, "chosen_logp": -3.0, "rejected_logp": -4.0, "margin": 0.0}],
        },
        "deviations": ["LoRA adapters instead of all weights"],
    }


def metric(kind, policy, estimate, seed=0, n=10, split="test", unit="fraction"):
    arm, iteration = POLICIES[policy]
    fields = {"split": split, "arm": arm, "iteration": iteration, "policy": policy}
    return Metric(kind, *map(float, estimate), n, unit, (seed,), **fields).to_dict()


def run_folder(folder, seed=0, given=None):
    (folder / "records").mkdir(parents=True)
    write_json(
        folder / "records" / "06_multi_turn_dpo.json",
        record("06_multi_turn_dpo", seed, given or results(seed)),
    )
    run = {"profile": "cpu", "seed": seed, "settings": "", "settings_hash": f"hash-{seed}", "complete": True}
    write_json(folder / "run.json", {**run, "seconds": {"06_multi_turn_dpo": 60.5, "06_other": 30.0}})
    return folder


def read_metrics(file):
    return Metrics.from_dicts(json.loads(file.read_text()))


def test_the_report_shows_records_figures_and_the_paper_beside_them(tmp_path):
    page = report.write_report(run_folder(tmp_path)).read_text()
    metrics = read_metrics(tmp_path / "report.json")
    value = metrics.get("accuracy", "test", "mdpo-2")
    assert value.in_words() in page and "one seed (0): indicative" in page
    assert "<td>83.9</td><td>51.2</td>" in page, "the paper's iteration 3"
    assert metrics.named("seconds/notebooks") == Metric(
        "seconds", 90.5, n=1, unit="s", seeds=(0,), split="notebooks"
    )
    assert page.count("data:image/png;base64,") == len(list((tmp_path / "figures").glob("*.png"))) == 5
    assert "all &lt;wrong&gt;" in page and "all <wrong>" not in page
    assert "LoRA adapters" in page and "torch 2.15.0" in page and "trends, over seeds" in page
    assert "http://" not in page and "https://" not in page and 'src="/' not in page, (
        "one file, nothing fetched"
    )


def test_every_figure_of_the_report_stands_in_the_json(tmp_path):
    report.write_report(run_folder(tmp_path))
    rows = json.loads((tmp_path / "report.json").read_text())
    for row in rows:
        assert {"name", "value", "low", "high", "n", "unit", "seeds", "kind"} <= set(row)
    written = {row["name"] for row in results(0)["metrics"]}
    assert {row["name"] for row in rows} == written | {
        f"seconds/{name}" for name in ("notebooks", "06_multi_turn_dpo", "06_other")
    }


def test_records_of_other_settings_are_not_mixed_in(tmp_path):
    folder = run_folder(tmp_path)
    stale = {"metrics": [metric("sampled", "sft", (0.9, 0.8, 1.0), 9)]}
    write_json(folder / "records" / "07_old.json", record("07_old", 9, stale))
    report.write_report(folder)
    assert read_metrics(folder / "report.json").named("sampled/test/sft") is None


def test_a_partial_run_gives_a_partial_report(tmp_path):
    page = report.write_report(run_folder(tmp_path, given={"metrics": []})).read_text()
    assert "No policy has been evaluated yet" in page


def test_records_that_contradict_each_other_are_refused():
    one = record("05", 0, {"metrics": [metric("accuracy", "sft", (0.5, 0.4, 0.6))]})
    two = record("06", 0, {"metrics": [metric("accuracy", "sft", (0.6, 0.4, 0.7))]})
    assert len(report.merge_metrics({"05": one, "06": one})) == 1
    with pytest.raises(ValueError, match=r"05 and 06 disagree about accuracy/test/sft \(0\.5 and 0\.6\)"):
        report.merge_metrics({"05": one, "06": two})


def test_seeds_are_combined_from_outcomes_question_by_question(tmp_path):
    runs = [run_folder(tmp_path / str(seed), seed) for seed in (2, 0, 1)]
    page = report.combine(runs, tmp_path / "all").read_text()
    metrics = read_metrics(tmp_path / "all" / "report.json")
    tables = []
    for seed in range(3):
        outcomes = results(seed)["outcomes"]
        tables.append([int(a) - int(b) for a, b in zip(outcomes["mdpo-2"], outcomes["sft"], strict=True)])
    gain = metrics.get("gain", "test", "mdpo-2")
    assert (gain.value, gain.low, gain.high) == pytest.approx(stats.over_seeds(tables), abs=1e-6)
    assert gain.seeds == (0, 1, 2) and gain.n == 200
    suite = metrics.get("accuracy", "gsm-like", "sft")
    each = [Metrics.from_dicts(results(seed)["metrics"]).named(suite.name) for seed in range(3)]
    assert suite.value == pytest.approx(np.mean([one.value for one in each]), abs=1e-6)
    assert suite.high - suite.low > np.mean([one.high - one.low for one in each])
    assert "seeds 0, 1, 2; intervals over seeds and questions" in page


def test_a_record_that_one_seed_lacks_is_missed_and_not_passed_over(tmp_path):
    runs = [run_folder(tmp_path / str(seed), seed) for seed in (0, 1)]
    write_json(runs[0] / "records" / "07_more.json", record("07_more", 0, {}))
    with pytest.raises(ValueError, match=r"have the record 07_more, and .*1 lacks it: restore it, or run"):
        report.combine(runs, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_missing_file_of_the_repository_is_named_with_its_remedy(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"README\.md is missing or no text: restore it \(git checkout\)"):
        readme.update_readme(readme=tmp_path / "README.md", reference=tmp_path)
    monkeypatch.setattr("mtdpo_lib.results.paper.PAPER", tmp_path)
    with pytest.raises(ValueError, match=r"table1\.csv is missing or no text: restore it"):
        paper_rows()
    (tmp_path / "table1.csv").write_text("base,method\n")
    with pytest.raises(ValueError, match=r"table1\.csv has no row: restore it"):
        paper_rows()


def test_intervals_of_proportions_stay_between_nought_and_one(tmp_path):
    report.combine([run_folder(tmp_path / str(seed), seed) for seed in (0, 1)], tmp_path / "two")  # t = 12.7
    wide = read_metrics(tmp_path / "two" / "report.json").select(kind="accuracy", split="test")
    assert len(wide) == len(POLICIES)
    assert all(0 <= metric.low <= metric.value <= metric.high <= 1 for metric in wide)
    assert any(metric.high == 1 for metric in wide)


def test_only_like_runs_are_combined(tmp_path):
    one, same = run_folder(tmp_path / "a", 0), run_folder(tmp_path / "b", 0)
    with pytest.raises(ValueError, match="Each seed can be combined once"):
        report.combine([one, same], tmp_path / "all")
    other = run_folder(tmp_path / "c", 1)
    write_json(other / "run.json", {**report.read_run(other), "settings": "iterations=1"})
    with pytest.raises(ValueError, match="one profile and the same settings"):
        report.combine([one, other], tmp_path / "all")
    changed = run_folder(tmp_path / "d", 2)
    write_json(changed / "records" / "06_multi_turn_dpo.json", record("05", 2, results(2), {"iterations": 9}))
    with pytest.raises(ValueError, match="different versions of the profile"):
        report.combine([one, changed], tmp_path / "all")


def test_the_paper_tables_hold_the_numbers_that_reports_show():
    rows = {row["method"]: row for row in paper_rows()}
    assert (rows["SFT"]["gsm8k"], rows["M-DPO iteration 3"]["math"]) == ("77.5", "51.2")
    head, table = result_rows(Metrics())
    assert [row[0] for row in table] == ["SFT", "M-DPO iteration 1", "M-DPO iteration 2", "M-DPO iteration 3"]
    assert all(len(row) == len(head) for row in table)


def test_kept_runs_fill_the_readme_and_a_changed_number_is_noticed(tmp_path):
    home = publish.keep([run_folder(tmp_path / str(seed), seed) for seed in (0, 1)], tmp_path / "reference")
    metrics = report.combined_runs(sorted(home.glob("seed*"))).metrics
    assert json.loads((home / "seconds.json").read_text())["06_multi_turn_dpo"] == 60.5
    page = tmp_path / "README.md"
    page.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert not readme.update_readme(check=True, readme=page, reference=home)
    readme.update_readme(readme=page, reference=home)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "seeds 0, 1" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| M-DPO iteration 2 |")]
    assert metrics.get("accuracy", "test", "mdpo-2").in_words() in row
    assert row in readme.results_rows(home)
    assert readme.update_readme(check=True, readme=page, reference=home)
    page.write_text(text.replace(row, row.replace("2 | ", "2 | 1", 1)))
    assert not readme.update_readme(check=True, readme=page, reference=home)
    page.write_text("no markers")
    with pytest.raises(ValueError, match="needs the markers"):
        readme.update_readme(readme=page, reference=home)


def keep_study(home):
    """A study of one arm and seed beside the runs of `home`: its metrics, and a claim that was judged then."""
    values = {
        ("accuracy", "test"): 0.8,
        ("gain", "test"): 0.1,
        ("cost", "sampled-tokens"): 9,
        ("cost", "trained-tokens"): 5,
    }
    study = Metrics(
        Metric(kind, value, 0.1, 1.0, 9, seeds=(0,), split=split, arm="mdpo", each=(value,))
        for (kind, split), value in values.items()
    )
    claim = {"name": "claim/mdpo-sft", "verdict": "agrees"}
    (home / "study").mkdir()
    write_json(home / "study" / "report.json", [*(one.to_dict() for one in study), claim])
    return study


def test_runs_of_a_budget_are_kept_beside_the_profiles_own(tmp_path):
    target = tmp_path / "reference"
    home = publish.keep([run_folder(tmp_path / "own")], target)
    reduced = run_folder(tmp_path / "reduced")
    changed = {**report.read_run(reduced), "profile": "small", "settings": "budget=tiny"}
    write_json(reduced / "run.json", changed)
    assert publish.keep([reduced], target) == target / "small-tiny"
    keep_study(home)
    page = readme.claims_page(home, report.real_runs(target))
    assert "## small-tiny\n" in page and "Profile `small`, `--set budget=tiny`; the notebooks took" in page
    with pytest.raises(ValueError, match="have one profile"):
        publish.keep([tmp_path / "own", reduced], target)
    write_json(reduced / "run.json", {**changed, "settings": "budget=tiny model.base=/home/me/model"})
    with pytest.raises(
        ValueError, match=r"file of one's own .* --set budget=tiny model\.base=/home/me/model"
    ):
        publish.keep([reduced], target)


def test_all_figures_are_redrawn_from_kept_records_alone(tmp_path, capsys):
    source, out = tmp_path / "reference", tmp_path / "figures"
    with pytest.raises(ValueError, match="keep those of a run first"):
        publish.draw_figures(out, source)
    home = publish.keep([run_folder(tmp_path / str(seed), seed) for seed in (0, 1)], source)
    with pytest.raises(ValueError, match="No study of profile smoke is kept"):
        study_metrics.kept("smoke", source)
    study = keep_study(home)
    assert study_metrics.kept(home.name, source) == study
    assert publish.draw_figures(out, source) == [out / home.name, out / home.name / "study"]
    assert (out / home.name / "study" / "arms.png").is_file()
    text = readme.claims_page(home)
    assert "A study over seeds 0 (" in text and "over seeds and its test problems" in text
    primary, exploratory = text.partition("## Exploratory claims")[::2]
    assert "5 not exercised, 1 leans towards (one seed: indicative)." in primary
    assert (
        "| M-DPO is better than SFT | +5.8 (Table 1) | +10.0 (+10.0 to +100.0) | 1 | 1 | 9 | 1: + |"
        in primary
    )
    assert (
        "the least that so many can give is 1." in primary and "| M-KTO is better than SFT |" in exploratory
    )
    assert "- **no effect**: the interval lies inside" in exploratory and "Args:" not in text
    write_json(home / "study" / "questions.json", {"world": "small", "problems": {"a": "f", "b": "f"}})
    assert "A study of the world `small`" in readme.claims_page(home)
    assert "the 1 families of its test problems" in readme.claims_page(home)
    (home / "study" / "questions.json").unlink()
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}\n{readme.results_block(home)}{readme.END}")
    assert not readme.update_readme(check=True, readme=page, reference=home), "the page of claims is missing"
    readme.update_readme(readme=page, reference=home)
    assert (home / readme.CLAIMS_PAGE).read_text() == text
    assert readme.update_readme(check=True, readme=page, reference=home)
    assert (out / home.name / "figures" / "accuracy_by_iteration.png").is_file()


def test_an_unfinished_study_says_so_until_the_planned_seeds_are_done(tmp_path, monkeypatch):
    home = publish.keep([run_folder(tmp_path / "run")], tmp_path / "reference")
    keep_study(home)  # seed 0, one primary claim
    monkeypatch.delitem(readme.PLANNED_SEEDS, home.name)
    assert "The study is not finished" not in readme.claims_page(home), "none is planned"
    monkeypatch.setitem(readme.PLANNED_SEEDS, home.name, range(2))
    assert "not finished**: 0 of the 2 seeds that were planned" in readme.claims_page(home), (
        "five are not measured"
    )
    judged = claims.judge(study_metrics.kept(home.name, home.parent), "trends")
    measured = [row for row in judged if row.claim.kind == "primary" and row.measured]
    assert "1 of the 2 seeds" in readme._still_planned(home.name, measured)
    monkeypatch.setitem(readme.PLANNED_SEEDS, home.name, range(1))
    assert readme._still_planned(home.name, measured) == ""


def test_only_complete_plain_runs_are_kept(tmp_path):
    folder = run_folder(tmp_path / "a")
    write_json(folder / "run.json", {**report.read_run(folder), "complete": False})
    with pytest.raises(ValueError, match="Only a complete run"):
        publish.keep([folder], tmp_path / "reference")


def test_without_kept_runs_the_readme_says_so(tmp_path):
    assert "No reference run is kept yet" in readme.results_block(tmp_path)


def test_the_readme_shows_the_kept_records():
    assert readme.update_readme(check=True), "run `python -m mtdpo_lib readme`"


PAPER_SHARES = {"47", "76"}  # right samples in its first and last iteration, sec. 3
WORDS = {"95", "100"}  # the level of every interval; all


def test_no_measured_number_is_typed():
    """Numbers of results stand between the README's markers or in outputs, both made from records; never in prose."""
    text = readme.README.read_text(encoding="utf8")
    before, _, rest = text.partition(readme.BEGIN)
    prose = before + rest.partition(readme.END)[2]
    assert not re.findall(r"\d+(?:\.\d+)? ?(?:%|points|MiB)|\d+ min \d+", prose)
    for file in sorted(publish.NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(file.read_text(encoding="utf8"))["cells"]:
            if cell["cell_type"] == "markdown":
                found = re.findall(r"(\d+(?:\.\d+)?) ?(?:%|points|MiB)", "".join(cell["source"]))
                assert set(found) <= PAPER_SHARES | WORDS, (file.name, found)
