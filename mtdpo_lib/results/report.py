"""The report of a run: every figure from its records, as one HTML page and as one flat JSON list."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from mtdpo_lib.common.files import REFERENCE_RUNS, CorruptData, read_json, whole, write_json
from mtdpo_lib.experiment.arms import BASE
from mtdpo_lib.profiles import PROFILES
from mtdpo_lib.results import stats
from mtdpo_lib.results.metric import Metric, Metrics, in_words
from mtdpo_lib.results.paper import PAPER_BASE, paper_by_iteration
from mtdpo_lib.results.records import (
    Record,
    RunState,
    current_records,
    merge_metrics,
    merge_outcomes,
    merge_passports,
)
from mtdpo_lib.results.tables import passport_rows, plain, result_rows, results_caption

if TYPE_CHECKING:
    from mtdpo_lib.results.figures import Figure

PROPORTIONS = ("accuracy", "sampled")  # metrics that are shares of right answers
SET = "set"  # the folder in a profile's own for results with other settings


@dataclass(frozen=True)
class Runs:
    """One run or several that differ in their seed only.

    Attributes:
        run: the ``run.json`` of the first.
        records: of each run, by name.
        metrics: over all of them.
        seeds: in order.
    """

    run: RunState
    records: list[dict[str, Record]]
    metrics: Metrics
    seeds: list[int]


def read_run(folder: Path) -> RunState:
    """The ``run.json`` of a run folder.

    Raises:
        ValueError: there is none, or it is unreadable.
    """
    try:
        return read_json(folder / "run.json", RunState)
    except CorruptData as error:
        raise ValueError(f"{folder} is not a run folder: it has no readable run.json.") from error


def run_records(folder: Path, run: RunState) -> dict[str, Record]:
    """The records that belong to `run`, by name."""
    return current_records(folder / "records", run["settings_hash"])


def kept_name(profile: str, settings: str) -> str:
    """The folder under ``data/reference_runs`` for results of a profile, ``<profile>-<budget>`` at a named budget.

    Args:
        profile: its name.
        settings: what was set, as ``--set`` takes it, separated by spaces.

    Raises:
        ValueError: a folder or a file was set, which others do not have.

    >>> kept_name("small", "budget=reduced"), kept_name("cpu", "problems.level=1 problems.wordings=4")
    ('small-reduced', 'cpu/set/problems.level=1,problems.wordings=4')
    """
    if "/" in settings:
        raise ValueError(
            f"Results that rest on a file of one's own cannot be kept, and these have --set {settings}."
        )
    if own := re.fullmatch(r"(?:budget=(\w+))?", settings):
        return f"{profile}-{own[1]}" if own[1] else profile
    return f"{profile}/{SET}/{','.join(sorted(settings.split()))}"


def profile_of(kept: str) -> str:
    """The profile of a folder that `kept_name` named."""
    name = kept.partition("/")[0]
    return max((profile for profile in PROFILES if f"{name}-".startswith(f"{profile}-")), key=len)


def real_runs(reference: Path = REFERENCE_RUNS) -> list[Path]:
    """Folders of the kept runs with a real model, each with one folder per seed; the profile's own budget first."""
    return sorted(home for home in reference.glob("small*") if any(home.glob("seed*/run.json")))


def run_metrics(records: dict[str, Record], seconds: dict[str, float]) -> Metrics:
    """Every metric of one run, and how long its notebooks took.

    Args:
        records: by name.
        seconds: of each notebook, as the runner measured them; ``seconds/notebooks`` is their sum.
    """
    seeds = tuple(sorted({record["seed"] for record in records.values()}))
    times = {"notebooks": round(sum(seconds.values()), 2), **seconds}
    timing = (
        Metric("seconds", value, n=1, unit="s", seeds=seeds, split=name) for name, value in times.items()
    )
    return Metrics([*merge_metrics(records), *timing])


def combined_runs(folders: Sequence[Path]) -> Runs:
    """Runs of several seeds of one profile: values are means, intervals are over seeds and questions.

    Args:
        folders: run folders (or kept reference runs), one per seed; one alone stays as it is.

    Raises:
        ValueError: runs of different profiles or settings, or the same seed twice; records that contradict each other, or
            that one run lacks.
    """
    loaded = sorted(((read_run(Path(one)), Path(one)) for one in folders), key=lambda item: item[0]["seed"])
    kinds = {(run["profile"], run["settings"]) for run, _ in loaded}
    seeds = [run["seed"] for run, _ in loaded]
    if len(kinds) != 1:
        names = " and ".join(sorted(" ".join(kind).strip() for kind in kinds))
        raise ValueError(
            f"Only runs of one profile and the same settings can be combined, got {names or 'none'}."
        )
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"Each seed can be combined once, got seeds {', '.join(map(str, seeds))}.")
    records = [run_records(folder, run) for run, folder in loaded]
    for found, (_, folder) in zip(records, loaded, strict=True):
        if lacking := set().union(*records) - found.keys():
            raise ValueError(
                f"Other seeds have the record {min(lacking)}, and {folder} lacks it: restore it, or run that notebook again."
            )
    settings = [record["settings"] for found in records for record in found.values()]
    if any(other != settings[0] for other in settings):
        raise ValueError(
            "These runs were made with different versions of the profile: run them again to combine them."
        )
    same: dict[str, list[tuple[Metric, list[int] | None]]] = {}
    for found, (run, _) in zip(records, loaded, strict=True):
        outcomes = merge_outcomes(found)
        for metric in run_metrics(found, run["seconds"]):
            same.setdefault(metric.name, []).append((metric, _scores(metric, outcomes)))
    return Runs(loaded[0][0], records, Metrics(map(_over_seeds, same.values())), seeds)


def _scores(metric: Metric, outcomes: dict[str, list[int]]) -> list[int] | None:
    """One number per test problem whose mean is the metric, where the outcomes tell it."""
    ours = outcomes.get(metric.policy) if metric.split == "test" else None
    if metric.kind == "accuracy" or ours is None:
        return ours
    theirs = outcomes.get({"gain": BASE, "difference": metric.against}.get(metric.kind, ""))
    return None if theirs is None else [a - b for a, b in zip(ours, theirs, strict=True)]


def _over_seeds(same: Sequence[tuple[Metric, list[int] | None]]) -> Metric:
    """One metric over the seeds that have it, each with its scores."""
    mine, tables = [metric for metric, _ in same], [table for _, table in same if table]
    first, seeds = mine[0], tuple(Metrics(mine).seeds())
    values = [metric.value for metric in mine]
    if len(mine) == 1 or first.kind == "seconds":
        return replace(first, value=sum(values) / len(values), seeds=seeds)
    if len(tables) == len(mine) and len(set(map(len, tables))) == 1:
        estimate = stats.over_seeds(tables)
    else:
        halves = [(m.high - m.low) / 2 for m in mine if m.low is not None and m.high is not None]
        estimate = stats.combine_seeds(values, halves if len(halves) == len(mine) else [0.0])
    value, low, high = stats.of_proportion(estimate) if first.kind in PROPORTIONS else estimate
    return replace(first, value=value, low=low, high=high, seeds=seeds)


def write_report(out: Path) -> Path:
    """Write ``report.html``, ``report.json`` and ``figures/`` of the run folder `out`.

    Raises:
        ValueError: no run folder, or records that contradict each other.
    """
    return combine([out], out)


def combine(folders: Sequence[Path], out: Path) -> Path:
    """The report over several seeds of one profile (see `combined_runs`), in the folder `out`."""
    runs = combined_runs(folders)
    records, metrics = runs.records[0], runs.metrics
    out.mkdir(parents=True, exist_ok=True)
    images = []
    for name, figure in _figures(runs).items():
        file = figure.save(out / "figures" / f"{name}.png")
        images.append({"data": base64.b64encode(file.read_bytes()).decode(), "alt": figure.alt})
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    differences = metrics.select(kind="difference")
    page = pages.get_template("page.html.jinja").render(
        run=runs.run,
        seeds=", ".join(map(str, runs.seeds)),
        claims=next((record["claims"] for record in records.values()), "nothing yet"),
        results=result_rows(metrics),
        caption=results_caption(metrics),
        others=[(f"{one.policy} minus {one.against}", one.in_words(sign=True)) for one in differences],
        base=PAPER_BASE,
        images=images,
        passports=passport_rows(merge_passports(records)),
        verdicts=_verdicts(records) if len(runs.seeds) == 1 else [],
        deviations=[line for record in records.values() for line in record["results"].get("deviations", [])],
        seconds=[(metric.split, metric.value) for metric in metrics.select(kind="seconds")],
        **_made_by(records),
    )
    write_json(out / "report.json", [metric.to_dict() for metric in metrics])
    with whole(out / "report.html") as draft:
        draft.write_text(page, encoding="utf8")
    return out / "report.html"


def _figures(runs: Runs) -> dict[str, Figure]:
    """File name to figure, in the order of the page; curves and passports are those of the first seed."""
    from mtdpo_lib.results import figures

    records, metrics = runs.records[0], runs.metrics
    drawn = {"accuracy_by_iteration": figures.accuracy_by_iteration(metrics, paper_by_iteration())}
    for iteration, base in metrics.by_iteration("accuracy").items():
        policies = [one.policy for one in metrics.select(kind="accuracy", split="test", iteration=iteration)]
        names = [base.policy, *(name for name in policies if name != base.policy)]
        if len(names) > 1:
            title = f"Variants of {base.policy}"
            drawn[f"comparison_{base.policy}"] = figures.comparison(metrics, names, names, title)
    if passports := merge_passports(records):
        drawn["pair_yield"] = figures.pair_yield(passports)
    for record in records.values():
        for name, log in record["results"].get("logs", {}).items():
            preference = any("chosen_logp" in row for row in log)
            figure = figures.training_curves(log, name) if preference else figures.sft_curve(log)
            drawn.setdefault(f"training_{name}", figure)
    return drawn


def _verdicts(records: dict[str, Record]) -> list[list[str]]:
    """The rows of the claims that notebook 09 judged from this run."""
    rows = []
    for record in records.values():
        for row in record["results"].get("tables", {}).get("claims", []):
            ours = Metric("difference", **row["ours"]) if row["ours"] else None
            rows.append([row["claim"], plain(row["paper"]), in_words(ours, sign=True), row["verdict"]])
    return rows


def _made_by(records: dict[str, Record]) -> dict[str, Any]:
    """Largest memory, machine, versions and commits of a run's records."""
    provenance = [record["provenance"] for record in records.values()]
    last: dict[str, Any] = provenance[-1] if provenance else {}
    return {
        "memory": max((entry["peak_memory_mib"] for entry in provenance), default=None),
        "versions": last.get("versions", {}),
        "machine": last.get("machine", {}),
        "commit": ", ".join(sorted({entry["commit"] for entry in provenance})),
    }
