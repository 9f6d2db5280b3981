"""A worker process as the trainer sees it: started, asked, killed, replaced."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox.backends import Backend
from mtdpo_lib.sandbox.results import SandboxUnavailable
from mtdpo_lib.sandbox.snapshot import environment

WORKER = Path(__file__).with_name("worker")
START_SECONDS = 120.0  # a worker starts in a second or two; a crowded machine may need longer
GRACE_SECONDS = 3.0  # after a program's own limit, before its worker is killed


class WorkerDied(RuntimeError):
    """The worker ended or did not answer in time: `status` is "crashed" or "timeout"."""

    def __init__(self, status: str = "crashed"):
        super().__init__(status)
        self.status = status


class WorkerProcess:
    """One worker; used by one thread, which also starts it: on Linux a worker ends with the thread that started it.

    Args:
        backend: what runs in it.
        prepared: the backend's own settings.
        limits: of one program.
    """

    def __init__(self, backend: Backend, prepared: dict[str, Any], limits: SandboxSettings):
        self.backend, self.limits = backend, limits
        self._settings = json.dumps({**asdict(limits), **prepared})
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.walls: list[str] = []

    @property
    def pid(self) -> int:
        """Process id of the worker that runs now."""
        return self._process.pid

    def start(self) -> None:
        """Start the process.

        Raises:
            SandboxUnavailable: it refused.
            WorkerDied: the pool was closed meanwhile.
        """
        self._process = subprocess.Popen(
            # -s and -P: no user packages, no module from the current folder. -I would also ignore the hash seed, and
            # there is no other PYTHON variable to ignore.
            [sys.executable, "-s", "-P", str(WORKER), self.backend.name, self._settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            close_fds=True,
            start_new_session=True,  # Ctrl-C belongs to the notebook
        )
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process, self._answers), daemon=True).start()
        try:
            answer = self._answer(START_SECONDS)
        except WorkerDied:
            self.kill()
            if self._closed.is_set():
                raise
            answer = {"why": "it ended before it was ready"}
        if answer.get("status") != "ready":
            self.kill()
            raise SandboxUnavailable(
                f"A worker of the sandbox backend {self.backend.name} did not start ({answer.get('why')}): "
                f"{self.backend.advice}."
            )
        self.walls = answer["walls"]
        if self._closed.is_set():  # closed while it started
            self.kill()
            raise WorkerDied()

    def ask(self, session: int, turn: int, code: str) -> dict[str, Any]:
        """Run `code` as cell number `turn` of `session`; a worker that died or hung is replaced first.

        Raises:
            WorkerDied: it died while running this program, or the pool is closed.
        """
        try:
            self._send({"op": "run", "session": session, "turn": turn, "code": code})
            return self._answer(self.limits.seconds + GRACE_SECONDS)
        except (WorkerDied, OSError) as error:
            self.kill()
            if not self._closed.is_set():
                self.start()
            raise WorkerDied(getattr(error, "status", "crashed")) from error

    def forget(self, session: int) -> None:
        """Give a session's memory back."""
        try:
            self._send({"op": "close", "session": session})
        except OSError:
            return  # a dead worker holds no session

    def close(self) -> None:
        """End the worker for good; safe from any thread."""
        self._closed.set()
        if self._process is not None:
            self.kill()

    def kill(self) -> None:
        """End the process and all it forked."""
        process = self._process
        if process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)  # its session has a group of its own
            else:
                process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except OSError:
                continue

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            return json.loads(self._answers.get(timeout=seconds))
        except queue.Empty as error:
            raise WorkerDied("timeout") from error
        except ValueError as error:
            raise WorkerDied from error

    def _send(self, request: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except ValueError as error:  # the pipe is closed
            raise BrokenPipeError from error


def _read(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    try:
        for line in process.stdout:
            answers.put(line)
    except (OSError, ValueError):  # closed while reading
        pass
    answers.put(b"")
