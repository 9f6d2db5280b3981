"""TODO: results.figures.study."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mtdpo_lib.results.figures.style import (
    BLACK,
    BLUE,
    FACT_WORDS,
    GREY,
    ORANGE,
    SKY,
    VERDICT_STYLES,
    Figure,
    Metrics,
    _across,
    _by_name,
    _legend,
    _over_seeds_caption,
    _percent,
    _rests_on,
    _with_intervals,
    style_of,
)


def arms(metrics: Metrics, labels: dict[str, str]) -> Figure:
    """What each arm of a study gives and what it costs: accuracy, gain over SFT, tokens sampled and trained on.

    Args:
        metrics: of a study.
        labels: arm to its words, in the order shown; arms without an accuracy are left out.
    """
    known = _by_name(metrics)
    shown = {name: label for name, label in labels.items() if f"accuracy/test/{name}" in known}
    fig = Figure(
        _rests_on([known[f"accuracy/test/{name}"] for name in shown]), size=(9.5, 1.5 + 0.34 * len(shown))
    )
    panels = fig.subplots(1, 3, sharey=True, width_ratios=(3, 3, 2))
    for row, name in enumerate(shown):
        for axes, kind in zip(panels[:2], ("accuracy", "gain"), strict=True):
            _across(axes, row, known[f"{kind}/test/{name}"], *style_of(name))
    rows, left = range(len(shown)), [0.0] * len(shown)
    for cost, colour, hatch in (("sampled-tokens", SKY, ""), ("trained-tokens", ORANGE, "//")):
        costs = [known[f"cost/{cost}/{name}"]["value"] / 1e6 for name in shown]
        label = cost.replace("-tokens", "")
        panels[2].barh(rows, costs, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
        left = [start + own for start, own in zip(left, costs, strict=True)]
    labels = [textwrap.fill(f"{name}: {label}", 46) for name, label in shown.items()]
    panels[0].set_yticks(rows, labels, fontsize=8)
    panels[0].set_ylim(max(len(shown), 1) - 0.5, -0.7)
    panels[1].axvline(0, color=GREY, linewidth=0.8)
    for axes, label in zip(
        panels, ("greedy accuracy (%)", "gain over SFT (points)", "million tokens"), strict=True
    ):
        axes.set_xlabel(label)
    panels[2].legend(fontsize=7.5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    gained = [name for name in shown if (known[f"gain/test/{name}"].get("low") or 0) > 0]
    fig.suptitle(f"{len(gained)} of {len(shown)} arms are shown to gain over their SFT policy", fontsize=10)
    return fig


def claims(judged: Sequence[dict[str, Any]], theme: str) -> Figure:
    """Measured differences beside the paper's: mean with interval, every seed, and the paper's own number.

    Args:
        judged: rows of `mtdpo_lib.results.claims.judge`; those that nothing was measured for are left out.
        theme: of the claims to show.
    """
    measured = [row for row in judged if row["measured"] and row["theme"] == theme]
    units = [
        unit for unit in ("fraction", "nats") if any(row["measured"]["unit"] == unit for row in measured)
    ]
    fig = Figure(_rests_on([{**row["measured"], "seeds": row["seeds"]} for row in measured]),
                 size=(9.5, 1.6 + 0.62 * len(measured)))  # fmt: skip
    counts = [sum(row["measured"]["unit"] == unit for row in measured) for unit in units] or [1]
    panels = fig.subplots(max(len(units), 1), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, unit in zip(panels, units, strict=False):
        own = [row for row in measured if row["measured"]["unit"] == unit]
        scale = 100 if unit == "fraction" else 1
        for place, row in enumerate(own):
            colour, marker = VERDICT_STYLES.get(row["verdict"].split(" (")[0], (GREY, "o"))
            axes.plot(
                [scale * value for value in row["each"]], [place + 0.22] * len(row["each"]), ".",
                color=GREY, alpha=0.6, markersize=5,
            )  # fmt: skip
            _across(axes, place, row["measured"], colour, marker, scale)
            if row["paper"] is not None:
                axes.plot(
                    [row["paper"]], [place], marker="d", color=BLACK, markerfacecolor="none", linestyle=""
                )
        labels = [textwrap.fill(f"{row['statement']}: {row['verdict']}", 62) for row in own]
        axes.set_yticks(range(len(own)), labels, fontsize=8)
        axes.set_ylim(len(own) - 0.4, -0.7)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel("difference (points)" if unit == "fraction" else "log-ratio to the reference (nats)")
    handles = [
        Line2D([], [], marker="s", color=GREY, linestyle="-", label="mean and 95% interval"),
        Line2D([], [], marker=".", color=GREY, linestyle="", label="each seed"),
        Line2D([], [], marker="d", color=BLACK, markerfacecolor="none", linestyle="", label="the paper"),
    ]
    panels[0].legend(handles=handles, fontsize=7.5, frameon=False, loc="lower left",
                     bbox_to_anchor=(0, 1.0), ncols=3)  # fmt: skip
    words = Counter(row["verdict"].split(" (")[0] for row in measured)
    told = ", ".join(f"{count} {word}" for word, count in words.items())
    fig.suptitle(f"The paper's claims on {theme}: {told}" if told else "Nothing measured yet", fontsize=10)
    return fig


def over_iterations(metrics: Metrics, facts: Sequence[str], arms: Sequence[str]) -> Figure:
    """What changed from one iteration to the next: a panel for each fact, a line for each arm.

    Args:
        metrics: of a study.
        facts: of `mtdpo_lib.experiment.study.iteration_facts`, e.g. ``["right", "distinct"]``.
        arms: in the order of the legend.
    """
    known = _by_name(metrics)
    columns = min(len(facts), 3)
    rows = math.ceil(len(facts) / columns)
    every = [known[f"{fact}/1/{arm}"] for fact in facts for arm in arms if f"{fact}/1/{arm}" in known]
    fig = Figure(_over_seeds_caption(every), (9.5, 0.9 + 2.7 * rows))
    panels = fig.subplots(rows, columns, squeeze=False).flat
    for axes, fact in zip(panels, facts, strict=False):
        for place, arm in enumerate(arms):
            points = [
                (number, known[f"{fact}/{number}/{arm}"])
                for number in range(1, 10)
                if f"{fact}/{number}/{arm}" in known
            ]
            if not points:
                continue
            numbers, values = zip(*points, strict=True)
            scale = 100 if values[0]["unit"] == "fraction" else 1
            aside = 0.06 * (place - (len(arms) - 1) / 2)  # intervals side by side
            colour, marker = style_of(arm)
            _with_intervals(
                axes, [number + aside for number in numbers], values, colour, marker, arm, "-", scale
            )
        axes.set_ylabel(FACT_WORDS.get(fact, fact), fontsize=8.5)
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(fig.axes)[len(facts) :]:
        axes.remove()
    handles, names = fig.axes[0].get_legend_handles_labels()
    if handles:
        fig.legend(handles, names, fontsize=8, frameon=False, loc="outside right center")
    told = []
    for arm in arms:
        numbers = [number for number in range(1, 10) if f"{facts[0]}/{number}/{arm}" in known]
        if numbers:
            ends = (known[f"{facts[0]}/{number}/{arm}"]["value"] for number in (numbers[0], numbers[-1]))
            told.append(f"{arm} " + " to ".join(map(_percent, ends)))
    subject = " ".join(FACT_WORDS.get(facts[0], facts[0]).split())
    title = f"From the first to the last iteration, {subject}: {', '.join(told)}"
    fig.suptitle(textwrap.fill(title, 115) if told else "Nothing measured yet", fontsize=10)
    return fig


def pass_at_n(metrics: Metrics, labels: dict[str, str]) -> Figure:
    """pass@n of some policies, with intervals (the paper's Figure 2).

    Args:
        metrics: of a study, ``pass/<n>/<policy>`` among them.
        labels: policy (``arm`` or ``arm/sft``) to its words.
    """
    curves = {
        label: sorted(
            (int(metric["name"].split("/")[1]), metric)
            for metric in metrics
            if re.fullmatch(rf"pass/\d+/{re.escape(name)}", metric["name"])
        )
        for name, label in labels.items()
    }
    curves = {label: points for label, points in curves.items() if points}
    fig = Figure(_rests_on([metric for points in curves.values() for _, metric in points]))
    axes = fig.add_subplot(xlabel="samples a question (n)", ylabel="pass@n (%)")
    for label, points in curves.items():
        colour, marker = style_of(label.lower())
        n, values = zip(*points, strict=True)
        _with_intervals(axes, n, values, colour, marker, label, "-")
    if curves:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    _legend(axes)
    ends = [
        f"{label} {_percent(points[0][1]['value'])} to {_percent(points[-1][1]['value'])} %"
        for label, points in curves.items()
    ]
    axes.set_title("From one sample to many: " + ", ".join(ends) if ends else "No pass@n yet", fontsize=9)
    return fig


def gain_by_start(metrics: Metrics, arms: Sequence[str]) -> Figure:
    """What each seed's SFT policy started from, and what an arm gained from there; a point a seed.

    Args:
        metrics: of a study, ``accuracy/test/<arm>`` and ``gain/test/<arm>`` among them, with a value for each seed.
        arms: in the order of the legend; the title tells of the first.
    """
    known, points = _by_name(metrics), {}
    for arm in arms:
        accuracy, gain = (known.get(f"{kind}/test/{arm}") for kind in ("accuracy", "gain"))
        if accuracy and gain:
            pairs = zip(accuracy["each"], gain["each"], strict=True)
            points[arm] = sorted((100 * (end - gained), 100 * gained) for end, gained in pairs)
    gains = [known[f"gain/test/{arm}"] for arm in points]
    fig = Figure(_rests_on(gains, shown="A point a seed."))
    axes = fig.add_subplot(
        xlabel="SFT policy, greedy accuracy (%)", ylabel="gain after the last iteration (points)"
    )
    for arm, pairs in points.items():
        colour, marker = style_of(arm)
        axes.plot(*zip(*pairs, strict=True), color=colour, marker=marker, linestyle=":", label=arm)
    axes.axhline(0, color=GREY, linewidth=0.8)
    _legend(axes, outside=True)
    title = "No seeds yet"
    if points:
        arm, pairs = next(iter(points.items()))
        told = (f"{gained:+.1f} points from {start:.1f} %" for start, gained in (pairs[0], pairs[-1]))
        title = f"{arm}: " + ", ".join(told)
    axes.set_title(title, fontsize=10)
    return fig


def dose_response(metrics: Metrics, lines: Sequence[int]) -> Figure:
    """What long tool output does to training that scores it: its share of the gradient, the gains, their difference.

    Args:
        metrics: of a study with the arms ``log-<lines>`` (masked) and ``log-<lines>-dpo`` (scored).
        lines: the doses.
    """
    known = _by_name(metrics)
    lines = [dose for dose in lines if f"difference/test/log-{dose}-dpo-minus-log-{dose}" in known]
    differences = [known[f"difference/test/log-{dose}-dpo-minus-log-{dose}"] for dose in lines]
    fig = Figure(_rests_on(differences), size=(9.5, 3.4))
    left, middle, right = fig.subplots(1, 3)
    for axes, kind in ((left, "tool_gradient_share/1"), (middle, "gain/test")):
        for name, label, style in (
            ("log-{}", "masked (M-DPO)", (BLUE, "s")),
            ("log-{}-dpo", "scored", (SKY, "v")),
        ):
            points = [(dose, known.get(f"{kind}/{name.format(dose)}")) for dose in lines]
            points = [(dose, metric) for dose, metric in points if metric is not None]
            if points:
                doses, values = zip(*points, strict=True)
                _with_intervals(axes, doses, values, *style, label=label, line="-")
    if lines:
        _with_intervals(right, lines, differences, BLACK, "o", "", "-")
        _legend(left)
    right.axhline(0, color=GREY, linewidth=0.8)
    left.set_ylabel("tool tokens' share of the gradient,\nif scored (%)")
    middle.set_ylabel("gain over SFT (points)")
    right.set_ylabel("scored minus masked (points)")
    for axes in (left, middle, right):
        axes.set_xlabel("lines of a log above each result")
        axes.set_xticks(list(lines))
    told = ", ".join(
        f"{100 * one['value']:+.1f} at {dose} lines" for dose, one in zip(lines, differences, strict=True)
    )
    fig.suptitle(
        f"Scoring the tool's output instead of masking it, in points: {told}"
        if told
        else "Nothing measured yet",
        fontsize=10,
    )
    return fig
