"""How all figures are drawn: one panel or several, and the few ways in which numbers stand in them.

Intervals are drawn, axes carry units, and the caption says what the figure rests on. The title states what was found, made
from the numbers that are drawn: policies are compared by differences that were measured in pairs, or only described.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure, rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtdpo_lib.common.files import whole
from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Style
from mtdpo_lib.results.metric import Metric, rests_on

# In inches; none is wider, so that a page of 650 pixels shows words in the size that they have here.
SIZE = (6.5, 3.5)
DPI = 100
TITLE, LABEL, SMALL, LINE = 10, 9, 8.5, 86  # points, and the letters of the title in a line
WORDS = {"axes.labelsize": LABEL, "axes.titlesize": LABEL, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL}
BARS = "Bars: 95% intervals."
PLAIN = {"axes.formatter.min_exponent": 3}  # logarithmic axes say 0.1 and 100, and 10³ only from there on

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
DOTS: dict[str, Any] = {"marker": ".", "color": GREY, "alpha": 0.6, "markersize": 5, "linestyle": ""}


class Panel(Axes):
    """One panel of a figure, and the ways in which numbers are drawn in it."""

    rows: Sequence[str] = ()  # the labels of its rows

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
        self.annotate(metric.value_in_words(), (value, row), (0, 5), textcoords="offset points", ha="center",
                      fontsize=SMALL)  # fmt: skip
        self.plot([metric.scale * one for one in metric.each], [row + 0.22] * len(metric.each), **DOTS)
        self.margins(x=0.1)

    def stacked(self, labels: Sequence[str], parts: Iterable[Part], **style: Any) -> list[float]:
        """A bar for each label, from the top down, its parts one after the other; gives where they end."""
        rows, ends = range(len(labels)), [0.0] * len(labels)
        for name, lengths, colour, hatch in parts:
            self.barh(rows, lengths, left=ends, color=colour, hatch=hatch, ec="white", label=name, **style)
            ends = [start + length for start, length in zip(ends, lengths, strict=True)]
        self.set_yticks(rows, labels)
        self.set_ylim(max(len(labels), 1) - 0.5, -0.5)
        self.rows = list(labels)
        return ends

    def name_rows(self, labels: Sequence[str]) -> None:
        """Rows from the top down, each below its label, which has the width of the whole figure."""
        self.rows = list(labels)
        self.set_yticks([])
        self.set_ylim(max(len(labels), 1) - 0.6, -1)
        for row, label in enumerate(labels):
            self.text(0.01, row - 0.36, textwrap.fill(label, LINE + 10), fontsize=LABEL, va="bottom", in_layout=False,
                      transform=self.get_yaxis_transform())  # fmt: skip

    def in_words(self) -> str:
        """What stands on the axes, and the panel's title."""
        words = self.get_ylabel(), self.get_xlabel()
        axes = (" by " if self.rows else " over ").join(filter(None, words[::-1] if self.rows else words))
        return " in: ".join(filter(None, (axes, self.get_title())))

    def zero_line(self, across: bool = True) -> None:
        """Where nothing changes."""
        (self.axhline if across else self.axvline)(0, color=GREY, linewidth=0.8)

    def whole_steps(self, most: int | None = None) -> None:
        """Marks of the x axis at whole numbers only."""
        self.xaxis.set_major_locator(MaxNLocator(most, integer=True))

    def key(self, **where: Any) -> None:
        """What the lines mean, where any line has a name."""
        if where.get("handles") or self.get_legend_handles_labels()[0]:
            self.legend(fontsize=SMALL, frameon=False, **where)


class Figure(figure.Figure):
    """A figure that knows how to show itself in a notebook without the global state of pyplot."""

    def __init__(self, caption: str = "", size: tuple[float, float] = SIZE):
        super().__init__(figsize=size, dpi=DPI, layout="constrained")
        self.panels: list[Panel] = []
        if caption:
            self.supxlabel(textwrap.fill(caption, LINE + 10), fontsize=LABEL, x=0.01, ha="left")

    @classmethod
    def of(cls, metrics: Sequence[Metric], size: tuple[float, float] = SIZE, bars: str = BARS) -> Figure:
        """A figure whose caption says what metrics rest on; see `mtdpo_lib.results.metric.rests_on`."""
        return cls(rests_on(metrics, bars=bars), size)

    def panel(self, xlabel: str = "", ylabel: str = "") -> Panel:
        """The only panel."""
        return self.row(1, xlabel=xlabel, ylabel=ylabel)[0]

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
            own = {key: value[number] for key, value in properties.items() if isinstance(value, list)}
            axes.set(**properties | own)
            axes.title.set_text(title)
        return row

    def grid(self, rows: int, columns: int, **how: Any) -> list[Panel]:
        """Panels in rows and columns, row by row."""
        how["subplot_kw"] = {"axes_class": Panel}
        with rc_context(WORDS):
            self.panels = list(self.subplots(rows, columns, squeeze=False, **how).flat)
        return self.panels

    def across(self, labels: Sequence[str], rows: Iterable[Sequence[Metric | None]]) -> None:
        """A row of all panels for the metrics of a policy, one in each panel, where they were measured."""
        for row, metrics in enumerate(rows):
            for axes, metric in zip(self.panels, metrics, strict=False):
                if metric:
                    axes.across(row, metric, style_of(metric.policy))
        for axes in self.panels:  # no frame stands in the way of a row's label
            axes.spines[["left", "top", "right"]].set_visible(False)
            axes.patch.set_visible(False)
        self.panels[0].name_rows(labels)

    def titled(self, title: str, above: bool = False, keys: bool = True) -> Figure:
        """The figure with its title, and with `keys` inside or `above` the panels that have none yet."""
        self.suptitle(textwrap.fill(title, LINE), fontsize=TITLE, x=0.01, ha="left")
        where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1)} if above else {}
        for axes in self.panels if keys else ():
            if not axes.get_legend():
                short = len("".join(axes.get_legend_handles_labels()[1])) < 45
                axes.key(**where, ncols=(5 if short else 2) if above else 1)
        return self

    @property
    def headline(self) -> str:
        """What the figure's title says, in one line."""
        return " ".join(self.get_suptitle().split())

    @property
    def alt(self) -> str:
        """The figure for who cannot see it: title, what each panel shows, and what it rests on."""
        names = [name for axes in self.panels for name in (*axes.rows, *axes.get_legend_handles_labels()[1])]
        panels = enumerate((axes.in_words() for axes in self.panels), 1)
        shown = [f"{f'Panel {one}' if self.panels[1:] else 'It'} shows {words}." for one, words in panels]
        named = (
            f"Its rows, lines and bars are: {'; '.join(filter(None, dict.fromkeys(names)))}."
            if any(names)
            else ""
        )
        return " ".join(" ".join([f"{self.headline}.", *shown, named, self.get_supxlabel()]).split())

    def __repr__(self) -> str:
        return self.alt  # so that an output's plain text tells it where alternative texts are not read

    def png(self) -> bytes:
        """The figure as a PNG of at most 256 colours, a third of the size; the same bytes for the same data."""
        drawn, small, words = io.BytesIO(), io.BytesIO(), PngInfo()
        with rc_context(PLAIN):
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


def _interval_widths(metrics: Sequence[Metric]) -> list[list[float]]:
    """How far the intervals reach below and above the values, as errorbar wants it; 0 where there is none."""
    low = [m.scale * (m.value - m.low) if m.low is not None else 0.0 for m in metrics]
    high = [m.scale * (m.high - m.value) if m.high is not None else 0.0 for m in metrics]
    return [[max(value, 0.0) for value in low], [max(value, 0.0) for value in high]]
