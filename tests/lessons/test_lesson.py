"""What notebooks begin and end with: the map, the measured cost, metrics and the record."""

import os
import subprocess
import sys

import pytest

from mtdpo_lib import lessons
from mtdpo_lib.common.files import NOTEBOOKS, ROOT, UnusableFolder, read_json, write_json
from mtdpo_lib.common.stages import Product
from mtdpo_lib.lessons.lesson import PIPELINE, Lesson, measured_cost, metric_table, pipeline_map
from mtdpo_lib.models.policy import Policy
from mtdpo_lib.profiles import SettingError
from mtdpo_lib.results import Metric, Metrics
from mtdpo_lib.rollout.evaluate import Outcome


def test_the_cost_of_a_notebook_is_what_the_kept_runs_measured(tmp_path):
    for seed in (0, 1):
        (tmp_path / "cpu" / f"seed{seed}" / "records").mkdir(parents=True)
    write_json(tmp_path / "cpu" / "seconds.json", {"02_sft": 125.4, "03_tool_sandbox": 9.0})
    for seed, memory in ((0, 1374.2), (1, 1200.0)):
        provenance = {"peak_memory_mib": memory, "machine": {"cores": 2}}
        write_json(tmp_path / "cpu" / f"seed{seed}" / "records" / "02_sft.json", {"provenance": provenance})
    assert measured_cost("02", tmp_path) == "This notebook, as measured: cpu: 2 min 05 s, 1,374 MiB, 2 cores."
    assert measured_cost("03", tmp_path) == "", "no record, no claim"
    assert measured_cost("02", tmp_path / "nothing") == ""


def test_the_map_shows_every_notebook_once():
    files = sorted(file.name[:2] for file in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    assert [number for number, _ in PIPELINE] == files
    assert pipeline_map("06").data.count("background:#0072b2") == 1


POLICIES = {"sft": (0, "1100"), "mdpo-1": (1, "1110"), "mdpo-1-fixed": (1, "0110")}


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """A lesson whose policies have answered four questions."""

    def outcomes(self, policy, split="test", notebook=None):
        rows = enumerate(POLICIES[policy.name][1])
        greedy = [
            Outcome(f"q{number}", "gsm-like", 0, letter == "1", "done", 1, 0, 9) for number, letter in rows
        ]
        return {"greedy": greedy, "sampled": greedy[:2]}

    monkeypatch.setattr(Lesson, "outcomes", outcomes)
    return Lesson("06_multi_turn_dpo", "smoke", 0, str(tmp_path), "")


def test_a_lesson_notes_what_it_measures_and_writes_it(lesson, capsys):
    product = Product("sft", "key", lesson.out)
    sft, updated, fixed = (
        Policy(name, product, arm=name.partition("-")[0], iteration=iteration)
        for name, (iteration, _) in POLICIES.items()
    )
    lesson.score(sft)
    assert lesson.metrics.get("gain", "test", "sft") is None
    lesson.score(updated, against=sft)
    assert lesson.metrics.get("gain", "test", "mdpo-1").value == 1 / 4
    assert lesson.metrics.get("sampled-gain", "test", "mdpo-1").n == 2
    assert lesson.metrics.get("accuracy", "gsm-like", "mdpo-1").value == 3 / 4
    lesson.score(fixed, against=sft)
    difference = lesson.difference(updated, fixed)
    assert difference.name == "difference/test/mdpo-1-minus-mdpo-1-fixed" and difference.value == 1 / 4
    assert lesson.metrics[-1] is difference
    lesson.finish(tables={"x": 1})
    assert capsys.readouterr().out.endswith("Record: records/06_multi_turn_dpo.json\n")
    results = read_json(lesson.out / "records" / "06_multi_turn_dpo.json")["results"]
    assert Metrics.from_dicts(results["metrics"]) == lesson.metrics
    assert results["outcomes"] == {name: letters for name, (_, letters) in POLICIES.items()}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": "abc"}, "'seed' as int, and got 'abc', which is str"),
        ({"seed": "[1,2]"}, "got '[1,2]', which is str"),
        ({"seed": 1.5}, "got 1.5, which is float"),
        ({"seed": True}, "got True, which is bool"),
        ({"out": 2024}, "'out' as str, and got 2024, which is int"),
        ({"profile": "smok"}, "Unknown profile 'smok': did you mean smoke"),
    ],
)
def test_a_notebook_refuses_parameters_of_another_type(tmp_path, given, words):
    parameters = {"profile": "smoke", "seed": 0, "out": str(tmp_path / "out"), "settings": ""}
    with pytest.raises(SettingError) as caught:
        Lesson("02_sft", **parameters | given)
    assert words in str(caught.value) and not (tmp_path / "out").exists()


def test_a_notebook_refuses_a_parameter_that_it_does_not_declare_when_papermill_runs_it_alone(tmp_path):
    source, run = NOTEBOOKS / "00_start_here.ipynb", [sys.executable, "-m", "papermill", "--no-progress-bar"]
    given = ["-p", "profil", "smoke", "-p", "seed", "1", "-p", "out", str(tmp_path / "out")]
    done = subprocess.run(
        [*run, source, tmp_path / "ran.ipynb", *given], cwd=ROOT, capture_output=True, text=True, timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "SettingError: Notebook 00_start_here declares no typed parameter 'profil': it declares profile."
    )
    assert done.returncode and not (tmp_path / "out").exists()


def test_every_notebook_gives_its_own_parameters_to_its_lesson():
    for file in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"):
        (setup,) = [cell for cell in read_json(file)["cells"] if "setup" in cell["metadata"].get("tags", [])]
        assert ", profile, seed, out, settings)" in "".join(setup["source"]), file.name


def test_a_notebook_does_not_write_into_another_run(tmp_path):
    seconds = {"seconds": {}, "complete": True}
    run = {"profile": "smoke", "seed": 0, "settings": "", "settings_hash": "another", **seconds}
    write_json(tmp_path / "run.json", run)
    with pytest.raises(UnusableFolder, match="holds a run with seed 0 instead of 1"):
        Lesson("02_sft", "smoke", 1, str(tmp_path), "")


def test_the_table_of_metrics_shows_fractions_in_per_cent_and_their_differences_in_points():
    metrics = [Metric(kind, 0.5, 0.25, 0.75, 8, seeds=(0,)) for kind in ("accuracy", "gain")]
    rows = metric_table([*metrics, Metric("tokens", 9.5, unit="<t>")]).data
    assert "<td>+50.0</td><td>+25.0 to +75.0</td><td>points</td><td>8</td><td>0</td>" in rows
    assert "<td>50.0</td><td>25.0 to 75.0</td><td>%</td><td>8</td><td>0</td>" in rows
    assert "<td>9.50</td><td></td><td>&lt;t&gt;</td>" in rows


def test_lessons_are_loaded_when_they_are_asked_for():
    code = "import sys, mtdpo_lib.lessons, mtdpo_lib.results; heavy = {'torch', 'matplotlib', 'trl'}; "
    code += "assert not heavy & set(sys.modules); from mtdpo_lib.lessons import Lesson; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lessons.nothing  # noqa: B018
