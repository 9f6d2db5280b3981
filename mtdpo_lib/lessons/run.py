"""The runner: executes the notebooks in order with papermill, keeps what is finished, and knows nothing of their inside.

A run folder holds ``stages/`` (kept products), ``records/`` (one JSON file per notebook), ``notebooks/`` (as executed),
``figures/``, ``report.html``, ``report.json``, ``run.json`` and ``finished.json`` (what each notebook was made with).
Everything that can be wrong with the input is said in one sentence before the first notebook starts.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from filelock import FileLock, Timeout

from mtdpo_lib.common import files
from mtdpo_lib.common.files import NOTEBOOKS, ROOT, CorruptData, UnusableFolder, read_json, write_json
from mtdpo_lib.common.progress import Progress, Relay, Say, duration, say
from mtdpo_lib.common.provenance import versions
from mtdpo_lib.common.seeds import digest
from mtdpo_lib.common.stages import StageStore
from mtdpo_lib.experiment.check import check
from mtdpo_lib.experiment.parallel import computing_environment
from mtdpo_lib.lessons.projection import Projection, kept_seconds
from mtdpo_lib.problems.gsm8k import FOLDER_VARIABLE
from mtdpo_lib.problems.supply import fitted
from mtdpo_lib.profiles import Profile, SettingError, get_profile, parse_assignments, settings_hash
from mtdpo_lib.results.records import RunState

if TYPE_CHECKING:
    import nbformat

# Failures of a notebook whose sentence is all that the user needs, because the input caused them.
INPUT_FAILURES = (
    "SettingError", "MissingModel", "MissingProduct", "CorruptStage", "CorruptData", "UnusableFolder", "FullDisk",
    "SandboxUnavailable", "WeakStart",
)  # fmt: skip

OK, NOTEBOOK_FAILED, BAD_INPUT = 0, 1, 2


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
        out: run folder, new, empty or this run's; by default ``runs/<profile>-seed<seed>`` and what is set.
        only: one notebook, by number or name; its inputs must have been made before.
        settings: dotted overrides, e.g. ``["preference.eta=0.5"]``.
        notebooks_dir: where the notebooks are.
        say: receives each line for the user.

    Returns:
        0, or 1 when a notebook failed, or 2 when it failed because of its input.

    Raises:
        ValueError, CorruptStage, UnusableFolder: the input cannot work; one sentence says why. Nothing was started.
    """
    run = Run.of(profile_name, seed, out, " ".join(_absolute_paths(settings)))
    notebooks = find_notebooks(notebooks_dir)
    chosen = notebooks if only is None else [pick_notebook(notebooks, only)]
    _check_input(run, chosen, say)
    with run.alone():
        run.write()
        if only is None:
            chosen = run.unfinished(notebooks)
            if len(chosen) < len(notebooks):
                kept = f"{len(notebooks) - len(chosen)} of {len(notebooks)} notebooks"
                say(f"{kept} are finished and stay as they are; `--only NUMBER` runs one again.")
        failure = run_notebooks(run, chosen, say)
        if failure is not None:
            return failure

        from mtdpo_lib.results.report import write_report  # figures take seconds to import

        run.complete = {notebook.stem for notebook in notebooks} <= run.seconds.keys()
        run.write()
        if chosen:
            say(f"Notebooks took {duration(sum(run.seconds[notebook.stem] for notebook in chosen))}.")
        say(f"Report: {shown(write_report(run.out))}")
        return OK


def run_notebooks(run: Run, notebooks: Sequence[Path], say: Say) -> int | None:
    """Execute notebooks one after the other, until one fails; the exit code for it, or None."""
    budget = parse_assignments(run.settings).get("budget", "")
    names = [notebook.stem for notebook in notebooks]
    projection = Projection(names, kept_seconds(run.profile.name, budget))
    progress = Progress("Notebooks", quiet=0.0, say=say)
    if names:
        say(_announcement(projection))
    for notebook in notebooks:
        name, start = notebook.stem, time.perf_counter()

        def tell(name: str = name, start: float = start) -> None:
            inside = time.perf_counter() - start
            part, left = projection.part(name, inside), projection.left(name, inside)
            progress.report(part, f"{part:.0%}, in {name}", left)

        with _every_second(tell), computing_environment(run.profile):
            failure = execute(notebook, run.out / "notebooks", run.parameters, say)
        run.seconds[name] = round(time.perf_counter() - start, 2)
        if failure is not None:
            return _say_failure(run, name, *failure, say)
        run.write()
        run.mark_finished(notebook)
        projection.finish(name, run.seconds[name])
        progress.report(projection.part(), f"{projection.part():.0%}, {name} done", projection.left())
    return None


def _announcement(projection: Projection) -> str:
    count = len(projection.usual)
    notebooks = "1 notebook" if count == 1 else f"{count} notebooks"
    usual = f"kept runs took about {duration(projection.total())}"
    measured = usual if projection.is_measured else "time not measured before"
    return f"Running {notebooks}; {measured}. Stages that are kept already are not computed again."


def _say_failure(run: Run, name: str, kind: str, sentence: str, say: Say) -> int:
    if kind in INPUT_FAILURES:
        say(f"error: {sentence}")
        return BAD_INPUT
    say(f"error: Notebook {name} failed: {kind}: {sentence}")
    say(f"As far as it came: {shown(run.out / 'notebooks' / f'{name}.failed.ipynb')}")
    return NOTEBOOK_FAILED


@contextlib.contextmanager
def _every_second(tell: Callable[[], None]) -> Iterator[None]:
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


class Finished(TypedDict):
    """What a finished notebook was made with, and what it made."""

    state: str
    products: list[str]


@dataclass
class Run:
    """A run folder and what is run in it.

    Attributes:
        out: the folder.
        profile: all settings.
        seed: of the run.
        settings: what was set, as notebooks take it: ``name=value`` separated by spaces.
        seconds: that each finished notebook took.
        complete: every notebook is finished.
    """

    out: Path
    profile: Profile
    seed: int
    settings: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def of(cls, profile: str, seed: int, out: Path | str = "", settings: str = "") -> Run:
        """The run in the folder `out`, or in its own under ``runs``, with the seconds of notebooks that it finished before.

        Raises:
            SettingError: unknown profile or setting.
            UnusableFolder: another run is in the folder.
            CorruptData: its ``run.json`` is damaged.
        """
        resolved = fitted(get_profile(profile, settings))
        own = files.default_folder(f"{profile}-seed{seed}", settings)
        folder = Path(os.path.expanduser(out)) if out else own
        run = cls(folder.resolve(), resolved, seed, settings)
        before = run._kept("run.json", RunState)
        ours = {name: value for name, value in run.parameters.items() if before.get(name, value) != value}
        if before.get("settings_hash") == run.hash:
            run.seconds = before["seconds"]
        elif ours:
            differences = ", ".join(f"{name} {before[name]!r} instead of {ours[name]!r}" for name in ours)
            raise UnusableFolder(
                f"The folder {run.out} holds a run with {differences}: choose another with --out. It may begin with a "
                "copy of this one's stages/: what both share is then not computed again."
            )
        return run

    @property
    def parameters(self) -> dict[str, Any]:
        """What every notebook gets."""
        given = {"profile": self.profile.name, "seed": self.seed}
        return given | {"out": str(self.out), "settings": self.settings}

    @property
    def hash(self) -> str:
        """Of all settings and the seed."""
        return settings_hash(self.profile, self.seed)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Have the folder to itself, without the files that a killed run left half written.

        Raises:
            UnusableFolder: another process runs it now.
        """
        try:
            with FileLock(self.out / ".lock", blocking=False):
                drafts = (self.out.glob(pattern) for pattern in (".*.tmp", "*/.*.tmp", "notebooks/.*.ipynb"))
                for draft in itertools.chain(*drafts):
                    draft.unlink()
                yield
        except Timeout as error:
            raise UnusableFolder(f"Another process is at work in {self.out}: wait for its end.") from error

    def write(self) -> None:
        """Write ``run.json``."""
        given = {name: value for name, value in self.parameters.items() if name != "out"}
        state = {"settings_hash": self.hash, "seconds": self.seconds, "complete": self.complete}
        write_json(self.out / "run.json", given | state)

    def unfinished(self, notebooks: Sequence[Path]) -> list[Path]:
        """The notebooks that are still to run: from the first one that has not run, or whose text, library, data, settings,
        package versions or products are no longer what they were when it did."""
        finished = self._kept("finished.json", dict[str, Finished])

        def stands(notebook: Path) -> bool:
            before = finished.get(notebook.stem, {"state": None, "products": []})
            there = all((self.out / product).exists() for product in before["products"])
            return there and before["state"] == self._state(notebook)

        return list(itertools.dropwhile(stands, notebooks))

    def mark_finished(self, notebook: Path) -> None:
        """Keep what a notebook was made with, and every product that is there now."""
        patterns = (f"notebooks/{notebook.name}", "records/*.json", "stages/*/manifest.json")
        made = (file for pattern in patterns for file in self.out.glob(pattern))
        products = sorted(file.relative_to(self.out).as_posix() for file in made)
        entry = {"state": self._state(notebook), "products": products}
        kept = self._kept("finished.json", dict[str, Finished])
        write_json(self.out / "finished.json", kept | {notebook.stem: entry})

    def _kept(self, name: str, kind: Any) -> dict[str, Any]:
        """What an earlier start wrote; nothing where there was none.

        Raises:
            CorruptData: the file is damaged.
        """
        remedy = "delete the file and run again; no stage is computed again"
        return read_json(self.out / name, kind, remedy) if (self.out / name).exists() else {}

    def _state(self, notebook: Path) -> str:
        """Hash of what a notebook's outputs come from, its stages apart."""
        given = [self.hash, versions(), os.environ.get(FOLDER_VARIABLE, "")]
        library, data = (ROOT / "mtdpo_lib").rglob("*.py"), (ROOT / "data").rglob("*.*")
        sources = (notebook, *sorted(library), *sorted(data))
        return digest(json.dumps(given), *(file.name.encode() + file.read_bytes() for file in sources))


def _check_input(run: Run, notebooks: Sequence[Path], say: Say) -> None:
    """Refuse what would fail later: parameters that a notebook does not take, settings that cannot work, a damaged stage."""
    for notebook in notebooks:
        check_parameters(notebook.stem, declared_parameters(notebook), run.parameters)
    check(run.profile, say)
    StageStore.of_run(run.out).verify_all()


def shown(path: Path) -> str:
    """A path as the user would type it: relative to where the command was given, if it is below."""
    path, here = Path(path).resolve(), Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


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
        if stem == notebook.stem or (stem.isdecimal() and int(stem) == int(notebook.stem[:2])):
            return notebook
    known = ", ".join(notebook.stem for notebook in notebooks)
    raise ValueError(f"There is no notebook {wanted!r}: known are {known}.")


def read_notebook(file: Path) -> nbformat.NotebookNode:
    """A notebook file, in format 4.

    Raises:
        CorruptData: it is none.
    """
    import nbformat  # takes seconds to import, and most commands read no notebook

    try:
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # a damaged file is met by nbformat with errors of many kinds
        raise CorruptData(f"{file} is missing, or not a notebook: make it again.") from error
    return cast("nbformat.NotebookNode", notebook)


def declared_parameters(notebook: Path) -> dict[str, str]:
    """Names and types that the cell tagged "parameters" declares, as in ``seed: int = 0``.

    Read from the syntax tree: papermill's own reading goes line by line and gives up on a comment with an equals sign.

    Raises:
        ValueError: the file is no notebook, or has no such cell.
    """
    cells = read_notebook(notebook).cells
    try:
        (source,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        statements = ast.parse(source).body
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"The notebook {notebook.name} is not one with a single cell tagged 'parameters' that holds literals."
        ) from error
    return {
        ast.unparse(statement.target): ast.unparse(statement.annotation)
        for statement in statements
        if isinstance(statement, ast.AnnAssign)
    }


def check_parameters(notebook: str, declared: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Refuse what papermill would pass in silence: a parameter that is not declared, or of another type.

    Args:
        notebook: its name.
        declared: parameter to the name of its type.
        given: parameter to value.

    Raises:
        SettingError: names the notebook, the parameter, and the nearest declared ones.
    """
    for name, value in given.items():
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=2, cutoff=0.5) or list(declared) or ["none"]
            raise SettingError(
                f"Notebook {notebook} declares no typed parameter {name!r}: it declares {' and '.join(near)}."
            )
        if declared[name] != type(value).__name__:
            raise SettingError(
                f"Notebook {notebook} declares the parameter {name!r} as {declared[name]}, and got {value!r}, which is "
                f"{type(value).__name__}."
            )


def execute(notebook: Path, folder: Path, parameters: dict[str, Any], say: Say) -> tuple[str, str] | None:
    """Run one notebook; the executed copy appears in `folder` under its own name when it is complete.

    Progress of what takes minutes inside is passed on to `say`.

    Returns:
        None, or the kind and the last line of the exception that ended it; the copy is then called ``NN_slug.failed``.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    draft, failed = folder / f".{notebook.stem}.ipynb", folder / f"{notebook.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    # Braces are papermill's way to fill parameters into a path.
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, draft))
    failure = None
    with files.room_for(folder / notebook.name), files.drafting(draft):
        try:
            papermill.execute_notebook(
                source, target, parameters, kernel_name="python3", language="python", cwd=str(notebook.parent),
                progress_bar=False, autosave_cell_every=0, start_timeout=600, stdout_file=Relay(say),
                extra_arguments=["--log-level=CRITICAL"],  # of the kernel: its notes about itself are not for readers
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            failure = error.ename, error.evalue.strip().rpartition("\n")[2].strip() or "no message"
        except RuntimeError:  # nbclient's, also where it dies before its first answer
            failure = "DeadKernelError", "the kernel died; often the memory was not enough"
        draft.replace(failed if failure else folder / notebook.name)
    return failure


def _absolute_paths(settings: Sequence[str]) -> list[str]:
    """Settings whose value is a path from here become absolute: kernels run in another folder.

    Raises:
        ValueError: a value with a space, which notebooks could not tell from two settings.
    """
    changed = []
    for name, value in parse_assignments(list(settings)).items():
        path = Path(os.path.expanduser(value))
        if name in ("problems.gsm8k_dir", "model.base") and path.exists():
            value = str(path.resolve())
        if len(value.split()) != 1:
            raise ValueError(
                f"A setting cannot hold a space, got {name}={value!r}: rename the folder or link to it."
            )
        changed.append(f"{name}={value}")
    return changed
