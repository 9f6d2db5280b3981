"""Backend "wasm": CPython in WebAssembly (pyeryx), started from a snapshot.

A session has an instance of its own from its first cell that does more than calculate (``shared_cells.py``); until then it
shares one. What a shared instance cannot answer exactly as an own one would, an own one does.

A deep C recursion in the guest overflows its 512 KiB stack and aborts the whole process, which is one reason why it lives
in a worker: the pool sees a dead worker, calls it a RecursionError and starts another.
"""

import eryx
from walls import deny

REPORT_CHARACTERS = 20  # kept of a report, per character of output: JSON may write one character as twelve
GROWTH_MIB = 16
TOUCHED_MIB = 2  # of the snapshot's pages, once a session has run a few cells
SHARED_FUEL = 0.05  # of a program's instructions: a cell that calculates for longer gets its own instance
SHARED_GROWTH_MIB = 8  # of the shared instance, which is then replaced


class Backend:
    """WebAssembly sessions of one worker."""

    def __init__(self, settings):
        self.factory = eryx.SandboxFactory.load(settings["snapshot"], site_packages=settings["libraries"])
        self.output = settings["output_characters"]
        fuel = settings["million_instructions"] * 1_000_000
        self.limits, self.shared_limits = (
            eryx.ResourceLimits(
                execution_timeout_ms=int(settings["seconds"] * 1000),
                max_fuel=int(share * fuel),
                max_memory_bytes=settings["memory_mib"] << 20,
                max_vfs_bytes=1 << 20,
            )
            for share in (1, SHARED_FUEL)
        )
        self.sessions = {}
        # Instances to come are made while nobody waits: that is most of a first call.
        self.spare: eryx.Session | None = None
        self.shared: eryx.Session | None = None
        self.shared_cells = {}  # of the sessions without an instance of their own
        self.placed = set()  # sessions whose variables are in the shared instance,
        self.gone = []  # and those that need theirs no more
        self.peaks = {}
        # MiB of a fresh session: the runtime reports a size only when it grows, so it is made to.
        fresh = self.factory.create_session(resource_limits=eryx.ResourceLimits.unlimited())
        self.empty = _peak_mib(fresh.execute(f"bytearray({GROWTH_MIB << 20})")) - GROWTH_MIB
        self.walls = deny()

    def run(self, number, code):
        """Run `code` in session `number`."""
        if number not in self.sessions:
            report = self._run_shared(number, code)
            if report is not None:
                return {"status": "ran", "report": report, "mib": 0}
            self._give_instance(number)
        return self._run_own(number, code)

    def _run_shared(self, number, code):
        """The report of a cell in the shared instance; None where it needs one of its own."""
        cells = self.shared_cells.get(number, [])
        missing = [] if number in self.placed else cells  # the instance was replaced since
        for cell in [*missing, code]:
            _, shared = self.make_ready()
            try:
                result = shared.execute(f"_mtdpo_shared_cell({number}, {cell!r}, {self.output}, {self.gone})")
            except (eryx.EryxError, eryx.TimeoutError):
                self._retire()
                return None
            self.gone = []
            self.placed.add(number)
            if _peak_mib(result) - self.empty > SHARED_GROWTH_MIB:
                self._retire()
            if result.stdout_text == "null":
                self.placed.discard(number)
                return None
        self.shared_cells[number] = [*cells, code]
        return result.stdout_text

    def _retire(self):
        self.shared, self.gone = None, []
        self.placed.clear()

    def _give_instance(self, number):
        """An instance for a session, with the variables of its cells so far."""
        self.sessions[number], _ = self.make_ready()
        self.spare = None
        self._leave_shared(number)
        for cell in self.shared_cells.pop(number, []):
            self._run_own(number, cell)

    def _run_own(self, number, code):
        session = self.sessions[number]
        try:
            result = session.execute(f"_mtdpo_cell({code!r}, {self.output})")
        except (eryx.EryxError, eryx.TimeoutError) as problem:  # the second is not one of the first
            timed_out = isinstance(problem, eryx.TimeoutError) or "out of fuel" in str(problem)
            return {"status": "timeout" if timed_out else "killed"}
        report = result.stdout_text
        if len(report) > REPORT_CHARACTERS * (self.output + 100):
            return {"status": "killed"}  # it wrote past the cell's own capture
        size = TOUCHED_MIB + max(_peak_mib(result) - self.empty, 0)
        self.peaks[number] = max(self.peaks.get(number, 0), size)
        return {"status": "ran", "report": report, "mib": self.peaks[number]}

    def make_ready(self):
        """Start the instances that the next cell may need: one for a session of its own, and the shared one."""
        self.spare = self.spare or self.factory.create_session(resource_limits=self.limits)
        self.shared = self.shared or self.factory.create_session(resource_limits=self.shared_limits)
        return self.spare, self.shared

    def forget(self, number):
        """Give the session's instance back."""
        self.sessions.pop(number, None)
        self.peaks.pop(number, None)
        self.shared_cells.pop(number, None)
        self._leave_shared(number)

    def _leave_shared(self, number):
        if number in self.placed:
            self.placed.discard(number)
            self.gone.append(number)


def _peak_mib(result):
    return (result.peak_memory_bytes or 0) / 2**20
