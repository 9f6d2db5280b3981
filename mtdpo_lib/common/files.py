"""Files: where the repository is, and JSON and JSON lines, each read and written in one place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def runs_folder() -> Path:
    """Where runs are kept unless told otherwise: ``runs`` in the checkout, or where the command was given."""
    return (ROOT if NOTEBOOKS.is_dir() else Path.cwd()) / "runs"


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


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        CorruptData: it cannot be read, or is not JSON; names the file.
    """
    try:
        return json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise CorruptData(f"{file} is not readable JSON: restore the file or make it again.") from error


def write_jsonl(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object per line."""
    with whole(file) as draft, draft.open("w", encoding="utf8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_jsonl(
    file: Path,
    read: Callable[[Any], dict[str, Any]] = dict,
    wanted: str = "a JSON object",
    remedy: str = "restore the file or make it again",
) -> list[dict[str, Any]]:
    """All rows; blank lines, a byte-order mark and line ends of any system are passed over.

    Args:
        file: one JSON object per line.
        read: makes a row of what a line holds; its errors are the line's.
        wanted: what a line should be, for the error.
        remedy: what to do about a line that is not.

    Raises:
        CorruptData: names the file and the line.
    """
    rows = []
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                if text := line.decode("utf-8-sig").strip():
                    rows.append(read(json.loads(text)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CorruptData(
                    f"Line {number} of {file} is not {wanted} ({type(error).__name__}): {remedy}."
                ) from error
    return rows


class UnusableFolder(OSError):
    """An output folder that cannot be written, or whose disk is full."""


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A draft to write, which becomes `file` when all of it is written: a reader never meets half a file.

    Raises:
        UnusableFolder: the disk is full. Whatever stops the writing, the draft is removed and an older `file` stays.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield draft
        draft.replace(file)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = UnusableFolder(
            f"The disk of {file.parent} is full: make room and start again; what is finished is kept."
        )
        full.errno = error.errno
        raise full from error
    finally:
        draft.unlink(missing_ok=True)
