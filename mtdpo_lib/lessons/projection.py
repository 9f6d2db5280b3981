"""How long a run of the notebooks will take: medians over kept runs, corrected by the pace of this run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from mtdpo_lib.common.files import REFERENCE_RUNS, read_json

DOUBT = 0.2  # share of the usual time that must be seen before this run's pace counts half
OUTLIER = 3.0  # a notebook that is slower or faster than usual by more says no more about the others
OVERRUN = 1.25  # a notebook that is over its time will take a quarter more than it has taken
ENOUGH = 0.25  # share of the usual time that must be finished before a projection is said
SHORTEST = 1e-3  # seconds; no notebook counts as shorter, so that a pace can be made of any times


def kept_seconds(profile: str, budget: str = "", source: Path = REFERENCE_RUNS) -> list[dict[str, float]]:
    """Seconds of each notebook in the kept runs of a profile, or of a named budget of it; empty without any."""
    home = source / (f"{profile}-{budget}" if budget else profile)
    return [read_json(file)["seconds"] for file in sorted(home.glob("seed*/run.json"))]


class Projection:
    """The time that notebooks will take together.

    Each is expected to take its median over kept runs, times the pace of this run. The pace is learnt from what is finished,
    with some doubt at first. Before a quarter of the work is finished a slow notebook and a slow machine cannot be told
    apart, and nothing should be said (`left` is None).

    Args:
        names: of the notebooks that are to run, in order.
        kept: seconds of each notebook in each kept run; where one was never measured, all weigh alike.
    """

    def __init__(self, names: Sequence[str], kept: Sequence[dict[str, float]]):
        found = {name: [run[name] for run in kept if name in run] for name in names}
        self.is_measured = bool(names) and all(found.values())
        self.usual = {name: max(median(found[name]), SHORTEST) if self.is_measured else 1.0 for name in names}
        self.took: dict[str, float] = {}

    def finish(self, name: str, seconds: float) -> None:
        """Learn what a notebook took."""
        self.took[name] = max(seconds, SHORTEST)
        if not self.is_measured:
            self.usual = dict.fromkeys(self.usual, sum(self.took.values()) / len(self.took))

    def total(self, current: str = "", inside: float = 0.0) -> float:
        """Seconds in all, with notebook `current` running for `inside` seconds."""
        pace = self._pace(current, inside)
        here = max(self.usual[current] * pace, OVERRUN * inside) if current else 0.0
        later = sum(self.usual[name] for name in self.usual.keys() - self.took.keys() - {current})
        return sum(self.took.values()) + here + pace * later

    def _pace(self, current: str, inside: float) -> float:
        seen = dict(self.took)
        if current and inside > self.usual[current]:
            seen[current] = inside
        usual, doubt = sum(self.usual[name] for name in seen), DOUBT * sum(self.usual.values())
        took = sum(
            min(max(seconds, self.usual[name] / OUTLIER), self.usual[name] * OUTLIER)
            for name, seconds in seen.items()
        )
        return (doubt + took) / (doubt + usual)

    def part(self, current: str = "", inside: float = 0.0) -> float:
        """Share of the way that is done."""
        if not self.is_measured:
            return len(self.took) / len(self.usual)
        return (sum(self.took.values()) + inside) / self.total(current, inside)

    def left(self, current: str = "", inside: float = 0.0) -> float | None:
        """Seconds to go; None while too little is finished to know."""
        finished = sum(self.usual[name] for name in self.took)
        if finished < ENOUGH * sum(self.usual.values()):
            return None
        return self.total(current, inside) - sum(self.took.values()) - inside
