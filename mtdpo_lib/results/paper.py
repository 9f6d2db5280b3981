"""The paper's own numbers: its tables as CSV files under ``data/paper``."""

from __future__ import annotations

import csv

from mtdpo_lib.common.files import PAPER, CorruptData, read_text

PAPER_BASE = "Gemma-1.1-it-7B"  # the base model that reports compare with


def paper_table(name: str, **wanted: str) -> list[dict[str, str]]:
    """A table of the paper.

    Args:
        name: of its file, e.g. ``"table2_kl"``.
        wanted: only rows that hold these values.

    Raises:
        CorruptData: the file is missing or empty.
    """
    file = PAPER / f"{name}.csv"
    if not (rows := list(csv.DictReader(read_text(file).splitlines(keepends=True)))):
        raise CorruptData(f"{file} has no row: restore it (git checkout).")
    return [row for row in rows if wanted.items() <= row.items()]


def paper_rows() -> list[dict[str, str]]:
    """Table 1 of the paper for the base model that reports compare with."""
    return paper_table("table1", base=PAPER_BASE)


def paper_by_iteration() -> dict[int, dict[str, str]]:
    """The rows of SFT (0) and of each M-DPO iteration in `paper_rows`."""
    methods = {"SFT": 0, **{f"M-DPO iteration {number}": number for number in range(1, 4)}}
    return {methods[row["method"]]: row for row in paper_rows() if row["method"] in methods}


def paper_average(table: str, row: str, base: str = PAPER_BASE) -> float:
    """Mean of GSM8K and MATH in the one row of a paper's table that fits ``"key=value&key=value"``, in points.

    Raises:
        ValueError: no row fits, or more than one.
    """
    wanted = {"base": base, **dict(part.split("=", 1) for part in row.split("&"))}
    found = paper_table(table, **wanted)
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows of {table}.csv are {wanted}: name exactly one.")
    return (float(found[0]["gsm8k"]) + float(found[0]["math"])) / 2
