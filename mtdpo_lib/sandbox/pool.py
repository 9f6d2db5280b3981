"""A pool of sandbox workers and the sessions of trajectories."""

from __future__ import annotations

import atexit
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mtdpo_lib.profiles import SandboxSettings
from mtdpo_lib.sandbox.snapshot import SandboxUnavailable, find_snapshot

WORKER = Path(__file__).with_name("worker.py")
START_SECONDS = 60.0  # a worker starts in well under a second; a crowded machine may need longer
LIMITS = ("million_instructions", "seconds", "memory_mib", "output_characters")
GRACE_SECONDS = 3.0  # after a program's own limit, before its worker is killed

# The authors' wording for what is no ordinary output (their python_executor.py).
TIMEOUT_TEXT = "Timeout Error"
EMPTY_TEXT = "Result is not defined"
TRUNCATED_TEXT = "[output truncated]"


@dataclass(frozen=True)
class ToolResult:
    """What the tool answered.

    Attributes:
        text: the observation o_h shown to the model; for an error its type and message only (appendix B).
        error: class of the error, None when the program ran to its end.
        status: "ok", "error", "timeout", "memory" or "killed".
        seconds: wall time.
    """

    text: str
    error: str | None
    status: str
    seconds: float


class _Dead(RuntimeError):
    """The worker ended or did not answer in time."""


class _Worker:
    """One worker process; used by one thread at a time."""

    def __init__(self, snapshot: Path, limits: SandboxSettings):
        self.snapshot, self.limits = snapshot, limits
        self.lock = threading.Lock()
        self.generation = 0
        self._start()

    def _start(self) -> None:
        limits = {name: getattr(self.limits, name) for name in LIMITS}
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER), str(self.snapshot), json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "ERYX_WARM_INSTANCES": "0"},
            cwd="/",
            close_fds=True,
            start_new_session=True,  # Ctrl-C belongs to the notebook; the worker ends with its input
        )
        self.answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self.process, self.answers), daemon=True).start()
        self.generation += 1
        if self._answer(START_SECONDS).get("status") != "ready":
            raise SandboxUnavailable(
                "A sandbox worker did not start: run `python -c 'import eryx'` to see why."
            )

    @staticmethod
    def _read(process: subprocess.Popen, answers: queue.SimpleQueue) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put(b"")

    def _answer(self, seconds: float) -> dict:
        try:
            return json.loads(self.answers.get(timeout=seconds))
        except (queue.Empty, ValueError) as error:
            raise _Dead from error

    def call(self, session: int, code: str) -> dict:
        """Run `code` in `session`. Raises `_Dead` when the worker crashed or hung; it is replaced first."""
        try:
            self._send({"op": "run", "session": session, "code": code})
            return self._answer(self.limits.seconds + GRACE_SECONDS)
        except (_Dead, OSError) as error:
            self.stop()
            self._start()
            raise _Dead from error

    def _send(self, request: dict) -> None:
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def forget(self, session: int) -> None:
        try:
            self._send({"op": "close", "session": session})
        except OSError:
            return  # a dead worker holds no session

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                continue


class Session:
    """The tool of one trajectory: variables live from call to call.

    After a timeout or a crash the interpreter is gone; the next call first runs the earlier good cells again.
    """

    def __init__(self, pool: SandboxPool, number: int):
        self._pool, self._number = pool, number
        self._worker = pool._workers[number % len(pool._workers)]
        self._cells: list[str] = []
        self._generation = self._worker.generation
        self._lost = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, code: str) -> ToolResult:
        """Run `code` and return what the model is shown."""
        start = time.perf_counter()
        with self._worker.lock:
            if self._pool._closed:
                raise RuntimeError("This sandbox pool is closed: open a new one with SandboxPool(settings).")
            try:
                if self._lost or self._generation != self._worker.generation:
                    self._replay()
                answer = self._worker.call(self._number, code)
            except _Dead:
                answer = {"status": "crashed"}
        result = _result(answer, self._pool.settings, time.perf_counter() - start)
        if result.status in ("ok", "error"):
            self._cells.append(code)
        else:
            self._lost = True
        return result

    def _replay(self) -> None:
        self._worker.forget(self._number)
        self._generation, self._lost = self._worker.generation, False
        for cell in self._cells:
            self._worker.call(self._number, cell)

    def close(self) -> None:
        """Give the session's memory back."""
        with self._worker.lock:
            if not self._pool._closed:
                self._worker.forget(self._number)


def _result(answer: dict, settings: SandboxSettings, seconds: float) -> ToolResult:
    """The worker's answer as a result. The guest may have written anything: types and lengths are checked here."""
    status = answer.get("status")
    if status == "timeout":
        return ToolResult(TIMEOUT_TEXT, "TimeoutError", "timeout", seconds)
    if status == "crashed":
        # The guest's C stack is 512 KiB and overflows where CPython raises RecursionError: it takes the worker down.
        return ToolResult(
            "RecursionError: maximum recursion depth exceeded", "RecursionError", "killed", seconds
        )
    try:
        report = json.loads(answer["report"])
        output, error, message = str(report["output"]), report["error"], str(report["message"] or "")
        lost = int(report["lost"])
    except (KeyError, TypeError, ValueError):  # the program ended its interpreter, or forged the report
        return ToolResult("SystemExit", "SystemExit", "killed", seconds)
    limit = settings.output_characters
    if error is not None:
        error = str(error)[:80]
        text = f"{error}: {message[:limit]}" if message else error
        return ToolResult(text, error, "memory" if error == "MemoryError" else "error", seconds)
    output = output[:limit].strip()
    if lost > 0:
        output += TRUNCATED_TEXT
    return ToolResult(output or EMPTY_TEXT, None, "ok", seconds)


class SandboxPool:
    """Worker processes for model-written code; nothing it runs touches this process or this machine's files.

    Args:
        settings: limits of one program and the number of workers.

    Raises:
        SandboxUnavailable: pyeryx is missing or cannot start; there is no weaker fallback.

    See: notebook 03_tool_sandbox.
    """

    protections = (
        "CPython in WebAssembly, in separate processes with an empty environment: "
        "no host files, no network, no further processes"
    )

    def __init__(self, settings: SandboxSettings):
        self.settings = settings
        snapshot = find_snapshot()
        self._closed = False
        self._numbers = itertools.count()
        self._workers = [_Worker(snapshot, settings) for _ in range(settings.workers)]
        self._threads = ThreadPoolExecutor(settings.workers)
        atexit.register(self.close)

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def session(self) -> Session:
        """A new session with no variables."""
        return Session(self, next(self._numbers))

    def run_many(self, calls: Sequence[tuple[Session, str]]) -> list[ToolResult]:
        """Run one cell in each of several sessions, all workers at once; results in the order of `calls`."""
        return list(self._threads.map(lambda call: call[0].run(call[1]), calls))

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """End all workers. Called on leaving the ``with`` block; workers also end when this process does."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
