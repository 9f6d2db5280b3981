"""Backend "wasm": CPython in WebAssembly (pyeryx), one instance a session, started from a snapshot.

A deep C recursion in the guest overflows its 512 KiB stack and aborts the whole process, which is one reason why it lives
in a worker: the pool sees a dead worker, calls it a RecursionError and starts another.
"""

import eryx
from walls import deny

REPORT_CHARACTERS = 20  # kept of a report, per character of output: JSON may write one character as twelve
GROWTH_MIB = 16
TOUCHED_MIB = 2  # of the snapshot's pages, once a session has run a few cells


class Backend:
    """WebAssembly sessions of one worker."""

    def __init__(self, settings):
        self.factory = eryx.SandboxFactory.load(settings["snapshot"], site_packages=settings["libraries"])
        self.output = settings["output_characters"]
        self.limits = eryx.ResourceLimits(
            execution_timeout_ms=int(settings["seconds"] * 1000),
            max_fuel=settings["million_instructions"] * 1_000_000,
            max_memory_bytes=settings["memory_mib"] << 20,
            max_vfs_bytes=1 << 20,
        )
        self.sessions = {}
        self.spare = (
            None  # the next session's instance, made while nobody waits: that is most of a first call
        )
        self.peaks = {}
        self.empty = self._size_of_nothing()
        self.walls = deny()

    def _size_of_nothing(self):
        """MiB of a fresh session: the runtime reports a size only when it grows, so it is made to."""
        grown = self.factory.create_session(resource_limits=self.limits).execute(
            f"bytearray({GROWTH_MIB << 20})"
        )
        return grown.peak_memory_bytes / 2**20 - GROWTH_MIB

    def run(self, number, code):
        """Run `code` in session `number`."""
        session = self.sessions.get(number)
        if session is None:
            self.make_ready()
            session, self.spare = self.spare, None
            self.sessions[number] = session
        try:
            result = session.execute(f"_mtdpo_cell({code!r}, {self.output})")
        except (eryx.EryxError, eryx.TimeoutError) as problem:  # the second is not one of the first
            timed_out = isinstance(problem, eryx.TimeoutError) or "out of fuel" in str(problem)
            return {"status": "timeout" if timed_out else "killed"}
        report = result.stdout_text
        if len(report) > REPORT_CHARACTERS * (self.output + 100):
            return {"status": "killed"}  # it wrote past the cell's own capture
        size = TOUCHED_MIB + max(result.peak_memory_bytes / 2**20 - self.empty, 0)
        self.peaks[number] = max(self.peaks.get(number, 0), size)
        return {"status": "ran", "report": report, "mib": self.peaks[number]}

    def make_ready(self):
        """Start the instance of the session to come."""
        if self.spare is None:
            self.spare = self.factory.create_session(resource_limits=self.limits)

    def forget(self, number):
        """Give the session's instance back."""
        self.sessions.pop(number, None)
        self.peaks.pop(number, None)
