"""TODO: results.figures.style."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import figure
from matplotlib.axes import Axes
from PIL import Image

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


def _legend(axes: Axes, outside: bool = False) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    if outside:
        axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(fontsize=7.5, frameon=False)
