"""The paper's claims as data, and the rule that makes a verdict of a measured difference.

``data/paper/claims.csv`` names, for every claim, the metric of a study that tests it and the two rows of the paper's tables
that it stands beside, and marks the primary ones; ``data/paper/run_claims.csv`` does so for what one run alone can tell, and
``data/paper/assumptions.csv`` is the ledger of what the paper does not give. Rule, margin and primary claims were
written down before the study over fresh seeds was run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtdpo_lib.results.metric import Metric, Metrics, in_words
from mtdpo_lib.results.paper import paper_average, paper_table
from mtdpo_lib.results.stats import holm, sign_flip

# The smallest effect that counts, by unit. A point is the least difference that a primary claim has in the paper (M-KTO over
# single-turn KTO, Table 1), and about the standard error of a difference on its 1,319 and 5,000 test problems. A twentieth
# of a nat makes a whole trajectory five per cent more likely.
MARGIN = {"fraction": 0.01, "nats": 0.05}
LEVEL = 0.05  # below which an adjusted p-value of a primary claim has to be
AGREES, TOWARDS, AGAINST, DISAGREES = "agrees", "leans towards", "leans against", "disagrees"
NO_EFFECT, INCONCLUSIVE, NOT_EXERCISED = "no effect", "inconclusive", "not exercised"
RELATIONS = ("more", "less", "same")


@dataclass(frozen=True)
class Claim:
    """One line of ``claims.csv``.

    Attributes:
        name: short, for tables.
        kind: "primary", one of those that a study is made to test, or "exploratory".
        theme: what it is about; claims of one theme are shown together.
        statement: in words.
        relation: of the first to the second policy in `metric`: "more", "less" or "same".
        metric: the name of a metric, a fraction or nats; "none" where no profile can measure it. Of several, separated by
            " or ", the first that was measured counts.
        paper: the paper's own difference in points, of accuracies the mean of GSM8K and MATH; None without a number.
        notebook: that shows it.
        source: in arXiv 2409.02392v2.
        untested: why nothing is measured, where `metric` is "none".
    """

    name: str
    kind: str
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
    """A claim, what was measured of it, and the word of `verdict`.

    Attributes:
        claim: as it stands in its file.
        measured: None where nothing was.
        verdict: one of seven words.
        reason: why nothing was measured.
        p: of a primary claim: two-sided, from the signs of the seeds' differences (`mtdpo_lib.results.stats.sign_flip`).
        adjusted: the same by Holm's method over all primary claims.
    """

    claim: Claim
    measured: Metric | None
    verdict: str
    reason: str = ""
    p: float | None = None
    adjusted: float | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.measured.seeds if self.measured else ()

    @property
    def signs(self) -> str:
        """``5: +++-+``: how many seeds, and the sign of each one's own difference."""
        each = self.measured.each if self.measured else ()
        signs = "".join("+" if one > 0 else "-" if one < 0 else "0" for one in each)
        return f"{len(self.seeds)}: {signs}" if signs else str(len(self.seeds))

    @property
    def verdict_in_words(self) -> str:
        """The verdict; from one seed it is called indicative."""
        return f"{self.verdict} (one seed: indicative)" if len(self.seeds) == 1 else self.verdict

    def to_dict(self) -> dict[str, Any]:
        """The claim's entry in a study's ``report.json``."""
        row: dict[str, Any] = {"name": f"claim/{self.claim.name}"}
        for key, missing in (("value", None), ("low", None), ("high", None), ("n", 0), ("unit", "")):
            row[key] = getattr(self.measured, key, missing)
        metric = self.measured.name if self.measured else self.claim.metric
        row |= {"seeds": list(self.seeds), "metric": metric, "kind": self.claim.kind}
        return row | {"p": self.p, "holm_p": self.adjusted, "verdict": self.verdict_in_words}


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
        kind = "primary" if line.get("primary") else "exploratory"
        given = (line["claim"], kind, line["theme"], line["statement"], line["relation"])
        metric = line["metric"].format(**policies)
        claims.append(Claim(*given, metric, points, line["notebook"], line["source"], line["untested"]))
    return claims


def verdict(measured: Metric | None, relation: str = "more", adjusted: float | None = None) -> str:
    """The word for a claim: where the 95% interval lies, seen from zero and from the margin on either side.

    The margin is the smallest effect that counts: 1 point, or 0.05 nats. In the direction that the paper claims:

    - **no effect**: the interval lies inside the margin on both sides;
    - **agrees**: it lies above zero and, for a primary claim, Holm's adjusted p is below 0.05;
    - **leans towards**: it does not, but rules out an effect of the margin's size in the other direction;
    - **leans against**, **disagrees**: the same two in the other direction;
    - **inconclusive**: it holds effects of the margin's size in both directions;
    - **not exercised**: it was not run, for the reason given.

    Where the paper claims that nothing changes, a claim **agrees** inside the margin and **disagrees** beyond it; where the
    interval crosses one end of the margin, it **leans towards** or **against** as the value lies inside or beyond.

    Args:
        measured: a fraction or nats; None where nothing was measured.
        relation: "more", "less" or "same".
        adjusted: the adjusted p of a primary claim.

    Raises:
        ValueError: an unknown relation.
    """
    if relation not in RELATIONS:
        raise ValueError(f"Unknown relation {relation!r}: known are {', '.join(RELATIONS)}.")
    if measured is None or measured.low is None or measured.high is None:
        return INCONCLUSIVE if measured else NOT_EXERCISED
    margin, ends = MARGIN.get(measured.unit, 0.0), (measured.low, measured.high)
    low, high = ends if relation != "less" else (-ends[1], -ends[0])
    none_below, none_above = low > -margin, high < margin
    if relation == "same":
        inside = abs(measured.value) < margin
        certain = (none_below and none_above) or low >= margin or high <= -margin
        agrees, leans = (AGREES, TOWARDS) if inside else (DISAGREES, AGAINST)
    elif none_below and none_above:
        return NO_EFFECT
    else:
        certain = (low > 0 or high < 0) and (adjusted is None or adjusted < LEVEL)
        agrees, leans = (AGREES, TOWARDS) if none_below else (DISAGREES, AGAINST)
    return agrees if certain else leans if none_below or none_above else INCONCLUSIVE


def judge(metrics: Metrics, may_claim: str, claims: Sequence[Claim] | None = None) -> list[JudgedClaim]:
    """Every claim with its verdict, the primary ones with their p-values.

    Args:
        metrics: of a study, or of a run.
        may_claim: the profile's ``claims``; where it begins with "nothing", no claim counts as exercised.
        claims: those of a study when missing.
    """
    claims, missing = read_claims() if claims is None else claims, "it needs arms that were not run"
    if may_claim.startswith("nothing"):
        metrics, missing = Metrics(), f"this profile claims {may_claim}"
    found = {claim.name: metrics.named(*claim.metric.split(" or ")) for claim in claims}
    p = {claim.name: _p_value(found[claim.name]) for claim in claims if claim.kind == "primary"}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    judged = []
    for claim in claims:
        measured, tests = found[claim.name], (p.get(claim.name), adjusted.get(claim.name))
        word = verdict(measured, claim.relation, tests[1])
        reason = "" if measured else claim.untested or missing
        judged.append(JudgedClaim(claim, measured, word, reason, *(tests if measured else ())))
    return judged


def _p_value(measured: Metric | None) -> float:
    """Of the seeds' differences, in whole questions so that ties are exact; 1 where nothing was measured."""
    return sign_flip([round(one * measured.n) for one in measured.each]) if measured else 1.0


def rows(judged: Sequence[JudgedClaim]) -> tuple[list[str], list[list[str]]]:
    """The table of claims: column heads and rows, from what `judge` returns; p-values where any claim is a primary one."""
    tested = any(row.claim.kind == "primary" for row in judged)
    head = ["claim", "paper (points)", "measured (points, or nats where it says so)"]
    head += [*(["p", "Holm p"] if tested else []), "n", "seeds", "verdict"]
    table = []
    for row in judged:
        claim, measured = row.claim, row.measured
        theirs = claim.source if claim.paper is None else f"{claim.paper:+.1f} ({claim.source})"
        ours = in_words(measured, sign=True, missing=f"not measured: {row.reason}")
        p = [f"{value:.2g}" for value in (row.p, row.adjusted) if value is not None] or [claim.kind, ""]
        counts = [f"{measured.n:,}", row.signs] if measured else ["", ""]
        table.append([claim.statement, theirs, ours, *(p if tested else []), *counts, row.verdict_in_words])
    return head, table


def verdict_counts(judged: Sequence[JudgedClaim]) -> str:
    """How often each verdict was given, the most frequent first: ``12 leans towards, 11 agrees``."""
    words = Counter(row.verdict_in_words for row in judged)
    return ", ".join(f"{count} {word}" for word, count in words.most_common())
