"""The figure of a tuning."""

from __future__ import annotations

from typing import Any

from mtdpo_lib.results.figures.style import Figure, style_of
from mtdpo_lib.results.metric import policy_in_words


def tuning(found: dict[str, Any]) -> Figure:
    """Accuracy on development problems over the learning rate: a line for each method, a dot for each seed.

    Args:
        found: as ``tune.json`` holds it. At each rate the second setting that is best there is drawn.
    """
    seeds = ", ".join(map(str, sorted({seed for row in found["tried"] for seed in row["seeds"]})))
    fig = Figure(
        f"After iteration 1; n = {found['n']:,} development problems, seeds {seeds}. Dots: each seed. Rings: chosen."
    )
    axes = fig.panel("learning rate", "accuracy on development problems (%)")
    words = []
    for method, setting in found["chosen"].items():
        colour, marker = style_of(method)
        best: dict[float, dict[str, Any]] = {}
        tried = (row for row in found["tried"] if row["method"] == method and row["iterations"] == 1)
        for row in sorted(tried, key=lambda row: row["mean"]):
            best[row["setting"]["learning_rate"]] = row
        line = {rate: 100 * best[rate]["mean"] for rate in sorted(best)}
        axes.plot(list(line), list(line.values()), color=colour, marker=marker, label=policy_in_words(method))
        for rate, row in best.items():
            ends = [100 * curve[-1] for curve in row["development"]]
            axes.plot([rate] * len(ends), ends, ".", color=colour, alpha=0.5, markersize=4)
        rate = setting["learning_rate"]
        axes.plot([rate], [line[rate]], "o", color=colour, markerfacecolor="none", markersize=12)
        words.append(f"{policy_in_words(method)} {rate:g}")
    axes.set_xscale("log")
    title = f"Learning rate chosen for each method: {', '.join(words)}"
    return fig.titled(title if words else "Nothing tuned yet", above=True)
