"""Every attack of `attacks/` on every backend, judged from the host's side; and on no sandbox at all, where it succeeds.

An attack is a program with three lines on top: the threat, the statuses that are a safe outcome, and what it breaks without
protection. What a program says of itself counts for nothing: the judge looks at files, visitors, processes, memory, the
clock, secrets in the answer, this process's own output, and whether the next program is right.

Many attacks print the error of one try and go on, so that a first wall does not hide whether the others stand. That lets no
attack pass for nothing: each must break what its third line names where there is no sandbox, and a program that does nothing
breaks nothing there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox import SandboxPool

HERE = Path(__file__).parent
LIMITS = SandboxSettings(seconds=2.0, workers=1, remember=False)
LATE = 60.0  # seconds after the limit: an answer comes, however busy the machine is
MEMORY_MIB = 600  # of all processes together, above what they had before; the limit of one program is 256
PROCESSES = 4  # more than before
SLOW_MEMORY_SECONDS = 60.0  # a crowded machine gives memory slowly
GONE_SECONDS = 60.0  # for a closed session to end its process
DYING_SECONDS = 2.0  # for what was killed to be gone; what the attacks leave behind stays for longer
OUTPUT = 4 * LIMITS.output_characters
PREFIX = "SECRET-"
TOKENS = {kind: PREFIX + kind + secrets.token_hex(4) for kind in ("file", "environment", "memory")}
HELD = {"gold answer": [TOKENS["memory"]]}  # what a trainer has in memory
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Attack:
    """One file of `attacks/`."""

    name: str
    code: str
    expect: set[str]
    weak: str

    @classmethod
    def read(cls, file: Path) -> Attack:
        lines = file.read_text(encoding="utf8").splitlines()
        threat, expect, weak = (line.partition(": ")[2] for line in lines[:3])
        assert lines[0].startswith("# threat: ") and threat, file
        return cls(file.stem, "\n".join(lines[3:]), set(expect.split(", ")), weak)


ATTACKS = [Attack.read(file) for file in sorted((HERE / "attacks").glob("*.py"))]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def private_mib() -> float:
    """Memory of this process's descendants that they do not share, and of files in memory, in MiB."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            memory = process.memory_info()
            total += memory.rss - getattr(memory, "shared", 0)
    return (total + getattr(psutil.virtual_memory(), "shared", 0)) / 2**20


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@dataclass
class Host:
    """What an attack could harm, and what became of it."""

    folder: Path
    peak_mib: float = 0.0
    peak_processes: int = 0
    before: set[int] = field(default_factory=descendants)

    def __post_init__(self) -> None:
        (self.folder / "deep").mkdir(parents=True)
        (self.folder / "secret.txt").write_text(TOKENS["file"])
        (self.folder / "keep.txt").write_text("keep me")
        (self.folder / "deep" / "keep.txt").write_text("keep me too")
        self.seen = self.look()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        self.letters = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.letters.bind(("127.0.0.1", self.port))
        for ear in (self.door, self.letters):
            ear.setblocking(False)

    def look(self) -> list[tuple]:
        """Every file with its rights, time of change and content."""
        found = []
        for file in sorted(self.folder.rglob("*")):
            facts = file.lstat()
            found.append(
                (file.name, facts.st_mode, facts.st_mtime_ns, file.read_text() if file.is_file() else "")
            )
        return found

    def visited(self) -> bool:
        for ear, greet in ((self.door, self.door.accept), (self.letters, lambda: self.letters.recv(10))):
            with contextlib.suppress(BlockingIOError):
                greet()
                return True
            ear.close()
        return False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Samples memory and processes meanwhile."""
        done, start_mib, start = threading.Event(), private_mib(), len(descendants())

        def sample() -> None:
            while not done.wait(0.03):
                self.peak_mib = max(self.peak_mib, private_mib() - start_mib)
                self.peak_processes = max(self.peak_processes, len(descendants()) - start)

        watcher = threading.Thread(target=sample)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def breaches(self, text: str, seconds: float, limit: float) -> set[str]:
        """Which promises the attack broke; the parts that need no knowledge of the backend."""
        verdicts = {
            "secret": any(token in text for token in TOKENS.values()) or "root:x:" in text,
            "files": self.look() != self.seen,
            "network": self.visited(),
            "processes": self.peak_processes > PROCESSES,
            "memory": self.peak_mib > MEMORY_MIB,
            "time": seconds > limit + LATE,
            "output": len(text) > OUTPUT,
        }
        return {name for name, broken in verdicts.items() if broken}

    def left_over(self, patience: float) -> set[int]:
        """Processes that are still there after so many seconds, if they need them to end; ended here, one by one."""
        deadline, left = time.monotonic() + patience, self._alive()
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = self._alive()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        return left

    def _alive(self) -> set[int]:
        """Descendants that were not there before; orphans that have ended are buried on the way."""
        alive = set()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.pid in self.before:
                    continue
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive.add(process.pid)
                elif process.ppid() == os.getpid():
                    os.waitpid(process.pid, os.WNOHANG)
        return alive


@pytest.fixture(scope="module", autouse=True)
def orphans_come_to_us():
    """A daemon's parent is dead: on Linux this process inherits it, so that it can be found."""
    if LINUX:
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    yield
    if LINUX:
        ctypes.CDLL(None).prctl(36, 0)


@pytest.fixture(
    scope="module",
    params=["wasm", pytest.param("zygote", marks=pytest.mark.skipif(not LINUX, reason="Linux"))],
)
def backend(request):
    os.environ["MTDPO_CANARY"] = TOKENS["environment"]
    with SandboxPool(replace(LIMITS, backend=request.param)) as pool:
        yield pool
    del os.environ["MTDPO_CANARY"]


NEXT = {
    "import math\nprint(3*4, math.isqrt(10), math.sqrt(16), math.pi)": "12 3 4.0 3.141592653589793",
    "import sympy\nx = sympy.symbols('x')\nprint(sympy.solve(x**2 - 5*x + 6, x), sum([1, 2]))": "[2, 3] 3",
}


def names(host: Host, mib: int, forks: int) -> dict:
    return {"CANARY": str(host.folder), "PORT": host.port, "MIB": mib, "FORKS": forks, "PREFIX": PREFIX}


@each_attack
def test_the_attack_is_contained(attack, backend, tmp_path, capfd):
    host = Host(tmp_path / "canary")
    with backend.session() as session:
        given = {**names(host, mib=5000, forks=64), "TRAINER": os.getpid()}
        assert session.run("\n".join(f"{name} = {value!r}" for name, value in given.items())).status == "ok"
        start = time.perf_counter()
        with host.watched():
            result = session.run(attack.code)
        seconds = time.perf_counter() - start
        same = session.run("1 + 1")
        assert time.perf_counter() - start < 2 * (LIMITS.seconds + LATE), (
            "the session does not answer any more"
        )
    broken = host.breaches(f"{result.text} {result.message}", seconds, LIMITS.seconds)
    for code, text in NEXT.items():
        with backend.session() as other:
            if other.run(code).text != text:
                broken.add("next")
    if "".join(capfd.readouterr()):
        broken.add("stdout")
    workers = set(backend.pids())
    host.before |= workers
    if host.left_over(GONE_SECONDS):
        broken.add("processes")
    assert not broken, (result, same)
    assert result.status in attack.expect, result


NO_ANSWER = "no answer of the kind"
ENDLESS = {"time", "stdout"}  # what breaks these never answers: no use in waiting for it
PATIENCE = 3.0  # seconds, then


class Unprotected:
    """A sacrificial trainer with an interpreter and no sandbox (`weak.py`)."""

    def __init__(self, host: Host, patience: float):
        ours, theirs = socket.socketpair()
        given = {**names(host, mib=900, forks=12), "HELD": TOKENS["memory"], "PATIENCE": patience}
        self.trainer = subprocess.Popen(
            [sys.executable, "-I", str(HERE / "weak.py"), str(theirs.fileno()), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # read at the end: what floods it waits
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", "MTDPO_CANARY": TOKENS["environment"]},
            cwd=host.folder.parent,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(2 * LATE)
        self.control, self.lines = ours, ours.makefile("rb")

    def run(self, code: str) -> str | None:
        """The answer's text, None if there was none."""
        try:
            self.control.sendall(json.dumps(code).encode() + b"\n")
            return json.loads(self.lines.readline()).get("text")
        except OSError:
            return None
        except ValueError:
            return NO_ANSWER

    def is_gone(self, silent: bool) -> bool:
        """Whether the trainer has died; one that is dying falls silent a moment before it can be waited for."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.trainer.wait(timeout=10.0 if silent else 0.5)
        return self.trainer.returncode is not None

    def end(self) -> bytes:
        """Kill both processes; returns what came out of the trainer's own output."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.trainer.pid, signal.SIGKILL)
        self.trainer.wait()
        self.trainer.stdin.close()
        os.set_blocking(self.trainer.stdout.fileno(), False)
        written = self.trainer.stdout.read(1000) or b""
        self.trainer.stdout.close()
        self.lines.close()
        self.control.close()
        return written


def breaks_unprotected(attack: Attack, folder: Path) -> set[str]:
    """What `attack` breaks where nothing stops it."""
    host = Host(folder / "canary")
    weak = Unprotected(host, PATIENCE if attack.weak in ENDLESS else LATE)
    question, right = next(iter(NEXT.items()))
    try:
        assert weak.run(question).strip() == right  # it works, before
        with host.watched():
            text = weak.run(attack.code)
            broken = set()
            if weak.is_gone(silent=text == NO_ANSWER):
                broken.add("trainer")
            elif text is None:
                broken.add("time")
            elif (weak.run(question) or "").strip() != right:
                broken.add("next")
            patience = time.monotonic() + SLOW_MEMORY_SECONDS
            while attack.weak == "memory" and host.peak_mib <= MEMORY_MIB and time.monotonic() < patience:
                time.sleep(0.05)
    finally:
        written = weak.end()
    if host.left_over(DYING_SECONDS):
        broken.add("processes")
    if written:
        broken.add("stdout")
    return broken | host.breaches(text or "", 0.0, 0.0)


@pytest.mark.skipif(not LINUX, reason="the unprotected trainer and its safety net are written for Linux")
@each_attack
def test_the_attack_succeeds_without_protection_or_says_why_not(attack, tmp_path):
    broken = breaks_unprotected(attack, tmp_path)
    if attack.weak.startswith("harmless: "):
        assert not broken
    elif attack.name.startswith("27") and not broken and other_memory_is_closed():
        pytest.skip("this kernel lets no process read its parent's memory")
    else:
        assert attack.weak in broken


@pytest.mark.skipif(not LINUX, reason="as above")
def test_a_toothless_attack_would_be_noticed(tmp_path):
    """The test above can fail: a program that does nothing, as one whose every try is refused, breaks nothing."""
    toothless = replace(next(attack for attack in ATTACKS if attack.weak == "secret"), code="pass")
    assert breaks_unprotected(toothless, tmp_path) == set()


def other_memory_is_closed() -> bool:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.getuid() != 0 and scope.exists() and scope.read_text().strip() != "0"


def test_there_are_enough_attacks_and_none_repeats():
    assert len(ATTACKS) >= 42
    assert len({attack.code for attack in ATTACKS}) == len(ATTACKS)
    assert sum(attack.weak.startswith("harmless") for attack in ATTACKS) <= 3
