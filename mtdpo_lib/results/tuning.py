"""What `tune` found: accuracy on development problems by setting, and the setting of each method by one rule."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from mtdpo_lib.common.files import REFERENCE_RUNS, read_json, write_json
from mtdpo_lib.common.progress import say
from mtdpo_lib.experiment.tune import RATE, second_setting, tuning_arm
from mtdpo_lib.problems.supply import fitted
from mtdpo_lib.profiles import TuneSettings, get_profile
from mtdpo_lib.results import figures, report, study_metrics

RULE = (
    "The best mean accuracy on the development problems over the seeds, after the last iteration, into which the best few "
    "after the first one go; of equals the smaller rate, then the smaller second setting. A setting that lacks a seed is "
    "not chosen."
)

Row = dict[str, Any]


def summarise(out: Path) -> Path:
    """``tune.json`` and its figure, from the records of a tuning; says what is chosen.

    Raises:
        ValueError: no record, or records of different profiles or settings.
    """
    by_arm, profile, settings = study_metrics.read_arms(out)
    rows = [_row(list(records.values())) for records in by_arm.values()]
    best = {method: row["setting"] for method, row in chosen(rows).items()}
    n = fitted(get_profile(profile, settings)).problems.development
    found = {"profile": profile, "settings": settings, "n": n, "rule": RULE, "chosen": best, "tried": rows}
    for line in sentences(found):
        say(line)
    figures.tuning(found).save(out / "figures" / "tuning.png")
    return write_json(out / "tune.json", found)


def _row(records: Sequence[Row]) -> Row:
    """One setting and number of iterations: for every seed the accuracies of SFT and after each, and the last ones' mean."""
    preference, method = records[0]["preference"], records[0]["preference"]["method"]
    curves = [list(record["validation"].values()) for record in records]
    return {
        "method": method,
        "setting": {name: preference[name] for name in (RATE, second_setting(method))},
        "iterations": len(curves[0]) - 1,
        "mean": round(mean(curve[-1] for curve in curves), 6),
        "seeds": [record["seed"] for record in records],
        "development": curves,
        "seconds": sum(record["seconds"] for record in records),
    }


def ranked(rows: Sequence[Row], method: str, iterations: int) -> list[Row]:
    """A method's settings after so many iterations, as `RULE` orders them; those that lack a seed are left out.

    Args:
        rows: each with ``method``, ``setting`` (rate first), ``iterations``, ``mean`` and ``seeds``.
    """
    seeds = max(len(row["seeds"]) for row in rows)
    mine = (row for row in rows if (row["method"], row["iterations"]) == (method, iterations))
    whole = (row for row in mine if len(row["seeds"]) == seeds)
    return sorted(whole, key=lambda row: (-row["mean"], *row["setting"].values()))


def finalists(out: Path, tune: TuneSettings) -> list[str]:
    """The arms of the second round: the best few settings of each method after the first iteration, through the last."""
    rows = [_row(list(records.values())) for records in study_metrics.read_arms(out)[0].values()]
    return [
        tuning_arm(method, row["setting"], tune.last_iteration)
        for method in dict.fromkeys(row["method"] for row in rows)
        for row in ranked(rows, method, 1)[: tune.finalists]
    ]


def chosen(rows: Sequence[Row]) -> dict[str, Row]:
    """By method the row that `RULE` chooses."""
    best = dict[str, Row]()
    for method in dict.fromkeys(row["method"] for row in rows):
        last = max(row["iterations"] for row in rows if row["method"] == method)
        if whole := ranked(rows, method, last):
            best[method] = whole[0]
    return best


def sentences(found: Row) -> Iterator[str]:
    """What was chosen, a line for each method."""
    for method, row in chosen(found["tried"]).items():
        rates = {other["setting"][RATE] for other in found["tried"] if other["method"] == method}
        words = ", ".join(f"{name} {value:g}" for name, value in row["setting"].items())
        edge = "; its rate is the last one tried" if row["setting"][RATE] in (min(rates), max(rates)) else ""
        yield f"{method}: {words} ({100 * row['mean']:.1f} % of {found['n']:,} development problems{edge})"


def keep(out: Path, target: Path = REFERENCE_RUNS) -> Path:
    """Copy a tuning's ``tune.json`` and records to ``data/reference_runs/<profile>/tune``.

    Raises:
        ValueError: there is nothing to keep, or more was set than a budget.
    """
    found = read_json(summarise(out))
    home = target / report.kept_name(found["profile"], found["settings"]) / "tune"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(out / "arms", home / "arms", ignore=shutil.ignore_patterns(".*", "*.tmp"))
    shutil.copy(out / "tune.json", home)
    return home
