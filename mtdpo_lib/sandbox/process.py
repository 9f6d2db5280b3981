"""A worker process as the trainer sees it: started, asked, killed, replaced."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from mtdpo_lib.common.provenance import MISHAPS
from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox.backends import Backend
from mtdpo_lib.sandbox.results import SandboxUnavailable
from mtdpo_lib.sandbox.snapshot import WORKER, environment

START_SECONDS = 120.0  # a worker starts in a second or two; a crowded machine may need longer
GRACE_SECONDS = 3.0  # after a program's own limit, before its worker is killed
ENDING_SECONDS = 60.0  # for a worker that closed its output to be gone
# Behind its walls no program can send a signal, so these came from outside: from somebody, or from a kernel out of memory.
# A fault (SIGSEGV, SIGABRT, ...) a program can cause. Windows does not tell the two apart, and all count as faults there.
OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
CLOSED = "This sandbox pool is closed: open a new one with SandboxPool(settings)."
KILLED = (
    "The sandbox's interpreters do not survive on this machine ({}), and no program can do that to them: most likely memory "
    "ran out or somebody ends these processes. Free memory or lower sandbox.workers or sandbox.memory_mib, and start "
    "again; what was being made is not kept."
)


class WorkerDied(RuntimeError):
    """An interpreter ended while it should have run a program, which tells nothing of the program yet.

    Args:
        cause: exit code of its process (of a signal: negative), or what it lacked.
    """

    def __init__(self, cause: int | str):
        signals = {-getattr(signal, name): name for name in OUTSIDE if hasattr(signal, name)}
        super().__init__(signals.get(cause, f"exit code {cause}") if isinstance(cause, int) else cause)
        self.by_program = isinstance(cause, int) and cause not in signals


class WorkerProcess:
    """One worker and the one thread that talks to it: calls wait in line, and an interrupted caller loses no answer.

    That thread also starts it: on Linux a worker ends with the thread that started it.

    Args:
        backend: what runs in it.
        prepared: the backend's own settings.
        limits: of one program.

    Attributes:
        walls: that it put around itself.
        restarts: interpreters that had to be replaced though no program had ended them.
    """

    _process: subprocess.Popen[str]
    _answers: queue.SimpleQueue[str]

    def __init__(self, backend: Backend, prepared: dict[str, str], limits: SandboxSettings):
        self.backend, self.limits = backend, limits
        self.walls: list[str] = []
        self.restarts = 0
        self._settings = json.dumps({**asdict(limits), **prepared})
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        self._closed = threading.Event()
        self._started = False

    @property
    def pid(self) -> int:
        """Process id of the worker that runs now, or ran last."""
        return self._process.pid

    def submit[T](self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """`call` this worker's methods in its thread.

        Raises:
            RuntimeError: the pool is closed.
        """
        try:
            return self._thread.submit(call, *arguments)
        except RuntimeError as error:  # shut down
            raise RuntimeError(CLOSED) from error

    def start(self) -> None:
        """Start the process.

        Raises:
            SandboxUnavailable: it refused, or ended before it was ready.
            RuntimeError: the pool was closed meanwhile.
        """
        self._process = subprocess.Popen(
            # -s and -P: no user packages, no module from the current folder. -I would also ignore the hash seed, and
            # there is no other PYTHON variable to ignore.
            [sys.executable, "-s", "-P", str(WORKER), self.backend.name, self._settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf8",
            env=environment(),
            cwd="/",
            start_new_session=True,  # Ctrl-C belongs to the notebook
        )
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process, self._answers), daemon=True).start()
        answer: dict[str, Any]
        try:
            answer = self._answer(START_SECONDS)
        except queue.Empty:
            answer = {"status": "refused", "why": f"it was not ready after {START_SECONDS:.0f} s"}
        except WorkerDied as death:
            if not death.by_program and not self._closed.is_set():
                raise SandboxUnavailable(KILLED.format(death)) from death
            answer = {"status": "refused", "why": "it ended before it was ready"}
        if self._closed.is_set():
            self._kill()
            raise RuntimeError(CLOSED)
        if answer["status"] != "ready":
            self._kill()
            raise SandboxUnavailable(
                f"A worker of the sandbox backend {self.backend.name} did not start ({answer['why']}): "
                f"{self.backend.advice}."
            )
        self._started = True
        self.walls = answer["walls"]

    def ask(self, session: int, turn: int, code: str) -> dict[str, Any]:
        """Run `code` as cell number `turn` of `session`, in a new worker where there is none any more.

        Returns:
            The worker's answer (`worker/__main__.py`). One that hangs is killed, and its answer is a timeout.

        Raises:
            WorkerDied: the interpreter ended; the next call finds a new one.
            SandboxUnavailable: no new worker can be started.
            RuntimeError: the pool is closed.
        """
        if self._closed.is_set():
            raise RuntimeError(CLOSED)
        if self._started and self._process.poll() is not None:  # it died while nobody asked
            self._started = False
            self.note_restarts(1)
        if not self._started:
            self.start()
        self._send({"op": "run", "session": session, "turn": turn, "code": code})
        try:
            answer = self._answer(self.limits.seconds + GRACE_SECONDS)
        except queue.Empty:
            self._kill()
            return {"status": "timeout"}
        except WorkerDied:
            if self._closed.is_set():
                raise RuntimeError(CLOSED) from None
            raise
        if answer["status"] == "died":
            raise WorkerDied(answer["cause"])
        return answer

    def note_restarts(self, number: int) -> None:
        """So many interpreters had to be replaced though no program had ended them."""
        self.restarts += number
        MISHAPS["sandbox restarts"] += number

    def forget(self, session: int) -> None:
        """Give a session's memory back; a dead worker holds none."""
        if self._started:
            self._send({"op": "close", "session": session})

    def close(self) -> None:
        """End the worker for good; safe from any thread."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if hasattr(self, "_process"):
            self._kill()

    def _kill(self) -> None:
        """End the process and all it forked."""
        self._started = False
        with contextlib.suppress(OSError), self._process as process:  # which closes the pipes, and waits
            if process.poll() is None:
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)  # its session has a group of its own
                else:
                    process.kill()

    def _answer(self, seconds: float) -> dict[str, Any]:
        """The next answer. Raises queue.Empty after `seconds`, or WorkerDied where there is none or half of one."""
        try:
            return json.loads(self._answers.get(timeout=seconds))
        except ValueError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_SECONDS)
            self._kill()
            raise WorkerDied(self._process.returncode) from None

    def _send(self, request: dict[str, Any]) -> None:
        """Hand over a request; where nobody reads it any more, the answer will tell."""
        with contextlib.suppress(OSError, ValueError):  # the pipe is broken, or closed
            print(json.dumps(request), file=self._process.stdin, flush=True)


def _read(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    """Pass the lines on as they come, and an empty one at the end."""
    with contextlib.suppress(OSError, ValueError):  # closed while reading
        for line in process.stdout or ():
            answers.put(line)
    answers.put("")
