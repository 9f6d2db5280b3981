"""TODO: results.metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One figure of a report: ``accuracy/test/mdpo-3`` with its 95% interval and what it rests on."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = "fraction"
    seeds: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seeds": list(self.seeds)}
