"""Figures: one function each, from record data to a `Figure`; notebooks show them and never style.

Colours are safe for colour-blind readers and mean the same method in every figure; markers repeat what colours say.
Intervals are drawn, axes carry units, the caption says what the figure rests on, and the title states the finding,
worded from the numbers it is drawn from. A figure shows once when it is the last value of a cell.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mtdpo_lib.stats import mean_interval

SIZE = (6.5, 3.5)  # inches
DPI = 100
TITLE_CHARACTERS = 88  # in a line of SIZE's width

BLACK, GREY, BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#000000", "#777777", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip

# Part of a policy's name -> (colour, marker); the first that fits holds.
METHOD_STYLES: tuple[tuple[str, tuple[str, str]], ...] = (
    ("fixed", (ORANGE, "^")),
    ("onpolicy", (GREEN, "D")),
    ("on-policy", (GREEN, "D")),
    ("eta-low", (SKY, "<")),
    ("eta-high", (RED, ">")),
    ("mkto", (PURPLE, "P")),
    ("unmasked", (SKY, "v")),
    ("exact-v", (BLACK, "*")),
    ("learned-v", (RED, "o")),
    ("sampled-v", (ORANGE, "h")),
    ("raft", (RED, "X")),
    ("n-3", (RED, "<")),
    ("n-18", (PURPLE, ">")),
    ("nll", (GREEN, "D")),
    ("kto", (ORANGE, "^")),
    ("mdpo", (BLUE, "s")),
    ("dpo", (SKY, "v")),
    ("sft", (GREY, "o")),
)
SUITE_STYLES = {
    "gsm-like": (GREEN, "D"),
    "gsm8k": (GREEN, "D"),
    "math-like": (PURPLE, "^"),
    "math": (PURPLE, "^"),
}
CHOSEN, REJECTED, MARGIN, LOSS = BLUE, RED, PURPLE, BLACK
RIGHT, WRONG, NO_ANSWER = BLUE, ORANGE, GREY
VERDICT_STYLES = {"agrees": (BLUE, "s"), "trend agrees": (SKY, "s"), "disagrees": (RED, "X")}
FACT_WORDS = {
    "accuracy": "greedy accuracy (%)",
    "right": "right samples of the\ncurrent policy (%)",
    "distinct": "two samples of a prompt\ndiffer (%)",
    "covered": "prompts that give a pair (%)",
    "chosen_ratio": "chosen: log-ratio to the reference\nat the end (nats)",
    "rejected_ratio": "rejected: log-ratio to the reference\nat the end (nats)",
    "tool_gradient_share": "tool tokens' share of the gradient,\nif scored (%)",
}

Metrics = Sequence[dict[str, Any]]


class Figure(figure.Figure):
    """A figure that knows how to show itself in a notebook without the global state of pyplot."""

    def __init__(self, caption: str = "", size: tuple[float, float] = SIZE):
        super().__init__(figsize=size, dpi=DPI, layout="constrained")
        if caption:
            self.supxlabel(caption, fontsize=7.5, x=0.01, ha="left", color=GREY)

    def png(self) -> bytes:
        """The figure as a PNG of at most 256 colours, a third of the size; the same bytes for the same data."""
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=DPI)
        Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            small, format="png", optimize=True
        )
        return small.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def save(self, file: Path) -> Path:
        """Write the PNG to `file`; its folder is made if missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.png())
        return file


def accuracy_by_iteration(metrics: Metrics, paper_rows: Iterable[dict[str, Any]] | None = None) -> Figure:
    """Greedy test accuracy of SFT and each M-DPO iteration, over all problems and per suite.

    Args:
        metrics: records' metrics; those called ``accuracy/...`` of "sft" and "mdpo-1", "mdpo-2", ... are drawn.
        paper_rows: rows of ``data/paper/table1.csv`` of one base model, drawn dashed beside ours.
    """
    known = _by_name(metrics)
    series: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for name, metric in known.items():
        kind, _, rest = name.partition("/")
        suite, _, policy = rest.partition("/")
        iteration = iteration_of(policy)
        if kind == "accuracy" and iteration is not None:
            series.setdefault(suite, []).append((iteration, metric))
    fig = Figure(_rests_on(series.get("test", []) and [metric for _, metric in series["test"]]))
    axes = fig.add_subplot(xlabel="policy", ylabel="greedy accuracy (%)")
    shift = 0.0
    for suite in sorted(series, key=lambda suite: (suite != "test", suite)):
        points = sorted(series[suite], key=lambda point: point[0])
        colour, marker = SUITE_STYLES.get(suite, (BLUE, "s"))
        _with_intervals(
            axes,
            [iteration + shift for iteration, _ in points],
            [metric for _, metric in points],
            colour=colour,
            marker=marker,
            label="all problems" if suite == "test" else suite,
            line="-" if suite == "test" else ":",
        )
        shift += 0.06
    for column, label, colour in (("gsm8k", "paper, GSM8K", GREEN), ("math", "paper, MATH", PURPLE)):
        points = sorted(
            (iteration_of(row["method"]), float(row[column]))
            for row in paper_rows or ()
            if iteration_of(row["method"]) is not None
        )
        if points:
            axes.plot(
                *zip(*points, strict=True), color=colour, marker="x", linestyle="--", alpha=0.5, label=label
            )
    last = max((iteration for points in series.values() for iteration, _ in points), default=0)
    last = max(last, 3 if paper_rows else 0)
    axes.set_xticks(range(last + 1), ["SFT", *(f"M-DPO {i}" for i in range(1, last + 1))])
    axes.set_xlim(-0.3, last + 0.3)
    _legend(axes, outside=True)
    axes.set_title(textwrap.fill(_gain_sentence(known), 80), fontsize=10)
    return fig


def training_curves(log: Sequence[dict[str, float]], name: str = "M-DPO") -> Figure:
    """Loss, log-probabilities of chosen and rejected trajectories, and their margin, by optimiser step.

    Args:
        log: rows with ``step``, ``loss``, ``chosen_logp``, ``rejected_logp`` and ``margin`` (nats, summed over trained
            tokens); values may be missing from some rows.
        name: what was trained, for the title.
    """
    fig = Figure(_steps_caption(log), size=(7.5, 3.2))
    loss, probabilities, margin = fig.subplots(1, 3)
    _curve(loss, log, "loss", "", LOSS, "loss")
    _curve(probabilities, log, "chosen_logp", "chosen", CHOSEN, "log-probability (nats)")
    _curve(probabilities, log, "rejected_logp", "rejected", REJECTED, "log-probability (nats)", line="--")
    _curve(margin, log, "margin", "", MARGIN, "margin (nats)")
    margin.axhline(0, color=GREY, linewidth=0.8)
    _legend(probabilities)
    fig.suptitle(_training_sentence(log, name), fontsize=10)
    return fig


def sft_curve(log: Sequence[dict[str, float]]) -> Figure:
    """Supervised loss by optimiser step.

    Args:
        log: rows with ``step`` and ``loss`` (nats a trained token).
    """
    fig = Figure(_steps_caption(log))
    axes = fig.add_subplot()
    _curve(axes, log, "loss", "", LOSS, "loss (nats a trained token)")
    losses = [row["loss"] for row in log if row.get("loss") is not None]
    verb = "falls" if losses and losses[-1] < losses[0] else "does not fall"
    ends = f" from {losses[0]:.2f} to {losses[-1]:.2f} nats a token" if losses else ": nothing was logged"
    axes.set_title(f"The SFT loss {verb}{ends}" if losses else f"SFT{ends}", fontsize=10)
    return fig


def comparison(
    metrics: Metrics,
    names: Sequence[str],
    labels: Sequence[str] | None = None,
    title_subject: str = "Accuracy",
) -> Figure:
    """Policies side by side on the same problems: accuracy, and paired gain over SFT where it was measured.

    Args:
        metrics: records' metrics.
        names: policies, e.g. ``["mdpo-2", "mdpo-2-fixed"]``; those without an accuracy are left out.
        labels: one for each name; the names themselves when missing.
        title_subject: what the comparison is about, e.g. "Updated against fixed reference".
    """
    known = _by_name(metrics)
    wanted = dict(zip(names, labels or names, strict=True))
    shown = {name: label for name, label in wanted.items() if f"accuracy/test/{name}" in known}
    accuracies = [known[f"accuracy/test/{name}"] for name in shown]
    gains = {name: known[f"gain/test/{name}"] for name in shown if f"gain/test/{name}" in known}
    fig = Figure(_rests_on(accuracies))
    panels = fig.subplots(1, 2 if gains else 1, sharey=True, squeeze=False)[0]
    for row, name in enumerate(shown):
        colour, marker = style_of(name)
        _across(panels[0], row, known[f"accuracy/test/{name}"], colour, marker)
        if name in gains:
            _across(panels[1], row, gains[name], colour, marker)
    panels[0].set_yticks(range(len(shown)), list(shown.values()))
    panels[0].set_ylim(max(len(shown), 1) - 0.5, -0.5)
    panels[0].set_xlabel("greedy accuracy (%)")
    if gains:
        panels[1].axvline(0, color=GREY, linewidth=0.8)
        panels[1].set_xlabel("paired gain over SFT (points)")
    title = f"{title_subject}: {_order_sentence(shown, accuracies)}"
    fig.suptitle(textwrap.fill(title, TITLE_CHARACTERS), fontsize=10)
    return fig


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
        judged: rows of `mtdpo_lib.claims.judge`; those that nothing was measured for are left out.
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
        facts: of `mtdpo_lib.study.iteration_facts`, e.g. ``["right", "distinct"]``.
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


def pair_yield(passports: Sequence[dict[str, Any]]) -> Figure:
    """What became of the prompts: those that gave a pair, and the others by reason; one bar an iteration.

    Args:
        passports: one an iteration, with ``iteration`` and either ``prompts by fate`` ("paired" and reasons, to counts)
            or ``kept`` and ``dropped`` (reason to count).
    """
    kept, dropped = [], []
    for passport in passports:
        fates = passport.get("prompts by fate") or {
            "paired": passport.get("kept", 0),
            **passport.get("dropped", {}),
        }
        kept.append(fates.get("paired", 0))
        dropped.append({reason: count for reason, count in fates.items() if reason != "paired"})
    asked = [count + sum(others.values()) for count, others in zip(kept, dropped, strict=True)]
    fig = Figure(f"n = {', '.join(f'{count:,}' for count in asked) or 0} prompts.")
    axes = fig.add_subplot(xlabel="prompts")
    colours = (ORANGE, GREEN, RED, PURPLE, SKY, GREY, BLACK)
    rows = range(len(passports))
    left = [0] * len(passports)
    bars = [("gave a pair", kept, BLUE, "")]
    for number, reason in enumerate(sorted({reason for others in dropped for reason in others})):
        counts = [others.get(reason, 0) for others in dropped]
        bars.append((reason, counts, colours[number % len(colours)], "//" if number % 2 else ".."))
    for label, counts, colour, hatch in bars:
        axes.barh(
            rows, counts, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5, label=label
        )
        left = [start + count for start, count in zip(left, counts, strict=True)]
    labels = [
        passport.get("policy", f"iteration {passport.get('iteration', row + 1)}")
        for row, passport in enumerate(passports)
    ]
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    _legend(axes, outside=True)
    shares = [f"{100 * count / max(total, 1):.0f} %" for count, total in zip(kept, asked, strict=True)]
    axes.set_title(
        f"{', then '.join(shares)} of the prompts give a pair" if shares else "No pairs yet", fontsize=10
    )
    return fig


def coverage_curve(coverage: dict[int, float], paper_coverage: dict[int, float] | None = None) -> Figure:
    """Share of prompts whose samples hold both a right and a wrong one, by samples a prompt.

    Args:
        coverage: samples a prompt to the share of prompts covered, as a fraction.
        paper_coverage: the paper's, drawn dashed beside ours.
    """
    fig = Figure(
        f"One run, up to {max(coverage, default=0)} samples a prompt; expectation over draws without replacement."
    )
    axes = fig.add_subplot(xlabel="samples a prompt (N)", ylabel="prompts with right and wrong (%)")
    for points, label, style in (
        (coverage, "ours", {"color": BLUE, "marker": "s", "markersize": 4}),
        (paper_coverage or {}, "paper, Gemma-1.1-7B", {"color": GREY, "marker": "x", "linestyle": "--"}),
    ):
        if points:
            places = sorted(points)
            axes.plot(places, [100 * points[place] for place in places], label=label, **style)
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    most = max(coverage, default=None)
    ends = (
        f"With {most} samples {_percent(coverage[most])} % of the prompts can yield a pair"
        if most
        else "No coverage measured yet"
    )
    axes.set_title(ends, fontsize=10)
    return fig


def outcome_mix(counts: dict[str, dict[str, int]], xlabel: str = "tool calls in the trajectory") -> Figure:
    """Shares of right, wrong and missing answers by group, with the share that met a tool error.

    Args:
        counts: group (e.g. number of tool calls) to ``{"right": .., "wrong": .., "no answer": .., "tool error": ..}``;
            the first three add up to the group, ``tool error`` (optional) counts its trajectories with one.
        xlabel: what the groups are.
    """
    kinds = (("right", RIGHT, ""), ("wrong", WRONG, "//"), ("no answer", NO_ANSWER, ".."))
    totals = {group: max(sum(row.get(kind, 0) for kind, _, _ in kinds), 1) for group, row in counts.items()}
    n = sum(sum(row.get(kind, 0) for kind, _, _ in kinds) for row in counts.values())
    fig = Figure(f"n = {n:,} trajectories; below each bar, how many.")
    axes = fig.add_subplot(xlabel=xlabel, ylabel="share (%)")
    base = [0.0] * len(counts)
    for kind, colour, hatch in kinds:
        heights = [100 * row.get(kind, 0) / totals[group] for group, row in counts.items()]
        axes.bar(
            range(len(counts)),
            heights,
            bottom=base,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=kind,
            width=0.7,
        )
        base = [start + height for start, height in zip(base, heights, strict=True)]
    if any("tool error" in row for row in counts.values()):
        shares = [100 * row.get("tool error", 0) / totals[group] for group, row in counts.items()]
        axes.plot(
            range(len(counts)), shares, color=BLACK, marker="o", linestyle="none", label="met a tool error"
        )
    axes.set_xticks(range(len(counts)), [f"{group}\n{totals[group]:,}" for group in counts])
    _legend(axes, outside=True)
    right = sum(row.get("right", 0) for row in counts.values())
    axes.set_title(
        f"{_percent(right / n)} % of the trajectories end right" if n else "No trajectories yet", fontsize=10
    )
    return fig


def histogram(values: Sequence[float], xlabel: str, title: str = "") -> Figure:
    """How values are spread, with their median.

    Args:
        values: one a trajectory, pair or question.
        xlabel: what they are, with the unit in parentheses.
        title: the finding; the median when empty.
    """
    ordered = sorted(values)
    fig = Figure(f"n = {len(ordered):,}.")
    axes = fig.add_subplot(xlabel=xlabel, ylabel="count")
    if ordered:
        median = (
            ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
        )
        axes.hist(ordered, bins=min(30, max(5, round(len(ordered) ** 0.5))), color=BLUE, edgecolor="white")
        axes.axvline(median, color=RED, linestyle="--", label=f"median {median:.3g}")
        axes.set_title(title or f"The median is {median:.3g}", fontsize=10)
        _legend(axes)
    else:
        axes.set_title(title or "No values yet", fontsize=10)
    return fig


def memory_by_part(needs: dict[str, dict[str, float]], cards: dict[str, float]) -> Figure:
    """What a training step holds in a GPU's memory.

    Args:
        needs: model to part to GiB.
        cards: a GPU's name to its GiB, drawn as lines.
    """
    fig = Figure("By arithmetic, not measured; 1 pair of full length at a time.")
    axes = fig.add_subplot(xlabel="memory of one M-DPO step (GiB)")
    colours = (GREY, BLUE, SKY, ORANGE, GREEN)
    starts = [0.0] * len(needs)
    for part, colour in zip(next(iter(needs.values()), {}), colours, strict=False):
        widths = [row[part] for row in needs.values()]
        axes.barh(range(len(needs)), widths, left=starts, color=colour, edgecolor="white", label=part)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for name, size in cards.items():
        axes.axvline(size, color=BLACK, linestyle="--", linewidth=1)
        axes.annotate(name, (size, 1), xycoords=("data", "axes fraction"), xytext=(-3, -4),
                      textcoords="offset points", rotation=90, ha="right", va="top", fontsize=7.5)  # fmt: skip
    axes.set_yticks(range(len(needs)), list(needs))
    axes.invert_yaxis()
    _legend(axes, outside=True)
    most = max(starts, default=0.0)
    axes.set_title(f"The largest needs {most:.1f} GiB" if needs else "No model yet", fontsize=10)
    return fig


def quantized_weights(weights: Sequence[float], levels: Sequence[float]) -> Figure:
    """Weights, each divided by the largest of its block, and the few levels that stand for them."""
    fig = Figure(f"n = {len(weights):,} weights.")
    axes = fig.add_subplot(xlabel="weight / largest of its block", ylabel="count")
    axes.hist(weights, bins=81, color=SKY, label="weights")
    for place, level in enumerate(levels):
        axes.axvline(level, color=RED, linewidth=0.8, label=None if place else "levels")
    axes.set_title(f"{len(levels)} levels, dense where the weights are", fontsize=10)
    _legend(axes)
    return fig


def iteration_of(name: str) -> int | None:
    """0 for SFT, t for the policy of M-DPO iteration t, None for anything else.

    Understands records' names ("mdpo-2") and the paper's ("M-DPO iteration 2").
    """
    if name.lower() == "sft":
        return 0
    found = re.fullmatch(r"(?:mdpo-|M-DPO iteration )(\d+)", name)
    return int(found[1]) if found else None


def style_of(policy: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every figure."""
    return next((style for part, style in METHOD_STYLES if part in policy), (BLACK, "o"))


def _by_name(metrics: Metrics) -> dict[str, dict[str, Any]]:
    return {metric["name"]: metric for metric in metrics}


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _rests_on(metrics: Sequence[dict[str, Any]], shown: str = "Bars: 95% intervals.") -> str:
    """Caption: n, seeds, and what is `shown` of them."""
    if not metrics:
        return "Nothing measured yet."
    if all(metric.get("n") == len(metric.get("seeds", ())) for metric in metrics):  # one number a seed
        return _over_seeds_caption(metrics)
    seeds = sorted({seed for metric in metrics for seed in metric.get("seeds", ())})
    one = "one seed: indicative" if len(seeds) < 2 else "over seeds and questions"
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else "no seed given"
    return f"n = {max(metric.get('n', 0) for metric in metrics):,} problems, {named} ({one}). {shown}"


def _over_seeds_caption(metrics: Sequence[dict[str, Any]]) -> str:
    seeds = sorted({seed for metric in metrics for seed in metric["seeds"]})
    return f"Seeds {', '.join(map(str, seeds))}. Bars: 95% intervals over seeds."


def _steps_caption(log: Sequence[dict[str, float]]) -> str:
    return f"One run, {len(log)} logged steps." if log else "Nothing logged yet."


def _half_widths(metrics: Sequence[dict[str, Any]], scale: float = 100) -> list[list[float]]:
    low = [scale * (m["value"] - m["low"]) if m.get("low") is not None else 0.0 for m in metrics]
    high = [scale * (m["high"] - m["value"]) if m.get("high") is not None else 0.0 for m in metrics]
    return [[max(value, 0.0) for value in low], [max(value, 0.0) for value in high]]


def _with_intervals(
    axes: Axes,
    x: Sequence[float],
    metrics: Sequence[dict[str, Any]],
    colour: str,
    marker: str,
    label: str,
    line: str,
    scale: float = 100,
) -> None:
    values = [scale * metric["value"] for metric in metrics]
    style = {"color": colour, "marker": marker, "linestyle": line, "capsize": 3, "markersize": 5}
    axes.errorbar(x, values, yerr=_half_widths(metrics, scale), label=label, **style)


def _across(
    axes: Axes, row: int, metric: dict[str, Any], colour: str, marker: str, scale: float = 100
) -> None:
    value = scale * metric["value"]
    axes.errorbar(
        [value],
        [row],
        xerr=_half_widths([metric], scale),
        color=colour,
        marker=marker,
        capsize=3,
        linestyle="",
    )
    axes.annotate(
        f"{value:.{1 if scale > 1 else 2}f}", (value, row), (0, 7), textcoords="offset points", ha="center",
        fontsize=8,
    )  # fmt: skip
    axes.margins(x=0.25)


def _curve(
    axes: Axes, log: Sequence[dict[str, float]], key: str, label: str, colour: str, unit: str, line: str = "-"
) -> None:
    points = [(row["step"], row[key]) for row in log if row.get(key) is not None]
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            linestyle=line,
            marker=".",
            markersize=3,
            label=label or None,
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _legend(axes: Axes, outside: bool = False) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    if outside:
        axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(fontsize=7.5, frameon=False)


def _gain_sentence(known: dict[str, dict[str, Any]]) -> str:
    """What happened from SFT to the last iteration, with the paired interval where it was measured."""
    iterations = [
        iteration_of(name.rpartition("/")[2]) for name in known if name.startswith("accuracy/test/")
    ]
    last = max((iteration for iteration in iterations if iteration is not None), default=None)
    if last is None:
        return "Nothing measured yet"
    before = known.get("accuracy/test/sft")
    if last == 0 or before is None:
        policy = f"M-DPO iteration {last}" if last else "SFT"
        name = f"mdpo-{last}" if last else "sft"
        return f"{policy} answers {_percent(known[f'accuracy/test/{name}']['value'])} % right"
    gain = known.get(f"gain/test/mdpo-{last}")
    change = gain["value"] if gain else known[f"accuracy/test/mdpo-{last}"]["value"] - before["value"]
    interval, word = "", "rises" if change > 0 else "falls"
    if gain and gain.get("low") is not None:
        interval = f" (95% interval {100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        if gain["low"] <= 0 <= gain["high"]:
            word = "is not shown to change: it moves"
    by = f"by {100 * change:+.1f} points" if "moves" in word else f"by {abs(100 * change):.1f} points"
    return f"Accuracy {word} {by} from SFT to M-DPO {last}{interval}"


def _training_sentence(log: Sequence[dict[str, float]], name: str) -> str:
    def change(key: str) -> float | None:
        values = [row[key] for row in log if row.get(key) is not None]
        return values[-1] - values[0] if values else None

    chosen, rejected, margin = change("chosen_logp"), change("rejected_logp"), change("margin")
    if chosen is None or rejected is None:
        return f"{name}: no log-probabilities logged yet"
    sentence = f"{name}: chosen {chosen:+.1f} nats, rejected {rejected:+.1f} nats"
    return sentence + (f", margin {margin:+.2f}" if margin is not None else "")


def _order_sentence(shown: dict[str, str], accuracies: Sequence[dict[str, Any]]) -> str:
    if len(accuracies) < 2:
        return "nothing to compare yet"
    ranked = sorted(zip(shown.values(), accuracies, strict=True), key=lambda item: -item[1]["value"])
    (first, best), (second, next_best) = ranked[:2]
    difference = f"{100 * (best['value'] - next_best['value']):.1f} points above {second}"
    apart = (
        best.get("low") is not None and next_best.get("high") is not None and best["low"] > next_best["high"]
    )
    return f"{first} is {difference}" + ("" if apart else ", within the intervals")


# --- The exact theory: worlds of tables ------------------------------------------------------------------------------
# `Rows` hold one row a random process and one column a point of the x axis. Lines are means with 95% t intervals over
# processes; on a logarithmic axis both are taken of the logarithm.

Rows = Sequence[Sequence[float]]


def eta_effect(etas: Sequence[float], first_turn: Rows, gain: Rows, kl: Rows) -> Figure:
    """What eta does to the optimum of (5).

    Args:
        etas: KL coefficients.
        first_turn: pi_1(a | x) of one process, one row an eta, one column an action.
        gain: share of the attainable gain in E[u] over the reference, a fraction; rows are processes, columns etas.
        kl: of the same, sum_h KL in nats.
    """
    fig = Figure(_over_processes(gain, "middle and right"), size=(8.0, 3.2))
    left, middle, right = fig.subplots(1, 3)
    for action, (probabilities, colour, line) in enumerate(
        zip(zip(*first_turn), (BLUE, ORANGE, GREEN, RED), ("-", "--", ":", "-."))
    ):
        left.plot(etas, probabilities, color=colour, linestyle=line, label=f"action {action + 1}")
    left.set_ylabel("π₁(a | x), one process")
    _mean_line(middle, etas, [[100 * value for value in row] for row in gain], "mdpo", "")
    middle.set_ylabel("attainable gain in E[u] (%)")
    _mean_line(right, etas, kl, "mdpo", "")
    right.set_ylabel("KL to the reference (nats)")
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="η (units of u)")
    _legend(left)
    ends = [100 * _column(gain, column)[0] for column in (0, -1)]
    fig.suptitle(
        f"η = {etas[0]:g} takes {ends[0]:.0f} % of the attainable utility, η = {etas[-1]:g} takes {ends[1]:.0f} %",
        fontsize=10,
    )
    return fig


def identity_scatter(panels: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """A + B against u, one point a possible trajectory: the distance from the diagonal is C of (13).

    Args:
        panels: title to (utilities, A + B).
    """
    fig = Figure(
        "n = " + ", ".join(str(len(u)) for u, _ in panels.values()) + " trajectories, one process each."
    )
    for axes, (title, (utility, known)) in zip(
        fig.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        limits = [min(*utility, *known) - 0.05, max(*utility, *known) + 0.05]
        axes.plot(limits, limits, color=GREY, linewidth=0.8)
        axes.plot(utility, known, linestyle="", marker="s", markersize=3.5, color=BLUE)
        axes.set(xlabel="utility u", ylabel="A + B (units of u)")
        axes.set_title(title, fontsize=9)
    off = [max(abs(a - b) for a, b in zip(u, known)) for u, known in panels.values()]
    said = "; ".join(f"{title}: {value:.0e}" for title, value in zip(panels, off))
    fig.suptitle(f"A + B misses u by at most ... {said}", fontsize=10)
    return fig


def sample_error(n: Sequence[int], panels: dict[str, dict[str, Rows]], slope: Sequence[float]) -> Figure:
    """Distance from the optimum by number of sampled pairs.

    Args:
        n: pairs.
        panels: title to method to total variation from the optimum.
        slope: of log error on log n in the first panel, with its interval.
    """
    first = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(first, log=True) + " Dotted: slope -1/2.", size=(7.5, 3.5))
    for axes, (title, methods) in zip(
        fig.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()
    ):
        for method, rows in methods.items():
            _mean_line(axes, n, rows, method, _METHOD_NAMES.get(method, method), log=True)
        start = (
            _column(next(iter(methods.values())), -1, log=True)[0] if title == next(iter(panels)) else None
        )
        if start:
            axes.plot(n, [start * (n[-1] / size) ** 0.5 for size in n], color=GREY, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="sampled pairs n", ylabel="total variation from π*")
        axes.set_title(title, fontsize=9)
        _legend(axes)
    fig.suptitle(
        f"With a deterministic tool the error falls as n^{slope[0]:.2f} (95% interval {slope[1]:.2f} to {slope[2]:.2f})",
        fontsize=10,
    )
    return fig


def gamble_policies(jackpots: Sequence[float], chosen: dict[str, Sequence[float]], eta: float) -> Figure:
    """How often each method's policy gambles, by how rare and large the prize is; the mean never changes.

    Args:
        jackpots: prizes.
        chosen: method to P(gamble), exact; "optimum" is the truth.
        eta: KL coefficient, for the caption.
    """
    fig = Figure(f"One process, exact preferences, η = {eta:g}; no sampling, so no interval.")
    axes = fig.add_subplot(
        xlabel="prize (units of u); its mean is fixed", ylabel="probability of gambling (%)"
    )
    for method, values in chosen.items():
        colour, marker = style_of(method)
        style = {"color": colour, "marker": marker, "markersize": 5}
        if method == "optimum":
            style = {"color": BLACK, "linestyle": "--", "zorder": 5}
        axes.plot(jackpots, [100 * value for value in values], label=_METHOD_NAMES[method], **style)
    axes.set_ylim(0, 105)
    _legend(axes, outside=True)
    ends = {method: 100 * values[-1] for method, values in chosen.items()}
    fig.suptitle(
        f"Same mean, prize {jackpots[-1]:g}: the optimum gambles {ends['optimum']:.0f} %, M-DPO "
        f"{ends['mdpo']:.0f} %, single-turn {ends['unmasked']:.0f} %",
        fontsize=9.5,
    )
    return fig


def bias_by_randomness(randomness: Sequence[float], luck: dict[str, Rows], error: dict[str, Rows]) -> Figure:
    """Term C and the paper's bound on it, and what C does to the policy, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        luck: "bound", "quantile" and "rms" of |C|, in units of u.
        error: method to total variation from the optimum.
    """
    fig = Figure(_over_processes(luck["rms"]), size=(7.5, 3.5))
    left, right = fig.subplots(1, 2)
    for name, label, colour, marker in (
        ("bound", "paper: 4 (Σ σ²)^½, mean", GREY, "^"),
        ("quantile", "90% of |C| lie below", ORANGE, "D"),
        ("rms", "root mean square of C", BLACK, "o"),
    ):
        _mean_line(left, randomness, luck[name], (colour, marker), label)
    left.set(xlabel="randomness ε of the tool", ylabel="size of C (units of u)")
    for method, rows in error.items():
        _mean_line(
            right, randomness, [[100 * value for value in row] for row in rows], method, _METHOD_NAMES[method]
        )
    right.set(xlabel="randomness ε of the tool", ylabel="total variation from π* (%)")
    _legend(left)
    _legend(right)
    plain, exact = (_column(error[method], -1) for method in ("mdpo", "exact-v"))
    fig.suptitle(
        f"A random tool moves M-DPO's optimum by {100 * plain[0]:.1f} % (95% interval {100 * plain[1]:.1f} to "
        f"{100 * plain[2]:.1f}); the margin leaves {100 * exact[0]:.0e} %",
        fontsize=9.5,
    )
    return fig


def value_samples(samples: Sequence[int], errors: dict[str, Rows], plain: Sequence[float]) -> Figure:
    """What a margin is worth whose expectations are means of K draws.

    Args:
        samples: K, tool calls for each state and action.
        errors: method to total variation from the optimum.
        plain: of M-DPO without a margin, one a process.
    """
    fig = Figure(_over_processes(plain, log=True))
    axes = fig.add_subplot(xlabel="K (draws for each expectation)", ylabel="total variation from π*")
    said = []
    for method, rows in errors.items():
        label = {"learned-v": "learned V, tool asked K times", "sampled-v": "V itself from K draws"}[method]
        _mean_line(axes, samples, rows, method, label, log=True)
        paired = [
            mean_interval([row[k] - base for row, base in zip(rows, plain)]) for k in range(len(samples))
        ]
        helps = [size for size, (_, _, high) in zip(samples, paired) if high < 0]
        said.append(label.partition(",")[0] + (f" from K = {min(helps)} on" if helps else " at no K"))
    _mean_line(
        axes, samples, [[value] * len(samples) for value in plain], "mdpo", "M-DPO, no margin", log=True
    )
    axes.set(xscale="log", yscale="log")
    _legend(axes)
    axes.set_title("The margin is shown to help:\n" + "; ".join(said), fontsize=10)
    return fig


def observation_scoring(randomness: Sequence[float], panels: dict[str, dict[str, Rows]]) -> Figure:
    """Masking and scoring the observations, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        panels: title to method ("mdpo", "unmasked", ...) to total variation from the optimum.
    """
    rows = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(rows), size=(7.5, 3.5))
    said = []
    for axes, (title, methods) in zip(
        fig.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()
    ):
        for method, table in methods.items():
            _mean_line(
                axes, randomness, [[100 * v for v in row] for row in table], method, _METHOD_NAMES[method]
            )
        axes.set(xlabel="randomness ε of the tool", ylabel="total variation from π* (%)")
        axes.set_title(title, fontsize=9)
        _legend(axes)
        better = [
            value
            for column, value in enumerate(randomness)
            if mean_interval(
                [own[column] - other[column] for own, other in zip(methods["mdpo"], methods["unmasked"])]
            )[2]
            < 0
        ]
        said.append(f"{title}: at ε ≤ {max(better):g}" if better else f"{title}: nowhere")
    fig.suptitle("Where masking is shown to be nearer to π*: " + "; ".join(said), fontsize=9.5)
    return fig


def reference_iterations(updated: Rows, fixed: Rows, bound: Rows) -> Figure:
    """Expected utility still missing after each exact iteration towards (17) and (16).

    Args:
        updated, fixed: max E[u] - E[u] of pi_0 .. pi_T, in units of u.
        bound: eta / t times the KL of the best policy from pi_0, from t = 1 on.
    """
    fig = Figure(_over_processes(updated))
    axes = fig.add_subplot(xlabel="iteration t", ylabel="missing utility (units of u)")
    steps = list(range(len(updated[0])))
    _mean_line(axes, steps, fixed, "fixed", "fixed reference (16)")
    _mean_line(axes, steps, updated, "mdpo", "updated reference (17)")
    _mean_line(axes, steps[1:], bound, (GREY, "v"), "bound η KL(best‖π₀) / t")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    _legend(axes)
    ends = [_column(rows, -1)[0] for rows in (updated, fixed)]
    axes.set_title(
        f"After {steps[-1]} exact iterations the updated reference misses {ends[0]:.2f}, the fixed one {ends[1]:.2f}",
        fontsize=10,
    )
    return fig


def coverage_and_error(
    shares: Sequence[float], cost: Rows, error: Rows, arms: dict[str, Rows], pairs: Sequence[int]
) -> Figure:
    """Mixture data: what the share of an older policy does to coverage, to the error, and over iterations.

    Args:
        shares: of the older, broader policy in the data.
        cost: E of the density ratio between the target and the data, at least 1.
        error: total variation from the target with sampled pairs.
        arms: "onpolicy" and "mdpo" (mixture): E[u] after each iteration, as a share of the best.
        pairs: sampled, in the middle panel and in each iteration on the right.
    """
    fig = Figure(
        _over_processes(error) + f" Pairs: {pairs[0]:,} (middle), {pairs[1]:,} an iteration (right).",
        (8.5, 3.3),
    )
    left, middle, right = fig.subplots(1, 3)
    places, labels = range(len(shares)), [f"{100 * share:.0f}" for share in shares]
    _mean_line(left, places, cost, (BLACK, "o"), "", log=True)
    left.set(yscale="log", ylabel="coverage cost (1 = target's own data)")
    _mean_line(middle, places, [[100 * value for value in row] for row in error], "mdpo", "")
    middle.set_ylabel("total variation from π* (%)")
    for axes in (left, middle):
        axes.set_xticks(places, labels)
        axes.set_xlabel("share of the older policy (%)")
    steps = range(len(next(iter(arms.values()))[0]))
    for method, label in (("mdpo", "mixture 2:1"), ("onpolicy", "on-policy")):
        _mean_line(right, steps, [[100 * value for value in row] for row in arms[method]], method, label)
    right.set(xlabel="iteration t", ylabel="E[u] (% of the best)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(right)
    ends = [100 * _column(error, column)[0] for column in (0, shares.index(1 / 3) if 1 / 3 in shares else -1)]
    gain = mean_interval([100 * (own[-1] - other[-1]) for own, other in zip(arms["mdpo"], arms["onpolicy"])])
    fig.suptitle(
        f"A third of older data cuts the error from {ends[0]:.0f} to {ends[1]:.0f} %; at the last iteration the mixture "
        f"is {gain[0]:+.1f} points ahead ({gain[1]:+.1f} to {gain[2]:+.1f})",
        fontsize=9.5,
    )
    return fig


def kto_path(steps: Sequence[int], distance: dict[str, Rows], utility: dict[str, Rows]) -> Figure:
    """M-DPO and M-KTO on exact preferences, by gradient step.

    Args:
        steps: of the optimiser.
        distance: method to total variation from the optimum.
        utility: method to E[u].
    """
    fig = Figure(_over_processes(distance["mdpo"]), size=(7.5, 3.3))
    left, right = fig.subplots(1, 2)
    for method, rows in distance.items():
        _mean_line(
            left, steps, [[100 * value for value in row] for row in rows], method, _METHOD_NAMES[method]
        )
        _mean_line(right, steps, utility[method], method, _METHOD_NAMES[method])
    left.set(xlabel="gradient step", ylabel="total variation from π* (%)", xscale="symlog")
    right.set(xlabel="gradient step", ylabel="E[u] (units of u)", xscale="symlog")
    for axes in (left, right):
        axes.set_xlim(left=0)
    _legend(left)
    ends = [100 * _column(distance[method], -1)[0] for method in ("mdpo", "mkto")]
    fig.suptitle(
        f"M-DPO ends {ends[0]:.1f} % from the optimum of (5), M-KTO {ends[1]:.0f} %: it aims elsewhere",
        fontsize=10,
    )
    return fig


_METHOD_NAMES = {
    "optimum": "optimum π*",
    "mdpo": "M-DPO (observations masked)",
    "unmasked": "single-turn (observations scored)",
    "exact-v": "with margin, exact V",
    "learned-v": "with margin, learned V",
    "sampled-v": "with margin, V from K draws",
    "mkto": "M-KTO",
}


def _over_processes(rows: Rows, which: str = "", log: bool = False) -> str:
    place = f" ({which})" if which else ""
    mean = "Geometric means" if log else "Means"
    return f"n = {len(rows)} random processes{place}. {mean} and 95% intervals over processes."


def _column(rows: Rows, column: int, log: bool = False) -> tuple[float, float, float]:
    values = [row[column] for row in rows]
    if not log:
        return mean_interval(values)
    return tuple(math.exp(part) for part in mean_interval([math.log(max(value, 1e-300)) for value in values]))


def _mean_line(
    axes: Axes, x: Sequence[float], rows: Rows, style: str | tuple[str, str], label: str, log: bool = False
) -> None:
    colour, marker = style_of(style) if isinstance(style, str) else style
    points = [_column(rows, column, log) for column in range(len(x))]
    middle = [value for value, _, _ in points]
    bars = [[value - low for value, low, _ in points], [high - value for value, _, high in points]]
    hollow = {"markerfacecolor": "none", "markersize": 8} if style == "learned-v" else {"markersize": 4.5}
    axes.errorbar(
        x, middle, yerr=bars, color=colour, marker=marker, capsize=2.5, linewidth=1.2, label=label or None, **hollow
    )  # fmt: skip
