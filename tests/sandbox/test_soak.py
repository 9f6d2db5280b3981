"""The soak run of `benchmarks/sandbox_soak.py`, and its committed record."""

import importlib.util
import json

import pytest

from mtdpo_lib.common.files import DATA, ROOT


def check(record: dict) -> None:
    assert record["answers"] == record["programs"], "an answer was lost"
    assert record["wrong"] == []
    assert record["workers_replaced"] > 0, "no attack ended a worker: the run shows nothing of replacement"
    assert record["seconds_to_replace"]["median"] <= 10.0
    assert record["memory_growth_mib"] <= 150
    assert record["processes_when_idle"] == record["workers"]
    assert record["processes_left"] == 0


@pytest.mark.slow
def test_ten_thousand_programs():
    spec = importlib.util.spec_from_file_location(
        "sandbox_soak", ROOT / "tests" / "benchmarks" / "sandbox_soak.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check(module.soak("wasm", 10_000))


def test_the_committed_record_holds():
    record = json.loads((DATA / "records" / "sandbox_soak_wasm.json").read_text())
    assert (record["programs"], record["threads"], record["hostile"]) == (10_000, 4, 500)
    check(record)
