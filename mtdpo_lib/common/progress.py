"""Progress of long work: one line per tenth of the way, with the time to go. Reads the same in a log and a notebook."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # what long work calls with (done, total)
Say = Callable[[str], None]
# What `Progress` says.
LINE = re.compile(r"^.+: .+; (\d+ min )?\d+ s elapsed(, about .+ to go)?(\n|$)", re.MULTILINE)


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def duration(seconds: float) -> str:
    """``12 s`` or ``3 min 05 s``."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class Progress:
    """Says a line at each tenth of `label`'s work; silent for work that ends within `quiet` seconds.

    Args:
        label: what is done, e.g. "SFT".
        unit: what is counted, e.g. "steps".
        quiet: in seconds.
        say: receives each line.
    """

    def __init__(self, label: str, unit: str = "", quiet: float = 2.0, say: Say = say):
        self.label, self.unit, self.quiet, self.say = label, unit, quiet, say
        self._start = time.perf_counter()
        self._tenth = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def __call__(self, done: int, total: int) -> None:
        """Report `done` of `total` pieces that take about the same time each."""
        unit = f" {self.unit}" if self.unit else ""
        left = self.elapsed / done * (total - done) if done else None
        self.report(done / max(total, 1), f"{done} of {total}{unit}", left)

    def report(self, part: float, state: str, left: float | None = None) -> None:
        """Report that `part` of the way is done, in words `state`, with `left` seconds to go where that is known."""
        tenth = int(10 * part + 1e-9)
        if tenth <= self._tenth or self.elapsed < self.quiet:
            return
        self._tenth = tenth
        to_go = f", about {duration(left)} to go" if left is not None and tenth < 10 else ""
        self.say(f"{self.label}: {state}; {duration(self.elapsed)} elapsed{to_go}")


class Relay:
    """A stream that passes on, of all that is written to it, the progress of work that has taken a minute already."""

    def __init__(self, say: Say):
        self.say = say

    def write(self, text: str) -> None:
        """Look at whole lines, as `say` prints them."""
        for line in re.findall(r"^.+: .+; \d+ min \d\d s elapsed.*$", text, re.MULTILINE):
            self.say(line)

    def flush(self) -> None:
        """Nothing waits."""
