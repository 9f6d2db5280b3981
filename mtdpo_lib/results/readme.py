"""TODO: results.readme."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from mtdpo_lib.common.files import REFERENCE_RUNS, ROOT
from mtdpo_lib.experiment.arms import ARMS
from mtdpo_lib.experiment.study import make_plan
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.results import claims, report, study_metrics

README = ROOT / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def results_block(reference: Path = REFERENCE_RUNS / "cpu") -> str:
    """The README's results in Markdown: the kept runs of one profile, its study, and kept runs of real models."""
    if not any(reference.glob("seed*/run.json")):
        return "No reference run is kept yet: `make reproduce` makes one on your machine.\n"
    lines = _runs_block(reference)
    if (reference / "study").is_dir():
        lines += ["", *_claims_block(reference)]
    for other in report.real_runs(reference.parent):
        lines += ["", *_runs_block(other)]
        if (other / "study").is_dir():
            lines += ["", *_arms_block(other)]
    return "\n".join(lines) + "\n"


def _runs_block(home: Path) -> list[str]:
    """The table of the runs in `home`, one a seed, and what it rests on."""
    runs = sorted(home.glob("seed*/run.json"))
    run, records, metrics, seeds = report.combined_metrics([file.parent for file in runs])
    machine = next(iter(records[0].values()))["provenance"]["machine"]
    # One run's time: others may have found some of their stages kept from an earlier run.
    took = f"{round(sum(run['seconds'].values()) / 60)} minutes for seed {run['seed']} on {machine['cores']} cores"
    kind = f"`{run['profile']}`" + (f", `--set {run['settings']}`" if run["settings"] else "")
    lines = [
        report.markdown_table(*report.result_rows(metrics)),
        "",
        f"{report.rests_on(metrics)} Gains are paired with SFT, in points. Paper: {report.PAPER_BASE}, table 1.",
        f"Profile {kind}; the notebooks took {took}.",
    ]
    if len(seeds) > 1:
        lines.append(f"By seed, SFT and last iteration: {'; '.join(map(_ends, runs))}.")
        lines.append(f"Each seed: `python -m mtdpo_lib reproduce --profile {run['profile']} --seed N`.")
    return lines


def _arms_block(home: Path) -> list[str]:
    """What the study beside kept runs found, an arm a line."""
    metrics, profile = study_metrics.kept(home.name, home.parent), report.profile_of(home.name)
    head, rows = study_metrics.arm_rows(metrics)
    budget = home.name.removeprefix(profile).removeprefix("-")
    command = f"python -m mtdpo_lib study --profile {profile} --arms {','.join(row[0] for row in rows)}"
    command += f" --set budget={budget}" if budget else ""
    sampled = study_metrics.pass_sentence(metrics)
    return [
        "The same start and samples, and other ways to learn from them. " + study_metrics.rests_on(metrics),
        "",
        report.markdown_table(head, rows),
        "",
        *([sampled] if sampled else []),
        f"`{command}`.",
    ]


def _claims_block(reference: Path) -> list[str]:
    """What the kept study says of the paper's claims."""
    study = study_metrics.kept(reference.name, reference.parent)
    judged = claims.judge(study, get_profile(reference.name).claims)
    gain = next((metric for metric in study if metric["name"] == "gain/test/mdpo"), {"seeds": [], "each": []})
    each = (f"{seed}: {100 * one:+.1f}" for seed, one in zip(gain["seeds"], gain["each"], strict=True))
    seeds = sorted({seed for row in judged for seed in row["seeds"]})
    words = Counter(row["verdict"] for row in judged)
    told = ", ".join(f"{count} {word}" for word, count in words.most_common())
    took = []
    if known := study_metrics.kept_seconds(reference.name, reference.parent):
        with tempfile.TemporaryDirectory() as nothing_made:
            plan = make_plan(get_profile(reference.name), [0], list(ARMS.values()), Path(nothing_made), known)
        took = [
            f"All {len(ARMS)} arms of one seed take about {plan.seconds / 60 / 2:.0f} minutes on two cores "
            "(the mean times of this study's stages, added up)."
        ]
    return [
        f"**The paper's claims** over seeds {', '.join(map(str, seeds))} (`python -m mtdpo_lib study`): {told}.",
        "",
        report.markdown_table(*claims.rows(judged)),
        "",
        f"M-DPO's gain over SFT by seed, in points: {'; '.join(each)}.",
        *took,
    ]


def _ends(run_file: Path) -> str:
    """``0: 77.6, 96.2``: a seed's accuracy at the start and at the end, in per cent."""
    run = report.read_run(run_file.parent)
    found = report.report_json(report.run_records(run_file.parent, run), run["seconds"])
    known = {metric["name"]: metric["value"] for metric in found}
    last = max(name for name in known if re.fullmatch(r"accuracy/test/mdpo-\d+", name))
    return f"{run['seed']}: {100 * known['accuracy/test/sft']:.1f}, {100 * known[last]:.1f}"


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


def update_readme(
    check: bool = False, readme: Path = README, reference: Path = REFERENCE_RUNS / "cpu"
) -> bool:
    """Write the results into the README; with `check`, only say whether they are already there."""
    text = readme.read_text(encoding="utf8")
    fresh = readme_with_results(text, results_block(reference))
    if not check and fresh != text:
        with tempfile.NamedTemporaryFile("w", dir=readme.parent, delete=False, encoding="utf8") as draft:
            draft.write(fresh)
        shutil.copymode(readme, draft.name)
        Path(draft.name).replace(readme)
    return fresh == text
