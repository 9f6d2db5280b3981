"""Figures of the exact theory: worlds of tables.

`Rows` hold one row per random process and one column per point of the x axis. Lines are means with 95% t intervals over
processes; on a logarithmic axis both are taken of the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtdpo_lib.results.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Figure,
    Style,
    legend,
    style_of,
)
from mtdpo_lib.results.stats import Estimate, mean_interval

Rows = Sequence[Sequence[float]]

METHOD_NAMES = {
    "optimum": "optimum π*",
    "mdpo": "M-DPO (observations masked)",
    "unmasked": "single-turn (observations scored)",
    "exact-v": "with margin, exact V",
    "learned-v": "with margin, learned V",
    "sampled-v": "with margin, V from K draws",
    "mkto": "M-KTO",
}
RANDOMNESS, DISTANCE = "randomness ε of the tool", "total variation from π* (%)"


def eta_effect(etas: Sequence[float], first_turn: Rows, gain: Rows, kl: Rows) -> Figure:
    """What eta does to the optimum of (5).

    Args:
        etas: KL coefficients.
        first_turn: pi_1(a | x) of one process, one row per eta, one column per action.
        gain: share of the attainable gain in E[u] over the reference, a fraction; rows are processes, columns etas.
        kl: of the same, sum_h KL in nats.
    """
    fig = Figure(_over_processes(gain, "middle and right"), size=(8.0, 3.2))
    left, middle, right = fig.row(3)
    styles = zip((BLUE, ORANGE, GREEN, RED), ("-", "--", ":", "-."))
    for action, (probabilities, (colour, line)) in enumerate(zip(zip(*first_turn), styles), 1):
        left.plot(etas, probabilities, color=colour, linestyle=line, label=f"action {action}")
    left.set_ylabel("π₁(a | x), one process")
    _mean_line(middle, etas, _percent(gain), "mdpo", "")
    middle.set_ylabel("attainable gain in E[u] (%)")
    _mean_line(right, etas, kl, "mdpo", "")
    right.set_ylabel("KL to the reference (nats)")
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="η (units of u)")
    legend(left)
    least, most = (100 * _column(gain, column)[0] for column in (0, -1))
    ends = f"takes {least:.0f} % of the attainable utility, η = {etas[-1]:g} takes {most:.0f} %"
    fig.suptitle(f"η = {etas[0]:g} {ends}", fontsize=10)
    return fig


def identity_scatter(panels: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """A + B against u, one point per possible trajectory: the distance from the diagonal is C of (13).

    Args:
        panels: title to (utilities, A + B).
    """
    counts = ", ".join(str(len(u)) for u, _ in panels.values())
    fig = Figure(f"n = {counts} trajectories, one process each.")
    misses = []
    for axes, (title, (utility, known)) in zip(fig.row(len(panels)), panels.items()):
        limits = [min(*utility, *known) - 0.05, max(*utility, *known) + 0.05]
        axes.plot(limits, limits, color=GREY, linewidth=0.8)
        axes.plot(utility, known, linestyle="", marker="s", markersize=3.5, color=BLUE)
        axes.set(xlabel="utility u", ylabel="A + B (units of u)")
        axes.set_title(title, fontsize=9)
        misses.append(f"{title}: {max(abs(a - b) for a, b in zip(utility, known)):.0e}")
    fig.suptitle(f"A + B misses u by at most ... {'; '.join(misses)}", fontsize=10)
    return fig


def sample_error(
    n: Sequence[int], panels: Mapping[str, Mapping[str, Rows]], slope: Sequence[float]
) -> Figure:
    """Distance from the optimum by number of sampled pairs.

    Args:
        n: pairs.
        panels: title to method to total variation from the optimum.
        slope: of log error on log n in the first panel, with its interval.
    """
    first = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(first, log=True) + " Dotted: slope -1/2.", size=(7.5, 3.5))
    row = fig.row(len(panels), sharey=True)
    for axes, (title, methods) in zip(row, panels.items()):
        for method, rows in methods.items():
            _mean_line(axes, n, rows, method, METHOD_NAMES.get(method, method), log=True)
        if axes is row[0]:
            end = _column(first, -1, log=True)[0]
            axes.plot(n, [end * (n[-1] / size) ** 0.5 for size in n], color=GREY, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="sampled pairs n", ylabel="total variation from π*")
        axes.set_title(title, fontsize=9)
        legend(axes)
    interval = f"(95% interval {slope[1]:.2f} to {slope[2]:.2f})"
    title = f"With a deterministic tool the error falls as n^{slope[0]:.2f} {interval}"
    fig.suptitle(title, fontsize=10)
    return fig


def gamble_policies(jackpots: Sequence[float], chosen: Mapping[str, Sequence[float]], eta: float) -> Figure:
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
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5}
        if method == "optimum":
            style = {"color": BLACK, "linestyle": "--", "zorder": 5}
        axes.plot(jackpots, [100 * value for value in values], label=METHOD_NAMES[method], **style)
    axes.set_ylim(0, 105)
    legend(axes, outside=True)
    best, masked, scored = (100 * chosen[method][-1] for method in ("optimum", "mdpo", "unmasked"))
    shares = f"the optimum gambles {best:.0f} %, M-DPO {masked:.0f} %, single-turn {scored:.0f} %"
    fig.suptitle(f"Same mean, prize {jackpots[-1]:g}: {shares}", fontsize=9.5)
    return fig


def bias_by_randomness(
    randomness: Sequence[float], bias: Mapping[str, Rows], error: Mapping[str, Rows]
) -> Figure:
    """Term C and the paper's bound on it, and what C does to the policy, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        bias: "bound", "quantile" and "rms" of |C|, in units of u.
        error: method to total variation from the optimum.
    """
    fig = Figure(_over_processes(bias["rms"]), size=(7.5, 3.5))
    left, right = fig.row(2)
    for name, label, style in (
        ("bound", "paper: 4 (Σ σ²)^½, mean", (GREY, "^")),
        ("quantile", "90% of |C| lie below", (ORANGE, "D")),
        ("rms", "root mean square of C", (BLACK, "o")),
    ):
        _mean_line(left, randomness, bias[name], style, label)
    left.set(xlabel=RANDOMNESS, ylabel="size of C (units of u)")
    _distances(right, randomness, error)
    right.set(xlabel=RANDOMNESS, ylabel=DISTANCE)
    legend(left)
    legend(right)
    moved, low, high = (100 * part for part in _column(error["mdpo"], -1))
    left_over = 100 * _column(error["exact-v"], -1)[0]
    fig.suptitle(
        f"A random tool moves M-DPO's optimum by {moved:.1f} % (95% interval {low:.1f} to "
        f"{high:.1f}); the margin leaves {left_over:.0e} %",
        fontsize=9.5,
    )
    return fig


def value_samples(samples: Sequence[int], errors: Mapping[str, Rows], plain: Sequence[float]) -> Figure:
    """What a margin is worth whose expectations are means of K draws.

    Args:
        samples: K, tool calls for each state and action.
        errors: method to total variation from the optimum.
        plain: of M-DPO without a margin, one per process.
    """
    fig = Figure(_over_processes(plain, log=True))
    axes = fig.add_subplot(xlabel="K (draws for each expectation)", ylabel="total variation from π*")
    without = [[value] * len(samples) for value in plain]
    labels = {"learned-v": "learned V, tool asked K times", "sampled-v": "V itself from K draws"}
    words = []
    for method, rows in errors.items():
        _mean_line(axes, samples, rows, method, labels[method], log=True)
        helps = _shown_less(samples, rows, without)
        words.append(
            labels[method].partition(",")[0] + (f" from K = {min(helps)} on" if helps else " at no K")
        )
    _mean_line(axes, samples, without, "mdpo", "M-DPO, no margin", log=True)
    axes.set(xscale="log", yscale="log")
    legend(axes)
    axes.set_title("The margin is shown to help:\n" + "; ".join(words), fontsize=10)
    return fig


def observation_scoring(randomness: Sequence[float], panels: Mapping[str, Mapping[str, Rows]]) -> Figure:
    """Masking and scoring the observations, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        panels: title to method ("mdpo", "unmasked", ...) to total variation from the optimum.
    """
    first = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(first), size=(7.5, 3.5))
    words = []
    for axes, (title, methods) in zip(fig.row(len(panels), sharey=True), panels.items()):
        _distances(axes, randomness, methods)
        axes.set(xlabel=RANDOMNESS, ylabel=DISTANCE)
        axes.set_title(title, fontsize=9)
        legend(axes)
        better = _shown_less(randomness, methods["mdpo"], methods["unmasked"])
        words.append(f"{title}: at ε ≤ {max(better):g}" if better else f"{title}: nowhere")
    fig.suptitle("Where masking is shown to be nearer to π*: " + "; ".join(words), fontsize=9.5)
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
    legend(axes)
    moving, held = (_column(rows, -1)[0] for rows in (updated, fixed))
    ends = f"the updated reference misses {moving:.2f}, the fixed one {held:.2f}"
    axes.set_title(f"After {steps[-1]} exact iterations {ends}", fontsize=10)
    return fig


def coverage_and_error(
    shares: Sequence[float], cost: Rows, error: Rows, arms: Mapping[str, Rows], pairs: Sequence[int]
) -> Figure:
    """Mixture data: what the share of an older policy does to coverage, to the error, and over iterations.

    Args:
        shares: of the older, broader policy in the data.
        cost: E of the density ratio between the target and the data, at least 1.
        error: total variation from the target with sampled pairs.
        arms: "onpolicy" and "mdpo" (mixture): E[u] after each iteration, as a share of the best.
        pairs: sampled, in the middle panel and in each iteration on the right.
    """
    counts = f"Pairs: {pairs[0]:,} (middle), {pairs[1]:,} an iteration (right)."
    fig = Figure(f"{_over_processes(error)} {counts}", (8.5, 3.3))
    left, middle, right = fig.row(3)
    positions, labels = range(len(shares)), [f"{100 * share:.0f}" for share in shares]
    _mean_line(left, positions, cost, (BLACK, "o"), "", log=True)
    left.set(yscale="log", ylabel="coverage cost (1 = target's own data)")
    _mean_line(middle, positions, _percent(error), "mdpo", "")
    middle.set_ylabel(DISTANCE)
    for axes in (left, middle):
        axes.set_xticks(positions, labels)
        axes.set_xlabel("share of the older policy (%)")
    for method, label in (("mdpo", "mixture 2:1"), ("onpolicy", "on-policy")):
        _mean_line(right, range(len(arms[method][0])), _percent(arms[method]), method, label)
    right.set(xlabel="iteration t", ylabel="E[u] (% of the best)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(right)
    third = shares.index(1 / 3) if 1 / 3 in shares else -1
    before, after = (100 * _column(error, column)[0] for column in (0, third))
    ahead, low, high = mean_interval(
        [100 * (own[-1] - other[-1]) for own, other in zip(arms["mdpo"], arms["onpolicy"])]
    )
    fig.suptitle(
        f"A third of older data cuts the error from {before:.0f} to {after:.0f} %; at the last iteration the mixture "
        f"is {ahead:+.1f} points ahead ({low:+.1f} to {high:+.1f})",
        fontsize=9.5,
    )
    return fig


def kto_path(steps: Sequence[int], distance: Mapping[str, Rows], utility: Mapping[str, Rows]) -> Figure:
    """M-DPO and M-KTO on exact preferences, by gradient step.

    Args:
        steps: of the optimiser.
        distance: method to total variation from the optimum.
        utility: method to E[u].
    """
    fig = Figure(_over_processes(distance["mdpo"]), size=(7.5, 3.3))
    left, right = fig.row(2)
    _distances(left, steps, distance)
    for method, rows in utility.items():
        _mean_line(right, steps, rows, method, METHOD_NAMES[method])
    for axes, label in ((left, DISTANCE), (right, "E[u] (units of u)")):
        axes.set(xlabel="gradient step", ylabel=label, xscale="symlog")
        axes.set_xlim(left=0)
    legend(left)
    mdpo, mkto = (100 * _column(distance[method], -1)[0] for method in ("mdpo", "mkto"))
    title = f"M-DPO ends {mdpo:.1f} % from the optimum of (5), M-KTO {mkto:.0f} %: it aims elsewhere"
    fig.suptitle(title, fontsize=10)
    return fig


def _percent(rows: Rows) -> Rows:
    return [[100 * value for value in row] for row in rows]


def _over_processes(rows: Sequence[object], which: str = "", log: bool = False) -> str:
    panels = f" ({which})" if which else ""
    mean = "Geometric means" if log else "Means"
    return f"n = {len(rows)} random processes{panels}. {mean} and 95% intervals over processes."


def _column(rows: Rows, column: int, log: bool = False) -> Estimate:
    values = [row[column] for row in rows]
    if not log:
        return mean_interval(values)
    mean, low, high = mean_interval([math.log(max(value, 1e-300)) for value in values])
    return math.exp(mean), math.exp(low), math.exp(high)


def _shown_less(x: Sequence[float], ours: Rows, theirs: Rows) -> list[float]:
    """Those x where our values are smaller, paired over processes, and the interval excludes zero."""
    paired = [[own - other for own, other in zip(*both)] for both in zip(ours, theirs)]
    return [value for column, value in enumerate(x) if _column(paired, column)[2] < 0]


def _distances(axes: Axes, x: Sequence[float], methods: Mapping[str, Rows]) -> None:
    """A line for each method's distance, in per cent."""
    for method, rows in methods.items():
        _mean_line(axes, x, _percent(rows), method, METHOD_NAMES[method])


def _mean_line(
    axes: Axes, x: Sequence[float], rows: Rows, method: str | Style, label: str, log: bool = False
) -> None:
    colour, marker = style_of(method) if isinstance(method, str) else method
    points = [_column(rows, column, log) for column in range(len(x))]
    middle = [value for value, _, _ in points]
    bars = [[value - low for value, low, _ in points], [high - value for value, _, high in points]]
    hollow: dict[str, Any] = {"markersize": 4.5}
    if method == "learned-v":
        hollow = {"markerfacecolor": "none", "markersize": 8}
    axes.errorbar(
        x, middle, yerr=bars, color=colour, marker=marker, capsize=2.5, linewidth=1.2, label=label or None, **hollow
    )  # fmt: skip
