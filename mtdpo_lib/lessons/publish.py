"""From a run to the repository: kept records, their figures, and the notebooks' outputs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from mtdpo_lib.common.files import DATA, NOTEBOOKS, REFERENCE_RUNS, ROOT, read_json, write_json
from mtdpo_lib.common.progress import LINE
from mtdpo_lib.common.seeds import digest
from mtdpo_lib.lessons.run import find_notebooks, read_notebook
from mtdpo_lib.results import figures, report, study_metrics

# What a reader's machine does not have, or should not learn from ours.
LOCAL_PATH = re.compile(
    r"(?<![\w.])(?:/(?:home|root|Users|tmp|work|mnt|var/folders)/|[A-Z]:\\\\Users)[^\s'\"<>]*"
)


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
    """Redraw every figure of the kept runs, studies and tunings, from their records alone.

    Args:
        out: a folder for each of them is made in it.
        source: the kept records.

    Returns:
        The folders.

    Raises:
        ValueError: nothing is kept.
    """
    folders = []
    for home in sorted((*source.glob("*"), *source.glob(f"*/{report.SET}/*"))):
        name = home.relative_to(source).as_posix()
        if runs := sorted(home.glob("seed*")):
            report.combine(runs, out / name)
            folders.append(out / name)
        if (home / "study").is_dir():
            metrics, profile = study_metrics.kept(name, source), report.profile_of(name)
            study_metrics.draw(metrics, profile, out / name / "study")
            folders.append(out / name / "study")
        if (tuned := home / "tune" / "tune.json").is_file():
            folders.append(out / name / "tune")
            figures.tuning(read_json(tuned)).save(folders[-1] / "tuning.png")
    if not folders:
        raise ValueError(
            f"There are no records in {source}: keep those of a run first (python -m mtdpo_lib keep RUN)."
        )
    return folders


def source_hash(notebook: NotebookNode) -> str:
    """Hash of the code in all cells: outputs belong to exactly this code, and the words between may be bettered."""
    return digest("\x1e".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))


def made_from(notebook: NotebookNode, data: Path = DATA) -> dict[str, str]:
    """What a notebook's outputs belong to: its cells, and the kept records and tables that they show."""
    shown = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    hashes = {"source_hash": source_hash(notebook)}
    for name, call, pattern in (
        ("cost", r"pipeline_map\(", "reference_runs/*/seconds.json"),
        ("study", r"study_metrics\.kept\(", "reference_runs/*/study/report.json"),
        ("variants", r"study_metrics\.variants\(", f"reference_runs/*/{report.SET}/*/study/report.json"),
        ("real_runs", r"report\.real_runs\(", "reference_runs/small*/**/*.json"),
        ("runs", r"REFERENCE_RUNS / .cpu", "reference_runs/cpu/seed*/**/*.json"),
        ("tables", r"\bpaper_\w+\(|\bclaims\.\w", "paper/*.csv"),
    ):
        if re.search(call, shown):
            files = sorted(data.glob(pattern))
            named = (file.relative_to(data).as_posix().encode() + file.read_bytes() for file in files)
            hashes[f"{name}_hash"] = digest(*named)
    return hashes


def stale_notebooks(notebooks: Path = NOTEBOOKS) -> list[str]:
    """Notebooks whose outputs were not made from their present cells, kept records and tables; empty when all are fresh."""
    files = {file.stem: read_notebook(file) for file in find_notebooks(notebooks)}
    return [name for name, read in files.items() if read.metadata.get("mtdpo") != made_from(read)]


def refresh_notebooks(
    run: Path, notebooks: Path = NOTEBOOKS, made_with: tuple[str, int] = ("cpu", 0)
) -> list[Path]:
    """Put the outputs of an executed run into the committed notebooks; their cells stay as they are.

    Timestamps, papermill's metadata, the injected parameters and lines of progress are left out. Paths below the
    repository become relative to it; any other local path is refused.

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
    for file in find_notebooks(notebooks):
        executed = run / "notebooks" / file.name
        if not executed.exists():
            raise ValueError(f"The run has no {file.stem}: run without --only first.")
        fresh[file] = _refreshed(read_notebook(file), read_notebook(executed), file.stem, run)
    for file, notebook in fresh.items():
        nbformat.write(notebook, file)
    return list(fresh)


def _refreshed(source: NotebookNode, executed: NotebookNode, name: str, run: Path) -> NotebookNode:
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in source.cells]:
        raise ValueError(
            f"Notebook {name} was changed after that run: run it again before taking its outputs."
        )
    for target in source.cells:
        target.metadata = {key: value for key, value in target.metadata.items() if key in ("tags", "jupyter")}
    code = [pair for pair in zip(source.cells, cells, strict=True) if pair[0].cell_type == "code"]
    for count, (target, done) in enumerate(code, 1):
        target.execution_count = count
        outputs = [_portable(output, name, run) for output in map(_without_progress, done.outputs) if output]
        for output in outputs:
            if "execution_count" in output:
                output["execution_count"] = count
        target.outputs = nbformat.from_dict(outputs)
    kept = {key: source.metadata[key] for key in ("kernelspec", "language_info") if key in source.metadata}
    source.metadata = nbformat.from_dict({**kept, "mtdpo": made_from(source)})
    return source


def _without_progress(output: NotebookNode) -> NotebookNode | None:
    """An output without the lines that only said how far long work was; None where nothing else is in it."""
    if output.output_type != "stream":
        return output
    text = LINE.sub("", output.text)
    return NotebookNode(output, text=text) if text.strip() else None


def _portable(value: Any, name: str, run: Path) -> Any:
    """An output, or a part of one, whose texts hold no path of this machine; images are left as they are."""
    if isinstance(value, dict):
        return {
            key: item if key.startswith("image/") else _portable(item, name, run)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_portable(item, name, run) for item in value]
    if not isinstance(value, str):
        return value
    text = value.replace(f"{run}/", "RUN/").replace(str(run), "RUN")
    text = text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    found = LOCAL_PATH.search(text) or re.search(re.escape(str(Path.home())) + r"(?=/)\S*", text)
    if found:
        raise ValueError(
            f"An output of notebook {name} shows the local path {found[0]!r}: print a relative one."
        )
    return text
