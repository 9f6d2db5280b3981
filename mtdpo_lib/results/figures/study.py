"""Figures of a study: arms over seeds, the paper's claims, and what changes over iterations, doses and samples."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D

from mtdpo_lib.experiment.arms import PASS_AT
from mtdpo_lib.results.claims import MARGIN, JudgedClaim
from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREY, ORANGE, SKY
from mtdpo_lib.results.figures.style import DOTS, FACT_WORDS, VERDICT_STYLES, Figure, style_of
from mtdpo_lib.results.metric import Metric, Metrics

NOTHING = "Nothing measured yet"
CLAIM_UNITS = {"fraction": "difference (points)", "nats": "log-ratio to the reference (nats)"}


def arms(metrics: Metrics, labels: Mapping[str, str]) -> Figure:
    """What each arm of a study gives and what it costs: accuracy, gain over SFT, tokens sampled and trained on.

    Args:
        metrics: of a study.
        labels: arm to its words, in the order shown; arms without an accuracy are left out.
    """
    shown = metrics.with_gains(labels)
    fig = Figure.of([accuracy for accuracy, _ in shown.values()], (9.5, 1.5 + 0.34 * len(shown)))
    words = ["greedy accuracy (%)", "gain over SFT (points)", "million tokens"]
    left, middle, right = fig.row(3, True, xlabel=words, width_ratios=(3, 3, 2))
    fig.across(shown.values())
    parts = []
    for label, colour, hatch in (("sampled", SKY, ""), ("trained", ORANGE, "//")):
        costs = (metrics.get("cost", f"{label}-tokens", name) for name in shown)
        parts.append((label, [cost.value / 1e6 if cost else 0.0 for cost in costs], colour, hatch))
    rows = [textwrap.fill(f"{name}: {labels[name]}", 46) for name in shown]
    right.stacked(rows, parts)
    left.name_rows(rows, above=0.7, fontsize=8)
    middle.zero_line(across=False)
    right.key(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    gained = sum(gain is not None and (gain.low or 0) > 0 for _, gain in shown.values())
    return fig.titled(f"{gained} of {len(shown)} arms are shown to gain over their SFT policy")


def claims(judged: Sequence[JudgedClaim], theme: str) -> Figure:
    """Measured differences beside the paper's: mean with interval, every seed, and the paper's own number.

    Args:
        judged: claims, as `mtdpo_lib.results.judge` gives them; those that nothing was measured for are left out.
        theme: of the claims to show, or "primary" for those.
    """
    wanted = [row for row in judged if theme in (row.claim.theme, row.claim.kind)]
    measured = [(row.measured, row) for row in wanted if row.measured]
    by_unit = {
        words: own
        for unit, words in CLAIM_UNITS.items()
        if (own := [(metric, row) for metric, row in measured if metric.unit == unit])
    }
    fig = Figure.of([metric for metric, _ in measured], (9.5, 1.6 + 0.62 * len(measured)))
    counts = [len(own) for own in by_unit.values()] or [1]
    panels = fig.grid(len(counts), 1, height_ratios=counts)
    hollow: dict[str, Any] = {"marker": "d", "color": BLACK, "markerfacecolor": "none", "linestyle": ""}
    for axes, (words, own) in zip(panels, by_unit.items(), strict=False):
        for position, (metric, row) in enumerate(own):
            axes.across(position, metric, VERDICT_STYLES.get(row.verdict, (GREY, "o")))
            if row.claim.paper is not None:
                axes.plot([row.claim.paper], [position], **hollow)
        labels = [textwrap.fill(f"{row.claim.statement}: {row.verdict_in_words}", 62) for _, row in own]
        axes.name_rows(labels, below=0.4, above=0.7, fontsize=8)
        axes.zero_line(across=False)
        margin = own[0][0].scale * MARGIN[own[0][0].unit]
        axes.axvspan(-margin, margin, color=GREY, alpha=0.15, label="too small to count")
        axes.set_xlabel(words)
    handles = [
        *panels[0].patches,
        Line2D([], [], marker="s", color=GREY, linestyle="-", label="mean and 95% interval"),
        Line2D([], [], label="each seed", **DOTS),
        Line2D([], [], label="the paper", **hollow),
    ]
    panels[0].key(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4)
    verdicts = Counter(row.verdict for _, row in measured)
    summary = ", ".join(f"{count} {word}" for word, count in verdicts.items())
    return fig.titled(f"Claims of the paper ({theme}): {summary}" if summary else NOTHING)


def over_iterations(metrics: Metrics, facts: Sequence[str], arms: Sequence[str]) -> Figure:
    """What changed from one iteration to the next: a panel for each fact, a line for each arm.

    Args:
        metrics: of a study.
        facts: of `mtdpo_lib.experiment.study.iteration_facts`, e.g. ``["right", "distinct"]``.
        arms: in the order of the legend.
    """
    columns = min(len(facts), 3)
    rows = math.ceil(len(facts) / columns)
    series = {(fact, arm): _by_iteration(metrics, fact, arm) for fact in facts for arm in arms}
    first = [found[1] for found in series.values() if 1 in found]
    fig = Figure.of(first, (9.5, 0.9 + 2.7 * rows), over_seeds=True)
    panels = fig.grid(rows, columns)
    for axes, fact in zip(panels, facts, strict=False):
        for position, arm in enumerate(arms):
            if found := series[fact, arm]:
                aside = 0.06 * (position - (len(arms) - 1) / 2)  # intervals side by side
                axes.line({number + aside: metric for number, metric in found.items()}, style_of(arm), arm)
        axes.set_ylabel(FACT_WORDS.get(fact, fact), fontsize=8.5)
        axes.set_xlabel("iteration")
        axes.whole_steps()
    for axes in panels[len(facts) :]:
        axes.remove()
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        fig.legend(handles, names, fontsize=8, frameon=False, loc="outside right center")
    changes = []
    for arm in arms:
        last = max(series[facts[0], arm], default=0)
        if change := metrics.get(facts[0], policy=arm, iteration=last, since=1):
            changes.append(f"{arm} {change.in_words(sign=True)}")
    subject = " ".join(FACT_WORDS.get(facts[0], facts[0]).split())
    title = f"Change from the first to the last iteration, {subject}: {', '.join(changes)}"
    fig.suptitle(textwrap.fill(title, 115) if changes else NOTHING, fontsize=10)
    return fig


def _by_iteration(metrics: Metrics, fact: str, arm: str) -> dict[int, Metric]:
    found = metrics.select(kind=fact, split="", policy=arm, since=None, against="")
    return {metric.iteration: metric for metric in found if metric.iteration is not None}


def pass_at_n(metrics: Metrics, labels: Mapping[str, str]) -> Figure:
    """pass@n of some policies, with intervals (the paper's Figure 2).

    Args:
        metrics: of a study, ``pass/<n>/<policy>`` among them.
        labels: policy (``arm`` or ``arm/sft``) to its words.
    """
    curves = {
        label: points
        for name, label in labels.items()
        if (points := {n: metric for n in PASS_AT if (metric := metrics.get("pass", str(n), name))})
    }
    fig = Figure.of([metric for points in curves.values() for metric in points.values()])
    axes = fig.panel("samples a question (n)", "pass@n (%)")
    ends = []
    for label, points in curves.items():
        axes.line(points, style_of(label.lower()), label)
        first, last = (points[n].value_in_words() for n in (min(points), max(points)))
        ends.append(f"{label} {first} to {last} %")
    if curves:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    return fig.titled("From one sample to many: " + ", ".join(ends) if ends else "No pass@n yet", size=9)


def gain_by_start(metrics: Metrics, arms: Sequence[str]) -> Figure:
    """What each seed's SFT policy started from, and what an arm gained from there; a point per seed.

    Args:
        metrics: of a study, ``accuracy/test/<arm>`` and ``gain/test/<arm>`` among them, with a value for each seed.
        arms: in the order of the legend; the title tells of the first.
    """
    gains, points = [], {}
    for arm in arms:
        accuracy, gain = (metrics.get(kind, "test", arm) for kind in ("accuracy", "gain"))
        if accuracy and gain:
            gains.append(gain)
            pairs = zip(accuracy.each, gain.each, strict=True)
            points[arm] = sorted((100 * (end - gained), 100 * gained) for end, gained in pairs)
    fig = Figure.of(gains, bars="A point a seed.")
    axes = fig.panel("SFT policy, greedy accuracy (%)", "gain after the last iteration (points)")
    for arm, pairs in points.items():
        colour, marker = style_of(arm)
        axes.plot(*zip(*pairs, strict=True), color=colour, marker=marker, linestyle=":", label=arm)
    axes.zero_line()
    title = "No seeds yet"
    for arm, pairs in list(points.items())[:1]:
        ends = (f"{gained:+.1f} points from {start:.1f} %" for start, gained in (pairs[0], pairs[-1]))
        title = f"{arm}: {', '.join(ends)}"
    return fig.titled(title, outside=True)


def dose_response(metrics: Metrics, lines: Sequence[int]) -> Figure:
    """What long tool output does to training that scores it: its share of the gradient, the gains, their difference.

    Args:
        metrics: of a study with the arms ``log-<lines>`` (masked) and ``log-<lines>-dpo`` (scored).
        lines: the doses.
    """

    def by_dose(arm: str, kind: str, against: str = "", **fields: Any) -> dict[int, Metric]:
        found = {
            dose: metrics.get(kind, policy=arm.format(dose), against=against.format(dose), **fields)
            for dose in lines
        }
        return {dose: metric for dose, metric in found.items() if metric}

    masked, scored = "log-{}", "log-{}-dpo"
    differences = by_dose(scored, "difference", against=masked, split="test")
    fig = Figure.of(list(differences.values()), (9.5, 3.4))
    words = [FACT_WORDS["tool_gradient_share"], "gain over SFT (points)", "scored minus masked (points)"]
    left, middle, right = fig.row(3, ylabel=words, xlabel="lines of a log above each result")
    for arm, label, style in ((masked, "masked (M-DPO)", (BLUE, "s")), (scored, "scored", (SKY, "v"))):
        shares = by_dose(arm, "tool_gradient_share", iteration=1)
        gains = by_dose(arm, "gain", split="test")
        for axes, found, name in ((left, shares, label), (middle, gains, "")):
            if points := {dose: metric for dose, metric in found.items() if dose in differences}:
                axes.line(points, style, name)
    if differences:
        right.line(differences, (BLACK, "o"))
    right.zero_line()
    for axes in (left, middle, right):
        axes.set_xticks(list(differences))
    ends = (f"{metric.in_words(sign=True)} at {dose} lines" for dose, metric in differences.items())
    title = f"Scoring the tool's output instead of masking it, in points: {', '.join(ends)}"
    return fig.titled(title if differences else NOTHING, wrap=115)
