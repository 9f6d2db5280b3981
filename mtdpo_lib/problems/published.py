"""Published data: files in a folder, told by their content, or a data set of the hub."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import checksum
from mtdpo_lib.common.hub import look_up


def from_hub(what: str, remedy: str, name: str, *parts: Any, **options: Any) -> Any:
    """A data set of the hub.

    Args:
        what: its name in an error.
        remedy: what to do when it cannot be had.
        name: its name there.
        parts, options: of `datasets.load_dataset`.

    Raises:
        ValueError: it cannot be had.
    """
    try:
        look_up(name, "README.md", "dataset")
        from datasets import load_dataset

        return load_dataset(name, *parts, **options)
    except Exception as error:  # offline, gated, hub errors of many classes: one way out for all
        raise ValueError(f"{what} cannot be had from the hub ({type(error).__name__}): {remedy}.") from error


def checksums(folder: str, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those files that are in the folder."""
    files = [Path(folder) / name for name in names]
    return {file.name: _sha256(file, file.stat().st_mtime_ns) for file in files if file.is_file()}


@functools.lru_cache(maxsize=16)
def _sha256(file: Path, changed: int) -> str:
    """A file's checksum, computed again when it was `changed` at another time."""
    return checksum(file)
