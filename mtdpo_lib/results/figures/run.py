"""Figures of one run: its policies, its training, its pairs and trajectories, and what a model needs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mtdpo_lib.results.figures.style import SMALL, SUITE_STYLES, Figure, Panel
from mtdpo_lib.results.metric import Metrics, policy_in_words

Log = Sequence[Mapping[str, Any]]

ENDS = {"answer": "gave an answer", "length": "ran out of tokens", "rounds": "ran out of turns",
        "no_action": "neither answered\nnor called the tool"}  # fmt: skip


def accuracy_by_iteration(metrics: Metrics, paper: Mapping[int, Mapping[str, Any]] | None = None) -> Figure:
    """Greedy test accuracy of SFT and each M-DPO iteration, over all problems and per suite.

    Args:
        metrics: of a run; the accuracies of "sft" and "mdpo-1", "mdpo-2", ... are drawn.
        paper: the paper's row of each iteration (`mtdpo_lib.results.paper_by_iteration`), drawn dashed beside ours.
    """
    suites = ["test", *sorted({metric.split for metric in metrics.select(kind="accuracy")} - {"test"})]
    lines = {suite: found for suite in suites if (found := metrics.by_iteration("accuracy", suite))}
    fig = Figure.of(list(lines.get("test", {}).values()))
    axes = fig.panel("policy", "greedy accuracy (%)")
    for number, (suite, found) in enumerate(lines.items()):
        points = {step + 0.06 * number: found[step] for step in sorted(found)}
        label, line = ("all problems", "-") if suite == "test" else (suite, ":")
        axes.line(points, SUITE_STYLES.get(suite, (BLUE, "s")), label, line)
    for column, label, colour in (("gsm8k", "paper, GSM8K", GREEN), ("math", "paper, MATH", PURPLE)):
        if paper:
            theirs = [float(paper[step][column]) for step in sorted(paper)]
            style = {"color": colour, "marker": "x", "linestyle": "--", "alpha": 0.5}
            axes.plot(sorted(paper), theirs, label=label, **style)
    last = max([0, 3 if paper else 0, *(step for found in lines.values() for step in found)])
    axes.set_xticks(range(last + 1), ["SFT", *(f"M-DPO {i}" for i in range(1, last + 1))])
    axes.set_xlim(-0.3, last + 0.3)
    return fig.titled(_gain_sentence(metrics), above=True)


def training_curves(log: Log, name: str = "M-DPO") -> Figure:
    """Loss, both sides' log-ratios to the reference, and their margin, by optimiser step.

    Args:
        log: rows with ``step``, ``loss``, ``chosen_ratio``, ``rejected_ratio`` and ``margin`` (nats, summed over trained
            tokens); values may be missing from some rows. A ratio compares a step's own pairs with the reference;
            log-probabilities would tell more of the pairs that a step happens to hold than of the training.
        name: the policy that was trained, for the title.
    """
    fig = Figure(_steps_caption(log), size=(6.5, 3.2))
    words = ["loss (nats)", "log-ratio to the reference (nats)", "margin (nats)"]
    loss, ratios, margin = fig.row(3, xlabel="optimiser step", ylabel=words)
    _curve(loss, log, "loss", BLACK)
    _curve(ratios, log, "chosen_ratio", BLUE, label="chosen")
    _curve(ratios, log, "rejected_ratio", RED, label="rejected", linestyle="--")
    _curve(margin, log, "margin", PURPLE)
    for axes in (ratios, margin):
        axes.zero_line()
    sides = {side: _logged(log, f"{side}_ratio") for side in ("chosen", "rejected")}
    ends = ", ".join(f"{side} {_thirds(values)[1]:+.2f}" for side, values in sides.items() if values)
    told = f"mean of the last third of the steps: {ends} nats" if ends else "nothing logged yet"
    return fig.titled(f"{policy_in_words(name)}: log-ratios to the reference, {told}")


def sft_curve(log: Log) -> Figure:
    """Supervised loss by optimiser step.

    Args:
        log: rows with ``step`` and ``loss`` (nats per trained token).
    """
    fig = Figure(_steps_caption(log))
    axes = fig.panel("optimiser step", "loss (nats per trained token)")
    _curve(axes, log, "loss", BLACK)
    if not (losses := _logged(log, "loss")):
        return fig.titled("SFT: nothing was logged")
    axes.set_yscale("log")
    first, last = _thirds(losses)
    return fig.titled(
        f"Mean SFT loss in the first third of the steps: {first:.2g} nats per token; in the last: {last:.2g}"
    )


def comparison(
    metrics: Metrics,
    names: Sequence[str],
    labels: Sequence[str] | None = None,
    title_subject: str = "Accuracy",
) -> Figure:
    """Policies side by side on the same problems: accuracy, and paired gain over SFT where it was measured.

    Args:
        metrics: of a run or a study.
        names: policies, e.g. ``["mdpo-2", "mdpo-2-fixed"]``; those without an accuracy are left out.
        labels: one for each name; the names in words when missing.
        title_subject: what the comparison is about, e.g. "Updated against fixed reference".
    """
    labels = labels if labels and list(labels) != list(names) else [policy_in_words(name) for name in names]
    words = dict(zip(names, labels, strict=True))
    shown = {words[name]: both for name, both in metrics.with_gains(names).items()}
    fig = Figure.of([accuracy for accuracy, _ in shown.values()], (6.5, 1.3 + 0.6 * max(len(shown), 1)))
    gained = any(gain for _, gain in shown.values())
    xlabels = ["greedy accuracy (%)", "paired gain over SFT (points)"]
    panels = fig.row(2 if gained else 1, sharey=True, xlabel=xlabels)
    fig.across(list(shown), shown.values())
    if gained:
        panels[1].zero_line(across=False)
    return fig.titled(f"{title_subject}: {_paired_sentence(metrics, words)}")


def pair_yield(passports: Sequence[Mapping[str, Any]]) -> Figure:
    """What became of the prompts: those that gave a pair, and the others by reason; one bar per iteration.

    Args:
        passports: one per iteration, with ``iteration`` and ``prompts by fate`` ("paired" and reasons, to counts).
    """
    fates = [passport["prompts by fate"] for passport in passports]
    kept, asked = [one.get("paired", 0) for one in fates], [sum(one.values()) for one in fates]
    caption = f"n = {', '.join(f'{count:,}' for count in asked) or 0} prompts."
    fig = Figure(caption, (6.5, 2 + 0.4 * len(fates)))
    reasons = sorted({reason for one in fates for reason, count in one.items() if count} - {"paired"})
    looks = zip(["paired", *reasons], cycle((BLUE, ORANGE, GREEN, RED, PURPLE, SKY)), cycle(("", "..", "//")))
    parts = []
    for fate, colour, hatch in looks:
        counts = [one.get(fate, 0) for one in fates]
        told = f"{'gave a pair' if fate == 'paired' else fate}: {', '.join(f'{count:,}' for count in counts)}"
        parts.append((told, counts, colour, hatch))
    names = [passport.get("policy", f"iteration {passport['iteration']}") for passport in passports]
    fig.panel("prompts").stacked([policy_in_words(name) for name in names], parts)
    shares = [f"{100 * count / max(total, 1):.1f} %" for count, total in zip(kept, asked, strict=True)]
    title = f"{', then '.join(shares)} of the prompts give a pair" if shares else "No pairs yet"
    return fig.titled(title, above=True)


def coverage_curve(
    coverage: Mapping[int, float], paper_coverage: Mapping[int, float] | None = None
) -> Figure:
    """Share of prompts whose samples hold both a right and a wrong one, by samples per prompt.

    Args:
        coverage: samples per prompt to the share of prompts covered, as a fraction.
        paper_coverage: the paper's, drawn dashed beside ours.
    """
    most = max(coverage, default=0)
    fig = Figure(f"One run, up to {most} samples per prompt; expectation over draws without replacement.")
    axes = fig.panel("samples per prompt (N)", "prompts with right and wrong (%)")
    ours: dict[str, Any] = {"color": BLUE, "marker": "s", "markersize": 4, "label": "ours"}
    theirs: dict[str, Any] = {"color": GREY, "marker": "x", "linestyle": "--", "label": "paper, Gemma-1.1-7B"}
    for points, style in ((coverage, ours), (paper_coverage, theirs)):
        if points:
            axes.plot(sorted(points), [100 * points[n] for n in sorted(points)], **style)
    axes.set_ylim(0, 100)
    axes.whole_steps()
    title = (
        f"With {most} samples {100 * coverage[most]:.1f} % of the prompts can yield a pair" if most else ""
    )
    return fig.titled(title or "No coverage measured yet")


def outcome_mix(
    counts: Mapping[str, Mapping[str, int]], xlabel: str = "tool calls in the trajectory"
) -> Figure:
    """Shares of right, wrong and missing answers by group, with the share that met a tool error.

    Args:
        counts: group (e.g. number of tool calls) to ``{"right": .., "wrong": .., "no answer": .., "tool error": ..}``;
            the first three add up to the group, ``tool error`` (optional) counts its trajectories with one.
        xlabel: what the groups are.
    """
    kinds = {"right": (BLUE, ""), "wrong": (ORANGE, "//"), "no answer": (GREY, "..")}
    sizes = [sum(row.get(kind, 0) for kind in kinds) for row in counts.values()]
    n = sum(sizes)

    def shares(kind: str) -> list[float]:
        return [100 * row.get(kind, 0) / max(size, 1) for row, size in zip(counts.values(), sizes)]

    fig = Figure(f"n = {n:,} trajectories.", (6.5, 1.7 + 0.42 * len(counts)))
    axes = fig.panel("share (%)", xlabel)
    labels = [f"{ENDS.get(group, group)} (n = {size:,})" for group, size in zip(counts, sizes, strict=True)]
    parts = [(kind, shares(kind), colour, hatch) for kind, (colour, hatch) in kinds.items()]
    axes.stacked(labels, parts, height=0.7)
    axes.set_xlim(0, 100)
    if any("tool error" in row for row in counts.values()):
        axes.plot(shares("tool error"), range(len(counts)), "ko", label="met a tool error", clip_on=False)
    right = sum(row.get("right", 0) for row in counts.values())
    title = f"{100 * right / n:.1f} % of the trajectories end right" if n else "No trajectories yet"
    return fig.titled(title, above=True)


def histogram(values: Sequence[float], xlabel: str) -> Figure:
    """How values are spread, with their median; counts on a logarithmic axis where one bar is far above most others.

    Args:
        values: one per trajectory, pair or question.
        xlabel: what they are, with the unit in parentheses.
    """
    fig = Figure(f"n = {len(values):,}.")
    axes = fig.panel(xlabel, "count")
    if not values:
        return fig.titled("No values yet")
    median, upper, most = np.quantile(values, (0.5, 0.75, 0.95))
    bins = min(30, max(5, round(len(values) ** 0.5)))
    heights = np.asarray(axes.hist(sorted(values), bins=bins, color=BLUE, edgecolor="white")[0])
    if heights.max() > 10 * np.median(heights[heights > 0]):
        axes.set_yscale("log")
    axes.axvline(median, color=RED, linestyle="--", label=f"median {median:.3g}")
    told = f"Half are at most {median:.3g}, three quarters at most {upper:.3g}, 95 % at most {most:.3g}"
    return fig.titled(told, above=True)


def memory_by_part(needs: Mapping[str, Mapping[str, float]], cards: Mapping[str, float]) -> Figure:
    """What a training step holds in a GPU's memory.

    Args:
        needs: model to part to GiB.
        cards: a GPU's name to its GiB, drawn as lines.
    """
    fig = Figure("By arithmetic, not measured; 1 pair of full length at a time.")
    axes = fig.panel("memory of one M-DPO step (GiB)")
    looks = zip(next(iter(needs.values()), {}), (GREY, BLUE, SKY, ORANGE, GREEN), ("", "//", "", "..", ""))
    parts = ((part, [row[part] for row in needs.values()], colour, hatch) for part, colour, hatch in looks)
    ends = axes.stacked(list(needs), parts)
    for row, end in enumerate(ends):
        axes.text(end, row, f" {end:.1f}", va="center", fontsize=SMALL)
    for name, size in cards.items():
        axes.axvline(size, color=BLACK, linestyle="--", linewidth=1)
        axes.annotate(name, (size, 1), xycoords=("data", "axes fraction"), xytext=(-3, -4),
                      textcoords="offset points", rotation=90, ha="right", va="top", fontsize=SMALL)  # fmt: skip
    title = f"{max(zip(ends, needs))[1]} needs the most: {max(ends):.1f} GiB" if needs else "No model yet"
    return fig.titled(title, above=True)


def quantized_weights(weights: Sequence[float], levels: Sequence[float]) -> Figure:
    """Weights, each divided by the largest of its block, and the few levels that stand for them."""
    fig = Figure(f"n = {len(weights):,} weights.")
    axes = fig.panel("weight / largest of its block", "count")
    axes.hist(weights, bins=81, color=SKY, label="weights")
    for number, level in enumerate(levels):
        axes.axvline(level, color=RED, linewidth=0.8, label=None if number else "levels")
    return fig.titled(f"{len(levels)} levels stand for {len(weights):,} weights", above=True)


def _steps_caption(log: Log) -> str:
    return f"One run, {len(log)} logged steps." if log else "Nothing logged yet."


def _logged(log: Log, key: str) -> list[float]:
    return [row[key] for row in log if row.get(key) is not None]


def _curve(axes: Panel, log: Log, key: str, colour: str, **style: Any) -> None:
    if values := _logged(log, key):
        steps = [row["step"] for row in log if row.get(key) is not None]
        axes.plot(
            steps, values, color=colour, marker="." if len(steps) < 100 else "", markersize=3, lw=1, **style
        )
    axes.whole_steps(4)


def _thirds(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and the last third: one step's pairs are others than the next one's."""
    third = max(1, len(values) // 3)
    return statistics.fmean(values[:third]), statistics.fmean(values[-third:])


def _gain_sentence(metrics: Metrics) -> str:
    """What happened from SFT to the last iteration, with the paired interval where it was measured."""
    steps = metrics.by_iteration("accuracy")
    if not steps:
        return "Nothing measured yet"
    last = max(steps)
    gain = metrics.by_iteration("gain").get(last)
    if not gain or gain.low is None or gain.high is None:  # nothing was compared on the same problems
        told = (
            f"{f'M-DPO {step}' if step else 'SFT'} {steps[step].value_in_words()} %" for step in sorted(steps)
        )
        return f"Accuracy: {', '.join(told)}"
    sentence = f"{'rises' if gain.value > 0 else 'falls'} by {abs(100 * gain.value):.1f} points"
    if gain.low <= 0 <= gain.high:
        sentence = f"is not shown to change: it moves by {gain.value_in_words(sign=True)} points"
    return f"Accuracy {sentence} from SFT to M-DPO {last} (95% interval {gain.interval_in_words(sign=True)})"


def _paired_sentence(metrics: Metrics, words: Mapping[str, str]) -> str:
    """The differences that were measured in pairs; without any, the accuracies as they are."""
    found = {one.name: one for one in metrics.select(kind="difference", split="test")}.values()
    paired = [one for one in found if {one.policy, one.against} <= words.keys()]
    if paired:
        told = (f"{words[one.policy]} minus {words[one.against]} {one.in_words(sign=True)}" for one in paired)
        return f"{', '.join(told)} points"
    accuracies = ((words[name], one) for name, (one, _) in metrics.with_gains(words).items())
    return ", ".join(f"{name} {one.value_in_words()} %" for name, one in accuracies) or "nothing measured yet"
