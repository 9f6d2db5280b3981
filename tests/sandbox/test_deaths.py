"""Interpreters that die of what no program did: killed here as a kernel out of memory would, at every moment there is.

What a session answers must not tell: the text is the one of an undisturbed pool, or the pool refuses to go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import resource
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mtdpo_lib.common.files import read_json
from mtdpo_lib.common.provenance import MISHAPS
from mtdpo_lib.common.stages import Product, StageStore
from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.results.records import write_record
from mtdpo_lib.sandbox import SandboxPool, SandboxUnavailable
from mtdpo_lib.sandbox import process as sandbox_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc as Linux has them")

SETTINGS = SandboxSettings(workers=1, seconds=600.0, million_instructions=10**6)
# The third cell gives its session an interpreter of its own, the last works for a moment.
CELLS = (
    "import random\nx = [2]",
    "x.append(x[0] * 3)\nx",
    "x.append(random.random())\nx",
    "y = {'sum': sum(x)}\ny",
    "x[0] += 1\nprint(sum(i % 7 for i in range(1_000_000)), x)",
)
PATIENCE = 300.0  # for the other side to get somewhere; ends a test that would hang


@pytest.fixture(scope="module")
def pools() -> Iterator[Callable[[str], SandboxPool]]:
    """The pool of a backend; a zygote takes seconds to start, so all tests share one."""
    with contextlib.ExitStack() as stack:
        start = functools.cache(
            lambda backend: stack.enter_context(SandboxPool(replace(SETTINGS, backend=backend)))
        )
        yield start


@pytest.fixture
def pool(request, pools, monkeypatch) -> SandboxPool:
    """The pool of the backend in the test's parameters, with no memory of earlier tests."""
    pool = pools(getattr(request, "param", "wasm"))
    worker = pool._workers[0]
    monkeypatch.setattr(worker, "_send", worker._send)  # whoever disturbs it is undone
    monkeypatch.setattr(pool, "known", {})
    monkeypatch.setattr(worker, "restarts", 0)
    return pool


@pytest.fixture
def expected(pool) -> list[str]:
    """The texts of a session that nobody disturbs."""
    with pool.session() as session:
        texts = [session.run(cell).text for cell in CELLS]
    pool.known.clear()
    return texts


def on(*pairs: tuple[str, object]) -> pytest.MarkDecorator:
    """Parameters for tests of both backends: what a pool does is the same for both, so the zygote has the fewest."""
    names = [f"{backend}{number}" for number, (backend, _) in enumerate(pairs)]
    return pytest.mark.parametrize(("pool", "given"), pairs, indirect=["pool"], ids=names)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def unread(worker: sandbox_process.WorkerProcess) -> int:
    """Bytes that the worker has not read yet."""
    return struct.unpack("i", fcntl.ioctl(worker._process.stdin, termios.FIONREAD, b"\0" * 4))[0]


def children(worker: sandbox_process.WorkerProcess) -> list[psutil.Process]:
    """The zygote's children that run a cell now, or did until a moment ago."""
    found = psutil.Process(worker.pid).children()
    return [one for one in found if one.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)]


def the_worker(worker: sandbox_process.WorkerProcess) -> int:
    until(lambda: unread(worker) == 0)  # it has begun
    return worker.pid


def the_child(worker: sandbox_process.WorkerProcess) -> int:
    found: list[psutil.Process] = []
    until(lambda: found.extend(children(worker)) or found or not worker._answers.empty())
    return found[0].pid if found else 0  # it answered that there is none: the session is to be replayed first


def disturb(
    pool: SandboxPool,
    when: Callable[[int, str], bool],
    signals: list[signal.Signals],
    victim: Callable[[sandbox_process.WorkerProcess], int] = the_worker,
) -> None:
    """Send the victim one more of the signals at each request that `when` chooses by its number and code."""
    worker, number = pool._workers[0], iter(range(10**6))
    send, left = worker._send, list(signals)

    def send_and_strike(request):
        send(request)
        if request["op"] == "run" and when(next(number), request["code"]) and left:
            pid = victim(worker)
            if pid:
                os.kill(pid, left.pop(0))

    worker._send = send_and_strike


KILL, ABORT = signal.SIGKILL, signal.SIGABRT


@on(("wasm", [KILL]), ("wasm", [signal.SIGTERM]), ("wasm", [ABORT, KILL]), ("zygote", [KILL]))
def test_a_worker_that_dies_in_a_cell_changes_no_text(pool, expected, given):
    disturb(pool, lambda number, code: code == CELLS[-1], given)
    with pool.session() as session:
        assert [session.run(cell).text for cell in CELLS] == expected
        assert session.run("x[1]").text == "6"
    assert pool.restarts == len(given)


@on(("wasm", 0), ("wasm", 1), ("wasm", 4), ("wasm", 7), ("zygote", 4))
def test_a_worker_that_dies_at_any_request_changes_no_text(pool, expected, given, monkeypatch):
    """Cells of two sessions in turn, and then another death in the replay that the first makes necessary."""
    disturb(pool, lambda number, code: number in (given, given + 2), [KILL, ABORT])
    monkeypatch.setattr(pool, "settings", replace(pool.settings, remember=False))
    with pool.session() as one, pool.session() as other:
        texts = [(one.run(cell).text, other.run(cell).text) for cell in CELLS]
        assert (one.run("x[1]").text, other.run("x[1]").text) == ("6", "6")
    assert texts == [(text, text) for text in expected]
    assert pool.restarts == 2


@on(("wasm", CELLS[1:3]), ("zygote", CELLS[2:3]))
def test_a_worker_that_dies_between_two_cells_changes_no_text(pool, expected, given):
    with pool.session() as session:
        texts = []
        for cell in CELLS:
            texts.append(session.run(cell).text)
            if cell in given:
                os.kill(pool.pids()[0], KILL)
    assert texts == expected
    assert pool.restarts == len(given)


@pytest.mark.parametrize("pool", ["zygote"], indirect=True)
def test_a_zygotes_child_that_dies_changes_no_text(pool, expected):
    worker = pool._workers[0]
    zygote = worker.pid
    with pool.session() as session:
        assert [session.run(cell).text for cell in CELLS[:2]] == expected[:2]
        (child,) = psutil.Process(zygote).children()
        child.kill()  # between two cells
        assert session.run(CELLS[2]).text == expected[2]
        (child,) = psutil.Process(zygote).children()
        endless_in_this_child = f"import os\nwhile os.getpid() == {child.pid}: pass\nx[:2]"
        disturb(pool, lambda number, code: code == endless_in_this_child, [KILL], the_child)
        assert session.run(endless_in_this_child).text == "[2, 6]"
        assert [session.run(cell).text for cell in CELLS[3:]] == expected[3:]
    assert pool.restarts == 2
    assert worker.pid == zygote  # the zygote itself lives


@on(("wasm", the_worker), ("zygote", the_child))
def test_killed_again_and_again_a_cell_has_no_result(pool, given):
    """The program is not to blame, and what it would have printed nobody knows: the work must end."""
    with pool.session() as session:
        assert session.run("x = 5\nx").text == "5"
        known = dict(pool.known)
        disturb(pool, lambda number, code: "while" in code, [KILL] * 4, given)
        with pytest.raises(SandboxUnavailable, match=r"SIGKILL.*memory.*sandbox\.workers"):
            session.run("while True: pass")
        assert pool.known == known and pool.restarts == 2
        assert session.run("x + 1").text == "6"


def test_killed_again_and_again_many_sessions_have_no_results(pool):
    sessions = [pool.session() for _ in range(4)]
    disturb(pool, lambda number, code: "while" in code, [KILL] * 2)
    with pytest.raises(SandboxUnavailable, match="SIGKILL"):
        pool.run_many([(one, "1" if one is not sessions[1] else "while True: pass") for one in sessions])


NESTED = "class A:\n  def __repr__(self): return repr(self)\nA()"


@on(
    ("wasm", NESTED),  # overflows the guest's C stack
    ("zygote", NESTED),  # CPython counts its calls in C
    ("zygote", "import ctypes\nctypes.string_at(0)"),
)
def test_a_program_that_crashes_its_interpreter_every_time_is_told_the_same_every_time(pool, given):
    results = []
    for _ in range(2):
        with pool.session() as session:
            session.run("x = 5")
            results.append(session.run(given))
            assert session.run("x").text == "5"
    assert len({result.text for result in results}) == 1
    assert results[0].text.startswith("RecursionError: maximum recursion depth exceeded")
    assert pool.restarts == 0  # no accident


def test_a_crash_is_the_programs_own_even_if_a_worker_was_killed_meanwhile(pool):
    with pool.session() as session:
        disturb(pool, lambda number, code: code == NESTED, [KILL])
        assert session.run(NESTED).text == "RecursionError: maximum recursion depth exceeded"


@pytest.mark.parametrize("pool", ["zygote"], indirect=True)
def test_a_machine_that_has_no_process_to_give_is_no_observation(pool):
    with pool.session() as session:
        before = resource.prlimit(pool.pids()[0], resource.RLIMIT_NOFILE)
        resource.prlimit(pool.pids()[0], resource.RLIMIT_NOFILE, (3, before[1]))
        with pytest.raises(SandboxUnavailable, match="Too many open files"):
            session.run("1")
        resource.prlimit(pool.pids()[0], resource.RLIMIT_NOFILE, before)
        assert session.run("1").text == "1"


class Answers(Product):
    """A stage that asks the tool."""

    @staticmethod
    def make(folder: Path, pool: SandboxPool, cells: list[str]) -> None:
        with pool.session() as session:
            texts = [session.run(cell).text for cell in cells]
        (folder / "texts.txt").write_text("\n".join(texts))


def test_stages_and_records_tell_how_many_workers_were_replaced(pool, expected, smoke, tmp_path, monkeypatch):
    """The product itself is the one of an undisturbed stage."""
    monkeypatch.setattr(SandboxPool, "fingerprint", lambda pool: "pool", raising=False)
    MISHAPS.clear()
    # Far apart: a kill that comes after the answer meets the next cell, and two at one cell end the stage.
    disturb(pool, lambda number, code: number == 0 or code == CELLS[-1], [KILL, KILL])
    store = StageStore(tmp_path / "stages")
    made = store.make(Answers, "answers", {"pool": pool, "cells": list(CELLS)})
    assert (made.path / "texts.txt").read_text() == "\n".join(expected)
    assert read_json(made.path / "manifest.json")["mishaps"] == {"sandbox restarts": 2}
    record = read_json(write_record(tmp_path / "records", "04", smoke, 0, {}, {}))
    assert record["provenance"]["mishaps"] == {"sandbox restarts": 2}
    undisturbed = store.make(Answers, "answers", {"pool": pool, "cells": list(CELLS[:2])})
    assert read_json(undisturbed.path / "manifest.json")["mishaps"] == {}


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"SIGKILL.*memory"),
        ("raise SystemExit(3)", "did not start .*it ended before it was ready"),
    ],
)
def test_a_worker_that_dies_while_it_starts_says_why(tmp_path, monkeypatch, ends, says):
    worker = tmp_path / "worker.py"
    worker.write_text(ends)
    monkeypatch.setattr(sandbox_process, "WORKER", worker)
    with pytest.raises(SandboxUnavailable, match=says):
        SandboxPool(SETTINGS)
