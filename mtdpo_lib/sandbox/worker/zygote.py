"""Backend "zygote" (Linux): a CPython with the libraries loaded forks one locked-in child for each session.

The child opens no files at all: all it may import is imported before the fork. seccomp leaves it some sixty system calls,
Landlock (where the kernel has it) no file and no port, resource limits its memory. Between its calls it is stopped.
"""

import gc
import io
import json
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path
from time import monotonic, sleep  # the system's own: preload.py changes the module
from typing import Any

import walls

HERE = Path(__file__).parent
REPORT_BYTES = 20  # read of a report, per character of output: JSON may write one character as twelve bytes
COPIED_MIB = 8  # of the zygote's pages, once a child has run a few cells
PROBE_SECONDS = 60.0  # for the first program, on a crowded machine
ENDING_SECONDS = 1.0  # after the program's own limit: for a child that is ending to be gone


class Backend:
    """The zygote and its children."""

    def __init__(self, settings):
        self.seconds, self.output = PROBE_SECONDS, settings["output_characters"]
        self.memory = settings["memory_mib"] << 20
        self.filter = walls.allow_only()
        self.space: dict[str, Any] = {"__name__": "sandbox"}
        for name in ("preload.py", "guest.py"):
            exec(compile((HERE / name).read_text("utf8"), name, "exec"), self.space)
        sys.meta_path.insert(0, self.space["_OnlyOffered"])
        for package in ("sympy", "encodings"):
            self.space["_import_every_part"](sys.modules[package])
        gc.collect()
        gc.freeze()  # collections in the children leave the shared pages alone
        self.children, self.calls = {}, 0
        self.walls = self._probe()
        self.seconds = settings["seconds"]

    def _probe(self):
        """Run one program in a child and learn which walls stand. Raises OSError when one that must stand does not."""
        answer = self.run(-1, "open('/etc/passwd')")
        self.forget(-1)
        if answer["status"] != "ran" or json.loads(answer["report"])["error"] != "PermissionError":
            raise OSError(f"the zygote's child could still open a file: {answer}")
        landlock = walls.landlock_version() > 0
        return ["seccomp allow-list", *(["Landlock"] if landlock else []), "resource limits"]

    def run(self, number, code):
        """Run `code` in session `number`."""
        if number not in self.children:
            self.children[number] = self._fork()
        pid, channel = self.children[number]
        self.calls += 1
        deadline = monotonic() + self.seconds
        try:
            os.kill(pid, signal.SIGCONT)
            channel.sendall(json.dumps([self.calls, code]).encode() + b"\n")
            call, _, report = self._read(channel, deadline).partition(" ")
        except TimeoutError:
            return {"status": "timeout"}
        except ConnectionError:
            return self._ended(number, deadline + ENDING_SECONDS)
        if call != str(
            self.calls
        ):  # too much, or the report of another call: this program wrote one of its own
            return {"status": "killed"}
        os.kill(pid, signal.SIGSTOP)
        return {"status": "ran", "report": report, "mib": self._mib(pid)}

    def _read(self, channel, deadline):
        """One line from a child, empty if it is too long. Raises TimeoutError, or ConnectionError where there is no more."""
        report = b""
        while not report.endswith(b"\n"):
            left = deadline - monotonic()
            if left <= 0 or not select.select([channel], [], [], left)[0]:
                raise TimeoutError
            part = channel.recv(1 << 16)
            if not part:
                raise ConnectionResetError
            report += part
            if len(report) > REPORT_BYTES * (self.output + 100):
                return ""
        return report.decode("utf8", "replace")

    def _ended(self, number, deadline):
        """Why a child has no more to say: a signal ended it, or it ended itself, or it closed its channel and lives on."""
        pid, channel = self.children[number]
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if monotonic() > deadline:
                return {"status": "killed"}
            sleep(0.005)
        channel.close()
        del self.children[number]
        code = os.waitstatus_to_exitcode(ended[1])
        return {"status": "killed"} if code >= 0 else {"status": "died", "cause": code}

    def _mib(self, pid):
        """Memory of a child beyond the zygote's, in MiB: what it asked for and what it copied of the zygote's."""
        return COPIED_MIB + (_address_space(pid) - _address_space("self")) / 2**20

    def make_ready(self):
        """Nothing is started before it is needed."""

    def forget(self, number):
        """End a session's child."""
        pid, channel = self.children.pop(number, (None, None))
        if pid is not None:
            channel.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _fork(self):
        ours, theirs = socket.socketpair()
        ours.settimeout(self.seconds)  # a child that does not read cannot hold the zygote up
        zygote, pid = os.getpid(), os.fork()
        if pid:
            theirs.close()
            return pid, ours
        try:
            self._child(theirs, zygote)
        finally:
            os._exit(0)

    def _child(self, channel, zygote):
        """Lock this process in, then run cells until it is killed."""
        walls.end_with_parent(zygote)
        keep = os.dup2(channel.fileno(), 3)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.closerange(keep + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        limit = _address_space("self") + self.memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
            resource.setrlimit(kind, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
        walls.landlock_nothing()
        self.space["_mtdpo_begin"]()
        self.filter.load()
        cells, answers = os.fdopen(3, "rb", closefd=False), os.fdopen(3, "wb", closefd=False)
        for line in cells:
            sys.stdout = io.StringIO()
            call, code = json.loads(line)
            self.space["_mtdpo_cell"](code, self.output)
            answers.write(f"{call} {sys.stdout.getvalue()}\n".encode())
            answers.flush()


def _address_space(pid):
    """Address space of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
