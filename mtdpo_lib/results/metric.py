"""A metric: one measured number with its interval, what it is in fields, and how it is said in words.

What a metric measures stands in its fields. Its name is made from them, so nobody needs to take a name apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

DIGITS = 6  # what records keep of a number
METHOD_WORDS = {"sft": "SFT", "mdpo": "M-DPO", "mkto": "M-KTO", "raft": "RAFT",
                "dpo": "single-turn DPO", "kto": "single-turn KTO"}  # fmt: skip
KIND_WORDS = {
    "accuracy": "greedy accuracy", "sampled": "accuracy of samples", "gain": "gain over SFT",
    "sampled-gain": "gain of samples over SFT", "theory/tv": "distance from the optimum",
    "theory/bound-holds": "share of trajectories within the bound",
    "theory/sample-exponent": "exponent of the sampling error",
}  # fmt: skip


def policy_in_words(policy: str) -> str:
    """``M-DPO 2 fixed`` for ``mdpo-2-fixed``: a policy of a run."""
    method, *rest = policy.split("-")
    return " ".join([METHOD_WORDS.get(method, method), *rest])


@dataclass(frozen=True)
class Metric:
    """One measured number. Numbers are kept to six digits: what lies below differs between machines.

    Attributes:
        kind: what is measured, e.g. "accuracy", "gain" (over SFT, paired), "difference" (paired), "cost".
        value: the number; a fraction where `unit` says so.
        low, high: its 95% interval; None where there is none.
        n: questions it rests on, or seeds where it has one number per seed.
        unit: "fraction", "nats", "tokens", ...
        seeds: it was measured with.
        split: the questions or the part it was measured on, e.g. "test"; "" where `iteration` says it.
        arm: the line of policies it belongs to, e.g. "mdpo".
        iteration: of the arm; 0 is its SFT policy, None the arm as a whole.
        since: an earlier iteration that the value is a change from.
        against: the policy whose value is taken off.
        policy: the policy's own name; the arm's where nothing is given.
        each: every seed's own value.
    """

    kind: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = "fraction"
    seeds: tuple[int, ...] = ()
    split: str = ""
    arm: str = ""
    iteration: int | None = None
    since: int | None = None
    against: str = ""
    policy: str = ""
    each: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            object.__setattr__(self, name, None if number is None else round(number, DIGITS))
        object.__setattr__(self, "each", tuple(round(one, DIGITS) for one in self.each))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "policy", self.policy or self.arm)

    @cached_property
    def name(self) -> str:
        """Its identifier in reports and claims: ``kind/(split or iteration[-minus-since])/policy[-minus-against]``."""
        where = self.split or ("" if self.iteration is None else str(self.iteration))
        where += "" if self.since is None else f"-minus-{self.since}"
        who = f"{self.policy}-minus-{self.against}" if self.against else self.policy
        return "/".join(part for part in (self.kind, where, who) if part)

    @property
    def full_name(self) -> str:
        """What it measures, for people: ``gain over SFT, M-DPO 2``, ``greedy accuracy, SFT, on gsm-like``."""
        who = " minus ".join(map(policy_in_words, filter(None, (self.policy, self.against))))
        where = f"on {self.split}" if self.split not in ("", "test") else ""
        return ", ".join(filter(None, (KIND_WORDS.get(self.kind, self.kind), who, where)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the name, the numbers, and the fields that say something."""
        numbers = ("value", "low", "high", "n", "unit", "seeds")
        row: dict[str, Any] = {"name": self.name} | {key: getattr(self, key) for key in numbers}
        row["seeds"] = list(self.seeds)
        if self.each:
            row["each"] = list(self.each)
        for key in ("kind", "split", "arm", "iteration", "since", "against", "policy"):
            value = getattr(self, key)
            if value not in ("", None) and not (key == "policy" and value == self.arm):
                row[key] = value
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Metric:
        """The metric that `to_dict` wrote.

        Raises:
            ValueError: fields are missing, or the name is not what they make.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if not {"kind", "value"} <= row.keys():
            raise ValueError(
                f"The metric {row.get('name')} was written by an older version: run its notebook or study again."
            )
        metric = cls(**{key: value for key, value in row.items() if key in known})
        if metric.name != row.get("name"):
            raise ValueError(f"A metric is called {row.get('name')}, and its fields say {metric.name}.")
        return metric

    @property
    def scale(self) -> int:
        """What a value is multiplied with to be shown: fractions are shown in per cent or points."""
        return 100 if self.unit == "fraction" else 1

    def _say(self, number: float, sign: bool, digits: int | None) -> str:
        digits = digits if digits is not None else 1 if self.unit == "fraction" else 2
        return f"{self.scale * number:{'+' if sign else ''},.{digits}f}"

    def value_in_words(self, sign: bool = False, digits: int | None = None) -> str:
        """``61.2``: the value alone, without its unit."""
        return self._say(self.value, sign, digits)

    def interval_in_words(self, sign: bool = False) -> str:
        """``58.4 to 63.9``; empty without an interval."""
        if self.low is None or self.high is None:
            return ""
        return f"{self._say(self.low, sign, None)} to {self._say(self.high, sign, None)}"

    def in_words(self, sign: bool = False) -> str:
        """``61.2 (58.4 to 63.9)`` in per cent or points, ``+0.09 (-0.06 to +0.23) nats`` in another unit."""
        interval = self.interval_in_words(sign)
        unit = "" if self.unit == "fraction" else f" {self.unit}"
        return self.value_in_words(sign) + (f" ({interval})" if interval else "") + unit


def in_words(metric: Metric | None, sign: bool = False, missing: str = "") -> str:
    """`Metric.in_words` of what may not have been measured."""
    return missing if metric is None else metric.in_words(sign)


class Metrics(list[Metric]):
    """The metrics of a run or a study, found by what they are.

    Attributes:
        profile: of a kept study, the one that it was made with.
    """

    profile = ""

    @classmethod
    def from_dicts(cls, rows: Iterable[dict[str, Any]]) -> Metrics:
        """Metrics as JSON holds them."""
        return cls(map(Metric.from_dict, rows))

    def named(self, *names: str) -> Metric | None:
        """The first of the metrics of these names that was measured; None where none was."""
        return next((metric for name in names for metric in self if metric.name == name), None)

    def get(self, kind: str, split: str = "", policy: str = "", **fields: Any) -> Metric | None:
        """The metric with exactly these fields in its name (see `Metric.name`); None where it was not measured."""
        return self.named(Metric(kind, 0.0, split=split, policy=policy, **fields).name)

    def with_gains(self, policies: Iterable[str]) -> dict[str, tuple[Metric, Metric | None]]:
        """Accuracy and gain over SFT on the test problems, of those policies that have an accuracy."""
        accuracies = {policy: self.get("accuracy", "test", policy) for policy in policies}
        return {name: (found, self.get("gain", "test", name)) for name, found in accuracies.items() if found}

    def select(self, **fields: Any) -> Metrics:
        """All metrics whose fields have these values, in order."""
        return Metrics(
            metric for metric in self if all(getattr(metric, key) == value for key, value in fields.items())
        )

    def by_iteration(self, kind: str, split: str = "test", arm: str = "mdpo") -> dict[int, Metric]:
        """What a run measured of SFT (0) and of each iteration of an arm; without its variants."""
        found = {}
        for metric in self.select(kind=kind, split=split):
            if metric.policy == (f"{arm}-{metric.iteration}" if metric.iteration else "sft"):
                found[metric.iteration or 0] = metric
        return found

    def seeds(self) -> list[int]:
        """All seeds that any of them was measured with."""
        return sorted({seed for metric in self for seed in metric.seeds})


def rests_on(
    metrics: Sequence[Metric],
    questions: str = "problems",
    intervals: str = "95% intervals",
    bars: str = "",
) -> str:
    """What numbers rest on: how many questions, which seeds, and the word for one seed.

    Args:
        metrics: the numbers.
        questions: what `n` counts.
        intervals: as the sentence calls them.
        bars: for the caption of a figure: what it shows of the intervals.
    """
    if not metrics:
        return "Nothing measured yet."
    seeds, most = Metrics(metrics).seeds(), max(metric.n for metric in metrics)
    named, one = ", ".join(map(str, seeds)), len(seeds) < 2
    if bars and all(metric.n == len(metric.seeds) for metric in metrics):
        return f"Seeds {named}. Bars: 95% intervals over seeds."
    if bars:
        over = "one seed: indicative" if one else "over seeds and questions"
        return f"n = {most:,} {questions}, seed{'' if one else 's'} {named} ({over}). {bars}"
    fewer = "" if all(len(metric.seeds) == len(seeds) for metric in metrics) else "; some have fewer"
    over = (
        f"one seed ({named}): indicative; {intervals} over questions"
        if one
        else f"seeds {named}{fewer}; {intervals} over seeds and questions"
    )
    return f"n = {most:,} {questions}, {over}."
