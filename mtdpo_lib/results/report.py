"""The report of a run: every figure from its records, as one HTML page and as one flat JSON list."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from mtdpo_lib.common.files import REFERENCE_RUNS, write_json
from mtdpo_lib.profiles.presets import PROFILES
from mtdpo_lib.results import figures, stats
from mtdpo_lib.results.metric import Metric
from mtdpo_lib.results.paper import PAPER_BASE, paper_rows
from mtdpo_lib.results.records import read_records

PROPORTIONS = ("accuracy", "sampled")  # metrics that are shares of right answers
SUITE_NAMES = {"gsm-like": "GSM-like", "math-like": "MATH-like", "gsm8k": "GSM8K", "math": "MATH"}

Record = dict[str, Any]


def read_run(folder: Path) -> dict[str, Any]:
    """The ``run.json`` of a run folder.

    Raises:
        ValueError: there is none, or it is unreadable.
    """
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a run folder: it has no readable run.json.") from error


def run_records(folder: Path, run: dict[str, Any]) -> dict[str, Record]:
    """The records that belong to `run`; those that other settings left in the folder are not part of it."""
    found = read_records(folder / "records")
    return {name: record for name, record in found.items() if record["settings_hash"] == run["settings_hash"]}


def kept_name(profile: str, settings: str) -> str:
    """The folder under ``data/reference_runs`` for results of a profile, ``<profile>-<budget>`` at a named budget.

    Args:
        profile: its name.
        settings: what was set, as ``--set`` takes it, separated by spaces.

    Raises:
        ValueError: anything but a budget was set.
    """
    own = re.fullmatch(r"(?:budget=(\w+))?", settings)
    if own is None:
        raise ValueError(
            f"Only results without --set (but for a budget) can be kept, and these have --set {settings}."
        )
    return f"{profile}-{own[1]}" if own[1] else profile


def profile_of(kept: str) -> str:
    """The profile of a folder that `kept_name` named."""
    return max((name for name in PROFILES if f"{kept}-".startswith(f"{name}-")), key=len)


def real_runs(reference: Path = REFERENCE_RUNS) -> list[Path]:
    """Folders of the kept runs with a real model, each with one folder a seed; the profile's own budget first."""
    return sorted(home for home in reference.glob("small*") if any(home.glob("seed*/run.json")))


def merge_metrics(records: dict[str, Record]) -> list[dict[str, Any]]:
    """All records' metrics, each name once.

    Raises:
        ValueError: two records give the same name different numbers.
    """
    merged: dict[str, tuple[str, dict[str, Any]]] = {}
    for record_name, record in records.items():
        for metric in record["results"].get("metrics", []):
            other, known = merged.setdefault(metric["name"], (record_name, metric))
            if known != metric:
                raise ValueError(
                    f"The records {other} and {record_name} disagree about {metric['name']} "
                    f"({known['value']} and {metric['value']}): run both notebooks again."
                )
    return [metric for _, metric in merged.values()]


def report_json(records: dict[str, Record], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Every figure of a report as a flat list.

    Args:
        records: by name, of one run.
        seconds: of each notebook, as the runner measured them.

    Returns:
        Dictionaries of name, value, low, high, n, unit and seeds; ``seconds/notebooks`` is the sum over notebooks.
    """
    seeds = tuple(sorted({record["seed"] for record in records.values()}))
    times = {"notebooks": round(sum(seconds.values()), 2), **seconds}
    timing = [Metric(f"seconds/{name}", value, n=1, unit="s", seeds=seeds) for name, value in times.items()]
    return merge_metrics(records) + [metric.to_dict() for metric in timing]


def write_report(out: Path) -> Path:
    """Write ``report.html``, ``report.json`` and ``figures/`` of the run folder `out`.

    Raises:
        ValueError: no run folder, or records that contradict each other.
    """
    run = read_run(out)
    records = run_records(out, run)
    return _write(out, run, records, report_json(records, run["seconds"]), [run["seed"]])


def combine(runs: Sequence[Path], out: Path) -> Path:
    """Report over several seeds of one profile: values are means, intervals are over seeds and questions.

    Args:
        runs: run folders (or kept reference runs), one a seed.
        out: folder for ``report.html``, ``report.json`` and ``figures/``.

    Raises:
        ValueError: runs of different profiles or settings, or the same seed twice.
    """
    first, _, metrics, seeds = combined_metrics(runs)
    out.mkdir(parents=True, exist_ok=True)
    return _write(out, first, run_records(Path(runs[0]), first), metrics, seeds)


def combined_metrics(
    runs: Sequence[Path],
) -> tuple[dict[str, Any], list[dict[str, Record]], list[dict[str, Any]], list[int]]:
    """Metrics over the seeds of `runs`.

    Returns:
        The first run, every run's records, the metrics, and the seeds.
    """
    loaded = sorted(((read_run(Path(run)), Path(run)) for run in runs), key=lambda item: item[0]["seed"])
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
    settings = [record["settings"] for found in records for record in found.values()]
    if any(other != settings[0] for other in settings):
        raise ValueError(
            "These runs were made with different versions of the profile: run them again to combine them."
        )
    each = [
        {metric["name"]: metric for metric in report_json(found, run["seconds"])}
        for found, (run, _) in zip(records, loaded, strict=True)
    ]
    outcomes = [_outcomes(found) for found in records]
    names = list(dict.fromkeys(name for metrics in each for name in metrics))
    metrics = [_over_seeds(name, each, outcomes) for name in names]
    return read_run(Path(runs[0])), records, metrics, seeds


def _outcomes(records: dict[str, Record]) -> dict[str, list[int]]:
    """Right (1) or wrong (0) of every test problem, by policy."""
    found: dict[str, list[int]] = {}
    for record in records.values():
        for policy, text in record["results"].get("outcomes", {}).items():
            found[policy] = [int(letter) for letter in text]
    return found


def _scores(name: str, outcomes: dict[str, list[int]]) -> list[int] | None:
    """One number a test problem whose mean is the metric `name`, where the outcomes tell it."""
    kind, _, rest = name.partition("/test/")
    if kind == "accuracy":
        return outcomes.get(rest)
    if kind in ("gain", "difference"):
        ours, _, theirs = (rest, "", "sft") if kind == "gain" else rest.partition("-minus-")
        if ours in outcomes and theirs in outcomes:
            return [a - b for a, b in zip(outcomes[ours], outcomes[theirs], strict=True)]
    return None


def _over_seeds(
    name: str, each: Sequence[dict[str, dict[str, Any]]], outcomes: Sequence[dict[str, list[int]]]
) -> dict[str, Any]:
    """One metric over the seeds that have it."""
    present = [number for number, metrics in enumerate(each) if name in metrics]
    mine = [each[number][name] for number in present]
    seeds = sorted({seed for metric in mine for seed in metric["seeds"]})
    if len(mine) == 1 or name.startswith("seconds/"):
        mean = sum(metric["value"] for metric in mine) / len(mine)
        return {**mine[0], "value": round(mean, 6), "seeds": seeds}
    tables = [_scores(name, outcomes[number]) for number in present]
    if all(tables) and len({len(table) for table in tables}) == 1:
        value, low, high = stats.over_seeds(tables)
    elif all(metric["low"] is not None for metric in mine):
        halves = [(metric["high"] - metric["low"]) / 2 for metric in mine]
        value, low, high = stats.combine_seeds([metric["value"] for metric in mine], halves)
    else:
        value, low, high = stats.combine_seeds([metric["value"] for metric in mine], [0.0])
    if name.split("/")[0] in PROPORTIONS:  # Student's interval knows no bounds, a proportion does
        low, high = max(low, 0.0), min(high, 1.0)
    return {**mine[0], "value": round(value, 6), "low": round(low, 6), "high": round(high, 6), "seeds": seeds}


def result_rows(metrics: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table of results: SFT and each M-DPO iteration beside the paper's numbers, in per cent.

    Returns:
        Column heads and rows; a figure that was not measured is an empty cell.
    """
    known = {metric["name"]: metric for metric in metrics}
    theirs = {figures.iteration_of(row["method"]): row for row in paper_rows()}
    suites = [suite for suite in SUITE_NAMES if any(name.startswith(f"accuracy/{suite}/") for name in known)]
    steps = {
        figures.iteration_of(name.rpartition("/")[2]) for name in known if name.startswith("accuracy/test/")
    }
    head = ["policy", "all", *(SUITE_NAMES[suite] for suite in suites), "sampled", "gain over SFT"]
    head += ["tool calls", "tool errors", "paper GSM8K", "paper MATH"]
    rows = []
    for step in sorted((steps - {None}) | {0, 1, 2, 3}):
        policy = f"mdpo-{step}" if step else "sft"
        paper = theirs.get(step, {})
        rows.append([
            f"M-DPO iteration {step}" if step else "SFT",
            percent(known.get(f"accuracy/test/{policy}")),
            *(percent(known.get(f"accuracy/{suite}/{policy}")) for suite in suites),
            percent(known.get(f"sampled/test/{policy}")),
            percent(known.get(f"gain/test/{policy}"), sign=True),
            *(number(known.get(f"{name}/test/{policy}")) for name in ("tool-calls", "tool-errors")),
            paper.get("gsm8k", ""),
            paper.get("math", ""),
        ])  # fmt: skip
    return head, rows


def percent(metric: dict[str, Any] | None, sign: bool = False) -> str:
    """``61.2 (58.4 to 63.9)``: a fraction in per cent with its interval; empty when not measured."""
    if metric is None:
        return ""
    form = "{:+.1f}" if sign else "{:.1f}"
    value, *interval = (
        form.format(100 * metric[key]) for key in ("value", "low", "high") if metric.get(key) is not None
    )
    return f"{value} ({' to '.join(interval)})" if interval else value


def number(metric: dict[str, Any] | None, digits: int = 2) -> str:
    """A count with so many decimals; empty when not measured."""
    return "" if metric is None else f"{metric['value']:,.{digits}f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Column heads and rows as a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def rests_on(metrics: Sequence[dict[str, Any]]) -> str:
    """What the table's numbers rest on: problems, seeds, and the word for one seed."""
    tested = [metric for metric in metrics if metric["name"].startswith("accuracy/test/")]
    if not tested:
        return "No policy has been evaluated yet."
    seeds = sorted({seed for metric in tested for seed in metric["seeds"]})
    over = (
        f"seeds {', '.join(map(str, seeds))}; intervals over seeds and questions"
        if len(seeds) > 1
        else f"one seed ({seeds[0]}): indicative; intervals over questions"
    )
    return f"Greedy accuracy in per cent with 95% intervals; n = {max(metric['n'] for metric in tested):,} problems, {over}."


def _figures(
    records: dict[str, Record], metrics: Sequence[dict[str, Any]], passports: Sequence[Record]
) -> dict:
    """File name to figure, in the order of the page."""
    drawn = {"accuracy_by_iteration": figures.accuracy_by_iteration(metrics, paper_rows())}
    policies = [metric["name"].removeprefix("accuracy/test/") for metric in metrics]
    for base in policies:
        variants = [name for name in policies if name.startswith(f"{base}-") and "/" not in name]
        if variants and "/" not in base:
            names = [base, *variants]
            drawn[f"comparison_{base}"] = figures.comparison(metrics, names, names, f"Variants of {base}")
    if passports:
        drawn["pair_yield"] = figures.pair_yield(passports)
    for record in records.values():
        for name, log in record["results"].get("logs", {}).items():
            preference = any("chosen_logp" in row for row in log)
            figure = figures.training_curves(log, name) if preference else figures.sft_curve(log)
            drawn.setdefault(f"training_{name}", figure)
    return drawn


def _passports(records: dict[str, Record]) -> list[Record]:
    """Every iteration's passport once, the main run's first."""
    found: dict[str, Record] = {}
    for record in records.values():
        for passport in record["results"].get("passports", []):
            found.setdefault(passport.get("policy", f"iteration {passport.get('iteration')}"), passport)
    return sorted(
        found.values(), key=lambda passport: figures.iteration_of(passport.get("policy", "")) is None
    )


def plain(value: Any) -> str:
    """A passport's value in words: lists and dictionaries without brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(plain, value)) or "none"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(
    out: Path,
    run: dict[str, Any],
    records: dict[str, Record],
    metrics: list[dict[str, Any]],
    seeds: Sequence[int],
) -> Path:
    passports = _passports(records)
    images = []
    for name, figure in _figures(records, metrics, passports).items():
        file = figure.save(out / "figures" / f"{name}.png")
        alt = figure.get_suptitle() or figure.axes[0].get_title()
        images.append({"data": base64.b64encode(file.read_bytes()).decode(), "alt": alt, "name": name})
    head, rows = result_rows(metrics)
    provenance = [record["provenance"] for record in records.values()]
    page = _PAGE.render(
        run=run,
        seeds=", ".join(map(str, seeds)),
        claims=next((record["claims"] for record in records.values()), "nothing yet"),
        head=head,
        rows=rows,
        rests_on=rests_on(metrics),
        others=[
            (metric["name"].removeprefix("difference/test/"), percent(metric, sign=True))
            for metric in metrics
            if metric["name"].startswith("difference/")
        ],
        base=PAPER_BASE,
        images=images,
        passports=passports,
        passport_keys=list(dict.fromkeys(key for passport in passports for key in passport)),
        plain=plain,
        verdicts=[
            row for record in records.values() for row in _table(record, "claims") if isinstance(row, dict)
        ] if len(seeds) == 1 else [],
        percent=percent,
        deviations=[line for record in records.values() for line in record["results"].get("deviations", [])],
        seconds=[(metric["name"].removeprefix("seconds/"), metric["value"]) for metric in metrics if metric["unit"] == "s"],
        memory=max((entry["peak_memory_mib"] for entry in provenance), default=None),
        versions=provenance[-1]["versions"] if provenance else {},
        machine=provenance[-1]["machine"] if provenance else {},
        commit=", ".join(sorted({entry["commit"] for entry in provenance})),
    )  # fmt: skip
    write_json(out / "report.json", metrics)
    draft = out / "report.html.tmp"
    draft.write_text(page, encoding="utf8")
    return draft.replace(out / "report.html")


def _table(record: Record, name: str) -> list[Any]:
    table = record["results"].get("tables", {}).get(name, [])
    return table if isinstance(table, list) else []


_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Multi-turn direct preference learning: profile {{ run.profile }}, seed {{ seeds }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #555 }
img { max-width: 100%; margin: .5rem 0 }
.note { color: #555; font-size: .9rem }
</style>
</head>
<body>
<h1>Multi-turn direct preference learning</h1>
<p>Profile <b>{{ run.profile }}</b>, seed {{ seeds }}{% if run.settings %}, settings {{ run.settings }}{% endif %}.
This profile may claim: {{ claims }}.
{% if not run.complete %}<b>Not all notebooks have run: the report is partial.</b>{% endif %}</p>
<h2>Results</h2>
<table>
<tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p class="note">{{ rests_on }} "sampled" is one sample at temperature 1; gains are paired with SFT, in points; tool calls
and errors are means a problem. Paper: {{ base }}, arXiv 2409.02392v2, table 1: other models, other problems.</p>
{% if others %}
<h2>Paired differences</h2>
<table><tr><th>policies</th><th>points</th></tr>
{% for name, value in others %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
{% endif %}
{% if verdicts %}
<h2>Claims of the paper</h2>
<table><tr><th>claim</th><th>paper (points)</th><th>ours (points)</th><th>verdict</th></tr>
{% for row in verdicts %}<tr><td>{{ row.claim }}</td><td>{{ plain(row.paper) }}</td>
<td>{{ percent(row.ours, True) }}</td><td>{{ row.verdict }}</td></tr>
{% endfor %}</table>
{% endif %}
<h2>Figures</h2>
{% for image in images %}<p><img alt="{{ image.alt }}" src="data:image/png;base64,{{ image.data }}"></p>
{% endfor %}
{% if passports %}
<h2>Passports of the iterations</h2>
<p class="note">Where each policy came from, and what was kept and dropped.</p>
<table>
<tr><th></th>{% for passport in passports %}<th>{{ passport.policy or passport.iteration }}</th>{% endfor %}</tr>
{% for key in passport_keys %}<tr><td>{{ key }}</td>
{% for passport in passports %}<td>{{ plain(passport[key]) }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endif %}
{% if deviations %}
<h2>Deviations from the paper</h2>
<ul>{% for line in deviations %}<li>{{ line }}</li>
{% endfor %}</ul>
{% endif %}
<h2>Time, machine, versions</h2>
<table><tr><th>notebook</th><th>seconds</th></tr>
{% for name, value in seconds %}<tr><td>{{ "all" if name == "notebooks" else name }}</td>
<td>{{ "%.1f"|format(value) }}</td></tr>
{% endfor %}</table>
<p>{% if memory %}Largest memory of one notebook: {{ "%.0f"|format(memory) }} MiB. {% endif %}
{% for key, value in machine.items() -%}
{{ key }}: {{ value }}{{ "; " if not loop.last }}{% endfor %}.
{% for key, value in versions.items() -%}
{{ key }} {{ value }}{{ ", " if not loop.last }}{% endfor %}. Commit {{ commit }}.</p>
</body>
</html>
""")
