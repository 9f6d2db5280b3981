"""A pool of sandbox workers and the sessions of trajectories."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import Any

from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox.backends import BACKENDS
from mtdpo_lib.sandbox.process import CLOSED, KILLED, WorkerDied, WorkerProcess
from mtdpo_lib.sandbox.results import SandboxUnavailable, ToolResult, to_result


class Session:
    """The tool of one trajectory: variables live from call to call.

    After a timeout or a crash the interpreter is gone, a worker with many sessions lets the oldest go, and cells whose
    result is known from another session were not run; the next call then first runs the earlier good cells. So it is when
    the interpreter dies on the way; all start from one state, and the text is the one that an undisturbed session gives.
    A program can be no function of its history only on purpose, or by showing what is the operating system's (a zygote's
    process number): rather than contradict what it said before, its session then begins again without variables.
    """

    def __init__(self, pool: SandboxPool, number: int):
        self._pool, self._number = pool, number
        self._worker = pool._workers[number % len(pool._workers)]
        self._cells: list[str] = []
        self._texts: list[str] = []  # what each was answered with
        self._last: Future[ToolResult] | None = None
        self._has_interpreter = self._is_apart = False

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, code: str) -> ToolResult:
        """Run `code` and return what the model is shown.

        Raises:
            RuntimeError: the pool is closed.
            SandboxUnavailable: something on this machine ends the interpreters.
        """
        return self._wait(self._submit(code))

    async def run_async(self, code: str) -> ToolResult:
        """The same for ``await``: the event loop goes on meanwhile."""
        return await asyncio.wrap_future(self._submit(code))

    def close(self) -> None:
        """Give the session's memory back."""
        if self._last is None or (self._last.done() and not self._has_interpreter):
            return
        with contextlib.suppress(RuntimeError):  # closed with the pool
            self._worker.submit(self._worker.forget, self._number)

    def _submit(self, code: str) -> Future[ToolResult]:
        if self._last is None or self._last.done():
            known = self._remembered(code)
            if known is not None:  # nobody has to wait for the worker
                self._last = Future()
                self._last.set_result(known)
                return self._last
        self._last = self._worker.submit(self._run, code)
        return self._last

    def _remembered(self, code: str) -> ToolResult | None:
        """The result of `code` after this session's cells, where it is known; the interpreter stays behind."""
        if self._pool.closed:
            raise RuntimeError(CLOSED)
        start = time.perf_counter()
        known = self._pool.known.get((*self._cells, code))
        if known is None or self._is_apart:
            return None
        self._note(code, known)
        return replace(known, seconds=time.perf_counter() - start)

    def _note(self, code: str, result: ToolResult) -> None:
        self._cells.append(code)
        self._texts.append(result.text)

    @staticmethod
    def _wait(future: Future[ToolResult]) -> ToolResult:
        try:
            return future.result()
        except CancelledError as error:
            raise RuntimeError(CLOSED) from error

    def _run(self, code: str) -> ToolResult:
        """Runs in the worker's thread."""
        known = self._remembered(code)  # another session may have run it meanwhile
        if known is not None:
            return known
        start, history = time.perf_counter(), (*self._cells, code)
        self._has_interpreter = True
        result = to_result(self._ask(code), self._pool.settings, time.perf_counter() - start)
        if result.status in ("ok", "error"):
            self._note(code, result)
            whole = history == (*self._cells,)
            if self._pool.settings.remember and whole and len(self._pool.known) < MOST_REMEMBERED:
                # Two sessions may have run it at the same time; one that was told another text goes its own way.
                self._is_apart = self._pool.known.setdefault(history, result).text != result.text
        else:  # out of memory, or a forged report: the interpreter may be in any state
            self._worker.forget(self._number)
        return result

    def _ask(self, code: str) -> dict[str, Any]:
        """The worker's answer. An interpreter that died is replaced and asked again: only what kills it twice is judged.

        Raises:
            SandboxUnavailable: it was ended twice by what no program can do.
        """
        worker, deaths = self._worker, {True: 0, False: 0}
        while True:
            try:
                answer = self._ask_once(code)
                worker.note_restarts(deaths[True])  # it did not die again: that was not the program's doing
                return answer
            except WorkerDied as death:
                deaths[death.by_program] += 1
                worker.note_restarts(not death.by_program)
                if deaths[death.by_program] < DEATHS:
                    continue
                if death.by_program:
                    return {"status": "crashed"}
                raise SandboxUnavailable(KILLED.format(death)) from death

    def _ask_once(self, code: str) -> dict[str, Any]:
        worker = self._worker
        answer = worker.ask(self._number, len(self._cells), code)
        if answer["status"] != "gone":
            return answer
        for turn, (cell, text) in enumerate(zip(self._cells, self._texts)):
            again = worker.ask(self._number, turn, cell)
            if to_result(again, self._pool.settings, 0.0).text != text:
                worker.forget(self._number)
                self._cells, self._texts = [], []
                break
        return worker.ask(self._number, len(self._cells), code)


DEATHS = 2  # of one kind at the same cell, after which a death is no accident
MOST_REMEMBERED = 50_000  # histories: some 20 MiB


class Calls:
    """Cells that are running, one in each of several sessions (`SandboxPool.start_many`)."""

    def __init__(self, pool: SandboxPool, calls: Sequence[tuple[Session, str]]):
        self._pool, self._calls = pool, calls
        first: dict[Any, int] = {}  # of the calls with one history; the others then find its result
        for index, (session, code) in enumerate(calls):
            first.setdefault((*session._cells, code) if pool.settings.remember else index, index)
        self._started = self._submit(first.values())

    def _submit(self, indices: Iterable[int]) -> dict[int, Future[ToolResult]]:
        return {index: self._calls[index][0]._submit(self._calls[index][1]) for index in indices}

    def results(self) -> list[ToolResult]:
        """Wait for all of them; in the order of the calls. To be asked once.

        Raises:
            RuntimeError: the pool is closed.
        """
        start = time.perf_counter()
        futures = self._started
        try:
            results = {index: Session._wait(future) for index, future in futures.items()}
            futures = self._submit(index for index in range(len(self._calls)) if index not in results)
            results |= {index: Session._wait(future) for index, future in futures.items()}
        except BaseException:  # Ctrl-C: what has not begun never does
            for future in futures.values():
                future.cancel()
            raise
        finally:
            self._pool.waited_seconds += time.perf_counter() - start
        return [results[index] for index in range(len(self._calls))]


class SandboxPool:
    """Worker processes for model-written code; nothing it runs touches this process or this machine's files.

    Sessions may be thousands: each belongs to one of the workers, which keeps the interpreters of as many as its memory
    allows.

    Args:
        settings: the backend, the limits of one program and the number of workers.

    Attributes:
        protections: what stands between a program and this machine, the walls that this system offers included.
        waited_seconds: wall time that callers of `run_many` and `Calls.results` have waited, in all.
        known: results by all cells of a session up to the one that gave them (`SandboxSettings.remember`).

    Raises:
        SandboxUnavailable: the backend cannot start; there is no weaker fallback.

    See: notebook 03_tool_sandbox.
    """

    def __init__(self, settings: SandboxSettings):
        self.settings = settings
        backend = BACKENDS[settings.backend]
        prepared = backend.prepare()
        self.closed, self.waited_seconds = False, 0.0
        self.known: dict[tuple[str, ...], ToolResult] = {}
        self._numbers = itertools.count()
        self._workers = [WorkerProcess(backend, prepared, settings) for _ in range(settings.workers)]
        atexit.register(self.close)
        try:
            for start in [worker.submit(worker.start) for worker in self._workers]:
                start.result()
        except BaseException:
            self.close()
            raise
        walls = ", ".join(self._workers[0].walls)
        self.protections = backend.protections + (f"; walls: {walls}" if walls else "")

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def session(self) -> Session:
        """A new session with no variables."""
        return Session(self, next(self._numbers))

    def start_many(self, calls: Sequence[tuple[Session, str]]) -> Calls:
        """Begin one cell in each of several sessions, all workers at once; `Calls.results` collects them."""
        return Calls(self, calls)

    def run_many(self, calls: Sequence[tuple[Session, str]]) -> list[ToolResult]:
        """Run one cell in each of several sessions, all workers at once; results in the order of `calls`."""
        return self.start_many(calls).results()

    @property
    def restarts(self) -> int:
        """Interpreters that died and were replaced though no program had ended them: short of memory, or killed."""
        return sum(worker.restarts for worker in self._workers)

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """End all workers. Called on leaving the ``with`` block; workers also end when this process does."""
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.close()


_kept: dict[SandboxSettings, SandboxPool] = {}


def kept_pool(settings: SandboxSettings) -> SandboxPool:
    """This process's pool for `settings`, started by the first caller and open until the process ends.

    Stages of a study ask the same questions of many policies, which write many of the same programs: what one stage ran, the
    next one finds in `SandboxPool.known`.

    Raises:
        SandboxUnavailable: the backend cannot start.
    """
    pool = _kept.get(settings)
    if pool is None or pool.closed:
        pool = _kept[settings] = SandboxPool(settings)
    return pool
