"""The runner: executes the notebooks in order with papermill, keeps what is finished, and knows nothing of their inside.

A run folder holds ``stages/`` (kept products), ``records/`` (one JSON a notebook), ``notebooks/`` (as executed),
``figures/``, ``report.html``, ``report.json``, ``run.json`` and ``finished.json`` (what each notebook was made with).
Everything that can be wrong with the input is said in one sentence before the first notebook starts.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

from mtdpo_lib.common.files import NOTEBOOKS, REFERENCE_RUNS, ROOT
from mtdpo_lib.common.stages import StageStore
from mtdpo_lib.experiment.parallel import computing_environment
from mtdpo_lib.problems.gsm8k import FOLDER_VARIABLE
from mtdpo_lib.profiles.overrides import get_profile, parse_assignments
from mtdpo_lib.profiles.sections import Profile
from mtdpo_lib.results import records

# Failures of a notebook whose sentence is all that the user needs, because the input caused them.
INPUT_FAILURES = ("SettingError", "MissingModel", "MissingProduct", "CorruptStage", "UnusableFolder")
FINISHED = "finished.json"

OK, NOTEBOOK_FAILED, BAD_INPUT = 0, 1, 2

Say = Callable[[str], None]


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def reproduce(
    profile_name: str = "cpu",
    seed: int = 0,
    out: Path | str = "",
    only: str | None = None,
    settings: Sequence[str] = (),
    notebooks_dir: Path = NOTEBOOKS,
    say: Say = say,
) -> int:
    """Run the notebooks and write the report.

    Args:
        profile_name: "smoke", "cpu", "small" or "paper".
        seed: the run's seed.
        out: run folder; empty: ``runs/<profile>-seed<seed>`` under the repository root.
        only: one notebook, by number or name; its inputs must have been made before.
        settings: dotted overrides, e.g. ``["preference.eta=0.5"]``.
        notebooks_dir: where the notebooks are.
        say: receives each line for the user.

    Returns:
        0, or 1 when a notebook failed, or 2 when it failed because of its input.

    Raises:
        ValueError, CorruptStage, UnusableFolder: the input cannot work; one sentence says why. Nothing was started.
    """
    settings = _absolute_paths(settings)
    profile = get_profile(profile_name, settings)
    out = Path(out).expanduser().resolve() if out else ROOT / "runs" / f"{profile_name}-seed{seed}"
    parameters = {"profile": profile_name, "seed": seed, "out": str(out), "settings": " ".join(settings)}
    notebooks = find_notebooks(notebooks_dir)
    chosen = notebooks if only is None else [pick_notebook(notebooks, only)]
    for notebook in chosen:
        check_parameters(notebook, parameters)
    if profile.model.base != "tiny":
        from mtdpo_lib.models.bases import check_loadable  # torch takes seconds to import

        check_loadable(profile.model)
    StageStore(out / "stages").verify_all()

    run = _start_run(out, profile, parameters)
    if only is None:
        chosen = unfinished(notebooks, out, run)
        if len(chosen) < len(notebooks):
            kept = f"{len(notebooks) - len(chosen)} of {len(notebooks)} notebooks"
            say(f"{kept} are finished and stay as they are; `--only NUMBER` runs one again.")
    progress = Progress([notebook.stem for notebook in chosen], expected_seconds(profile_name), say)
    if chosen:
        progress.announce()
    for notebook in chosen:
        with progress.on(notebook.stem) as clock, computing_environment(profile):
            failure = execute(notebook, out / "notebooks", parameters)
            clock.succeeded = failure is None
        run["seconds"][notebook.stem] = clock.seconds
        if failure is None:
            records.write_json(out / "run.json", run)
            _mark_finished(notebook, out, run)
            continue
        kind, sentence = failure
        if kind in INPUT_FAILURES:
            say(f"error: {sentence}")
            return BAD_INPUT
        say(f"error: Notebook {notebook.stem} failed: {kind}: {sentence}")
        say(f"As far as it came: {shown(out / 'notebooks' / f'{notebook.stem}.failed.ipynb')}")
        return NOTEBOOK_FAILED

    from mtdpo_lib.results.report import write_report

    run["complete"] = {notebook.stem for notebook in notebooks} <= run["seconds"].keys()
    records.write_json(out / "run.json", run)
    if chosen:
        say(f"Notebooks took {_minutes(sum(run['seconds'][notebook.stem] for notebook in chosen))}.")
    say(f"Report: {shown(write_report(out))}")
    return OK


def find_notebooks(folder: Path) -> list[Path]:
    """The numbered notebooks of `folder`, in order.

    Raises:
        ValueError: there are none.
    """
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise ValueError(f"No notebooks named like 00_start_here.ipynb are in {folder}.")
    return notebooks


def pick_notebook(notebooks: Sequence[Path], wanted: str) -> Path:
    """The notebook with number (``5`` or ``05``) or name `wanted`.

    Raises:
        ValueError: there is none; the known ones are named.
    """
    stem = wanted.removesuffix(".ipynb")
    for notebook in notebooks:
        if stem == notebook.stem or (stem.isdigit() and int(stem) == int(notebook.stem[:2])):
            return notebook
    raise ValueError(
        f"There is no notebook {wanted!r}: known are {', '.join(item.stem for item in notebooks)}."
    )


def declared_parameters(notebook: Path) -> dict[str, str]:
    """Names and types that the cell tagged "parameters" declares.

    Read from the syntax tree: papermill's own reading goes line by line and gives up on a comment with an equals sign.

    Raises:
        ValueError: the file is no notebook, or has no such cell.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        (source,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        statements = ast.parse(source).body
    except (ValueError, SyntaxError, AttributeError, nbformat.ValidationError) as error:
        raise ValueError(
            f"The notebook {notebook.name} is not one with a single cell tagged 'parameters' that holds literals."
        ) from error
    declared = {}
    for statement in statements:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            declared[statement.target.id] = ast.unparse(statement.annotation)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            literal = isinstance(statement.value, ast.Constant)
            declared[statement.targets[0].id] = (
                type(statement.value.value).__name__ if literal else "no literal"
            )
    return declared


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Refuse what papermill would pass in silence: a parameter that the notebook does not declare, or of another type.

    Raises:
        ValueError: names the notebook, the parameter, and the nearest declared ones.
    """
    declared = declared_parameters(notebook)
    for name, value in parameters.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=2, cutoff=0.5) or list(declared) or ["none"]
            raise ValueError(
                f"Notebook {notebook.stem} declares no parameter {name!r}: it declares {' and '.join(near)}."
            )
        if declared[name] != type(value).__name__:
            raise ValueError(
                f"Notebook {notebook.stem} declares the parameter {name!r} as {declared[name]}, "
                f"but it is {type(value).__name__}."
            )


def execute(notebook: Path, folder: Path, parameters: dict[str, Any]) -> tuple[str, str] | None:
    """Run one notebook; the executed copy appears in `folder` under its own name when it is complete.

    Returns:
        None, or the kind and the last line of the exception that ended it; the copy is then called ``NN_slug.failed``.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    folder.mkdir(parents=True, exist_ok=True)
    draft, failed = folder / f".{notebook.stem}.ipynb", folder / f"{notebook.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    failure = None
    with _quiet_papermill():
        try:
            papermill.execute_notebook(
                str(notebook), str(draft), parameters, kernel_name="python3", language="python", cwd=str(notebook.parent),
                progress_bar=False, autosave_cell_every=0,
                extra_arguments=["--log-level=ERROR"],  # of the kernel: its notes about itself are not for readers
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            failure = error.ename, _last_line(error.evalue)
        except DeadKernelError:
            failure = "DeadKernelError", "the kernel died; often the memory was not enough"
    if draft.exists():
        draft.replace(failed if failure else folder / notebook.name)
    return failure


def unfinished(notebooks: Sequence[Path], out: Path, run: dict[str, Any]) -> list[Path]:
    """The notebooks that are still to run: from the first one that has not run, or whose text, library, data, settings,
    package versions or products are no longer what they were when it did."""
    finished = _finished(out)
    for number, notebook in enumerate(notebooks):
        before = finished.get(notebook.stem, {"state": None, "products": []})
        there = all((out / product).exists() for product in before["products"])
        if before["state"] != _state(notebook, run) or not there:
            return list(notebooks[number:])
    return []


def _mark_finished(notebook: Path, out: Path, run: dict[str, Any]) -> None:
    products = [
        out / "notebooks" / notebook.name,
        *out.glob("records/*.json"),
        *out.glob("stages/*/manifest.json"),
    ]
    entry = {
        "state": _state(notebook, run),
        "products": sorted(file.relative_to(out).as_posix() for file in products),
    }
    records.write_json(out / FINISHED, {**_finished(out), notebook.stem: entry})


def _finished(out: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((out / FINISHED).read_text(encoding="utf8"))
    return {}


def _state(notebook: Path, run: dict[str, Any]) -> str:
    """Hash of what a notebook's outputs come from, its stages apart."""
    given = [run["settings_hash"], records.versions(), os.environ.get(FOLDER_VARIABLE, "")]
    digest = hashlib.blake2b(json.dumps(given).encode(), digest_size=8)
    library, data = (ROOT / "mtdpo_lib").rglob("*.py"), (ROOT / "data").rglob("*.*")
    for file in (notebook, *sorted(library), *sorted(data)):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def expected_seconds(profile_name: str) -> dict[str, float]:
    """Seconds of each notebook in the kept reference run of a profile; empty without one."""
    file = REFERENCE_RUNS / profile_name / "seconds.json"
    return json.loads(file.read_text(encoding="utf8")) if file.exists() else {}


def shown(path: Path) -> str:
    """A path as the user would type it: relative to where the command was given, if it is below."""
    path, here = Path(path).resolve(), Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


class Progress:
    """Projected and elapsed time, and a line about every tenth of the way.

    Notebooks weigh what the reference run measured; without one they weigh alike, and the projection starts with the
    first finished notebook.
    """

    def __init__(self, names: Sequence[str], expected: dict[str, float], say: Say):
        self.known = bool(names) and all(name in expected for name in names)
        self.weights = {name: expected[name] if self.known else 1.0 for name in names}
        self.total = sum(self.weights.values()) or 1.0
        self.say = say
        self.done = 0.0  # weight of the finished notebooks
        self.start = time.perf_counter()
        self.next_tenth = 1
        self.seconds = 0.0  # of the notebook that ran last
        self.succeeded = True

    def announce(self) -> None:
        """Say what is to come."""
        many = "1 notebook" if len(self.weights) == 1 else f"{len(self.weights)} notebooks"
        time_ = (
            f"about {_minutes(self.total)} on the reference machine"
            if self.known
            else "time not measured before"
        )
        self.say(f"Running {many}; {time_}. Stages that are kept already are not computed again.")

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[Progress]:
        """Watch one notebook; its seconds are in ``.seconds`` afterwards."""
        start, stop = time.perf_counter(), threading.Event()

        def watch() -> None:
            while not stop.wait(1.0):
                self._report(name, min((time.perf_counter() - start) / self.weights[name], 0.99))

        watcher = threading.Thread(target=watch, daemon=True)
        if self.known:
            watcher.start()
        try:
            yield self
        finally:
            stop.set()
            if self.known:
                watcher.join()
            self.seconds = round(time.perf_counter() - start, 2)
        if self.succeeded:
            self.done += self.weights[name]
            self._report(name, 0.0, finished=True)

    def _report(self, name: str, inside: float, finished: bool = False) -> None:
        here = self.done + (0.0 if finished else inside * self.weights[name])
        part = here / self.total
        if part * 10 + 1e-9 < self.next_tenth:
            return
        self.next_tenth = int(part * 10 + 1e-9) + 1
        elapsed = time.perf_counter() - self.start
        left = elapsed * (1 - part) / part
        state = f"{name} done" if finished else f"in {name}"
        to_go = "" if part > 1 - 1e-9 else f", about {_minutes(left)} to go"
        self.say(f"{100 * part:3.0f} %  {state}: {_minutes(elapsed)} elapsed{to_go}")


def _absolute_paths(settings: Sequence[str]) -> list[str]:
    """Settings whose value is a path from here become absolute: kernels run in another folder.

    Raises:
        ValueError: a value with a space, which notebooks could not tell from two settings.
    """
    changed = []
    for name, value in parse_assignments(list(settings)).items():
        if name in ("problems.gsm8k_dir", "model.base") and Path(value).expanduser().exists():
            value = str(Path(value).expanduser().resolve())
        if len(value.split()) != 1:
            raise ValueError(
                f"A setting cannot hold a space, got {name}={value!r}: rename the folder or link to it."
            )
        changed.append(f"{name}={value}")
    return changed


def _start_run(out: Path, profile: Profile, parameters: dict[str, Any]) -> dict[str, Any]:
    """The content of run.json: what is run; seconds of notebooks that the same run finished earlier are kept."""
    run = {
        "profile": profile.name,
        "seed": parameters["seed"],
        "settings": parameters["settings"],
        "settings_hash": records.settings_hash(profile, parameters["seed"]),
        "seconds": {},
        "complete": False,
    }
    with contextlib.suppress(OSError, ValueError):
        before = json.loads((out / "run.json").read_text(encoding="utf8"))
        if before["settings_hash"] == run["settings_hash"]:
            run["seconds"] = before["seconds"]
    records.write_json(out / "run.json", run)
    return run


@contextlib.contextmanager
def _quiet_papermill() -> Iterator[None]:
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
