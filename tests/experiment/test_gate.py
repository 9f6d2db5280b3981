"""The gate: every line is measured, and a policy that misses one does not pass."""

import json
import re

import pytest

from mtdpo_lib.__main__ import main
from mtdpo_lib.common.files import REFERENCE_RUNS, ROOT
from mtdpo_lib.experiment import gate
from mtdpo_lib.experiment.gate import Line
from mtdpo_lib.profiles import get_profile

GOOD = {
    "greedy": 0.7,
    "early": 0.68,
    "sampled": 0.6,
    "nats": 14.0,
    "base": 0.6,
    "longer": 0.705,
    "room": 0.82,
}


@pytest.mark.parametrize(
    ("low", "high", "value", "holds"),
    [(0.5, 0.8, 0.5, True), (0.5, 0.8, 0.81, False), (8, None, 7.9, False), (None, 0.01, -1.0, True)],
)
def test_a_line_holds_between_its_ends(low, high, value, holds):
    assert Line("x", low, high, "fraction", "what").holds(value) is holds


def measured(monkeypatch, tmp_path, *changes):
    """A measurement whose seeds gave `GOOD`, with one of `changes` each."""
    rows = iter([GOOD | change for change in changes])
    monkeypatch.setattr(gate, "_of_seed", lambda *_, **__: next(rows))
    return gate.measure(get_profile("cpu", ["problems.development=100"]), range(len(changes)), tmp_path)


def test_a_good_policy_passes_and_every_line_is_measured(monkeypatch, tmp_path):
    found = measured(monkeypatch, tmp_path, {}, {"greedy": 0.71}, {"greedy": 0.69})
    assert found["value"].keys() == {line.name for line in gate.gate()}
    assert all(found["passes"].values()), found


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"greedy": 0.9, "longer": 0.9, "room": 1.0, "early": 0.9}, "greedy"),
        ({"sampled": 0.3}, "sampled"), ({"nats": 2.0}, "nats"),
        ({"base": 0.75}, "above base"), ({"longer": 0.75}, "longer"), ({"early": 0.5}, "early"), ({"room": 0.71}, "room"),
    ],
)  # fmt: skip
def test_each_line_can_fail_alone(monkeypatch, tmp_path, change, line):
    found = measured(monkeypatch, tmp_path, change, change)
    assert [name for name, passes in found["passes"].items() if not passes] == [line]


def test_seeds_that_disagree_do_not_pass(monkeypatch, tmp_path):
    found = measured(monkeypatch, tmp_path, {"greedy": 0.62, "early": 0.62}, {"greedy": 0.72})
    assert not found["passes"]["spread"]


def test_the_command_says_what_fails(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gate, "_of_seed", lambda *_, **__: GOOD | {"nats": 2.0})
    assert main(["gate", "--seeds", "900,901", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "FAILS: nats = 2.0 nats" in said and "holds: greedy = 0.7 fraction" in said
    assert json.loads((tmp_path / "gate.json").read_text())["passes"]["nats"] is False


@pytest.mark.slow
def test_a_small_world_is_measured_from_start_to_end(tmp_path):
    small = ["problems.demonstrations=32", "problems.development=16", "problems.prompts_per_iteration=16"]
    found = gate.measure(get_profile("cpu", small), [900, 901], tmp_path)
    assert 0 < found["value"]["greedy"] < 1 and found["value"]["nats"] > 1


@pytest.mark.skipif(not (REFERENCE_RUNS / "cpu" / "gate.json").exists(), reason="not measured yet")
def test_the_kept_record_is_judged_by_the_lines_of_now_and_the_readme_says_what_fails():
    kept, lines = json.loads((REFERENCE_RUNS / "cpu" / "gate.json").read_text()), gate.gate()
    assert kept["passes"] == {line.name: line.holds(kept["value"][line.name]) for line in lines}
    said = re.findall(r"misses a line of the gate: `([^`]+)`", (ROOT / "README.md").read_text())
    assert said == [line.name for line in lines if not kept["passes"][line.name]]
