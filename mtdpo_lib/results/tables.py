"""Tables of a run: its results beside the paper's, and the passports of its iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtdpo_lib.results.metric import Metrics, in_words, rests_on
from mtdpo_lib.results.paper import paper_by_iteration

SUITE_NAMES = {"gsm-like": "GSM-like", "math-like": "MATH-like", "gsm8k": "GSM8K", "math": "MATH"}

Table = tuple[list[str], list[list[str]]]  # column heads and rows


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Column heads and rows as a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def result_rows(metrics: Metrics) -> Table:
    """The table of results: SFT and each M-DPO iteration beside the paper's numbers, in per cent.

    Returns:
        Column heads and rows; a figure that was not measured is an empty cell.
    """
    suites = [suite for suite in SUITE_NAMES if metrics.select(kind="accuracy", split=suite)]
    shares = [metrics.by_iteration("accuracy", split) for split in ("test", *suites)]
    shares.append(metrics.by_iteration("sampled"))
    gains = metrics.by_iteration("gain")
    means = [metrics.by_iteration(kind) for kind in ("tool-calls", "tool-errors")]
    paper = paper_by_iteration()
    head = ["policy", "all", *(SUITE_NAMES[suite] for suite in suites), "sampled", "gain over SFT"]
    head += ["tool calls", "tool errors", "paper GSM8K", "paper MATH"]
    rows = []
    for step in sorted({0, 1, 2, 3, *shares[0]}):
        row = [f"M-DPO iteration {step}" if step else "SFT", *(in_words(found.get(step)) for found in shares)]
        row.append(in_words(gains.get(step), sign=True))
        row += [found[step].value_in_words() if step in found else "" for found in means]
        rows.append(row + [paper.get(step, {}).get(column, "") for column in ("gsm8k", "math")])
    return head, rows


def results_caption(metrics: Metrics) -> str:
    """What the table of results rests on: problems, seeds, and the word for one seed."""
    tested = metrics.select(kind="accuracy", split="test")
    if not tested:
        return "No policy has been evaluated yet."
    return f"Greedy accuracy in per cent with 95% intervals; {rests_on(tested, intervals='intervals')}"


def passport_rows(passports: Sequence[dict[str, Any]]) -> Table:
    """Where each policy came from, and what was kept and dropped: a column per iteration, a row per fact."""
    facts = list(dict.fromkeys(key for passport in passports for key in passport))
    rows = [[fact, *(plain(passport.get(fact)) for passport in passports)] for fact in facts]
    return ["", *(passport["policy"] for passport in passports)], rows


def plain(value: Any) -> str:
    """A passport's value in words: lists and dictionaries without brackets."""
    if isinstance(value, dict) and "samples a prompt" in value:
        return f"{value['samples a prompt']} of {value['policy']}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value)) or "none"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
