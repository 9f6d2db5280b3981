"""Faults at random moments: whatever is killed, and wherever a disk is full, a run ends in the records of an undisturbed
one, or it stops with one sentence and ends so when it is started again.

One run and one study are left alone. Each fault meets a copy of one of them, of which some of the work is undone.
``MTDPO_FAULTS`` says how many kills there are (50 by default, and a full disk for every fifth of them);
``MTDPO_FAULTS_HOME`` names a folder in which the undisturbed run and study are kept for the next time.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from support import results_in, undo_notebook

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("MTDPO_FAULTS", "50"))
LIMIT = 3600  # seconds for anything to end, on a machine however busy
MIB = 2**20

# Who is killed: whose command line has these words.
VICTIMS = {"runner": "", "kernel": "ipykernel_launcher", "sandbox": "sandbox/worker", "study": "LokyProcess"}
USE_THE_TOOL = (
    "02_sft",
    "03_tool_sandbox",
    "04_rollouts_and_answers",
    "06_multi_turn_dpo",
    "08_mixture_sampling",
)
STUDY = ("study", "--profile", "smoke", "--seeds", "0", "--arms", "mdpo,fixed", "--jobs", "2")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mtdpo_lib", *arguments]


def start(call: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as stream:
        return subprocess.Popen(call, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def finish(call: list[str], log: Path) -> None:
    """Run to the end, which must be a good one."""
    assert start(call, log).wait(LIMIT) == 0, log.read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished run and a finished study."""
    kept = os.environ.get("MTDPO_FAULTS_HOME")
    home = Path(kept) if kept else tmp_path_factory.mktemp("undisturbed")
    run, study = home / "run", home / "study"
    with FileLock(home / ".lock"):  # several processes may test side by side
        finish(command("reproduce", "--profile", "smoke", "--out", str(run)), home / "run.log")
        # With stages of its own: a run trains with more threads, which changes last digits.
        finish(command(*STUDY, "--out", str(study)), home / "study.log")
    return run, study


def undo_one_notebook(out: Path, chance: random.Random, among: Sequence[str] = ()) -> str:
    """Forget what one of the notebooks made; its name."""
    name = chance.choice(among or list(json.loads((out / "finished.json").read_text())))
    undo_notebook(out, name)
    return name


def undo_stages(out: Path, chance: random.Random) -> str:
    """Forget all stages of two kinds, and the records that would stand for them; which."""
    folders = sorted((out / "stages").glob("[a-z]*-*"))
    kinds = chance.sample(sorted({folder.name.rpartition("-")[0] for folder in folders}), 2)
    for folder in folders:
        if folder.name.rpartition("-")[0] in kinds:
            shutil.rmtree(folder)
    for record in (out / "arms").glob("*.json"):
        record.unlink()
    return " and ".join(kinds)


def family(process: subprocess.Popen) -> list[tuple[psutil.Process, str]]:
    """A command and all that it started, each with its command line; what ends meanwhile is left out."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for member in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append((member, " ".join(member.cmdline())))
    return found


def kill_one(
    process: subprocess.Popen, victim: str, delay: float, chance: random.Random
) -> list[psutil.Process]:
    """After `delay` seconds, kill -9 one of a command's processes, as soon as there is one of the wanted kind.

    Returns:
        The command's family as it was then; nobody if it ended before.
    """
    time.sleep(delay)
    while process.poll() is None:
        members = family(process)
        wanted = members[:1] if victim == "runner" else [one for one in members if VICTIMS[victim] in one[1]]
        if wanted:
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(wanted)[0].kill()
            return [member for member, _ in members]
        time.sleep(0.05)
    return []


def check_end(code: int, said: str) -> None:
    """A good end, a kill, or one sentence."""
    assert "Traceback" not in said, said
    sentences = [line for line in said.splitlines() if line.startswith(("error: ", "A process was ended"))]
    assert len(sentences) == (code in (1, 2)), said


def check_whole(out: Path, wanted: Path) -> None:
    """The records of the undisturbed one, and nothing half written beside them."""
    assert results_in(out) == results_in(wanted)
    drafts = [path for path in out.rglob(".*") if path.name not in (".lock", ".locks")]
    assert not drafts


@pytest.mark.parametrize("number", range(KILLS))
def test_faults_a_kill_changes_no_record(undisturbed, tmp_path, number):
    chance = random.Random(number)
    victim = list(VICTIMS)[number % len(VICTIMS)]
    wanted, out, log = undisturbed[victim == "study"], tmp_path / "out", tmp_path / "log.txt"
    shutil.copytree(wanted, out)
    if victim == "study":
        undone, call, seconds = undo_stages(out, chance), command(*STUDY, "--out", str(out)), 60.0
    else:
        undone = undo_one_notebook(out, chance, USE_THE_TOOL if victim == "sandbox" else ())
        call = command("reproduce", "--profile", "smoke", "--out", str(out), "--only", undone)
        seconds = 3 + json.loads((wanted / "run.json").read_text())["seconds"][undone]
    delay = chance.uniform(0, seconds)
    process = start(call, log)
    members = kill_one(process, victim, delay, chance)
    code = process.wait(LIMIT)
    if victim == "runner" and members:
        assert code == -9
        _, alive = psutil.wait_procs(members[1:], timeout=LIMIT)
        assert not alive, "what the runner had started outlives it"
    said = log.read_text()
    print(f"{victim} {'killed' if members else 'had ended'}, {undone}, after {delay:.0f} s: exit code {code}")
    check_end(code, said)
    if code:
        finish(call, log)
    check_whole(out, wanted)


def test_faults_a_run_killed_ten_times_is_one_that_was_not(undisturbed, tmp_path):
    """Killed as a whole, at random moments of its way; each start says what it kept."""
    chance, out, log = random.Random(10), tmp_path / "out", tmp_path / "log.txt"
    call = command("reproduce", "--profile", "smoke", "--out", str(out))
    usual = sum(json.loads((undisturbed[0] / "run.json").read_text())["seconds"].values())
    kept = [0]
    for _ in range(10):
        process = start(call, log)
        members = kill_one(process, "runner", chance.uniform(0, usual / 5), chance)
        process.wait(LIMIT)
        psutil.wait_procs(members[1:], timeout=LIMIT)
        finished = out / "finished.json"
        kept.append(len(json.loads(finished.read_text())) if finished.exists() else 0)
        if kept[-2] and "Running" in (said := log.read_text()):  # not killed before it could say anything
            assert f"{kept[-2]} of 11 notebooks are finished and stay as they are" in said
    print("finished notebooks at each start:", kept[:-1])
    finish(call, log)
    check_whole(out, undisturbed[0])


@pytest.mark.parametrize("number", range((KILLS + 4) // 5))
def test_faults_a_full_disk_is_one_sentence_and_changes_no_record(undisturbed, tmp_path, small_disk, number):
    chance, wanted, (place, resize) = random.Random(-1 - number), undisturbed[0], small_disk
    resize("4g")
    out, log = shutil.copytree(wanted, place / "out"), tmp_path / "log.txt"
    full = shutil.disk_usage(place).used
    name = undo_one_notebook(out, chance)
    used = shutil.disk_usage(place).used
    room = int(chance.uniform(0.0, 1.1) * max(full - used, MIB // 2))
    resize(used + room)
    call = command("reproduce", "--profile", "smoke", "--out", str(out), "--only", name)
    code, said = start(call, log).wait(LIMIT), log.read_text()
    print(f"{room / MIB:.2f} MiB for {name}: exit code {code}\n{said}")
    check_end(code, said)
    if code:
        assert f"error: The disk at {place} is full: " in said
        resize("4g")
        finish(call, log)
    check_whole(out, wanted)
