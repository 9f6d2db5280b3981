"""The paper's claims as data, and the rule that makes a verdict of a measured difference.

``data/paper/claims.csv`` names, for every claim, the metric of a study that tests it and the two rows of the paper's tables
that it stands beside; ``data/paper/run_claims.csv`` does so for what one run alone can tell, and
``data/paper/assumptions.csv`` is the ledger of what the paper does not give. The rule was written down before any study
was run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtdpo_lib.results.metric import Metric, Metrics, in_words
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
        metric: the name of a metric, a fraction or nats; "none" where no profile can measure it.
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


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, what was measured of it (None for nothing), and the word of `verdict`."""

    claim: Claim
    measured: Metric | None
    verdict: str

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.measured.seeds if self.measured else ()

    @property
    def verdict_in_words(self) -> str:
        """The verdict; from one seed it is called indicative."""
        return f"{self.verdict} (one seed: indicative)" if len(self.seeds) == 1 else self.verdict

    def to_dict(self) -> dict[str, Any]:
        """The claim's entry in a study's ``report.json``."""
        row: dict[str, Any] = {"name": f"claim/{self.claim.name}"}
        for key, missing in (("value", None), ("low", None), ("high", None), ("n", 0), ("unit", "")):
            row[key] = getattr(self.measured, key, missing)
        return row | {
            "seeds": list(self.seeds),
            "metric": self.claim.metric,
            "verdict": self.verdict_in_words,
        }


def read_claims(table: str = "claims", **policies: str) -> list[Claim]:
    """All claims, in the order of the file; its column `points` is for numbers that stand in the paper's text.

    Args:
        table: "claims" of a study, "run_claims" of one run.
        policies: what stands in braces in the names of a run's metrics: ``first``, ``second`` and ``last``.
    """
    claims = []
    for line in paper_table(table):
        points = float(line["points"]) if line["points"] else None
        if line["table"]:
            ours, theirs = (paper_average(line["table"], line[key]) for key in ("row", "minus"))
            points = round(ours - theirs, 2)
        given = (line["claim"], line["theme"], line["statement"], line["relation"])
        metric = line["metric"].format(**policies)
        claims.append(Claim(*given, metric, points, line["notebook"], line["source"], line["untested"]))
    return claims


def verdict(measured: Metric | None, relation: str = "more", may_claim: str = "trends") -> str:
    """The word for a claim.

    "more" and "less": **agrees** if the sign is the paper's and the 95% interval excludes zero, **trend agrees** if it
    contains zero, **disagrees** if the sign is the other one and the interval excludes zero. "same": **agrees** if the
    interval lies within `MARGIN`, **trend agrees** if only the value does, **disagrees** if the interval lies outside.
    Everything else, and everything at a profile that claims nothing, is **not testable at this profile**.

    Args:
        measured: a fraction or nats; None where nothing was measured.
        relation: "more", "less" or "same".
        may_claim: the profile's ``claims``.

    Raises:
        ValueError: an unknown relation.
    """
    if relation not in RELATIONS:
        raise ValueError(f"Unknown relation {relation!r}: known are {', '.join(RELATIONS)}.")
    if measured is None or measured.low is None or measured.high is None or may_claim.startswith("nothing"):
        return UNTESTED
    value, low, high = measured.value, measured.low, measured.high
    if relation == "less":
        value, low, high = -value, -high, -low
    if relation == "same":
        inside, outside = max(-low, high) < MARGIN, low > MARGIN or high < -MARGIN
        return AGREES if inside else TREND if abs(value) < MARGIN else DISAGREES if outside else UNTESTED
    if value > 0:
        return AGREES if low > 0 else TREND
    return DISAGREES if high < 0 else UNTESTED


def judge(metrics: Metrics, may_claim: str, claims: Sequence[Claim] | None = None) -> list[JudgedClaim]:
    """Every claim with its verdict.

    Args:
        metrics: of a study, or of a run.
        may_claim: the profile's ``claims``.
        claims: those of a study when missing.
    """
    judged = []
    for claim in read_claims() if claims is None else claims:
        measured = metrics.named(claim.metric)
        judged.append(JudgedClaim(claim, measured, verdict(measured, claim.relation, may_claim)))
    return judged


def rows(judged: Sequence[JudgedClaim]) -> tuple[list[str], list[list[str]]]:
    """The table of claims: column heads and rows, from what `judge` returns."""
    head = ["claim", "paper (points)", "measured (points, or nats where it says so)", "n", "seeds", "verdict"]
    table = []
    for row in judged:
        claim, measured = row.claim, row.measured
        theirs = claim.source if claim.paper is None else f"{claim.paper:+.1f} ({claim.source})"
        ours = in_words(measured, sign=True, missing="not measured")
        ours += f": {claim.untested}" if claim.untested else ""
        counts = [f"{measured.n:,}", str(len(row.seeds))] if measured else ["", ""]
        table.append([claim.statement, theirs, ours, *counts, row.verdict_in_words])
    return head, table


def verdict_counts(judged: Sequence[JudgedClaim]) -> str:
    """How often each verdict was given, the most frequent first: ``12 trend agrees, 11 agrees``."""
    words = Counter(row.verdict_in_words for row in judged)
    return ", ".join(f"{count} {word}" for word, count in words.most_common())
