"""Figures of one run: its policies, its training, its pairs and trajectories, and what a model needs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mtdpo_lib.results.figures.style import SUITE_STYLES, Figure, Panel, percent
from mtdpo_lib.results.metric import Metric, Metrics

Log = Sequence[Mapping[str, Any]]


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
    return fig.titled(_gain_sentence(metrics), wrap=80, outside=True)


def training_curves(log: Log, name: str = "M-DPO") -> Figure:
    """Loss, log-probabilities of chosen and rejected trajectories, and their margin, by optimiser step.

    Args:
        log: rows with ``step``, ``loss``, ``chosen_logp``, ``rejected_logp`` and ``margin`` (nats, summed over trained
            tokens); values may be missing from some rows.
        name: what was trained, for the title.
    """
    fig = Figure(_steps_caption(log), size=(7.5, 3.2))
    loss, probabilities, margin = fig.row(3, ylabel=["loss", "log-probability (nats)", "margin (nats)"])
    _curve(loss, log, "loss", BLACK)
    _curve(probabilities, log, "chosen_logp", BLUE, label="chosen")
    _curve(probabilities, log, "rejected_logp", RED, label="rejected", linestyle="--")
    _curve(margin, log, "margin", PURPLE)
    margin.zero_line()
    return fig.titled(_training_sentence(log, name))


def sft_curve(log: Log) -> Figure:
    """Supervised loss by optimiser step.

    Args:
        log: rows with ``step`` and ``loss`` (nats per trained token).
    """
    fig = Figure(_steps_caption(log))
    _curve(fig.panel(ylabel="loss (nats a trained token)"), log, "loss", BLACK)
    losses = _logged(log, "loss")
    if not losses:
        return fig.titled("SFT: nothing was logged")
    verb = "falls" if losses[-1] < losses[0] else "does not fall"
    return fig.titled(f"The SFT loss {verb} from {losses[0]:.2f} to {losses[-1]:.2f} nats a token")


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
        labels: one for each name; the names themselves when missing.
        title_subject: what the comparison is about, e.g. "Updated against fixed reference".
    """
    words = dict(zip(names, labels or names, strict=True))
    shown = {words[name]: both for name, both in metrics.with_gains(names).items()}
    fig = Figure.of([accuracy for accuracy, _ in shown.values()])
    gained = any(gain for _, gain in shown.values())
    xlabels = ["greedy accuracy (%)", "paired gain over SFT (points)"]
    panels = fig.row(2 if gained else 1, sharey=True, xlabel=xlabels)
    fig.across(shown.values())
    panels[0].name_rows(list(shown))
    if gained:
        panels[1].zero_line(across=False)
    order = _order_sentence({label: accuracy for label, (accuracy, _) in shown.items()})
    return fig.titled(f"{title_subject}: {order}", wrap=88)


def pair_yield(passports: Sequence[Mapping[str, Any]]) -> Figure:
    """What became of the prompts: those that gave a pair, and the others by reason; one bar per iteration.

    Args:
        passports: one per iteration, with ``iteration`` and ``prompts by fate`` ("paired" and reasons, to counts).
    """
    fates = [passport["prompts by fate"] for passport in passports]
    kept, asked = [one.get("paired", 0) for one in fates], [sum(one.values()) for one in fates]
    fig = Figure(f"n = {', '.join(f'{count:,}' for count in asked) or 0} prompts.")
    reasons = sorted({reason for one in fates for reason in one} - {"paired"})
    looks = zip(reasons, cycle((ORANGE, GREEN, RED, PURPLE, SKY, GREY, BLACK)), cycle(("..", "//")))
    parts = [(fate, [one.get(fate, 0) for one in fates], colour, hatch) for fate, colour, hatch in looks]
    labels = [passport.get("policy", f"iteration {passport['iteration']}") for passport in passports]
    fig.panel("prompts").stacked(labels, [("gave a pair", kept, BLUE, ""), *parts], linewidth=0.5)
    shares = [f"{100 * count / max(total, 1):.0f} %" for count, total in zip(kept, asked, strict=True)]
    title = f"{', then '.join(shares)} of the prompts give a pair" if shares else "No pairs yet"
    return fig.titled(title, outside=True)


def coverage_curve(
    coverage: Mapping[int, float], paper_coverage: Mapping[int, float] | None = None
) -> Figure:
    """Share of prompts whose samples hold both a right and a wrong one, by samples per prompt.

    Args:
        coverage: samples per prompt to the share of prompts covered, as a fraction.
        paper_coverage: the paper's, drawn dashed beside ours.
    """
    most = max(coverage, default=0)
    fig = Figure(f"One run, up to {most} samples a prompt; expectation over draws without replacement.")
    axes = fig.panel("samples a prompt (N)", "prompts with right and wrong (%)")
    ours: dict[str, Any] = {"color": BLUE, "marker": "s", "markersize": 4, "label": "ours"}
    theirs: dict[str, Any] = {"color": GREY, "marker": "x", "linestyle": "--", "label": "paper, Gemma-1.1-7B"}
    for points, style in ((coverage, ours), (paper_coverage, theirs)):
        if points:
            axes.plot(sorted(points), [100 * points[n] for n in sorted(points)], **style)
    axes.set_ylim(0, 100)
    axes.whole_steps()
    if not most:
        return fig.titled("No coverage measured yet")
    return fig.titled(f"With {most} samples {percent(coverage[most])} % of the prompts can yield a pair")


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

    fig = Figure(f"n = {n:,} trajectories; below each bar, how many.")
    axes = fig.panel(xlabel, "share (%)")
    labels = [f"{group}\n{max(size, 1):,}" for group, size in zip(counts, sizes, strict=True)]
    parts = [(kind, shares(kind), colour, hatch) for kind, (colour, hatch) in kinds.items()]
    axes.stacked(labels, parts, upright=True, width=0.7)
    if any("tool error" in row for row in counts.values()):
        style = {"color": BLACK, "marker": "o", "linestyle": "none"}
        axes.plot(range(len(counts)), shares("tool error"), label="met a tool error", **style)
    right = sum(row.get("right", 0) for row in counts.values())
    title = f"{percent(right / n)} % of the trajectories end right" if n else "No trajectories yet"
    return fig.titled(title, outside=True)


def histogram(values: Sequence[float], xlabel: str, title: str = "") -> Figure:
    """How values are spread, with their median.

    Args:
        values: one per trajectory, pair or question.
        xlabel: what they are, with the unit in parentheses.
        title: the finding; the median when empty.
    """
    fig = Figure(f"n = {len(values):,}.")
    axes = fig.panel(xlabel, "count")
    if values:
        median = statistics.median(values)
        bins = min(30, max(5, round(len(values) ** 0.5)))
        axes.hist(sorted(values), bins=bins, color=BLUE, edgecolor="white")
        axes.axvline(median, color=RED, linestyle="--", label=f"median {median:.3g}")
        title = title or f"The median is {median:.3g}"
    return fig.titled(title or "No values yet")


def memory_by_part(needs: Mapping[str, Mapping[str, float]], cards: Mapping[str, float]) -> Figure:
    """What a training step holds in a GPU's memory.

    Args:
        needs: model to part to GiB.
        cards: a GPU's name to its GiB, drawn as lines.
    """
    fig = Figure("By arithmetic, not measured; 1 pair of full length at a time.")
    axes = fig.panel("memory of one M-DPO step (GiB)")
    parts = zip(next(iter(needs.values()), {}), (GREY, BLUE, SKY, ORANGE, GREEN), strict=False)
    widths = ((part, [row[part] for row in needs.values()], colour, "") for part, colour in parts)
    ends = axes.stacked(list(needs), widths)
    for name, size in cards.items():
        axes.axvline(size, color=BLACK, linestyle="--", linewidth=1)
        axes.annotate(name, (size, 1), xycoords=("data", "axes fraction"), xytext=(-3, -4),
                      textcoords="offset points", rotation=90, ha="right", va="top", fontsize=7.5)  # fmt: skip
    return fig.titled(f"The largest needs {max(ends):.1f} GiB" if needs else "No model yet", outside=True)


def quantized_weights(weights: Sequence[float], levels: Sequence[float]) -> Figure:
    """Weights, each divided by the largest of its block, and the few levels that stand for them."""
    fig = Figure(f"n = {len(weights):,} weights.")
    axes = fig.panel("weight / largest of its block", "count")
    axes.hist(weights, bins=81, color=SKY, label="weights")
    for number, level in enumerate(levels):
        axes.axvline(level, color=RED, linewidth=0.8, label=None if number else "levels")
    return fig.titled(f"{len(levels)} levels, dense where the weights are")


def _steps_caption(log: Log) -> str:
    return f"One run, {len(log)} logged steps." if log else "Nothing logged yet."


def _logged(log: Log, key: str) -> list[float]:
    return [row[key] for row in log if row.get(key) is not None]


def _curve(axes: Panel, log: Log, key: str, colour: str, **style: Any) -> None:
    if values := _logged(log, key):
        steps = [row["step"] for row in log if row.get(key) is not None]
        axes.plot(steps, values, color=colour, marker=".", markersize=3, **style)
    axes.set_xlabel("optimiser step")
    axes.whole_steps(5)


def _gain_sentence(metrics: Metrics) -> str:
    """What happened from SFT to the last iteration, with the paired interval where it was measured."""
    steps = metrics.by_iteration("accuracy")
    if not steps:
        return "Nothing measured yet"
    last = max(steps)
    if last == 0 or 0 not in steps:
        policy = f"M-DPO iteration {last}" if last else "SFT"
        return f"{policy} answers {steps[last].value_in_words()} % right"
    gain = metrics.by_iteration("gain").get(last)
    change = gain.value if gain else steps[last].value - steps[0].value
    sentence = f"{'rises' if change > 0 else 'falls'} by {abs(100 * change):.1f} points"
    interval = ""
    if gain and gain.low is not None and gain.high is not None:
        interval = f" (95% interval {gain.interval_in_words(sign=True)})"
        if gain.low <= 0 <= gain.high:
            sentence = f"is not shown to change: it moves by {gain.value_in_words(sign=True)} points"
    return f"Accuracy {sentence} from SFT to M-DPO {last}{interval}"


def _training_sentence(log: Log, name: str) -> str:
    chosen, rejected, margin = (_logged(log, key) for key in ("chosen_logp", "rejected_logp", "margin"))
    if not chosen or not rejected:
        return f"{name}: no log-probabilities logged yet"
    words = [f"chosen {chosen[-1] - chosen[0]:+.1f} nats", f"rejected {rejected[-1] - rejected[0]:+.1f} nats"]
    if margin:
        words.append(f"margin {margin[-1] - margin[0]:+.2f}")
    return f"{name}: {', '.join(words)}"


def _order_sentence(accuracies: Mapping[str, Metric]) -> str:
    if len(accuracies) < 2:
        return "nothing to compare yet"
    ranked = sorted(accuracies.items(), key=lambda item: -item[1].value)
    (first, best), (second, next_best) = ranked[:2]
    sentence = f"{first} is {percent(best.value - next_best.value)} points above {second}"
    apart = best.low is not None and next_best.high is not None and best.low > next_best.high
    return sentence if apart else f"{sentence}, within the intervals"
