"""The paper's claims as data, and the rule that makes a verdict of a measured difference.

``data/paper/claims.csv`` names, for every claim, the metric of a study that tests it and the two rows of the paper's tables
that it stands beside; ``data/paper/assumptions.csv`` is the ledger of what the paper does not give. The rule was written
down before any study was run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtdpo_lib.results.paper import paper_average, paper_table

MARGIN = 0.02  # "changes nothing" means: by less than two points
AGREES, TREND, DISAGREES, UNTESTED = "agrees", "trend agrees", "disagrees", "not testable at this profile"
RELATIONS = ("more", "less", "same")


@dataclass(frozen=True)
class Claim:
    """One line of ``claims.csv``.

    Attributes:
        name: short, for tables.
        theme: what it is about; claims of one theme are shown together.
        statement: in words.
        relation: of the first to the second policy in `metric`: "more", "less" or "same".
        metric: of a study's ``report.json``, a fraction or nats; "none" where no profile can measure it.
        paper: the paper's own difference in points, of accuracies the mean of GSM8K and MATH; None without a number.
        notebook: that shows it.
        source: in arXiv 2409.02392v2.
        untested: why nothing is measured, where `metric` is "none".
    """

    name: str
    theme: str
    statement: str
    relation: str
    metric: str
    paper: float | None
    notebook: str
    source: str
    untested: str


def read_claims() -> list[Claim]:
    """All claims, in the order of the file; its column `points` is for numbers that stand in the paper's text."""
    claims = []
    for line in paper_table("claims"):
        table = line["table"]
        points = float(line["points"]) if line["points"] else None
        if table:
            points = paper_average(table, line["row"]) - paper_average(table, line["minus"])
        given = (line["claim"], line["theme"], line["statement"], line["relation"], line["metric"])
        claims.append(Claim(*given, points, line["notebook"], line["source"], line["untested"]))
    return claims


def verdict(measured: dict[str, Any] | None, relation: str = "more", may_claim: str = "trends") -> str:
    """The word for a claim.

    "more" and "less": **agrees** if the sign is the paper's and the 95% interval excludes zero, **trend agrees** if it
    contains zero, **disagrees** if the sign is the other one and the interval excludes zero. "same": **agrees** if the
    interval lies within `MARGIN`, **trend agrees** if only the value does, **disagrees** if the interval lies outside.
    Everything else, and everything at a profile that claims nothing, is **not testable at this profile**.

    Args:
        measured: value, low and high, as fractions or nats; None where nothing was measured.
        relation: "more", "less" or "same".
        may_claim: the profile's ``claims``.

    Raises:
        ValueError: an unknown relation.
    """
    if relation not in RELATIONS:
        raise ValueError(f"Unknown relation {relation!r}: known are {', '.join(RELATIONS)}.")
    if measured is None or may_claim.startswith("nothing") or measured["low"] is None:
        return UNTESTED
    value, low, high = (measured[key] for key in ("value", "low", "high"))
    if relation == "less":
        value, low, high = -value, -high, -low
    if relation == "same":
        inside, outside = max(-low, high) < MARGIN, low > MARGIN or high < -MARGIN
        return AGREES if inside else TREND if abs(value) < MARGIN else DISAGREES if outside else UNTESTED
    if value > 0:
        return AGREES if low > 0 else TREND
    return DISAGREES if high < 0 else UNTESTED


def judge(metrics: Sequence[dict[str, Any]], may_claim: str) -> list[dict[str, Any]]:
    """Every claim with its verdict.

    Args:
        metrics: of a study.
        may_claim: the profile's ``claims``.

    Returns:
        One dictionary a claim: name, theme, statement, relation, source, notebook, paper (points), metric, measured (or
        None), seeds, each (seed's value), verdict.
    """
    known = {metric["name"]: metric for metric in metrics}
    rows = []
    for claim in read_claims():
        measured = known.get(claim.metric)
        seeds = measured["seeds"] if measured else []
        word = verdict(measured, claim.relation, may_claim)
        rows.append(
            {
                "claim": claim.name,
                "theme": claim.theme,
                "statement": claim.statement,
                "relation": claim.relation,
                "source": claim.source,
                "untested": claim.untested,
                "notebook": claim.notebook,
                "paper": None if claim.paper is None else round(claim.paper, 2),
                "metric": claim.metric,
                "measured": measured
                and {key: measured[key] for key in ("value", "low", "high", "n", "unit")},
                "seeds": seeds,
                "each": measured["each"] if measured else [],
                "verdict": f"{word} (one seed: indicative)" if len(seeds) == 1 else word,
            }
        )
    return rows


def rows(judged: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table of claims: column heads and rows, from what `judge` returns."""
    head = ["claim", "paper (points)", "measured (points, or nats where it says so)", "n", "seeds", "verdict"]
    table = []
    for row in judged:
        theirs = row["source"] if row["paper"] is None else f"{row['paper']:+.1f} ({row['source']})"
        counts = [f"{row['measured']['n']:,}", str(len(row["seeds"]))] if row["measured"] else ["", ""]
        reason = f": {row['untested']}" if row["untested"] else ""
        table.append([row["statement"], theirs, f"{shown(row['measured'])}{reason}", *counts, row["verdict"]])
    return head, table


def shown(measured: dict[str, Any] | None) -> str:
    """A difference with its interval in words."""
    if measured is None:
        return "not measured"
    scale, form, unit = (100, "{:+.1f}", "") if measured["unit"] == "fraction" else (1, "{:+.2f}", " nats")
    value = form.format(scale * measured["value"])
    if measured["low"] is None:
        return value + unit
    low, high = (form.format(scale * measured[key]) for key in ("low", "high"))
    return f"{value} ({low} to {high}){unit}"
