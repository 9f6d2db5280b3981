"""What a study found: accuracies, gains, differences, causes and costs with intervals, from the arms' records alone.

A metric's name says what it is: ``accuracy/test/<arm>``, ``gain/test/<arm>`` (over the arm's own SFT policy),
``difference/test/<arm>-minus-<arm>``, ``pass/<n>/<arm>``, ``cost/<what>/<arm>``; and ``<fact>/<iteration>/<arm>``, with
``<arm>-minus-<rival>`` or ``<last>-minus-1``, for the accuracy after an iteration and what `study.iteration_facts` tells;
``development/last-minus-first/<arm>`` compares the kept steps of the last training on development prompts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import QUESTIONS, REFERENCE_RUNS, read_json, write_json
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
    known_arm,
)
from mtdpo_lib.profiles import PROFILES, get_profile
from mtdpo_lib.results import claims, report, stats
from mtdpo_lib.results.metric import Metric, Metrics, in_words, rests_on
from mtdpo_lib.results.tables import Table, markdown_table

FACTS = {  # of an iteration, with their units
    **dict.fromkeys(
        ("right", "right_despite_error", "distinct", "distinct_right", "covered", "tool_gradient_share"),
        "fraction",
    ),
    **dict.fromkeys(("margin", "luck", "chosen_ratio", "rejected_ratio", "entropy", "right_nats"), "nats"),
}
PASS_CURVE = "pass_{}"  # with the number of samples
CURVES = (
    "accuracy", "right", "distinct", "right_nats", "covered", "chosen_ratio", "rejected_ratio", "entropy",
    PASS_CURVE.format(PASS_AT[-1]),
)  # fmt: skip
COSTS = {  # of an arm, with their units, which are also their keys in its record
    "trajectories": "trajectories",
    "sampled-tokens": "sampled tokens",
    "pairs": "pairs",
    "trained-tokens": "trained tokens",
    "seconds": "seconds",
}

START, LAST = 0, -1  # the SFT policy and that of the last iteration
SELECTED = None  # the best one on development problems

ByArm = dict[str, dict[int, dict[str, Any]]]  # arm to seed to record
PolicyOf = tuple[str, int | None]  # an arm and one of its iterations
Values = dict[int, float]  # one number per seed


# --- Files ---


def summarise(out: Path) -> Path:
    """``report.json``, ``report.md`` and ``figures/`` of a study, from the arms' records alone.

    Raises:
        ValueError: no record, or records of different profiles or settings.
    """
    by_arm, profile, settings = read_arms(out)
    metrics = _metrics(by_arm, questions(out)["problems"])
    judged = claims.judge(metrics, get_profile(profile).claims)
    write_json(out / "report.json", [row.to_dict() for row in (*metrics, *judged)])
    kind = profile + (f", `--set {settings}`" if settings else "")
    head = f"# Study of {len(by_arm)} arms at profile {kind}\n\n{caption(metrics)}\n\n"
    arms, paper = (markdown_table(*table) for table in (arm_rows(metrics), claims.rows(judged)))
    text = f"{head}## Arms\n\n{arms}\n\n## Claims of the paper\n\n{paper}\n"
    (out / "report.md").write_text(text, encoding="utf8")
    draw(metrics, profile, out / "figures")
    return out / "report.json"


def draw(metrics: Metrics, profile: str, folder: Path) -> list[Path]:
    """The figures of a study from its metrics alone; `profile` says what it may claim."""
    from mtdpo_lib.results import figures

    words = measured_arms(metrics)
    drawn = {"arms": figures.arms(metrics, words)}
    judged = claims.judge(metrics, get_profile(profile).claims)
    for theme in dict.fromkeys(["primary", *(row.claim.theme for row in judged)]):
        drawn["claims_" + theme.replace(" ", "_")] = figures.claims(judged, theme)
    for group, members in GROUPS.items():
        if shown := list(measured_arms(metrics, members)):
            curves = [fact for fact in CURVES if metrics.select(kind=fact, arm=shown[0], since=None)]
            drawn[group] = figures.over_iterations(metrics, curves, shown)
    if metrics.get("difference", "test", f"log-{max(LOGS)}-dpo", against=f"log-{max(LOGS)}"):
        drawn["dose_response"] = figures.dose_response(metrics, LOGS)
    sampled = [name for name in words if metrics.get("pass", str(PASS_AT[0]), name)]
    if sampled:  # the SFT policy is the same in all of them
        labels = {f"{sampled[0]}/{BASE}": BASE.upper(), **{name: name for name in sampled}}
        drawn["pass_at_n"] = figures.pass_at_n(metrics, labels)
    return [figure.save(folder / f"{name}.png") for name, figure in drawn.items()]


def keep(out: Path, target: Path = REFERENCE_RUNS) -> Path:
    """Copy a study's records and reports to ``data/reference_runs/<profile>/study``, or that of a profile's budget.

    Raises:
        ValueError: there is nothing to keep, or more was set than a budget.
    """
    name = report.kept_name(*read_arms(out)[1:])
    summarise(out)
    home, seconds = target / name / "study", kept_seconds(name, target) | seconds_by_kind(out / "stages")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(out / "arms", home / "arms", ignore=shutil.ignore_patterns(".*", "*.tmp"))
    write_json(home / "seconds.json", seconds)
    for file in (*out.glob("*.json"), *out.glob("*.md")):
        shutil.copy(file, home)
    return home


def answers(out: Path) -> dict[tuple[str, int], dict[str, list[int]]]:
    """Right (1) or wrong (0) of every test problem, in the order of `questions`, from a study's records.

    Returns:
        By arm and seed, then by policy: ``answers(folder)["mdpo", 100]["mdpo-3"]``.

    Raises:
        ValueError: no record, or records of different profiles or settings.
    """
    return {
        (arm, seed): {policy: list(map(int, letters)) for policy, letters in record["outcomes"].items()}
        for arm, records in read_arms(out)[0].items()
        for seed, record in records.items()
    }


def questions(out: Path) -> dict[str, Any]:
    """A study's ``world``, and its test ``problems``, each id with its family; both empty where it does not say."""
    file = out / QUESTIONS
    return read_json(file) if file.is_file() else {"world": "", "problems": {}}


def kept_seconds(name: str, source: Path = REFERENCE_RUNS) -> dict[str, float]:
    """Mean seconds by kind of stage in the study kept for a profile, or under `report.kept_name`; empty without one."""
    file = source / name / "study" / "seconds.json"
    return read_json(file) if file.is_file() else {}


def worlds(source: Path = REFERENCE_RUNS) -> list[str]:
    """The profiles of generated worlds whose studies are kept, the default's first."""
    tiny = sorted(
        (name for name, profile in PROFILES.items() if profile.model.is_tiny), key=lambda name: name != "cpu"
    )
    return [name for name in tiny if (source / name / "study" / "report.json").is_file()]


def kept(name: str = "", source: Path = REFERENCE_RUNS) -> Metrics:
    """The metrics of a kept study, without the judged claims.

    Args:
        name: of a profile, or as `report.kept_name` says; empty: the first of `worlds`.

    Raises:
        ValueError: none is kept.
    """
    name = name or next(iter(worlds(source)), "cpu")
    file = source / name / "study" / "report.json"
    if not file.is_file():
        raise ValueError(
            f"No study of profile {name} is kept: python -m mtdpo_lib study --profile {name}, "
            "then the same with --keep."
        )
    found = Metrics.from_dicts(row for row in read_json(file) if "verdict" not in row)
    found.profile = name
    return found


def variants(profile: str, source: Path = REFERENCE_RUNS) -> dict[str, Metrics]:
    """The kept studies of a profile with other settings, by what was set, e.g. ``problems.level=1,problems.wordings=4``."""
    homes = sorted(file.parent.parent for file in source.glob(f"{profile}/{report.SET}/*/study/report.json"))
    return {home.name: kept(home.relative_to(source).as_posix(), source) for home in homes}


# --- Words ---


def measured_arms(metrics: Metrics, names: Iterable[str] = ()) -> dict[str, str]:
    """Those of the arms (of all) that have an accuracy, to what they are in words."""
    names = names or dict.fromkeys([*ARMS, *(metric.arm for metric in metrics.select(kind="accuracy"))])
    return {name: known_arm(name).what for name in names if metrics.get("accuracy", "test", name)}


def caption(metrics: Metrics) -> str:
    """What the table of arms rests on: problems, seeds, and the word for one seed."""
    return rests_on(metrics.select(kind="accuracy"), "test problems")


def arm_rows(metrics: Metrics) -> Table:
    """The table of arms: accuracy, gain over SFT, difference from the rival, and what it cost."""
    head = ["arm", "what", "greedy accuracy (%)", "gain over SFT (points)", "against its rival (points)"]
    rows = []
    for name, what in measured_arms(metrics).items():
        rival = known_arm(name).against
        difference = metrics.get("difference", "test", name, against=rival)
        row = [name, what, in_words(metrics.get("accuracy", "test", name))]
        row.append(in_words(metrics.get("gain", "test", name), sign=True))
        row.append(f"{difference.in_words(sign=True)} {rival}" if difference else "")
        costs = (metrics.get("cost", cost, name) for cost in COSTS)
        rows.append(row + [cost.value_in_words(digits=0) if cost else "" for cost in costs])
    return [*head, *COSTS.values()], rows


def pass_sentence(metrics: Metrics, arm: str = "mdpo") -> str:
    """One sample and many, before and after an arm; empty where it was not sampled often."""
    shares = {}
    for n in PASS_AT:
        before, after = (metrics.get("pass", str(n), policy) for policy in (f"{arm}/{BASE}", arm))
        if before and after:
            shares[n] = f"pass@{n} {before.in_words()} before and {after.in_words()} after"
    if not shares:
        return ""
    first, last = min(shares), max(shares)
    questions = metrics.select(kind="pass", arm=arm)[0].n
    return f"Sampled {last} times, {arm}: {shares[first]}; {shares[last]}, in per cent; n = {questions} test problems."


# --- From records to metrics ---


def read_arms(out: Path) -> tuple[ByArm, str, str]:
    """All records by arm (in the order of `ARMS`) and seed, their profile, and what was set."""
    records = [read_json(file) for file in sorted((out / "arms").glob("*.json"))]
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


def _metrics(by_arm: ByArm, families: Mapping[str, str]) -> Metrics:
    """All metrics; `families` says which family each test problem belongs to, by its id and in order."""
    everyone = list(families.values())
    of_answers = (
        *(source(by_arm, everyone) for source in (_accuracies, _contrasts)),
        _pass_metrics(by_arm, families),
    )
    of_seeds = (source(by_arm) for source in (_iteration_metrics, _checkpoints, _costs))
    return Metrics(metric for metric in chain(*of_answers, *of_seeds) if metric is not None)


def _accuracies(by_arm: ByArm, families: Sequence[str]) -> Iterator[Metric | None]:
    """Each arm's accuracy and gain over its SFT policy, by iteration too, and the difference from its rival."""
    for name, records in by_arm.items():
        rival = known_arm(name).against
        over_questions = partial(_over_questions, by_arm, families, arm=name)
        for split, which in (("test", LAST), ("selected", SELECTED)):
            end = (name, which)
            yield over_questions("accuracy", [end], split=split)
            yield over_questions("gain", [end, (name, START)], split=split)
            yield over_questions("difference", [end, (rival, which)], split=split, against=rival)
        last = max(len(record["policies"]) for record in records.values()) - 1
        for number in range(1, last + 1):
            own, theirs = (name, number), (rival, number)
            yield over_questions("accuracy", [own], iteration=number)
            yield over_questions("accuracy", [own, theirs], iteration=number, against=rival)
        if last > 1:
            yield over_questions("accuracy", [(name, last), (name, 1)], iteration=last, since=1)


def _contrasts(by_arm: ByArm, families: Sequence[str]) -> Iterator[Metric | None]:
    """Differences between arms that are not each other's rivals."""
    over_questions = partial(_over_questions, by_arm, families)
    for one, other in CONTRASTS:
        ends = [(one, LAST), (other, LAST)]
        yield over_questions("difference", ends, split="test", arm=one, against=other)
    for one, other in FIRST_CONTRASTS:
        yield over_questions("accuracy", [(one, 1), (other, 1)], iteration=1, arm=one, against=other)
    for one, other in GAIN_CONTRASTS:
        gains = [(one, LAST), (one, START), (other, LAST), (other, START)]  # a gain minus a gain
        yield over_questions("gain", gains, split="test", arm=one, against=other)


def _over_questions(
    by_arm: ByArm, families: Sequence[str], kind: str, policies: Sequence[PolicyOf], **fields: Any
) -> Metric | None:
    """First minus second (minus third plus fourth) policy, paired on the questions, over the seeds that have all."""
    signs = (1, -1, -1, 1)
    table: dict[int, list[float]] = {}
    for seed in sorted({seed for records in by_arm.values() for seed in records}):
        rows = [right for policy in policies if (right := _right(by_arm, policy, seed)) is not None]
        if len(rows) == len(policies):
            signed = ([sign * right for right in row] for sign, row in zip(signs, rows, strict=False))
            table[seed] = [sum(column) for column in zip(*signed, strict=True)]
    return _from_table(table, families, proportion=len(policies) == 1, kind=kind, **fields)


def _right(by_arm: ByArm, policy: PolicyOf, seed: int) -> list[int] | None:
    """Right (1) or wrong (0) of every test problem; None where it was not measured."""
    arm, iteration = policy
    record = by_arm.get(arm, {}).get(seed)
    if record is None or (iteration is not SELECTED and iteration >= len(record["policies"])):
        return None
    name = record.get("selected") if iteration is SELECTED else record["policies"][iteration]
    return [int(letter) for letter in record["outcomes"].get(name, "")] or None


def _pass_metrics(by_arm: ByArm, families: Mapping[str, str]) -> Iterator[Metric | None]:
    """pass@n of each arm that was sampled often, of its SFT policy, and what it gained over SFT; after every iteration where
    all were sampled."""
    for name, records in by_arm.items():
        sampled = {seed: record for seed, record in records.items() if record.get("right of many")}
        own = _families_asked_often(sampled, families)
        right = [
            {seed: record["right of many"][record["policies"][end]] for seed, record in sampled.items()}
            for end in (LAST, START)
        ]
        samples = max((samples_of_many(record) for record in sampled.values()), default=0)
        for n in (n for n in PASS_AT if n <= samples):
            chance = partial(stats.pass_at_n, samples=samples, n=n)
            ours, theirs = ({seed: list(map(chance, row)) for seed, row in rows.items()} for rows in right)
            gains = {seed: [a - b for a, b in zip(ours[seed], theirs[seed], strict=True)] for seed in sampled}
            of_n = partial(_from_table, families=own, kind="pass", split=str(n), arm=name)
            yield of_n(ours, proportion=True)
            yield of_n(theirs, proportion=True, iteration=START, policy=f"{name}/{BASE}")
            yield of_n(gains, against=BASE)
        yield from _pass_curve(name, sampled, own)


def samples_of_many(record: dict[str, Any]) -> int:
    """How often a policy answered a problem for pass@n; version 0.2.0, always 64 times, did not write it down."""
    return record.get("samples of many", PASS_AT[-1])


def _families_asked_often(records: dict[int, dict[str, Any]], families: Mapping[str, str]) -> list[str]:
    """Of the problems that were sampled often; version 0.2.0 took every so many-th and did not write it down."""
    if not (records and families):
        return []
    record = next(iter(records.values()))
    count, everyone = len(next(iter(record["right of many"].values()))), list(families)
    return [families[one] for one in record.get("asked often") or everyone[:: len(everyone) // count][:count]]


def _pass_curve(
    name: str, records: dict[int, dict[str, Any]], families: Sequence[str]
) -> Iterator[Metric | None]:
    """The share of problems that one of many samples solves, after every iteration of an arm; of SFT as number 0."""
    names = next((record["policies"] for record in records.values()), [])
    samples = max(map(samples_of_many, records.values()), default=0)
    if all(set(names) <= record["right of many"].keys() for record in records.values()):
        for number, policy in enumerate(names):
            solved = {
                seed: [float(right > 0) for right in record["right of many"][policy]]
                for seed, record in records.items()
            }
            yield _from_table(
                solved, families, proportion=True, kind=PASS_CURVE.format(samples), arm=name, iteration=number
            )


def _iteration_metrics(by_arm: ByArm) -> Iterator[Metric | None]:
    """The facts of each iteration, from the first to the last one, and against the rival's."""

    def fact(arm: str, name: str, number: int) -> Values:
        known = {seed: record.get("iterations", []) for seed, record in by_arm.get(arm, {}).items()}
        return {
            seed: rows[number - 1][name]
            for seed, rows in known.items()
            if len(rows) >= number and name in rows[number - 1]
        }

    for arm, records in by_arm.items():
        rival = known_arm(arm).against
        last = max(len(record.get("iterations", [])) for record in records.values())
        for name, unit in FACTS.items():
            of_fact = partial(_from_values, kind=name, unit=unit, arm=arm)
            for number in range(1, last + 1):
                own, rivals = fact(arm, name, number), fact(rival, name, number)
                yield of_fact(own, proportion=unit == "fraction", iteration=number)
                yield of_fact(_minus(own, rivals), iteration=number, against=rival)
            if last > 1:
                change = _minus(fact(arm, name, last), fact(arm, name, 1))
                yield of_fact(change, iteration=last, since=1)


def _checkpoints(by_arm: ByArm) -> Iterator[Metric | None]:
    """What the last kept step of the last training is worth against the first one."""
    for arm, records in by_arm.items():
        steps = {seed: list(record.get("development", {}).values()) for seed, record in records.items()}
        changes = {seed: values[-1] - values[0] for seed, values in steps.items() if len(values) > 1}
        yield _from_values(changes, kind="development", split="last-minus-first", arm=arm)


def _costs(by_arm: ByArm) -> Iterator[Metric | None]:
    for arm, records in by_arm.items():
        for cost, unit in COSTS.items():
            values = {seed: {**record, **record["cost"]}[unit] for seed, record in records.items()}
            yield _from_values(values, kind="cost", unit=unit, split=cost, arm=arm)


def _minus(ours: Values, theirs: Values) -> Values:
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def _from_table(
    table: dict[int, list[float]], families: Sequence[str], proportion: bool = False, **fields: Any
) -> Metric | None:
    """A metric with one number per seed and question; None without seeds."""
    if not table:
        return None
    rows = list(table.values())
    means, n = {seed: sum(row) / len(row) for seed, row in table.items()}, len(rows[0])
    return _metric(stats.over_seeds(rows, families=families), means, proportion, n=n, **fields)


def _from_values(values: Values, proportion: bool = False, **fields: Any) -> Metric | None:
    """A metric with one number per seed; None without seeds, no interval with one."""
    if not values:
        return None
    each = list(values.values())
    if len(each) == 1:
        return Metric(value=each[0], n=1, seeds=tuple(values), each=tuple(each), **fields)
    return _metric(stats.mean_interval(each), values, proportion, n=len(each), **fields)


def _metric(estimate: stats.Estimate, each: Values, proportion: bool, **fields: Any) -> Metric:
    value, low, high = stats.of_proportion(estimate) if proportion else estimate
    return Metric(value=value, low=low, high=high, seeds=tuple(each), each=tuple(each.values()), **fields)
