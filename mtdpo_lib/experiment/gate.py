"""The gate: what the SFT policy of a world must be before preference learning in it can test the paper's claims.

It was written before the first preference run in the composed world (``data/paper/gate.json``), is measured on development
problems over seeds that no study uses, and looks at nothing but SFT.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import PAPER, read_json
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.experiment.steps import Sampling
from mtdpo_lib.experiment.study import surprise
from mtdpo_lib.models import Policy
from mtdpo_lib.models.bases import location
from mtdpo_lib.profiles import Profile
from mtdpo_lib.rollout.evaluate import accuracy

LONGER_SEEDS = 3  # of the seeds are trained twice as long too, and on more demonstrations
NATS_PROBLEMS = 100  # development problems whose right samples are scored


@dataclass(frozen=True)
class Line:
    """One line of the gate: `value` must lie between `low` and `high`; None leaves a side open."""

    name: str
    low: float | None
    high: float | None
    unit: str
    what: str

    def holds(self, value: float) -> bool:
        """Whether a measured value passes."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    @property
    def asked(self) -> str:
        """Its ends in words.

        >>> Line("x", 0.05, None, "fraction", "").asked, Line("x", 0.45, 0.7, "fraction", "").asked
        ('at least 0.05', 'at least 0.45 and at most 0.7')
        """
        ends = {"at least": self.low, "at most": self.high}
        return " and ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)


def gate() -> list[Line]:
    """The lines of the gate."""
    return [Line(**row) for row in read_json(PAPER / "gate.json")]


def measure(profile: Profile, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """Measure every line over `seeds`, keeping the stages under `out`; asked again, it goes on where it was stopped.

    Returns:
        value: of each line, by name.
        passes: whether each holds.
        seeds: what each seed gave.
    """
    rows = [_of_seed(profile, seed, out, longer=number < LONGER_SEEDS) for number, seed in enumerate(seeds)]
    greedy = [row["greedy"] for row in rows]
    problems = Experiment(profile, seeds[0], out).questions("development").load()
    value = {
        **{name: statistics.mean(row[name] for row in rows) for name in ("greedy", "sampled", "nats")},
        "spread": statistics.stdev(greedy),
        "above base": statistics.mean(greedy) - rows[0]["base"],
        **{name: _gain(rows, name) for name in ("longer", "room")},
        "early": statistics.mean(row["early"] - row["greedy"] for row in rows),
        "demonstrations": _demonstrations(profile) / profile.problems.prompts_per_iteration,
        "depends": statistics.mean(not problem.family.startswith("plain") for problem in problems),
    }
    value = {name: round(number, 4) for name, number in value.items()}
    return {"value": value, "passes": {line.name: line.holds(value[line.name]) for line in gate()},
            "n": len(problems), "seeds": dict(zip(map(str, seeds), rows, strict=True))}  # fmt: skip


def _gain(rows: Sequence[dict[str, float]], name: str) -> float:
    """Mean gain over the SFT policy, where it was measured."""
    return statistics.mean(row[name] - row["greedy"] for row in rows if name in row)


def _of_seed(profile: Profile, seed: int, out: Path, longer: bool) -> dict[str, float]:
    experiment = Experiment(profile, seed, out)

    def greedy(policy: Policy, experiment: Experiment = experiment) -> float:
        return accuracy(experiment.outcomes(policy, "development")["greedy"])

    sft, base = experiment.sft_policy(), experiment.base()
    row = {"greedy": greedy(sft), "early": greedy(experiment.sft_policy("early"))}
    row["sampled"] = accuracy(experiment.outcomes(sft, "development")["sampled"])
    row["nats"] = _nats(experiment, sft)
    row["base"] = greedy(base) if base else 0.0
    if longer:
        problems, run = profile.problems, profile.iterations * profile.problems.prompts_per_iteration
        more = problems.demonstrations + run * problems.demonstrations_each
        changes = {
            "longer": {"sft": {"epochs": 2 * profile.sft.epochs}},
            "room": {"problems": {"demonstrations": more}, "sft": {"epochs": 1}},
        }
        for name, change in changes.items():
            other = Experiment(profile.changed(**change), seed, out)
            row[name] = greedy(other.sft_policy(), other)
    return {name: round(number, 4) for name, number in row.items()}


def _nats(experiment: Experiment, policy: Policy) -> float:
    """Mean -log pi of a policy's right samples on some development problems, in nats."""
    profile = experiment.profile
    sampling = Sampling(profile.model, profile.rollout, profile.sandbox, experiment.seed)
    problems = experiment.questions("development").load()[:NATS_PROBLEMS]
    return surprise(sampling.sample(policy, problems, 1, "nats", experiment.seed))["right_nats"]


def _demonstrations(profile: Profile) -> int:
    """Verified demonstrations that the SFT policy has seen: those of its base and its own."""
    recipe = Path(location(profile.model.base)) / "recipe.json"
    of_base = read_json(recipe)["recipe"]["problems"] if recipe.exists() else 0
    return of_base + profile.problems.demonstrations
