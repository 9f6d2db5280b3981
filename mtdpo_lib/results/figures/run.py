"""Figures: one function each, from record data to a `Figure`; notebooks show them and never style.

Colours are safe for colour-blind readers and mean the same method in every figure; markers repeat what colours say.
Intervals are drawn, axes carry units, the caption says what the figure rests on, and the title states the finding,
worded from the numbers it is drawn from. A figure shows once when it is the last value of a cell.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtdpo_lib.results.figures.style import (
    BLACK,
    BLUE,
    CHOSEN,
    GREEN,
    GREY,
    LOSS,
    MARGIN,
    NO_ANSWER,
    ORANGE,
    PURPLE,
    RED,
    REJECTED,
    RIGHT,
    SKY,
    SUITE_STYLES,
    TITLE_CHARACTERS,
    WRONG,
    Figure,
    Metrics,
    _across,
    _by_name,
    _legend,
    _percent,
    _rests_on,
    _with_intervals,
    iteration_of,
    style_of,
)


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


def _steps_caption(log: Sequence[dict[str, float]]) -> str:
    return f"One run, {len(log)} logged steps." if log else "Nothing logged yet."


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
