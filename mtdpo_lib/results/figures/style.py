"""How all figures are drawn: one panel or several, and the few ways in which numbers stand in them.

Intervals are drawn, axes carry units, the caption says what the figure rests on, and the title states the finding,
worded from the numbers it is drawn from.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtdpo_lib.common.files import whole
from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Style
from mtdpo_lib.results.metric import Metric, rests_on

SIZE = (6.5, 3.5)  # inches
DPI = 100
BARS = "Bars: 95% intervals."

Points = Mapping[float, Metric] | Mapping[int, Metric]  # by their x
Part = tuple[str, Sequence[float], str, str]  # of bars: its name, its length in each bar, colour and hatch

# Part of a policy's name -> its style; the first that fits holds.
METHOD_STYLES: dict[str, Style] = {
    "fixed": (ORANGE, "^"), "onpolicy": (GREEN, "D"), "on-policy": (GREEN, "D"),
    "eta-low": (SKY, "<"), "eta-high": (RED, ">"), "mkto": (PURPLE, "P"), "unmasked": (SKY, "v"),
    "exact-v": (BLACK, "*"), "learned-v": (RED, "o"), "sampled-v": (ORANGE, "h"), "raft": (RED, "X"),
    "n-3": (RED, "<"), "n-18": (PURPLE, ">"), "nll": (GREEN, "D"), "kto": (ORANGE, "^"),
    "mdpo": (BLUE, "s"), "dpo": (SKY, "v"), "sft": (GREY, "o"),
}  # fmt: skip
SUITE_STYLES = {
    "gsm-like": (GREEN, "D"), "gsm8k": (GREEN, "D"), "math-like": (PURPLE, "^"), "math": (PURPLE, "^"),
}  # fmt: skip
VERDICT_STYLES = {
    "agrees": (BLUE, "s"), "leans towards": (SKY, "s"), "no effect": (GREEN, "D"), "inconclusive": (GREY, "o"),
    "leans against": (ORANGE, "X"), "disagrees": (RED, "X"),
}  # fmt: skip
DOTS: dict[str, Any] = {"marker": ".", "color": GREY, "alpha": 0.6, "markersize": 5, "linestyle": ""}
FACT_WORDS = {
    "accuracy": "greedy accuracy (%)",
    "right": "right samples of the\ncurrent policy (%)",
    "distinct": "two samples of a prompt\ndiffer (%)",
    "distinct_right": "two right samples of a prompt\ndiffer (%)",
    "covered": "prompts that give a pair (%)",
    "entropy": "-log pi of the current policy's\nsamples (nats per token)",
    "pass_64": "solved by one of 64 samples (%)",
    "chosen_ratio": "chosen: log-ratio to the reference\nat the end (nats)",
    "rejected_ratio": "rejected: log-ratio to the reference\nat the end (nats)",
    "tool_gradient_share": "tool tokens' share of the gradient,\nif scored (%)",
}


class Panel(Axes):
    """One panel of a figure, and the ways in which numbers are drawn in it."""

    def line(self, points: Points, style: Style, label: str = "", line: str = "-") -> None:
        """A line through metrics, with their intervals and a dot for every seed; fractions in per cent or points."""
        metrics, (colour, marker) = list(points.values()), style
        self.errorbar(list(points), [m.scale * m.value for m in metrics], yerr=_interval_widths(metrics), label=label,
                      color=colour, marker=marker, linestyle=line, capsize=3, markersize=5)  # fmt: skip
        for place, metric in points.items():
            dots = [metric.scale * one for one in metric.each]
            self.plot([place] * len(dots), dots, **DOTS | {"color": colour})

    def across(self, row: int, metric: Metric, style: Style) -> None:
        """One metric with its interval in a row, its value above, and a dot for every seed below."""
        value, (colour, marker) = metric.scale * metric.value, style
        self.errorbar([value], [row], xerr=_interval_widths([metric]),
                      color=colour, marker=marker, capsize=3, linestyle="")  # fmt: skip
        self.annotate(metric.value_in_words(), (value, row), (0, 7), textcoords="offset points", ha="center",
                      fontsize=8)  # fmt: skip
        self.plot([metric.scale * one for one in metric.each], [row + 0.22] * len(metric.each), **DOTS)
        self.margins(x=0.25)

    def stacked(
        self, labels: Sequence[str], parts: Iterable[Part], upright: bool = False, **style: Any
    ) -> list[float]:
        """A bar for each label, across from the top down or upright, its parts one after the other; gives the ends."""
        bar, begin = (self.bar, "bottom") if upright else (self.barh, "left")
        rows, ends = range(len(labels)), [0.0] * len(labels)
        for name, lengths, colour, hatch in parts:
            style |= {begin: ends, "color": colour, "hatch": hatch, "edgecolor": "white", "label": name}
            bar(rows, lengths, **style)
            ends = [start + length for start, length in zip(ends, lengths, strict=True)]
        if upright:
            self.set_xticks(rows, labels)
        else:
            self.set_yticks(rows, labels)
            self.invert_yaxis()
        return ends

    def name_rows(self, labels: Sequence[str], below: float = 0.5, above: float = 0.5, **style: Any) -> None:
        """Rows from the top down, each with its label, and room `above` the first and `below` the last."""
        self.set_yticks(range(len(labels)), labels, **style)
        self.set_ylim(max(len(labels), 1) - below, -above)

    def zero_line(self, across: bool = True) -> None:
        """Where nothing changes."""
        (self.axhline if across else self.axvline)(0, color=GREY, linewidth=0.8)

    def whole_steps(self, most: int | None = None) -> None:
        """Marks of the x axis at whole numbers only."""
        self.xaxis.set_major_locator(MaxNLocator(most, integer=True))

    def key(self, **where: Any) -> None:
        """What the lines mean, where any line has a name."""
        if "handles" in where or self.get_legend_handles_labels()[0]:
            self.legend(fontsize=7.5, frameon=False, **where)


class Figure(figure.Figure):
    """A figure that knows how to show itself in a notebook without the global state of pyplot."""

    def __init__(self, caption: str = "", size: tuple[float, float] = SIZE):
        super().__init__(figsize=size, dpi=DPI, layout="constrained")
        self.panels: list[Panel] = []
        self.alone: Panel | None = None
        if caption:
            self.supxlabel(caption, fontsize=7.5, x=0.01, ha="left", color=GREY)

    @classmethod
    def of(
        cls, metrics: Sequence[Metric], size: tuple[float, float] = SIZE, bars: str = BARS, **rest: Any
    ) -> Figure:
        """A figure whose caption says what metrics rest on; see `mtdpo_lib.results.metric.rests_on`."""
        return cls(rests_on(metrics, bars=bars, **rest), size)

    def panel(self, xlabel: str = "", ylabel: str = "") -> Panel:
        """The only panel, over which the title stands."""
        (self.alone,) = self.row(1, xlabel=xlabel, ylabel=ylabel)
        return self.alone

    def row(self, panels: int | Iterable[str], sharey: bool = False, **properties: Any) -> list[Panel]:
        """Panels side by side.

        Args:
            panels: how many, or the title of each.
            sharey: they have one y axis.
            properties: of axes, e.g. ``xlabel``, for all panels, or a list with one for each.
        """
        titles = [""] * panels if isinstance(panels, int) else list(panels)
        row = self.grid(1, len(titles), sharey=sharey, width_ratios=properties.pop("width_ratios", None))
        for number, (axes, title) in enumerate(zip(row, titles, strict=True)):
            axes.set_title(title, fontsize=9)
            own = {key: value[number] for key, value in properties.items() if isinstance(value, list)}
            axes.set(**properties | own)
        return row

    def grid(self, rows: int, columns: int, **how: Any) -> list[Panel]:
        """Panels in rows and columns, row by row."""
        how["subplot_kw"] = {"axes_class": Panel}
        self.panels = list(self.subplots(rows, columns, squeeze=False, **how).flat)
        return self.panels

    def across(self, rows: Iterable[Sequence[Metric | None]]) -> None:
        """A row of all panels for the metrics of a policy, one in each panel, where they were measured."""
        for row, metrics in enumerate(rows):
            for axes, metric in zip(self.panels, metrics, strict=False):
                if metric:
                    axes.across(row, metric, style_of(metric.policy))

    def titled(self, title: str, size: float = 10, wrap: int = 0, outside: bool = False) -> Figure:
        """The figure with its title, in lines of `wrap` characters, and with a key in every panel that has none yet."""
        title = textwrap.fill(title, wrap) if wrap else title
        (self.alone.set_title if self.alone else self.suptitle)(title, fontsize=size)
        where = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if outside else {}
        for axes in self.panels:
            if not axes.get_legend():
                axes.key(**where)
        return self

    @property
    def headline(self) -> str:
        """What the figure's title says."""
        return self.get_suptitle() or self.axes[0].get_title()

    @property
    def alt(self) -> str:
        """The figure for who cannot see it: title and caption."""
        return " ".join(f"{self.headline}. {self.get_supxlabel()}".split())

    def png(self) -> bytes:
        """The figure as a PNG of at most 256 colours, a third of the size; the same bytes for the same data."""
        drawn, small, words = io.BytesIO(), io.BytesIO(), PngInfo()
        self.savefig(drawn, format="png", dpi=DPI)
        image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        words.add_itxt("Description", self.alt)
        image.save(small, format="png", optimize=True, pnginfo=words)
        return small.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return self.png(), {"alt": self.alt}

    def save(self, file: Path) -> Path:
        """Write the PNG to `file`; its folder is made if missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as draft:
            draft.write_bytes(self.png())
        return file


def style_of(policy: str) -> Style:
    """Colour and marker of a method, the same in every figure."""
    return next((style for part, style in METHOD_STYLES.items() if part in policy), (BLACK, "o"))


def percent(fraction: float) -> str:
    """``61.2``: a fraction in per cent, without the sign."""
    return f"{100 * fraction:.1f}"


def _interval_widths(metrics: Sequence[Metric]) -> list[list[float]]:
    """How far the intervals reach below and above the values, as errorbar wants it; 0 where there is none."""
    low = [m.scale * (m.value - m.low) if m.low is not None else 0.0 for m in metrics]
    high = [m.scale * (m.high - m.value) if m.high is not None else 0.0 for m in metrics]
    return [[max(value, 0.0) for value in low], [max(value, 0.0) for value in high]]
