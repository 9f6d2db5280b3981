"""A run as one file, so that a class can start in the middle: packed on one machine, unpacked on another."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from urllib.request import urlopen

from mtdpo_lib.common.files import UnusableFolder, default_folder, whole
from mtdpo_lib.common.stages import StageStore
from mtdpo_lib.results.report import read_run

INSIDE = "run"  # the one folder in a packed run


def _shown(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without hidden files: locks, and what a killed process left half made."""
    return None if any(part.startswith(".") for part in Path(member.name).parts) else member


def pack_run(run: Path, file: Path) -> Path:
    """Write stages, records and executed notebooks of a run into one ``.tar.gz``; it may have come as far as you like.

    Raises:
        ValueError: the folder is no run.
    """
    read_run(run)
    with whole(file) as draft, tarfile.open(draft, "w:gz") as pack:
        pack.add(run, INSIDE, filter=_shown)
    return file


def fetch_run(source: str, out: Path | None = None) -> Path:
    """Unpack a packed run, a file or an address, to where its notebooks look for it.

    Nothing is written outside of the folder, whatever the file says, and every stage is checked against its manifest. That
    finds damage, not malice: take a run only from someone whose code you would run.

    Args:
        source: of the file, or its address (``https://...``).
        out: a new folder; by default ``runs/<profile>-seed<seed>`` and what was set.

    Raises:
        ValueError: it is no packed run.
        CorruptStage: a stage is damaged.
        UnusableFolder: there is something in the folder already.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, unpacked = Path(source), Path(folder, INSIDE)
        if source.startswith(("http://", "https://")):
            file = Path(folder, "packed")
            with urlopen(source) as stream, file.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
        try:
            with tarfile.open(file) as pack:
                pack.extractall(folder, filter="data")
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise ValueError(
                f"{source} is not a packed run (python -m mtdpo_lib pack-run RUN): {error}."
            ) from error
        state = read_run(unpacked)
        target = out or default_folder(f"{state['profile']}-seed{state['seed']}", state["settings"])
        if target.exists() and any(target.iterdir()):
            raise UnusableFolder(
                f"{target} is there already: choose another folder with --out, or remove it."
            )
        StageStore.of_run(unpacked).verify_all()
        shutil.copytree(unpacked, target, dirs_exist_ok=True)
    return target
