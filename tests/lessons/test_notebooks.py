"""Every notebook at `smoke`, through the command a user types; and again with a kill in the middle.

A copy of the finished run forgets what notebook 06 made; it is started again, killed with all its processes while notebook
06 trains, and started once more. It must end in the same records.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import results_in, undo_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
INTERRUPTED = "06_multi_turn_dpo"
LIMIT = 1200  # seconds; a smoke run takes a few minutes on busy cores


def start(out: Path, *more: str) -> subprocess.Popen:
    log = (out.parent / f"{out.name}.log").open("a")
    command = [sys.executable, "-m", "mtdpo_lib", "reproduce", "--profile", "smoke", "--out", str(out), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # other tests run beside it
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)


def kill_everything(process: subprocess.Popen) -> None:
    """SIGKILL for the command and all it started: what a power cut or an impatient scheduler does."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def said(out: Path) -> str:
    return (out.parent / f"{out.name}.log").read_text()


def trained(out: Path) -> set[Path]:
    return set((out / "stages").glob("training-*/manifest.json"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished run folders, unbroken and killed in notebook 06; and when each file that was kept was written."""
    place = tmp_path_factory.mktemp("smoke")
    unbroken, broken = place / "unbroken", place / "broken"
    assert start(unbroken).wait(LIMIT) == 0, said(unbroken)
    shutil.copytree(unbroken, broken)
    undo_notebook(broken, INTERRUPTED)
    finished = [*(broken / "stages").glob("*/manifest.json"), *(broken / "notebooks").glob("[0-9]*")]
    kept = {file: file.stat().st_mtime_ns for file in finished}

    before, deadline = trained(broken), time.monotonic() + LIMIT
    process = start(broken, "--only", INTERRUPTED)
    while trained(broken) == before:
        assert process.poll() is None, said(broken)
        assert time.monotonic() < deadline, said(broken)
        time.sleep(0.1)
    kill_everything(process)
    assert not (broken / "records" / f"{INTERRUPTED}.json").exists(), (
        "the kill came too late to test anything"
    )
    kept |= {file: file.stat().st_mtime_ns for file in trained(broken)}
    assert start(broken, "--only", INTERRUPTED).wait(LIMIT) == 0, said(broken)
    return unbroken, broken, kept


def test_every_notebook_runs_and_leaves_its_outputs(runs):
    out = runs[0]
    assert sorted(file.stem for file in (out / "notebooks").glob("*.ipynb")) == NOTEBOOKS
    assert (out / "report.html").stat().st_size > 10_000
    names = {entry["name"] for entry in json.loads((out / "report.json").read_text())}
    assert {"accuracy/test/sft", "accuracy/test/mdpo-2", "gain/test/mdpo-2", "seconds/notebooks"} <= names


def test_the_same_seed_gives_the_same_records_also_after_a_kill(runs):
    unbroken, broken = map(results_in, runs[:2])
    assert unbroken.keys() == broken.keys()
    for name, record in unbroken.items():
        assert record == broken[name], f"record {name} differs"


def test_what_was_finished_before_the_kill_is_found_again(runs):
    broken, kept = runs[1:]
    assert len([file for file in kept if file.name == "manifest.json"]) >= 5
    assert {file.stem for file in kept if file.suffix == ".ipynb"} == {*NOTEBOOKS} - {INTERRUPTED}
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())
    assert (broken / "notebooks" / f"{INTERRUPTED}.ipynb").exists()
