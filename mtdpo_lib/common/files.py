"""Files: where the repository is, and JSON and JSON lines, each read and written in one place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # of the repository
NOTEBOOKS, DATA = ROOT / "notebooks", ROOT / "data"
PAPER, REFERENCE_RUNS = DATA / "paper", DATA / "reference_runs"


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


def write_json(file: Path, value: Any) -> Path:
    """Write `value` so that a reader never meets half a file."""
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    draft.replace(file)
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
    """One JSON object a line."""
    with file.open("w", encoding="utf8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """All rows.

    Raises:
        CorruptData: names the file and the line.
    """
    rows = []
    with file.open(encoding="utf8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise CorruptData(
                    f"Line {number} of {file} is not JSON: restore the file or make it again."
                ) from error
    return rows
