"""The style of all figures: colours and markers with a fixed meaning, and the few ways in which numbers are drawn.

Colours are safe for colour-blind readers and mean the same method in every figure; markers repeat what colours say.
Intervals are drawn, axes carry units, the caption says what the figure rests on, and the title states the finding,
worded from the numbers it is drawn from.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure
from matplotlib.axes import Axes
from PIL import Image

from mtdpo_lib.results.metric import Metric, rests_on

SIZE = (6.5, 3.5)  # inches
DPI = 100
TITLE_CHARACTERS = 88  # in a line of SIZE's width
BARS = "Bars: 95% intervals."

BLACK, GREY, BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#000000", "#777777", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip

Style = tuple[str, str]  # colour and marker

# Part of a policy's name -> its style; the first that fits holds.
METHOD_STYLES: dict[str, Style] = {
    "fixed": (ORANGE, "^"),
    "onpolicy": (GREEN, "D"),
    "on-policy": (GREEN, "D"),
    "eta-low": (SKY, "<"),
    "eta-high": (RED, ">"),
    "mkto": (PURPLE, "P"),
    "unmasked": (SKY, "v"),
    "exact-v": (BLACK, "*"),
    "learned-v": (RED, "o"),
    "sampled-v": (ORANGE, "h"),
    "raft": (RED, "X"),
    "n-3": (RED, "<"),
    "n-18": (PURPLE, ">"),
    "nll": (GREEN, "D"),
    "kto": (ORANGE, "^"),
    "mdpo": (BLUE, "s"),
    "dpo": (SKY, "v"),
    "sft": (GREY, "o"),
}
SUITE_STYLES = {
    **dict.fromkeys(("gsm-like", "gsm8k"), (GREEN, "D")),
    **dict.fromkeys(("math-like", "math"), (PURPLE, "^")),
}
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


class Figure(figure.Figure):
    """A figure that knows how to show itself in a notebook without the global state of pyplot."""

    def __init__(self, caption: str = "", size: tuple[float, float] = SIZE):
        super().__init__(figsize=size, dpi=DPI, layout="constrained")
        if caption:
            self.supxlabel(caption, fontsize=7.5, x=0.01, ha="left", color=GREY)

    def row(self, count: int, **how: Any) -> list[Axes]:
        """So many panels side by side."""
        return list(self.subplots(1, count, squeeze=False, **how)[0])

    @property
    def headline(self) -> str:
        """What the figure's title says."""
        return self.get_suptitle() or self.axes[0].get_title()

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


def style_of(policy: str) -> Style:
    """Colour and marker of a method, the same in every figure."""
    return next((style for part, style in METHOD_STYLES.items() if part in policy), (BLACK, "o"))


def caption_of(metrics: Sequence[Metric], bars: str = BARS, over_seeds: bool = False) -> str:
    """What a figure of metrics rests on; see `mtdpo_lib.results.metric.rests_on`."""
    return rests_on(metrics, bars=bars, over_seeds=over_seeds)


def percent(fraction: float) -> str:
    """``61.2``: a fraction in per cent, without the sign."""
    return f"{100 * fraction:.1f}"


def interval_widths(metrics: Sequence[Metric]) -> list[list[float]]:
    """How far the intervals reach below and above the values, as errorbar wants it; 0 where there is none."""
    low = [m.scale * (m.value - m.low) if m.low is not None else 0.0 for m in metrics]
    high = [m.scale * (m.high - m.value) if m.high is not None else 0.0 for m in metrics]
    return [[max(value, 0.0) for value in low], [max(value, 0.0) for value in high]]


def interval_line(
    axes: Axes,
    points: Mapping[float, Metric] | Mapping[int, Metric],
    style: Style,
    label: str = "",
    line: str = "-",
) -> None:
    """A line through metrics at their x, with their intervals, in per cent or points where they are fractions."""
    metrics, (colour, marker) = list(points.values()), style
    axes.errorbar(list(points), [m.scale * m.value for m in metrics], yerr=interval_widths(metrics), label=label,
                  color=colour, marker=marker, linestyle=line, capsize=3, markersize=5)  # fmt: skip


def interval_across(axes: Axes, row: int, metric: Metric, style: Style) -> None:
    """One metric with its interval in a row of a panel, and its value above."""
    value, (colour, marker) = metric.scale * metric.value, style
    axes.errorbar([value], [row], xerr=interval_widths([metric]),
                  color=colour, marker=marker, capsize=3, linestyle="")  # fmt: skip
    axes.annotate(metric.value_in_words(), (value, row), (0, 7), textcoords="offset points", ha="center",
                  fontsize=8)  # fmt: skip
    axes.margins(x=0.25)


def stacked_rows(
    axes: Axes, count: int, parts: Iterable[tuple[str, Sequence[float], str, str]], **style: Any
) -> list[float]:
    """Bars across, each part (label, widths, colour, hatch) beginning where the one before ended; gives the ends."""
    starts = [0.0] * count
    for label, widths, colour, hatch in parts:
        axes.barh(range(count), widths, left=starts, color=colour, hatch=hatch, edgecolor="white", label=label,
                  **style)  # fmt: skip
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    return starts


def name_rows(axes: Axes, labels: Sequence[str], above: float = 0.5, **style: Any) -> None:
    """Rows from the top down, each with its label, and room `above` the first."""
    axes.set_yticks(range(len(labels)), labels, **style)
    axes.set_ylim(max(len(labels), 1) - 0.5, -above)


def zero_line(axes: Axes, across: bool = True) -> None:
    """Where nothing changes."""
    (axes.axhline if across else axes.axvline)(0, color=GREY, linewidth=0.8)


def legend(axes: Axes, outside: bool = False, **where: Any) -> None:
    """What the lines mean, where any line has a name: in the axes, to the right of them, or `where` it is told."""
    if outside:
        where = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    if "handles" in where or axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7.5, frameon=False, **where)
