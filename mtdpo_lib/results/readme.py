"""The kept records in Markdown: the README's block of results, and the page of claims beside the records."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mtdpo_lib.common.files import QUESTIONS, REFERENCE_RUNS, ROOT, read_json, read_text, whole
from mtdpo_lib.experiment.arms import ARMS, PLANNED_SEEDS
from mtdpo_lib.experiment.gate import gate
from mtdpo_lib.experiment.study import Study
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.profiles.presets import TUNED
from mtdpo_lib.results import claims, study_metrics
from mtdpo_lib.results.metric import Metrics
from mtdpo_lib.results.paper import PAPER_BASE
from mtdpo_lib.results.report import Runs, combined_runs, profile_of, real_runs
from mtdpo_lib.results.tables import markdown_table, result_rows, results_caption

README = ROOT / "README.md"
REFERENCE = REFERENCE_RUNS / "cpu"  # the runs and the study that the README shows
CLAIMS_PAGE = "claims.md"  # beside them
UNTUNED = "Its settings are the profile's own, before any `python -m mtdpo_lib tune`."
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def results_block(reference: Path = REFERENCE) -> str:
    """The README's results in Markdown: the kept runs of one profile, what they rest on, and where the claims are judged."""
    if not _runs_of(reference):
        return "No reference run is kept yet: `make reproduce` makes one on your machine.\n"
    world = next(iter(study_metrics.worlds(reference.parent)), reference.name)
    page = f"data/reference_runs/{world}/{CLAIMS_PAGE}"
    link = f"What was measured of each claim of the paper (profile `{world}`), and of a real model: [{CLAIMS_PAGE}]({page})."
    return f"{results_rows(reference)}\n\n{' '.join(_basis(reference))}\n\n{link}\n"


def results_rows(reference: Path = REFERENCE) -> str:
    """The table of the kept runs alone: SFT and each M-DPO iteration beside the paper's numbers."""
    return markdown_table(*result_rows(_combined(reference).metrics))


def claims_page(reference: Path = REFERENCE, real: Sequence[Path] = ()) -> str:
    """A page with all claims of the paper, from a kept study, and with the kept runs of `real` models."""
    parts = ["# The paper's claims, measured", _claims_text(reference)]
    for other in real:
        parts += [f"## {other.name}", _runs_text(other)]
        if (other / "study").is_dir():
            parts.append(arms_text(other))
    parts.append("Made from the records beside this page: `python -m mtdpo_lib readme`.")
    return "\n\n".join(parts) + "\n"


def arms_text(home: Path) -> str:
    """What the study beside kept runs found, an arm per line."""
    metrics, profile = _study(home), profile_of(home.name)
    budget = home.name.removeprefix(profile).removeprefix("-")
    arms = ",".join(study_metrics.measured_arms(metrics))
    command = f"python -m mtdpo_lib study --profile {profile} --arms {arms}"
    command += f" --set budget={budget}" if budget else ""
    return "\n".join([
        "The same start and samples, and other ways to learn from them. " + study_metrics.caption(metrics),
        "",
        markdown_table(*study_metrics.arm_rows(metrics)),
        "",
        *filter(None, (study_metrics.pass_sentence(metrics), f"`{command}`.")),
    ])  # fmt: skip


def _runs_of(home: Path) -> list[Path]:
    return sorted(file.parent for file in home.glob("seed*/run.json"))


def _combined(home: Path) -> Runs:
    return combined_runs(_runs_of(home))


def _study(home: Path) -> Metrics:
    return study_metrics.kept(home.name, home.parent)


def _basis(home: Path) -> list[str]:
    """What the table of the runs in `home` rests on, and what made it."""
    runs = _combined(home)
    run, cores = runs.run, next(iter(runs.records[0].values()))["provenance"]["machine"]["cores"]
    # One run's time: others may have found some of their stages kept from an earlier run.
    took = f"{round(sum(run['seconds'].values()) / 60)} minutes for seed {run['seed']} on {cores} cores"
    kind = f"`{run['profile']}`" + (f", `--set {run['settings']}`" if run["settings"] else "")
    return [
        f"{results_caption(runs.metrics)} Gains are paired with SFT, in points. Paper: {PAPER_BASE}, table 1.",
        f"Profile {kind}; the notebooks took {took}.",
        *([] if run["profile"] in TUNED else [UNTUNED]),
        *_missed_lines(home),
    ]


def _missed_lines(home: Path) -> list[str]:
    """A sentence for each line of the gate that a profile's SFT policy misses; none where the gate was not measured."""
    value = read_json(home / "gate.json")["value"] if (home / "gate.json").exists() else {}
    return [
        f"Its SFT policy misses a line of the gate: `{line.name}` is {value[line.name]:g}, {line.asked} is asked: "
        f"{line.what}."
        for line in gate()
        if line.name in value and not line.holds(value[line.name])
    ]


def _runs_text(home: Path) -> str:
    """The table of the runs in `home`, one per seed, and what it rests on."""
    run, folders = _combined(home).run, _runs_of(home)
    lines = [results_rows(home), "", *_basis(home)]
    if len(folders) > 1:
        lines.append(f"By seed, SFT and last iteration: {'; '.join(map(_ends, folders))}.")
        lines.append(f"Each seed: `python -m mtdpo_lib reproduce --profile {run['profile']} --seed N`.")
    return "\n".join(lines)


def _ends(folder: Path) -> str:
    """``0: 77.6, 96.2``: a seed's accuracy at the start and at the end, in per cent."""
    run = combined_runs([folder])
    steps = run.metrics.by_iteration("accuracy")
    return f"{run.seeds[0]}: {steps[0].value_in_words()}, {steps[max(steps)].value_in_words()}"


def _claims_text(reference: Path) -> str:
    """What the kept study says of the paper's claims: the primary ones first."""
    study = _study(reference)
    judged = claims.judge(study, get_profile(reference.name).claims)
    primary = [row for row in judged if row.claim.kind == "primary"]
    exploratory = [row for row in judged if row not in primary]
    fewest = min((len(row.seeds) for row in primary if row.measured), default=1)
    rule = inspect.cleandoc(str(claims.verdict.__doc__)).partition("\n\nArgs:")[0]
    parts = [
        _study_sentence(reference, study.seeds()) + _still_planned(reference.name, primary),
        f"## Primary claims\n\nMarked in `data/paper/claims.csv`: {claims.verdict_counts(primary)}.",
        markdown_table(*claims.rows(primary)),
        "Seeds: how many, and the sign of each one's difference. p: exact two-sided sign-flip test over seeds; the least "
        f"that so many can give is {2 / 2**fewest:.2g}. Holm p: adjusted for all {len(primary)} claims.",
        f"## Exploratory claims\n\nAll others: {claims.verdict_counts(exploratory)}.",
        markdown_table(*claims.rows(exploratory)),
        f"## The rule\n\n{rule}",
    ]
    if seconds := _seconds_of_all_arms(reference):
        parts.append(
            f"All {len(ARMS)} arms of one seed take about {seconds / 60 / 2:.0f} minutes on two cores "
            "(the mean times of this study's stages, added up)."
        )
    return "\n\n".join(parts)


def _still_planned(profile: str, primary: Sequence[claims.JudgedClaim]) -> str:
    """Says it while the study of the primary claims is not finished; empty where it is, or none was planned."""
    planned = PLANNED_SEEDS.get(profile, range(0))
    done = [len(set(planned) & set(row.measured.seeds)) if row.measured else 0 for row in primary]
    if min(done, default=0) >= len(planned):
        return ""
    return (
        f" **The study is not finished**: {min(done, default=0)} of the {len(planned)} seeds that were planned for "
        f"the primary claims ({planned[0]} to {planned[-1]}) are done, and every word below may still change."
    )


def _study_sentence(reference: Path, seeds: Sequence[int]) -> str:
    """What a study rests on, and where its answers are."""
    asked = study_metrics.questions(reference / "study")
    world = f" of the world `{asked['world']}`" if asked["world"] else ""
    count = len(set(asked["problems"].values()))
    families = f"the {count} families of " if count < len(asked["problems"]) else ""
    return (
        f"A study{world} over seeds {', '.join(map(str, seeds))} (`python -m mtdpo_lib study`). Intervals are 95% ones, "
        f"over seeds and {families}its test problems. Every answer of every arm and seed is kept in `study/arms`, a 1 or 0 "
        f"for each problem in the order of `study/{QUESTIONS}`; `mtdpo_lib.results.study_metrics.answers` reads them."
    )


def _seconds_of_all_arms(reference: Path) -> float | None:
    """Computing time of one seed of a whole study; None where the kept study does not tell."""
    known = study_metrics.kept_seconds(reference.name, reference.parent)
    if not known:
        return None
    with tempfile.TemporaryDirectory() as nothing_made:
        return Study(reference.name, (), [0], list(ARMS), Path(nothing_made), known).plan().seconds


def readme_with_results(text: str, block: str) -> str:
    """`text` with everything between the two markers replaced by `block`.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The README needs the markers {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{block}{END}{after}"


def update_readme(check: bool = False, readme: Path = README, reference: Path = REFERENCE) -> bool:
    """Write the results into the README, and a page of claims beside the kept study of each generated world.

    Args:
        check: only say whether they are there.
        readme: the README.
        reference: where the runs and the study are kept.

    Returns:
        True where nothing had to change.
    """
    texts = {readme: readme_with_results(read_text(readme), results_block(reference))}
    real = real_runs(reference.parent)
    for home in map(reference.parent.joinpath, study_metrics.worlds(reference.parent)):
        texts[home / CLAIMS_PAGE] = claims_page(home, real)
        real = []  # on the first page alone
    stale = [
        file for file, text in texts.items() if not file.exists() or file.read_text(encoding="utf8") != text
    ]
    for file in () if check else stale:
        with whole(file) as draft:
            draft.write_text(texts[file], encoding="utf8")
            shutil.copymode(readme, draft)
    return not stale
