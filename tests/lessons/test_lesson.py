"""What notebooks begin with: the map and the measured cost."""

from mtdpo_lib.common.files import write_json
from mtdpo_lib.lessons.lesson import PIPELINE, measured_cost, pipeline_map
from mtdpo_lib.lessons.publish import NOTEBOOKS


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
