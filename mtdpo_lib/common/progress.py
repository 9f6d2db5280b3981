"""Progress of long work: one line a tenth of the way, with the time that is left. Reads the same in a log and a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # what long work calls with (done, total)


class Progress:
    """Prints a line at each tenth of `label`'s work; silent for work that ends within `quiet` seconds."""

    def __init__(self, label: str, unit: str = "", quiet: float = 2.0):
        self.label, self.unit, self.quiet = label, unit, quiet
        self._start = time.perf_counter()
        self._tenth = 0

    def __call__(self, done: int, total: int) -> None:
        """Report `done` of `total`."""
        tenth = 10 * done // max(total, 1)
        elapsed = time.perf_counter() - self._start
        if tenth <= self._tenth or elapsed < self.quiet:
            return
        self._tenth = tenth
        left = f"about {elapsed / done * (total - done):.0f} s left" if done < total else "done"
        unit = f" {self.unit}" if self.unit else ""
        print(f"{self.label}: {done} of {total}{unit}, {elapsed:.0f} s, {left}", flush=True)
