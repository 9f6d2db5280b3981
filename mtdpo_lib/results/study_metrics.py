"""What a study found: accuracies, gains, differences, causes and costs with intervals, from the arms' records alone.

A metric's name says what it is: ``accuracy/test/<arm>``, ``gain/test/<arm>`` (over the arm's own SFT policy),
``difference/test/<arm>-minus-<arm>``, ``pass/<n>/<arm>``, ``cost/<what>/<arm>``; and ``<fact>/<iteration>/<arm>``, with
``<arm>-minus-<rival>`` or ``<last>-minus-1``, for the accuracy after an iteration and what `study.iteration_facts` tells;
``development/last-minus-first/<arm>`` compares the kept steps of the last training on development prompts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import REFERENCE_RUNS, write_json
from mtdpo_lib.common.stages import seconds_by_kind
from mtdpo_lib.experiment.arms import (
    ARMS,
    BASE,
    CONTRASTS,
    FIRST_CONTRASTS,
    GAIN_CONTRASTS,
    GROUPS,
    LOGS,
    PASS_AT,
    PASS_SAMPLES,
)
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.results import claims, report, stats

FRACTIONS = ("right", "right_despite_error", "distinct", "covered", "tool_gradient_share")
FACTS = (
    *FRACTIONS,
    "margin",
    "luck",
    "chosen_ratio",
    "rejected_ratio",
)  # of an iteration; the last ones in nats
CURVES = ("accuracy", "right", "distinct", "covered", "chosen_ratio", "rejected_ratio")
COSTS = ("trajectories", "sampled-tokens", "pairs", "trained-tokens", "seconds")

START, LAST = 0, -1  # the SFT policy and that of the last iteration

ByArm = dict[str, dict[int, dict[str, Any]]]  # arm to seed to record
PolicyOf = tuple[str, int]  # an arm and one of its iterations
Metric = dict[str, Any] | None  # None where nothing was measured
Metrics = list[dict[str, Any]]


# --- Files ---


def summarise(out: Path) -> Path:
    """``report.json``, ``report.md`` and ``figures/`` of a study, from the arms' records alone.

    Raises:
        ValueError: no record, or records of different profiles or settings.
    """
    by_arm, profile, settings = _read_arms(out)
    metrics = _metrics(by_arm)
    judged = claims.judge(metrics, get_profile(profile).claims)
    write_json(out / "report.json", [*metrics, *(_claim_entry(row) for row in judged)])
    kind = profile + (f", `--set {settings}`" if settings else "")
    head = f"# Study of {len(by_arm)} arms at profile {kind}\n\n{rests_on(metrics)}\n\n"
    arms, paper = (report.markdown_table(*table) for table in (arm_rows(metrics), claims.rows(judged)))
    text = f"{head}## Arms\n\n{arms}\n\n## Claims of the paper\n\n{paper}\n"
    (out / "report.md").write_text(text, encoding="utf8")
    draw(metrics, profile, out / "figures")
    return out / "report.json"


def draw(metrics: Metrics, profile: str, folder: Path) -> list[Path]:
    """The figures of a study from its metrics alone; `profile` says what it may claim."""
    from mtdpo_lib.results import figures

    known = {metric["name"] for metric in metrics}
    words = {name: arm.what for name, arm in ARMS.items() if f"accuracy/test/{name}" in known}
    drawn = {"arms": figures.arms(metrics, words)}
    judged = claims.judge(metrics, get_profile(profile).claims)
    for theme in dict.fromkeys(row["theme"] for row in judged):
        drawn["claims_" + theme.replace(" ", "_")] = figures.claims(judged, theme)
    for group, members in GROUPS.items():
        if shown := [name for name in members if name in words]:
            drawn[group] = figures.over_iterations(metrics, CURVES, shown)
    if f"difference/test/log-{max(LOGS)}-dpo-minus-log-{max(LOGS)}" in known:
        drawn["dose_response"] = figures.dose_response(metrics, LOGS)
    sampled = [name for name in words if f"pass/{PASS_AT[0]}/{name}" in known]
    if sampled:  # the SFT policy is the same in all of them
        labels = {f"{sampled[0]}/{BASE}": BASE.upper(), **{name: name for name in sampled}}
        drawn["pass_at_n"] = figures.pass_at_n(metrics, labels)
    return [figure.save(folder / f"{name}.png") for name, figure in drawn.items()]


def keep(out: Path, target: Path = REFERENCE_RUNS) -> Path:
    """Copy a study's records and reports to ``data/reference_runs/<profile>/study``, or that of a profile's budget.

    Raises:
        ValueError: there is nothing to keep, or more was set than a budget.
    """
    name = report.kept_name(*_read_arms(out)[1:])
    summarise(out)
    home, seconds = target / name / "study", kept_seconds(name, target) | seconds_by_kind(out / "stages")
    shutil.rmtree(home, ignore_errors=True)
    (home / "arms").mkdir(parents=True)
    write_json(home / "seconds.json", seconds)
    for file in sorted((out / "arms").glob("*.json")):
        shutil.copy(file, home / "arms")
    for name in ("report.json", "report.md"):
        shutil.copy(out / name, home)
    return home


def kept_seconds(name: str, source: Path = REFERENCE_RUNS) -> dict[str, float]:
    """Mean seconds by kind of stage in the study kept for a profile, or under `report.kept_name`; empty without one."""
    file = source / name / "study" / "seconds.json"
    return json.loads(file.read_text(encoding="utf8")) if file.is_file() else {}


def kept(name: str = "cpu", source: Path = REFERENCE_RUNS) -> Metrics:
    """The metrics of the study that is kept for a profile, or under `report.kept_name`, without the claims' own entries.

    Raises:
        ValueError: none is kept.
    """
    file = source / name / "study" / "report.json"
    if not file.is_file():
        raise ValueError(
            f"No study of profile {name} is kept: python -m mtdpo_lib study --profile {name}, "
            "then the same with --keep."
        )
    entries = json.loads(file.read_text(encoding="utf8"))
    return [entry for entry in entries if not entry["name"].startswith("claim/")]


def arm_rows(metrics: Metrics) -> tuple[list[str], list[list[str]]]:
    """The table of arms: accuracy, gain over SFT, difference from the rival, and what it cost."""
    known = {metric["name"]: metric for metric in metrics}
    head = ["arm", "what", "greedy accuracy (%)", "gain over SFT (points)", "against its rival (points)"]
    head += [cost.replace("-", " ") for cost in COSTS]
    rows = []
    for name, arm in ARMS.items():
        if f"accuracy/test/{name}" not in known:
            continue
        difference = known.get(f"difference/test/{name}-minus-{arm.against}")
        rows.append([
            name, arm.what, report.percent(known[f"accuracy/test/{name}"]),
            report.percent(known[f"gain/test/{name}"], sign=True),
            f"{report.percent(difference, sign=True)} {arm.against}" if difference else "",
            *(report.number(known.get(f"cost/{cost}/{name}"), digits=0) for cost in COSTS),
        ])  # fmt: skip
    return head, rows


def pass_sentence(metrics: Metrics, arm: str = "mdpo") -> str:
    """One sample and many, before and after an arm; empty where it was not sampled often."""
    known = {metric["name"]: metric for metric in metrics}
    if f"pass/{PASS_AT[0]}/{arm}" not in known:
        return ""
    told = [
        f"pass@{n} {report.percent(known[f'pass/{n}/{arm}/{BASE}'])} before and "
        f"{report.percent(known[f'pass/{n}/{arm}'])} after"
        for n in (PASS_AT[0], PASS_AT[-1])
    ]
    questions = known[f"pass/{PASS_AT[0]}/{arm}"]["n"]
    return (
        f"Sampled {PASS_SAMPLES} times, {arm}: {'; '.join(told)}, in per cent; n = {questions} test problems."
    )


# --- From records to metrics ---


def metric_names(names: Iterable[str], iterations: int = 3) -> Iterator[str]:
    """Every metric that a study of these arms can have."""
    names = list(names)
    for name in names:
        arm = ARMS[name]
        yield from (f"accuracy/test/{name}", f"gain/test/{name}")
        yield from (f"cost/{cost}/{name}" for cost in COSTS)
        yield f"development/last-minus-first/{name}"
        if arm.pass_at_n:
            for n in PASS_AT:
                yield from (f"pass/{n}/{name}", f"pass/{n}/{name}/{BASE}", f"pass/{n}/{name}-minus-{BASE}")
        last = arm.iterations or iterations
        for fact in ("accuracy", *FACTS):
            for number in range(1, last + 1):
                yield f"{fact}/{number}/{name}"
                if arm.against in names:
                    yield f"{fact}/{number}/{name}-minus-{arm.against}"
            if last > 1:
                yield f"{fact}/{last}-minus-1/{name}"
        if arm.against in names:
            yield f"difference/test/{name}-minus-{arm.against}"
    contrasts = {"difference/test": CONTRASTS, "accuracy/1": FIRST_CONTRASTS, "gain/test": GAIN_CONTRASTS}
    for kind, pairs in contrasts.items():
        yield from (f"{kind}/{one}-minus-{other}" for one, other in pairs if {one, other} <= set(names))


def _read_arms(out: Path) -> tuple[ByArm, str, str]:
    """All records by arm (in the order of `ARMS`) and seed, their profile, and what was set."""
    records = [json.loads(file.read_text(encoding="utf8")) for file in sorted((out / "arms").glob("*.json"))]
    if not records:
        raise ValueError(f"There is no arm's record in {out / 'arms'}: run the study first.")
    kinds = {(record["profile"], record.get("settings", "")) for record in records}
    if len(kinds) > 1:
        raise ValueError(
            f"The arms in {out} were run with different profiles or settings: use one folder for each."
        )
    by_arm: ByArm = {name: {} for name in ARMS}
    for record in sorted(records, key=lambda record: record["seed"]):
        by_arm.setdefault(record["arm"], {})[record["seed"]] = record
    return {name: records for name, records in by_arm.items() if records}, *kinds.pop()


def _metrics(by_arm: ByArm) -> Metrics:
    found = [
        *_accuracies(by_arm), *_pass_metrics(by_arm), *_iteration_metrics(by_arm),
        *_checkpoints(by_arm), *_costs(by_arm),
    ]  # fmt: skip
    return [metric for metric in found if metric is not None]


def _right(by_arm: ByArm, policy: PolicyOf, seed: int) -> list[int] | None:
    """Right (1) or wrong (0) of every test problem; None where it was not measured."""
    arm, iteration = policy
    record = by_arm.get(arm, {}).get(seed)
    if record is None or iteration >= len(record["policies"]):
        return None
    return [int(letter) for letter in record["outcomes"][record["policies"][iteration]]]


def _accuracies(by_arm: ByArm) -> Iterator[Metric]:
    """Each arm's accuracy and gain over its SFT policy, by iteration too, the difference from its rival, the contrasts."""
    for name, records in by_arm.items():
        rival = ARMS[name].against
        yield _over_questions(f"accuracy/test/{name}", by_arm, [(name, LAST)])
        yield _over_questions(f"gain/test/{name}", by_arm, [(name, LAST), (name, START)])
        yield _over_questions(f"difference/test/{name}-minus-{rival}", by_arm, [(name, LAST), (rival, LAST)])
        last = max(len(record["policies"]) for record in records.values()) - 1
        for number in range(1, last + 1):
            own, theirs = (name, number), (rival, number)
            yield _over_questions(f"accuracy/{number}/{name}", by_arm, [own])
            yield _over_questions(f"accuracy/{number}/{name}-minus-{rival}", by_arm, [own, theirs])
        if last > 1:
            yield _over_questions(f"accuracy/{last}-minus-1/{name}", by_arm, [(name, last), (name, 1)])
    for one, other in CONTRASTS:
        yield _over_questions(f"difference/test/{one}-minus-{other}", by_arm, [(one, LAST), (other, LAST)])
    for one, other in FIRST_CONTRASTS:
        yield _over_questions(f"accuracy/1/{one}-minus-{other}", by_arm, [(one, 1), (other, 1)])
    for one, other in GAIN_CONTRASTS:
        four = [(one, LAST), (one, START), (other, LAST), (other, START)]  # a gain minus a gain
        yield _over_questions(f"gain/test/{one}-minus-{other}", by_arm, four)


def _over_questions(label: str, by_arm: ByArm, policies: Sequence[PolicyOf]) -> Metric:
    """First minus second (minus third plus fourth) policy, paired on the questions, over the seeds that have all."""
    signs = (1, -1, -1, 1)
    table = {}
    for seed in sorted({seed for records in by_arm.values() for seed in records}):
        rows = [_right(by_arm, policy, seed) for policy in policies]
        if all(row is not None for row in rows):
            columns = zip(*rows, strict=True)
            table[seed] = [
                sum(sign * one for sign, one in zip(signs, column, strict=False)) for column in columns
            ]
    return _from_table(label, table, proportion=len(policies) == 1)


def _pass_metrics(by_arm: ByArm) -> Iterator[Metric]:
    """pass@n of each arm that was sampled often, of its SFT policy, and what it gained over SFT."""
    for name, records in by_arm.items():
        often = {seed: record for seed, record in records.items() if record.get("right of many")}
        for n in PASS_AT if often else ():
            ours, theirs = (
                {
                    seed: [
                        stats.pass_at_n(right, PASS_SAMPLES, n)
                        for right in record["right of many"][record["policies"][iteration]]
                    ]
                    for seed, record in often.items()
                }
                for iteration in (LAST, START)
            )
            gains = {seed: [a - b for a, b in zip(ours[seed], theirs[seed], strict=True)] for seed in often}
            yield _from_table(f"pass/{n}/{name}", ours, proportion=True)
            yield _from_table(f"pass/{n}/{name}/{BASE}", theirs, proportion=True)
            yield _from_table(f"pass/{n}/{name}-minus-{BASE}", gains)


def _iteration_metrics(by_arm: ByArm) -> Iterator[Metric]:
    """The facts of each iteration, from the first to the last one, and against the rival's."""

    def fact(arm: str, name: str, number: int) -> dict[int, float]:
        known = {seed: record.get("iterations", []) for seed, record in by_arm.get(arm, {}).items()}
        return {
            seed: rows[number - 1][name]
            for seed, rows in known.items()
            if len(rows) >= number and name in rows[number - 1]
        }

    for arm, records in by_arm.items():
        last = max(len(record.get("iterations", [])) for record in records.values())
        for name in FACTS:
            for number in range(1, last + 1):
                own, rivals = (fact(one, name, number) for one in (arm, ARMS[arm].against))
                yield _from_values(f"{name}/{number}/{arm}", own, name)
                yield _from_values(
                    f"{name}/{number}/{arm}-minus-{ARMS[arm].against}", _minus(own, rivals), name
                )
            if last > 1:
                change = _minus(fact(arm, name, last), fact(arm, name, 1))
                yield _from_values(f"{name}/{last}-minus-1/{arm}", change, name)


def _checkpoints(by_arm: ByArm) -> Iterator[Metric]:
    """What the last kept step of the last training is worth against the first one."""
    for arm, records in by_arm.items():
        steps = {seed: list(record.get("development", {}).values()) for seed, record in records.items()}
        changes = {seed: values[-1] - values[0] for seed, values in steps.items() if len(values) > 1}
        yield _from_values(f"development/last-minus-first/{arm}", changes, "development")


def _costs(by_arm: ByArm) -> Iterator[Metric]:
    for arm, records in by_arm.items():
        for cost in COSTS:
            values = {
                seed: record["seconds"] if cost == "seconds" else record["cost"][cost.replace("-", " ")]
                for seed, record in records.items()
            }
            yield _from_values(f"cost/{cost}/{arm}", values, cost)


def _minus(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def _from_table(label: str, table: dict[int, list[float]], proportion: bool = False) -> Metric:
    """A metric with one number a seed and question; None without seeds."""
    if not table:
        return None
    value, low, high = stats.over_seeds(list(table.values()))
    if proportion:  # Student's interval knows no bounds, a proportion does
        low, high = max(low, 0.0), min(high, 1.0)
    each = [sum(row) / len(row) for row in table.values()]
    return _metric(label, (value, low, high), len(next(iter(table.values()))), "fraction", list(table), each)


def _from_values(label: str, values: dict[int, float], what: str) -> Metric:
    """A metric with one number a seed; None without seeds, no interval with one."""
    if not values:
        return None
    each = list(values.values())
    estimate = stats.mean_interval(each) if len(each) > 1 else (each[0], None, None)
    if what in FRACTIONS and "minus" not in label and estimate[1] is not None:
        estimate = (estimate[0], max(estimate[1], 0.0), min(estimate[2], 1.0))
    unit = (
        "fraction"
        if what in (*FRACTIONS, "development")
        else "nats"
        if what in FACTS
        else what.replace("-", " ")
    )
    return _metric(label, estimate, len(each), unit, list(values), each)


def _metric(
    name: str,
    estimate: tuple[float, float | None, float | None],
    n: int,
    unit: str,
    seeds: Sequence[int],
    each: Sequence[float],
) -> dict[str, Any]:
    """An entry of ``report.json``; `each` is every seed's value, `n` counts questions, or seeds where there are none."""
    value, low, high = (None if part is None else round(part, 6) for part in estimate)
    return {
        "name": name, "value": value, "low": low, "high": high, "n": n, "unit": unit,
        "seeds": list(seeds), "each": [round(one, 6) for one in each],
    }  # fmt: skip


def _claim_entry(row: dict[str, Any]) -> dict[str, Any]:
    measured = row["measured"] or {"value": None, "low": None, "high": None, "n": 0, "unit": ""}
    seeds = {"seeds": row["seeds"], "metric": row["metric"]}
    return {"name": f"claim/{row['claim']}", **measured, **seeds, "verdict": row["verdict"]}


def rests_on(metrics: Metrics) -> str:
    """What the table of arms rests on: problems, seeds, and the word for one seed."""
    tested = [metric for metric in metrics if metric["name"].startswith("accuracy/")]
    seeds = sorted({seed for metric in tested for seed in metric["seeds"]})
    fewest = min(len(metric["seeds"]) for metric in tested)
    over = f"seeds {', '.join(map(str, seeds))}" + ("" if fewest == len(seeds) else "; some arms have fewer")
    over = (
        f"{over}; 95% intervals over seeds and questions"
        if len(seeds) > 1
        else f"one seed ({seeds[0]}): indicative; 95% intervals over questions"
    )
    return f"n = {tested[0]['n']:,} test problems, {over}."
