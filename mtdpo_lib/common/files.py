"""Files: where the repository is, and JSON and JSON lines, each read and written in one place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

ROOT = Path(__file__).resolve().parents[2]  # of the repository
NOTEBOOKS, DATA = ROOT / "notebooks", ROOT / "data"
PAPER, REFERENCE_RUNS = DATA / "paper", DATA / "reference_runs"
QUESTIONS = "questions.json"  # of a study, beside the folder of its arms' records


class NotACheckout(ValueError):
    """The library is installed without the repository that it comes from."""


def need_checkout(what: str) -> None:
    """Refuse what needs the repository's notebooks or data where only the library is installed.

    Raises:
        NotACheckout: says what to do.
    """
    if not (NOTEBOOKS.is_dir() and DATA.is_dir()):
        raise NotACheckout(
            f"{what} needs a checkout of the repository, with its notebooks and data: git clone it, then run it there."
        )


def default_folder(name: str, settings: str) -> Path:
    """Where a run or a study is kept unless told otherwise: below ``runs``, in the checkout or where the command was given.

    Args:
        name: its own, e.g. ``cpu-seed0``.
        settings: what was set, separated by spaces; the folder's name carries it.

    >>> default_folder("cpu-seed0", "preference.eta=0.5 iterations=2").name
    'cpu-seed0-iterations=2-preference.eta=0.5'
    """
    words = re.sub(r"[^\w.=+-]+", "_", "-".join([name, *sorted(settings.split())]), flags=re.ASCII)
    return (ROOT if NOTEBOOKS.is_dir() else Path.cwd()) / "runs" / words[:150]  # file systems allow 255


def checksum(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(file: Path, value: Any) -> Path:
    """Write `value` so that a reader never meets half a file."""
    with whole(file) as draft:
        draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    return file


class CorruptData(ValueError):
    """A file that does not hold what was written into it."""


def read_json(file: Path, kind: Any = Any, remedy: str = "restore the file or make it again") -> Any:
    """The content of a JSON file.

    Args:
        file: its path.
        kind: the type of what was written, e.g. ``dict[str, float]``.
        remedy: what to do about a file that holds something else.

    Raises:
        CorruptData: it cannot be read, is not JSON, or is of another kind; names the file.
    """
    try:
        return TypeAdapter(kind).validate_python(json.loads(file.read_text(encoding="utf8")), strict=True)
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptData(f"{file} is missing, or not the JSON that was written: {remedy}.") from error


def read_text(file: Path) -> str:
    """The text of a file of the repository, its line ends as they are.

    Raises:
        CorruptData: it is missing or no text; names the file.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise CorruptData(f"{file} is missing or no text: restore it (git checkout).") from error


def write_jsonl(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object per line."""
    with whole(file) as draft, draft.open("w", encoding="utf8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_jsonl(file: Path, **how: Any) -> list[dict[str, Any]]:
    """All rows of a file of JSON lines: as `numbered_jsonl`, without the numbers."""
    return list(numbered_jsonl(file, **how).values())


def numbered_jsonl(
    file: Path,
    read: Callable[[Any], dict[str, Any]] = dict,
    wanted: str = "a JSON object",
    remedy: str = "restore the file or make it again",
) -> dict[int, dict[str, Any]]:
    """All rows by their line number, from 1; blank lines, a byte-order mark and line ends of any system are passed over.

    Args:
        file: one JSON object per line.
        read: makes a row of what a line holds; its errors are the line's.
        wanted: what a line should be, for the error.
        remedy: what to do about a line that is not.

    Raises:
        CorruptData: names the file and the line.
    """
    rows, number = {}, 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if text := line.decode("utf-8-sig").strip():
                    rows[number] = read(json.loads(text))
    except OSError as error:
        raise CorruptData(f"{file} cannot be read ({error.strerror}): {remedy}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        raise CorruptData(f"Line {number} of {file} is not {wanted} ({kind}): {remedy}.") from error
    return rows


class UnusableFolder(OSError):
    """An output folder that cannot be written, or that is not the run's own."""


# What all libraries keep of the system's error; the last words are all that torch.save says.
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "inline_container")


class FullDisk(UnusableFolder):
    """A disk without room for what was to be written."""


@contextmanager
def room_for(target: Path) -> Iterator[None]:
    """Write `target`, a file or a folder, or what lies in it.

    Raises:
        FullDisk: says which disk is full and how much was not enough, whichever library did the writing.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, FullDisk) or any(words in str(error) for words in FULL)):
            raise
        disk = next(place for place in target.absolute().parents if place.is_mount())
        free = shutil.disk_usage(disk).free / 2**20
        raise FullDisk(
            f"The disk at {disk} is full: {target} needs more than the {free:,.1f} MiB that are free there, or than a quota "
            "allows. Make room and start again; what is finished is kept."
        ) from error


@contextmanager
def drafting(draft: Path) -> Iterator[None]:
    """Make `draft`, a file or a folder, and rename it: if it is still there in the end, it is removed."""
    try:
        yield
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A draft to write, which becomes `file` when all of it is written: a reader never meets half a file.

    Raises:
        FullDisk: there is no room. Whatever stops the writing, the draft is removed and an older `file` stays.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with room_for(file), drafting(draft):
        yield draft
        draft.replace(file)
