"""Figures of a study: arms over seeds, the paper's claims, and what changes over iterations, doses and samples."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.lines import Line2D

from mtdpo_lib.experiment.arms import PASS_AT, in_few_words, in_full, known_arm
from mtdpo_lib.results.claims import MARGIN, JudgedClaim
from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREEN, GREY, ORANGE, RED, SKY
from mtdpo_lib.results.figures.style import DOTS, Figure, Panel, style_of
from mtdpo_lib.results.metric import Metric, Metrics, policy_in_words

FACT_WORDS = {
    "accuracy": "greedy accuracy", "right": "right samples of the current policy",
    "right_despite_error": "right samples whose tool failed", "distinct": "two samples of a prompt differ",
    "distinct_right": "two right samples of a prompt differ", "covered": "prompts that give a pair",
    "entropy": "-log π of its samples, per token",
    "pass_64": "problems solved by one of 64 samples", "right_nats": "-log π of its right samples",
    "chosen_ratio": "chosen: log-ratio to the reference", "rejected_ratio": "rejected: log-ratio to the reference",
}  # fmt: skip
VERDICT_STYLES = {
    "agrees": (BLUE, "s"), "leans towards": (SKY, "s"), "no effect": (GREEN, "D"), "inconclusive": (GREY, "o"),
    "leans against": (ORANGE, "X"), "disagrees": (RED, "X"),
}  # fmt: skip
WORLD_STYLES = ((BLUE, "s"), (ORANGE, "^"), (RED, "o"), (GREEN, "D"))
NOTHING = "Nothing measured yet"
CLAIM_UNITS = {"fraction": "difference (points)", "nats": "difference (nats)"}


def arms(metrics: Metrics, names: Iterable[str]) -> Figure:
    """What each arm of a study gives and what it costs: accuracy, gain over SFT, tokens sampled and trained on.

    Args:
        metrics: of a study.
        names: of the arms, in the order shown; those without an accuracy are left out.
    """
    shown = metrics.with_gains(names)
    fig = Figure.of([accuracy for accuracy, _ in shown.values()], (6.5, 1.5 + 0.6 * len(shown)))
    words = ["greedy accuracy (%)", "gain over SFT (points)", "million tokens"]
    _, middle, right = fig.row(3, True, xlabel=words, width_ratios=(3, 3, 2))
    parts = []
    for label, colour, hatch in (("sampled", SKY, ""), ("trained", ORANGE, "//")):
        costs = (metrics.get("cost", f"{label}-tokens", name) for name in shown)
        parts.append((label, [cost.value / 1e6 if cost else 0.0 for cost in costs], colour, hatch))
    right.stacked([""] * len(shown), parts, height=0.3)
    fig.across([in_full(name) for name in shown], shown.values())
    middle.zero_line(across=False)
    gained = sum(gain is not None and (gain.low or 0) > 0 for _, gain in shown.values())
    return fig.titled(f"{gained} of {len(shown)} are shown to gain over their SFT policy", above=True)


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
    fig = Figure.of([metric for metric, _ in measured], (6.5, 1.6 + 0.7 * max(len(measured), 1)))
    counts = [len(own) for own in by_unit.values()] or [1]
    panels = fig.grid(len(counts), 1, height_ratios=[count + 0.5 for count in counts])
    hollow: dict[str, Any] = {"marker": "d", "color": BLACK, "markerfacecolor": "none", "linestyle": ""}
    for axes, (words, own) in zip(panels, by_unit.items(), strict=False):
        for position, (metric, row) in enumerate(own):
            axes.across(position, metric, VERDICT_STYLES.get(row.verdict, (GREY, "o")))
            if row.claim.paper is not None:
                axes.plot([row.claim.paper], [position], **hollow)
        axes.name_rows([f"{row.claim.statement}: {row.verdict_in_words}" for _, row in own])
        axes.zero_line(across=False)
        margin = own[0][0].scale * MARGIN[own[0][0].unit]
        band = axes.axvspan(-margin, margin, color=GREY, alpha=0.15)
        axes.set_xlabel(words)
        band.set_label("too small to count" if axes is panels[0] else "")
    handles = [
        *panels[0].patches,
        Line2D([], [], marker="s", color=GREY, linestyle="-", label="mean and 95% interval"),
        Line2D([], [], label="each seed", **DOTS),
        Line2D([], [], label="the paper", **hollow),
    ]
    panels[0].key(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4)
    verdicts = Counter(row.verdict for _, row in measured)
    summary = ", ".join(f"{word} {count}" for word, count in verdicts.items())
    return fig.titled(f"The study on the paper's claims ({theme}): {summary}" if summary else NOTHING)


def over_iterations(metrics: Metrics, facts: Sequence[str], arms: Sequence[str]) -> Figure:
    """How arms differ from one iteration to the next: a panel for each fact that was measured, a line for each arm.

    A line is an arm minus its rival, paired: minus the first arm, where the key does not say another. The zero line is the
    first arm, and its own values stand above it.

    Args:
        metrics: of a study.
        facts: of `mtdpo_lib.experiment.study.iteration_facts`, e.g. ``["right", "distinct"]``.
        arms: in the order of the key; the first is what the others are compared with.
    """
    base = next(iter(arms), "")
    levels = {fact: own for fact in facts if (own := _by_iteration(metrics, fact, base))}
    if not levels:
        return Figure.of([]).titled(NOTHING)
    rows = len(levels) // 2 + 1  # with a place for the key
    bars = "Bars: 95% intervals of paired differences, dots: each seed."
    fig = Figure.of([one for own in levels.values() for one in own.values()], (6.5, 1 + 2.3 * rows), bars)
    panels = fig.grid(rows, 2)
    fig.panels, spare = panels[: len(levels)], panels[len(levels) :]
    for axes, (fact, own) in zip(fig.panels, levels.items(), strict=True):
        unit = own[min(own)].unit
        values = ", ".join(metric.value_in_words() for metric in own.values())
        axes.title.set_text(
            f"{FACT_WORDS[fact]}\n{in_few_words(base)}: {values} {unit.replace('fraction', '%')}"
        )
        axes.set(xlabel="iteration", ylabel=f"difference ({unit.replace('fraction', 'points')})")
        _differences(axes, metrics, fact, [arm for arm in arms if arm != base])
    for axes in spare:
        axes.axis("off")
    handles, names = fig.panels[0].get_legend_handles_labels()
    spare[0].key(handles=handles, labels=[textwrap.fill(name, 32) for name in names], loc="upper left")
    fact, last = next((fact, max(own)) for fact, own in levels.items())
    paired = (metrics.get(fact, policy=arm, iteration=last, against=known_arm(arm).against) for arm in arms)
    ends = "; ".join(f"{_minus(one.arm)} {one.in_words(sign=True)}" for one in paired if one)
    return fig.titled(f"After iteration {last}, {FACT_WORDS[fact]}, paired: {ends or 'nothing'}", keys=False)


def _differences(axes: Panel, metrics: Metrics, fact: str, arms: Sequence[str]) -> None:
    """A line for each arm minus its rival, intervals side by side; a logarithmic axis where they span decades."""
    sizes = []
    for position, arm in enumerate(arms):
        if found := _by_iteration(metrics, fact, arm, known_arm(arm).against):
            aside = 0.08 * (position - (len(arms) - 1) / 2)
            points = {number + aside: metric for number, metric in found.items()}
            axes.line(points, style_of(arm), _minus(arm))
            sizes.append(max(abs(metric.scale * metric.value) for metric in found.values()))
    if "nats" in axes.get_ylabel() and max(sizes, default=0) > 5:
        axes.set_yscale("symlog", linthresh=1)  # tenths of a nat stay apart beside tens
    axes.zero_line()
    axes.whole_steps()


def _minus(arm: str) -> str:
    return f"{in_few_words(arm)}, minus {in_few_words(known_arm(arm).against)}"


def _by_iteration(metrics: Metrics, fact: str, arm: str, against: str = "") -> dict[int, Metric]:
    found = metrics.select(kind=fact, split="", policy=arm, since=None, against=against)
    return {metric.iteration: metric for metric in found if metric.iteration}


def pass_at_n(metrics: Metrics, labels: Mapping[str, str]) -> Figure:
    """pass@n of some policies, with intervals (the paper's Figure 2).

    Args:
        metrics: of a study, ``pass/<n>/<policy>`` among them.
        labels: policy (``arm`` or ``arm/sft``) to its words.
    """
    curves = {
        name: points
        for name in labels
        if (points := {n: metric for n in PASS_AT if (metric := metrics.get("pass", str(n), name))})
    }
    fig = Figure.of([metric for points in curves.values() for metric in points.values()])
    axes = fig.panel("samples per question (n)", "pass@n (%)")
    ends = []
    for number, (name, points) in enumerate(curves.items()):
        aside = {n * 1.06**number: metric for n, metric in points.items()}  # intervals side by side
        label = in_few_words(labels[name])
        axes.line(aside, style_of(name.rpartition("/")[2]), label)
        first, last = (points[n].value_in_words() for n in (min(points), max(points)))
        ends.append(f"{label} {first} to {last} %")
    if curves:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    return fig.titled(f"From one sample to many: {', '.join(ends)}" if ends else "No pass@n yet")


def gain_by_start(metrics: Metrics, arms: Sequence[str]) -> Figure:
    """What each seed's SFT policy started from, and what an arm gained from there; a point per seed.

    Args:
        metrics: of a study, ``accuracy/test/<arm>`` and ``gain/test/<arm>`` among them, with a value for each seed.
        arms: in the order of the key; the title tells of the first.
    """
    gains, points = [], {}
    for arm in arms:
        accuracy, gain = (metrics.get(kind, "test", arm) for kind in ("accuracy", "gain"))
        if accuracy and gain:
            gains.append(gain)
            pairs = zip(accuracy.each, gain.each, strict=True)
            points[arm] = sorted((100 * (end - gained), 100 * gained) for end, gained in pairs)
    fig = Figure.of(gains, bars="One point per seed.")
    axes = fig.panel("SFT policy, greedy accuracy (%)", "gain after the last iteration (points)")
    for arm, pairs in points.items():
        colour, marker = style_of(arm)
        axes.plot(
            *zip(*pairs, strict=True), color=colour, marker=marker, linestyle="", label=in_few_words(arm)
        )
    axes.zero_line()
    title = "No seeds yet"
    for arm, pairs in list(points.items())[:1]:
        start, gain = zip(*pairs, strict=True)
        spread = f"gains of {min(gain):+.1f} to {max(gain):+.1f} points"
        title = f"{in_few_words(arm)}: {spread} from SFT policies of {min(start):.1f} to {max(start):.1f} %"
    return fig.titled(title, above=True)


def lead_by_start(studies: Mapping[str, Metrics], arm: str = "mdpo-2") -> Figure:
    """How far an arm is ahead of its rival in many worlds, over the share of right samples that they start from.

    Above stands what this share p predicts for the first step: M-DPO's signal-to-noise power per sample over RAFT's,
    1 / (2 (1 - p)^2) (`mtdpo_lib.lessons.first_step`). A line joins worlds whose right answers have equally many wordings.

    Args:
        studies: of each world, by what was set; those without the arm are left out.
        arm: which has its rival in the same studies.
    """
    lines = _leads_by_wording(studies, arm)
    every = [leads for own in lines.values() for *_, leads in own]
    last = min(map(len, every), default=0)
    names = " minus ".join(policy_in_words(one.partition("-")[0]) for one in (arm, known_arm(arm).against))
    fig = Figure.of([lead for leads in every for lead in leads], (6.5, 3.6))
    titles = [f"after iteration {number + 1}\nabove: predicted ratio" for number in range(last)]
    words = {"xlabel": "right samples of SFT, p (%)", "ylabel": f"{names} (points)"}
    *panels, spare = fig.row([*titles, ""], True, width_ratios=[3] * last + [2], **words)
    fig.panels = panels
    spare.axis("off")
    for (label, own), style in zip(lines.items(), WORLD_STYLES, strict=False):
        for number, axes in enumerate(panels):
            axes.line({right.scale * right.value: leads[number] for right, leads in own}, style, label)
    for axes in panels:
        axes.zero_line()
        axes.secondary_xaxis("top", functions=(_predicted_ratio, _share_of_ratio)).set_xticks([1, 2, 4, 8])
    spare.key(handles=panels[0].get_legend_handles_labels()[0] if panels else [], loc="upper left")
    ends = [leads[last - 1] for leads in every]
    ahead, behind = sum((one.low or 0) > 0 for one in ends), sum((one.high or 0) < 0 for one in ends)
    title = (
        f"{names} after iteration {last}: shown above 0 in {ahead} of {len(ends)} worlds, below 0 in {behind}"
    )
    return fig.titled(title if ends else NOTHING, keys=False)


def _leads_by_wording(
    studies: Mapping[str, Metrics], arm: str
) -> dict[str, list[tuple[Metric, list[Metric]]]]:
    """By wordings and what they are worth: worlds in the order of their right samples, each with its lead by iteration."""
    found = defaultdict[str, list[tuple[Metric, float, list[Metric]]]](list)
    for settings, metrics in studies.items():
        right, nats = (metrics.get(fact, policy=arm, iteration=1) for fact in ("right", "right_nats"))
        leads = metrics.select(kind="accuracy", policy=arm, against=known_arm(arm).against)
        if right and nats and leads:
            wordings = re.search(r"problems\.wordings=(\w+)", settings)
            found[wordings[1] if wordings else "given"].append(
                (right, nats.value, sorted(leads, key=lambda one: one.iteration or 0))
            )
    worth = {wordings: statistics.mean(nats for _, nats, _ in own) for wordings, own in found.items()}
    return {
        f"{wordings} wordings,\n{worth[wordings]:.0f} nats": sorted(
            ((right, leads) for right, _, leads in found[wordings]), key=lambda world: world[0].value
        )
        for wordings in sorted(worth, key=lambda name: worth[name])
    }


def _predicted_ratio(percent: Any) -> Any:
    return 1 / (2 * (1 - percent / 100).clip(0.01) ** 2)


def _share_of_ratio(ratio: Any) -> Any:
    return 100 * (1 - 1 / (2 * ratio.clip(0.5)) ** 0.5)


def claims_by_world(worlds: Mapping[str, Sequence[JudgedClaim]]) -> Figure:
    """The primary claims in several worlds, a panel for each: mean difference with its interval, and every seed.

    Args:
        worlds: by name, claims as `mtdpo_lib.results.judge` gives them.
    """
    primary = [[row for row in judged if row.claim.kind == "primary"] for judged in worlds.values()]
    measured = [row.measured for own in primary for row in own if row.measured]
    fig = Figure.of(measured, (6.5, 1.4 + 0.7 * max(map(len, primary), default=1)))
    panels = fig.row([*worlds] or 1, True, xlabel="difference (points)")
    labels = [row.claim.statement for row in primary[0]] if primary else []
    fig.across(labels, zip(*([row.measured for row in own] for own in primary), strict=True))
    for axes in panels:
        axes.zero_line(across=False)
    agree = (sum(row.verdict == "agrees" for row in own) for own in primary)
    counts = ", ".join(f"{name}: {count} of {len(labels)}" for name, count in zip(worlds, agree, strict=True))
    return fig.titled(f"Primary claims that agree, by world: {counts}" if measured else NOTHING)


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
    fig = Figure.of(list(differences.values()), (6.5, 3.2))
    words = ["tool's share of the\ngradient, if scored (%)", "gain over SFT (points)", "difference (points)"]
    left, middle, right = fig.row(3, ylabel=words, xlabel="lines of a log\nabove each result")
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
    return fig.titled(title if differences else NOTHING)
