"""TODO: results.paper."""

from __future__ import annotations

import csv

from mtdpo_lib.common.files import PAPER


def paper_table(name: str) -> list[dict[str, str]]:
    """A table of the paper by file name, e.g. ``"table2_kl"``."""
    with (PAPER / f"{name}.csv").open(encoding="utf8", newline="") as stream:
        return list(csv.DictReader(stream))


def paper_average(table: str, row: str, base: str = "Gemma-1.1-it-7B") -> float:
    """Mean of GSM8K and MATH in the one row of a paper's table that fits ``"key=value&key=value"``, in points.

    Raises:
        ValueError: no row fits, or more than one.
    """
    wanted = {"base": base, **dict(part.split("=", 1) for part in row.split("&"))}
    found = [line for line in paper_table(table) if wanted.items() <= line.items()]
    if len(found) != 1:
        raise ValueError(f"{len(found)} rows of {table}.csv are {wanted}: name exactly one.")
    return (float(found[0]["gsm8k"]) + float(found[0]["math"])) / 2


PAPER_BASE = "Gemma-1.1-it-7B"


def paper_rows() -> list[dict[str, str]]:
    """Table 1 of the paper for the base model that the reports compare with."""
    with (PAPER / "table1.csv").open(encoding="utf8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["base"] == PAPER_BASE]
