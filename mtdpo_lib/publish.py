"""From a run to the repository: kept records, the notebooks' outputs, and the README's table."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat

from mtdpo_lib import claims, findings, report
from mtdpo_lib.arms import ARMS
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.records import write_json
from mtdpo_lib.study import make_plan

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
README = ROOT / "README.md"
REFERENCE_RUNS = report.REFERENCE_RUNS
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

# What a reader's machine does not have, or should not learn from ours.
LOCAL_PATH = re.compile(
    r"(?<![\w.])(?:/(?:home|root|Users|tmp|work|mnt|var/folders)/|[A-Z]:\\\\Users)[^\s'\"<>]*"
)

Say = Callable[[str], None]


def keep(runs: Sequence[Path], target: Path = REFERENCE_RUNS) -> Path:
    """Copy runs' records (not their stages) to ``data/reference_runs/<profile>/seed<N>`` for README, notebook 00 and
    the runner's projections; those of a profile's named budget to ``<profile>-<budget>``.

    Raises:
        ValueError: a folder that is not a complete run of a profile at its own or a budget's settings, or several kinds.
    """
    loaded = [(Path(run), report.read_run(Path(run))) for run in runs]
    for folder, run in loaded:
        if not run["complete"]:
            raise ValueError(f"Only a complete run can be kept, and {folder} is not one.")
    kinds = {report.kept_name(run["profile"], run["settings"]) for _, run in loaded}
    if len(kinds) != 1:
        raise ValueError(
            f"Runs that are kept together have one profile, got {', '.join(sorted(kinds)) or 'none'}."
        )
    home = target / kinds.pop()
    for folder, run in loaded:
        place = home / f"seed{run['seed']}"
        shutil.rmtree(place, ignore_errors=True)
        (place / "records").mkdir(parents=True)
        for name in report.run_records(folder, run):
            shutil.copy(folder / "records" / f"{name}.json", place / "records")
        shutil.copy(folder / "run.json", place)
    write_json(home / "seconds.json", loaded[0][1]["seconds"])
    return home


def draw_figures(out: Path, source: Path = REFERENCE_RUNS) -> list[Path]:
    """Redraw every figure of the kept runs and studies, from their records alone.

    Args:
        out: a folder for each of them is made in it.
        source: the kept records.

    Returns:
        The folders.

    Raises:
        ValueError: nothing is kept.
    """
    folders = []
    for home in sorted(source.glob("*")):
        if runs := sorted(home.glob("seed*")):
            report.combine(runs, out / home.name)
            folders.append(out / home.name)
        if (home / "study").is_dir():
            metrics, profile = findings.kept(home.name, source), report.profile_of(home.name)
            findings.draw(metrics, profile, out / home.name / "study")
            folders.append(out / home.name / "study")
    if not folders:
        raise ValueError(
            f"There are no records in {source}: keep those of a run first (python -m mtdpo_lib keep RUN)."
        )
    return folders


def source_hash(notebook: nbformat.NotebookNode) -> str:
    """Hash of all cells' kinds and sources: outputs belong to exactly this text."""
    text = "\x1e".join(f"{cell.cell_type}\x1f{cell.source}" for cell in notebook.cells)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def made_from(notebook: nbformat.NotebookNode, reference: Path = REFERENCE_RUNS) -> dict[str, str]:
    """What a notebook's outputs belong to: its cells, and the kept study or real runs where it shows them."""
    hashes = {"source_hash": source_hash(notebook)}
    if any("findings.kept()" in cell.source for cell in notebook.cells):
        study = (reference / "cpu" / "study" / "report.json").read_bytes()
        hashes["study_hash"] = hashlib.blake2b(study, digest_size=8).hexdigest()
    if any("report.real_runs(" in cell.source for cell in notebook.cells):
        files = (file for home in report.real_runs(reference) for file in sorted(home.rglob("*.json")))
        digest = hashlib.blake2b(digest_size=8)
        for file in files:
            digest.update(file.relative_to(reference).as_posix().encode() + file.read_bytes())
        hashes["real_runs_hash"] = digest.hexdigest()
    return hashes


def stale_notebooks(notebooks: Path = NOTEBOOKS, reference: Path = REFERENCE_RUNS) -> list[str]:
    """Notebooks whose outputs were not made by their present cells, kept study or real runs; empty when all are fresh."""
    stale = []
    for file in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        if notebook.metadata.get("mtdpo") != made_from(notebook, reference):
            stale.append(file.stem)
    return stale


def refresh_notebooks(
    run: Path, notebooks: Path = NOTEBOOKS, made_with: tuple[str, int] = ("cpu", 0)
) -> list[Path]:
    """Put the outputs of an executed run into the committed notebooks; their cells stay as they are.

    Timestamps, papermill's metadata and the injected parameters are left out. Paths below the repository become
    relative to it; any other local path is refused.

    Args:
        run: the run folder.
        notebooks: the committed notebooks.
        made_with: the profile and seed whose outputs readers meet.

    Raises:
        ValueError: another profile, seed or settings; a notebook that was not run, was changed since, or shows a local path.
    """
    run = Path(run).resolve()
    read = report.read_run(run)
    if (read["profile"], read["seed"]) != made_with or read["settings"]:
        raise ValueError(
            f"Outputs come from profile {made_with[0]}, seed {made_with[1]}, without --set; {run} is another."
        )
    if not read["complete"]:
        raise ValueError(f"Not all notebooks of {run} are finished: run without --only first.")
    fresh = {}
    for file in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        executed = run / "notebooks" / file.name
        if not executed.exists():
            raise ValueError(f"The run has no {file.stem}: run without --only first.")
        fresh[file] = _refreshed(
            nbformat.read(file, as_version=4), nbformat.read(executed, as_version=4), file.stem, run
        )
    for file, notebook in fresh.items():
        nbformat.write(notebook, file)
    return list(fresh)


def _refreshed(
    source: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str, run: Path
) -> nbformat.NotebookNode:
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in source.cells]:
        raise ValueError(
            f"Notebook {name} was changed after that run: run it again before taking its outputs."
        )
    count = 0
    for target, done in zip(source.cells, cells, strict=True):
        target.metadata = {key: value for key, value in target.metadata.items() if key in ("tags", "jupyter")}
        if target.cell_type != "code":
            continue
        count += 1
        target.execution_count = count
        target.outputs = [_portable(output, name, run) for output in done.outputs]
        for output in target.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
    kept = {key: source.metadata[key] for key in ("kernelspec", "language_info") if key in source.metadata}
    source.metadata = nbformat.from_dict({**kept, "mtdpo": made_from(source)})
    return source


def _portable(output: nbformat.NotebookNode, name: str, run: Path) -> nbformat.NotebookNode:
    """An output whose texts hold no path of this machine; images are left as they are."""

    def clean(text: str) -> str:
        for place, word in ((run, "RUN"), (ROOT, "")):
            text = text.replace(f"{place}/", f"{word}/" if word else "").replace(str(place), word or ".")
        found = LOCAL_PATH.search(text) or re.search(re.escape(str(Path.home())) + r"(?=/)\S*", text)
        if found:
            raise ValueError(
                f"An output of notebook {name} shows the local path {found[0]!r}: print a relative one."
            )
        return text

    def everywhere(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: item if key.startswith("image/") else everywhere(item) for key, item in value.items()
            }
        if isinstance(value, list):
            return [everywhere(item) for item in value]
        return clean(value) if isinstance(value, str) else value

    return nbformat.from_dict(everywhere(output))


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
    metrics, profile = findings.kept(home.name, home.parent), report.profile_of(home.name)
    head, rows = findings.arm_rows(metrics)
    budget = home.name.removeprefix(profile).removeprefix("-")
    command = f"python -m mtdpo_lib study --profile {profile} --arms {','.join(row[0] for row in rows)}"
    command += f" --set budget={budget}" if budget else ""
    sampled = findings.pass_sentence(metrics)
    return [
        "The same start and samples, and other ways to learn from them. " + findings.rests_on(metrics),
        "",
        report.markdown_table(head, rows),
        "",
        *([sampled] if sampled else []),
        f"`{command}`.",
    ]


def _claims_block(reference: Path) -> list[str]:
    """What the kept study says of the paper's claims."""
    study = findings.kept(reference.name, reference.parent)
    judged = claims.judge(study, get_profile(reference.name).claims)
    gain = next((metric for metric in study if metric["name"] == "gain/test/mdpo"), {"seeds": [], "each": []})
    each = (f"{seed}: {100 * one:+.1f}" for seed, one in zip(gain["seeds"], gain["each"], strict=True))
    seeds = sorted({seed for row in judged for seed in row["seeds"]})
    words = Counter(row["verdict"] for row in judged)
    told = ", ".join(f"{count} {word}" for word, count in words.most_common())
    took = []
    if findings.kept_seconds(reference.name, reference.parent):
        with tempfile.TemporaryDirectory() as nothing_made:
            plan = make_plan(get_profile(reference.name), [0], list(ARMS.values()), Path(nothing_made))
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
