"""A study: arms of the method over seeds, each differing from another in one thing, from shared stages.

Arms of a seed share what they have in common (demonstrations, SFT, iteration 1's samples), because all keep their stages in
one folder under keys made from content. A study can be stopped and started at any point; seeds and arms can be added later.

    python -m mtdpo_lib study --seeds 0-2 --arms mdpo,fixed --plan     what would be computed, and for how long
    python -m mtdpo_lib study --seeds 0-2 --arms mdpo,fixed            the same, computed

**Paper:** the comparisons of sec. 3.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtdpo_lib import claims, stats
from mtdpo_lib.evaluate import Outcome
from mtdpo_lib.iterate import DATA_SEED, Experiment, load_pairs
from mtdpo_lib.models import Policy, load_for_sampling, load_tokenizer
from mtdpo_lib.problems import load_problems
from mtdpo_lib.profiles import (
    ModelSettings,
    ProblemSettings,
    Profile,
    RolloutSettings,
    SandboxSettings,
    SettingError,
    get_profile,
)
from mtdpo_lib.progress import Progress
from mtdpo_lib.records import settings_hash, versions, write_json
from mtdpo_lib.rollout import load_trajectories, rollout
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.seeds import small_stream
from mtdpo_lib.stages import Product, StageStore
from mtdpo_lib.workers import run_here

Change = Callable[[Profile], Profile]
REFERENCE_RUNS = Path(__file__).resolve().parent.parent / "data" / "reference_runs"
BASE = "sft"  # what every arm's gain is taken over: the SFT policy under the arm's own tool


def section(name: str, **values: Any) -> Change:
    """A change of settings in one section of a profile."""
    return lambda profile: replace(profile, **{name: replace(getattr(profile, name), **values)})


def times_eta(factor: float) -> Change:
    """Another KL coefficient, relative to the profile's own."""
    return lambda profile: section("preference", eta=profile.preference.eta * factor)(profile)


def _sft_epochs(count: int) -> Change:
    """A shorter SFT; iteration 1 then samples from its end twice where it has one epoch only."""
    return section("sft", epochs=count, early_epochs=min(count, 2))


def _logs(lines: int, **preference: Any) -> tuple[Change, ...]:
    """Results below a log of so many lines, from one SFT policy that knows logs of every length, with room for them."""

    def longer(profile: Profile) -> Profile:
        most = profile.rollout.max_tokens * 8 // 5
        profile = section("rollout", max_tokens=most, log_lines=lines)(profile)
        return section("problems", log_lines=max(LOGS))(section("pairs", max_tokens=most)(profile))

    return (longer, section("preference", **preference))


NOISE = 0.3  # of the random tool: three answers of ten are off by one
LOGS = (0, 2, 6)  # lines above each result: the doses of long tool output


@dataclass(frozen=True)
class Arm:
    """One way to run the method.

    Attributes:
        name: short, for files and figures.
        what: what it is, in words.
        against: the arm that differs in one thing only, "sft" for none.
        changes: what is changed in the profile.
        mixture: False samples from the current policy only.
        iterations: how many; 0: the profile's.
        judge_first: evaluates the policy of iteration 1 too, not only the last one.
        pass_at_n: samples SFT and the last policy many times on some test problems.
    """

    name: str
    what: str
    against: str = "mdpo"
    changes: tuple[Change, ...] = ()
    mixture: bool = True
    iterations: int = 0
    judge_first: bool = False
    pass_at_n: bool = False

    def profile(self, base: Profile) -> Profile:
        """The profile with this arm's changes; arms are compared by their greedy answers only."""
        base = section("evaluation", sampled=0)(base)
        for change in self.changes:
            base = change(base)
        return replace(base, iterations=self.iterations) if self.iterations else base


def _method(name: str, what: str, against: str = "mdpo", **more: Any) -> Arm:
    return Arm(name, what, against, changes=(section("preference", method=name),), **more)


_NOISY = section("rollout", tool_noise=NOISE)
_CORRECTED = section("preference", stochastic_tool_correction=16)
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("mdpo", "M-DPO as the paper runs it: updated reference, mixture sampling", BASE,
            judge_first=True, pass_at_n=True),
        _method("mkto", "M-KTO"),
        _method("raft", "RAFT: right trajectories only", judge_first=True),
        _method("dpo", "single-turn DPO: the tool's output is scored"),
        _method("kto", "single-turn KTO: the tool's output is scored", "mkto"),
        Arm("fixed", "the SFT policy stays the reference", changes=(section("preference", reference="fixed"),),
            pass_at_n=True),
        Arm("eta-low", "a tenth of the KL coefficient", changes=(times_eta(0.1),), judge_first=True),
        Arm("eta-high", "five times the KL coefficient", changes=(times_eta(5.0),)),
        Arm("on-policy", "all samples from the current policy", mixture=False),
        Arm("n-3", "a third of the samples a prompt",
            changes=(section("rollout", samples_current=2, samples_previous=1),)),
        Arm("n-18", "twice the samples a prompt",
            changes=(section("rollout", samples_current=12, samples_previous=6),)),
        Arm("nll", "with the NLL term, coefficient 1", changes=(section("preference", nll_coefficient=1.0),)),
        Arm("random-step", "a random one of the kept steps instead of the best on development prompts",
            changes=(section("preference", checkpoint_choice="random"),)),
        Arm("raft-3", "one iteration of RAFT with up to three right trajectories a prompt", BASE,
            changes=(section("preference", method="raft"), section("pairs", pairs_per_prompt=3)), iterations=1),
        Arm("sft-1", "from one epoch of SFT", changes=(_sft_epochs(1),)),
        Arm("sft-2", "from two epochs of SFT", changes=(_sft_epochs(2),)),
        Arm("underfit", "one iteration from one epoch of SFT", BASE, changes=(_sft_epochs(1),), iterations=1),
        Arm("underfit-nll", "the same with the NLL term", "underfit",
            changes=(_sft_epochs(1), section("preference", nll_coefficient=1.0)), iterations=1),
        Arm("noisy", f"one iteration with a tool that is one off with probability {NOISE}", BASE,
            changes=(_NOISY,), iterations=1),
        Arm("noisy-corrected", "the same with the adaptive margin, 16 further answers each", "noisy",
            changes=(_NOISY, _CORRECTED), iterations=1),
        Arm("noisy-dpo", "the same with the tool's output scored", "noisy",
            changes=(_NOISY, section("preference", method="dpo")), iterations=1),
        *(Arm(f"log-{lines}", f"one iteration, the tool's results below {lines} lines of a log", BASE,
              changes=_logs(lines), iterations=1) for lines in LOGS),
        *(Arm(f"log-{lines}-dpo", "the same with the tool's output scored", f"log-{lines}",
              changes=_logs(lines, method="dpo"), iterations=1) for lines in LOGS),
    )
}  # fmt: skip
# pass@n, Figure 2: samples a question, at a temperature, on the first test problems; and the n that are told.
PASS_SAMPLES, PASS_TEMPERATURE, PASS_PROBLEMS = 64, 0.7, 120
PASS_AT = (1, 2, 4, 8, 16, 32, 64)
LOOK_SECONDS = 5.0  # between two looks at what is done
FIRST = "-first"  # an arm's policy after iteration 1
# Differences beside those of each arm and its rival.
CONTRASTS = (
    ("mdpo", "mdpo" + FIRST), ("eta-low" + FIRST, "mdpo" + FIRST), ("dpo", "raft"), ("raft-3", "raft" + FIRST),
)  # fmt: skip


def parse_seeds(text: str) -> list[int]:
    """``"0-2,5"`` to [0, 1, 2, 5].

    Raises:
        SettingError: not of that form.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        raise SettingError(f"Seeds are written like 0-2 or 0,3,5; got {text!r}.") from None
    if not seeds:
        raise SettingError(f"Seeds are written like 0-2 or 0,3,5; {text!r} names none.")
    return list(dict.fromkeys(seeds))


def parse_arms(text: str) -> list[Arm]:
    """Names, separated by commas, to arms with those they are compared with; empty: all.

    Raises:
        SettingError: an unknown name.
    """
    wanted = [name for name in text.split(",") if name] or list(ARMS)
    for name in wanted:
        if name not in ARMS:
            raise SettingError(f"Unknown arm {name!r}: known are {', '.join(ARMS)}.")
    needed = [ARMS[name].against for name in wanted if ARMS[name].against != BASE]
    return [arm for name, arm in ARMS.items() if name in {*wanted, *needed}]


# --- The plan ---


class _Planned(Experiment):
    """The same graph of stages, asked but never made."""

    def _get(self, name: str, work: Any, inputs: dict[str, Any], notebook: str | None = None) -> Product:
        product = self.store.product(name, inputs)
        self.made.append(product)
        return product


@dataclass
class Plan:
    """What a study has still to compute.

    Attributes:
        missing: stages to make, by kind.
        kept: stages that are there.
        seconds: projected, from kept stages of the same kinds; None while a kind has never been made.
    """

    missing: Counter = field(default_factory=Counter)
    kept: int = 0
    seconds: float | None = 0.0

    def sentence(self, jobs: int = 1) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.missing.items()))
        if not kinds:
            return f"Nothing to compute: all {self.kept} stages are kept."
        time_left = (
            "not projected yet" if self.seconds is None else f"about {self.seconds / 60 / jobs:.0f} min"
        )
        return f"To compute: {kinds} ({self.kept} stages are kept); {time_left}."


def make_plan(profile: Profile, seeds: Sequence[int], arms: Sequence[Arm], out: Path) -> Plan:
    """Every stage that `arms` need over `seeds`, once."""
    plan, seen = Plan(), set()
    costs: dict[str, list[float]] = {}
    for manifest in (out / "stages").glob("*/manifest.json"):
        kind = manifest.parent.name.rpartition("-")[0]
        costs.setdefault(kind, []).append(json.loads(manifest.read_text(encoding="utf8"))["seconds"])
    for seed in seeds:
        for arm in arms:
            planned = _Planned(arm.profile(profile), seed, out)
            run_arm(planned, arm, results=False)
            for product in planned.made:
                if product.path in seen:
                    continue
                seen.add(product.path)
                if planned.store.is_kept(product):
                    plan.kept += 1
                else:
                    plan.missing[product.path.name.rpartition("-")[0]] += 1
    known = {kind: statistics.median(seconds) for kind, seconds in costs.items()}
    unknown = set(plan.missing) - set(known)
    plan.seconds = None if unknown else sum(count * known[kind] for kind, count in plan.missing.items())
    return plan


# --- One arm of one seed ---


def run_arm(experiment: Experiment, arm: Arm, results: bool = True) -> dict[str, Any]:
    """All iterations of an arm and its evaluations.

    Args:
        experiment: of the arm's own profile.
        arm: which.
        results: False only asks for the products.

    Returns:
        The arm's record but for names; empty without `results`.
    """
    policies, iterations = [experiment.sft_policy()], []
    for number in range(1, experiment.profile.iterations + 1):
        name = f"{arm.name}-{number}"
        iterations.append(experiment.iteration(number, policies, name=name, mixture=arm.mixture))
        policies.append(iterations[-1].policy)
    judged = [policies[0], *(policies[1:2] if arm.judge_first else []), policies[-1]]
    judged = list(dict.fromkeys(judged))
    for policy in judged:
        experiment.evaluation(policy)
    many = {
        policy: sample_often(experiment, policy) for policy in judged[:: len(judged) - 1] if arm.pass_at_n
    }
    if not results:
        return {}
    greedy = {policy.name: experiment.outcomes(policy)["greedy"] for policy in judged}
    sampled_tokens = trained_tokens = pairs = trajectories = 0
    settings = experiment.profile.preference
    for iteration in iterations:
        rows = load_trajectories(iteration.rollouts.path / "trajectories.jsonl")
        own = load_pairs(iteration.pairs, iteration.rollouts)
        trajectories += len(rows)
        sampled_tokens += sum(len(row.ids) - row.prompt_length for row in rows)
        pairs += len(own)
        sides = 1 if settings.method == "raft" else 2
        trained_tokens += round(
            settings.epochs
            * sum(len(side.ids) for pair in own for side in (pair.chosen, pair.rejected)[:sides])
        )
    selection = json.loads((iterations[-1].selection.path / "selection.json").read_text(encoding="utf8"))
    return {
        "outcomes": {name: _letters(rows) for name, rows in greedy.items()},
        "first": policies[1].name,
        "policy": policies[-1].name,
        "right of many": {
            policy.name: json.loads((product.path / "right.json").read_text(encoding="utf8"))
            for policy, product in many.items()
        },
        "development": selection["development"],
        "selected": selection["selected"],
        "training": _means(iterations[-1].training),
        "cost": {
            "trajectories": trajectories,
            "sampled tokens": sampled_tokens,
            "pairs": pairs,
            "trained tokens": trained_tokens,
        },
        "seconds": round(experiment.seconds(), 1),
    }


def _means(training: Product) -> dict[str, float]:
    """Means over a training's log: the margin, what the adaptive margin adds to it ("luck", where there is one), and what
    part of the gradient tool tokens have where the loss scores them."""
    log = json.loads((training.path / "log.json").read_text(encoding="utf8"))
    found = {}
    for name in ("margin", "luck", "tool_gradient_share"):
        values = [row[name] for row in log if row.get(name) is not None]
        if values:
            found[name] = round(statistics.mean(values), 6)
    return found


def sample_often(experiment: Experiment, policy: Policy) -> Product:
    """How many of `PASS_SAMPLES` samples are right, for each of the first test problems: ``right.json``."""
    profile = experiment.profile
    inputs = {
        "policy": policy,
        "problems": replace(profile.problems, demonstrations=1, prompts_per_iteration=1, development=1),
        "model": profile.model,
        "settings": replace(profile.rollout, samples_current=1, samples_previous=1),
        "sandbox": profile.sandbox,
        "samples": PASS_SAMPLES,
        "temperature": PASS_TEMPERATURE,
        "questions": PASS_PROBLEMS,
        "seed": experiment.seed,
    }
    return experiment._get("samples", make_samples, inputs)


def make_samples(
    folder: Path,
    policy: Policy,
    problems: ProblemSettings,
    model: ModelSettings,
    settings: RolloutSettings,
    sandbox: SandboxSettings,
    samples: int,
    temperature: float,
    questions: int,
    seed: int,
) -> None:
    """Stage work of `sample_often`. The questions are spread evenly over the test problems."""
    tested = load_problems(problems, "test", problems.test, DATA_SEED)
    asked = tested[:: max(len(tested) // questions, 1)][:questions]
    network, tokenizer = load_for_sampling(policy, model), load_tokenizer(policy)
    with SandboxPool(sandbox) as pool:
        rows = rollout(
            network, tokenizer, asked, samples, settings, pool, policy=policy.name,
            seed=small_stream(seed, "pass"), temperature=temperature,
            progress=Progress(f"pass@n of {policy.name}", "trajectories"),
        )  # fmt: skip
    right = Counter(row.problem_id for row in rows if row.correct)
    write_json(folder / "right.json", [right[problem.id] for problem in asked])


def _letters(outcomes: Sequence[Outcome]) -> str:
    return "".join(str(int(one.correct)) for one in outcomes)


def run_arms(profile: Profile, tasks: Iterable[tuple[int, str]], out: Path) -> None:
    """Arms of seeds, each given as (seed, arm's name); each leaves ``out/arms/<arm>-seed<seed>.json``."""
    for seed, name in tasks:
        arm = ARMS[name]
        own = arm.profile(profile)
        record = run_arm(Experiment(own, seed, out), arm)
        head = {"arm": name, "what": arm.what, "against": arm.against, "seed": seed}
        facts = {"profile": profile.name, "settings_hash": settings_hash(own, seed), "versions": versions()}
        write_json(out / "arms" / f"{name}-seed{seed}.json", {**head, **facts, **record})


# --- The study ---


def study(
    profile_name: str, settings: Sequence[str], seeds: Sequence[int], arms: Sequence[Arm], out: Path, jobs: int,
    plan_only: bool = False, say: Callable[[str], None] = print, run: Callable[..., bool] = run_here,
) -> int:  # fmt: skip
    """Plan, compute and summarise; see the module.

    Args:
        jobs: arms computed at one time, in as many processes.
        run: computes all: here, or on a cluster (`mtdpo_lib.cluster.connect`).

    Returns:
        0, or 1 when an arm failed.

    Raises:
        CorruptStage: a kept product is damaged.
    """
    profile = get_profile(profile_name, list(settings))
    StageStore(out / "stages").verify_all()
    plan, count = make_plan(profile, seeds, arms, out), len(seeds) * len(arms)
    say(f"{len(arms)} arms ({', '.join(arm.name for arm in arms)}), seeds {', '.join(map(str, seeds))}.")
    say(plan.sentence(jobs))
    if plan_only:
        return 0
    start, told = time.time(), 0
    with ThreadPoolExecutor(1) as executor:
        names = [arm.name for arm in arms]
        running = executor.submit(run, profile_name, settings, seeds, names, out, jobs)
        while not wait([running], timeout=LOOK_SECONDS).done:
            done = sum(file.stat().st_mtime > start for file in (out / "arms").glob("*.json"))
            if done > told:
                told, left = done, make_plan(profile, seeds, arms, out).seconds
                rest = "" if left is None else f", about {left / 60 / jobs:.0f} min to go"
                say(f"{done} of {count} arms, {(time.time() - start) / 60:.0f} min{rest}")
    say(f"Results: {summarise(out)}")
    return 0 if running.result() else 1


def summarise(out: Path) -> Path:
    """``study.json``, ``study.csv``, the verdicts (``claims.json``) and ``figures/``, from the arms' records alone.

    Raises:
        ValueError: no record, or records of different profiles.
    """
    records = [json.loads(file.read_text(encoding="utf8")) for file in sorted((out / "arms").glob("*.json"))]
    if not records:
        raise ValueError(f"There is no arm's record in {out / 'arms'}: run the study first.")
    if len({record["profile"] for record in records}) > 1:
        raise ValueError(f"The arms in {out} were run with different profiles: use one folder for each.")
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for record in records:
        by_arm.setdefault(record["arm"], {})[record["seed"]] = record
    ordered = [name for name in ARMS if name in by_arm]
    metrics = _metrics({name: by_arm[name] for name in ordered})
    write_json(out / "study.json", metrics)
    write_json(out / "claims.json", claims.judge(metrics, get_profile(records[0]["profile"]).claims))
    with (out / "study.csv").open("w", newline="", encoding="utf8") as stream:
        table = csv.DictWriter(stream, ["name", "value", "low", "high", "n", "seeds"], extrasaction="ignore")
        table.writeheader()
        table.writerows({**metric, "seeds": " ".join(map(str, metric["seeds"]))} for metric in metrics)
    draw(metrics, out / "figures")
    return out / "study.json"


def draw(metrics: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """The figures of a study from its metrics alone."""
    from mtdpo_lib import plots

    known = {metric["name"] for metric in metrics}
    words = {name: arm.what for name, arm in ARMS.items() if f"accuracy/test/{name}" in known}
    figures = {"arms": plots.arms(metrics, words)}
    if f"difference/test/log-{max(LOGS)}-dpo-minus-log-{max(LOGS)}" in known:
        figures["dose_response"] = plots.dose_response(metrics, LOGS)
    sampled = [name for name in words if f"pass/{PASS_AT[0]}/{name}" in known]
    if sampled:  # the SFT policy is the same in all of them
        labels = {f"{sampled[0]}/{BASE}": BASE.upper(), **{name: name for name in sampled}}
        figures["pass_at_n"] = plots.pass_at_n(metrics, labels)
    return [figure.save(folder / f"{name}.png") for name, figure in figures.items()]


def keep(out: Path, target: Path = REFERENCE_RUNS) -> Path:
    """Copy a study's records and summary to ``data/reference_runs/study-<profile>``.

    Raises:
        ValueError: there is nothing to keep.
    """
    summarise(out)
    files = sorted((out / "arms").glob("*.json"))
    home = target / f"study-{json.loads(files[0].read_text(encoding='utf8'))['profile']}"
    shutil.rmtree(home, ignore_errors=True)
    (home / "arms").mkdir(parents=True)
    for file in files:
        shutil.copy(file, home / "arms")
    for name in ("study.json", "study.csv", "claims.json"):
        shutil.copy(out / name, home)
    return home


def _right(by_arm: dict[str, dict[int, dict[str, Any]]], name: str, seed: int) -> list[int] | None:
    """Right (1) or wrong (0) of every test problem: of an arm, its first iteration or its SFT policy (``arm/sft``)."""
    arm, _, base = name.removesuffix(FIRST).partition("/")
    record = by_arm.get(arm, {}).get(seed)
    if record is None:
        return None
    policy = base or record["first" if name.endswith(FIRST) else "policy"]
    letters = record["outcomes"].get(policy)
    return None if letters is None else [int(letter) for letter in letters]


def _metrics(by_arm: dict[str, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each arm's accuracy and gain over its SFT policy, the difference from its rival, the other contrasts, the costs."""
    asked: dict[str, tuple[str, str | None]] = {}
    for name in by_arm:
        asked[f"accuracy/test/{name}"] = name, None
        asked[f"gain/test/{name}"] = name, f"{name}/{BASE}"
        if ARMS[name].against != BASE:
            asked[f"difference/test/{name}-minus-{ARMS[name].against}"] = name, ARMS[name].against
    asked |= {f"difference/test/{one}-minus-{other}": (one, other) for one, other in CONTRASTS}
    found = []
    for label, (one, other) in asked.items():
        table = {}
        for seed in sorted({seed for records in by_arm.values() for seed in records}):
            ours = _right(by_arm, one, seed)
            theirs = [0] * len(ours or ()) if other is None else _right(by_arm, other, seed)
            if ours is not None and theirs is not None:
                table[seed] = [a - b for a, b in zip(ours, theirs, strict=True)]
        if table:
            value, low, high = stats.over_seeds(list(table.values()))
            if other is None:  # Student's interval knows no bounds, a proportion does
                low, high = max(low, 0.0), min(high, 1.0)
            found.append(
                _metric(label, (value, low, high), len(next(iter(table.values()))), "fraction", table)
            )
    found += _pass_metrics(by_arm)
    for name, records in by_arm.items():
        for part in next(iter(records.values())).get("training", {}):
            values = [record["training"][part] for record in records.values()]
            unit = "fraction" if part == "tool_gradient_share" else "utility"
            found.append(_metric(f"training/{part}/{name}", _over_runs(values), len(records), unit, records))
        for cost in next(iter(records.values()))["cost"]:
            values = [record["cost"][cost] for record in records.values()]
            label = f"cost/{cost.replace(' ', '-')}/{name}"
            found.append(_metric(label, _over_runs(values), len(records), cost, records))
    return found


def _over_runs(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Mean of one number a seed, with its interval where there are several."""
    return stats.mean_interval(values) if len(values) > 1 else (values[0], None, None)


def _pass_metrics(by_arm: dict[str, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """pass@n of each arm that was sampled often, of its SFT policy, and what it gained over SFT."""
    found = []
    for name, records in by_arm.items():
        counts = {
            seed: record["right of many"] for seed, record in records.items() if record.get("right of many")
        }
        for n in PASS_AT if counts else ():
            ours, theirs = (
                [
                    [stats.pass_at_n(right, PASS_SAMPLES, n) for right in counts[seed][policy]]
                    for seed, policy in policies
                ]
                for policies in (
                    [(seed, records[seed]["policy"]) for seed in counts],
                    [(seed, BASE) for seed in counts],
                )
            )
            gains = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(ours, theirs, strict=True)]
            for label, table in ((name, ours), (f"{name}/{BASE}", theirs), (f"{name}-minus-{BASE}", gains)):
                estimate = stats.over_seeds(table)
                found.append(_metric(f"pass/{n}/{label}", estimate, len(table[0]), "fraction", counts))
    return found


def _metric(
    name: str, estimate: tuple[float, float | None, float | None], n: int, unit: str, seeds: Iterable[int]
) -> dict[str, Any]:
    value, low, high = (None if part is None else round(part, 6) for part in estimate)
    return {
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "unit": unit,
        "seeds": sorted(seeds),
    }
