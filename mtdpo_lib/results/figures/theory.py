"""Figures of the exact theory: worlds of tables.

`Rows` hold one row per random process and one column per point of the x axis. Lines are means with 95% t intervals over
processes; on a logarithmic axis both are taken of the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtdpo_lib.results.figures.palette import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Style
from mtdpo_lib.results.figures.style import Figure, Panel, style_of
from mtdpo_lib.results.stats import Estimate, mean_interval

Rows = Sequence[Sequence[float]]
ByMethod = Mapping[str, Rows]

METHOD_NAMES = {
    "optimum": "optimum π*", "mdpo": "M-DPO (observations masked)", "unmasked": "single-turn (observations scored)",
    "exact-v": "with margin, exact V", "learned-v": "with margin, learned V", "mkto": "M-KTO",
}  # fmt: skip
RANDOMNESS, DISTANCE = "randomness ε of the tool", "total variation from π* (%)"


def eta_effect(etas: Sequence[float], first_turn: Rows, gain: Rows, kl: Rows) -> Figure:
    """What eta does to the optimum of (5).

    Args:
        etas: KL coefficients.
        first_turn: pi_1(a | x) of one process, one row per eta, one column per action.
        gain: share of the attainable gain in E[u] over the reference, a fraction; rows are processes, columns etas.
        kl: of the same, sum_h KL in nats.
    """
    fig = Figure(_over_processes(gain, "middle and right"), size=(6.5, 3.2))
    words = ["π₁(a | x), one process", "attainable gain in E[u] (%)", "KL to the reference (nats)"]
    left, middle, right = fig.row(3, ylabel=words, xlabel="η (units of u)", xscale="log")
    styles = zip((BLUE, ORANGE, GREEN, RED), ("-", "--", ":", "-."))
    for action, (probabilities, (colour, line)) in enumerate(zip(zip(*first_turn), styles), 1):
        left.plot(etas, probabilities, color=colour, linestyle=line, label=f"action {action}")
    _mean_line(middle, etas, _percent(gain), "mdpo")
    _mean_line(right, etas, kl, "mdpo")
    least, most = (100 * _column(gain, column)[0] for column in (0, -1))
    ends = f"takes {least:.0f} % of the attainable utility, η = {etas[-1]:g} takes {most:.0f} %"
    return fig.titled(f"η = {etas[0]:g} {ends}")


def identity_scatter(panels: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """A + B against u, one point per possible trajectory: the distance from the diagonal is C of (13).

    Args:
        panels: title to (utilities, A + B).
    """
    counts = " and ".join(str(len(u)) for u, _ in panels.values())
    fig = Figure(f"n = {counts} trajectories, one process each.")
    row = fig.row(panels, xlabel="utility u", ylabel="A + B (units of u)")
    misses = []
    for axes, (title, (utility, known)) in zip(row, panels.items()):
        limits = [min(*utility, *known) - 0.05, max(*utility, *known) + 0.05]
        axes.plot(limits, limits, color=GREY, linewidth=0.8)
        axes.plot(utility, known, linestyle="", marker="s", markersize=3.5, color=BLUE)
        misses.append(f"{title} {max(abs(a - b) for a, b in zip(utility, known)):.2g}")
    return fig.titled(f"Largest distance of A + B from u, in units of u: {', '.join(misses)}")


def sample_error(n: Sequence[int], panels: Mapping[str, ByMethod], slope: Sequence[float]) -> Figure:
    """Distance from the optimum by number of sampled pairs.

    Args:
        n: pairs.
        panels: title to method to total variation from the optimum.
        slope: of log error on log n in the first panel, with its interval.
    """
    first = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(first, log=True) + " Dotted: slope -1/2.", size=(6.5, 3.5))
    words = {"xlabel": "sampled pairs n", "ylabel": "total variation from π*"}
    row = fig.row(panels, sharey=True, xscale="log", yscale="log", **words)
    for axes, methods in zip(row, panels.values()):
        for method, rows in methods.items():
            _mean_line(axes, n, rows, method, METHOD_NAMES.get(method, method))
    end = _column(first, -1, log=True)[0]
    row[0].plot(n, [end * (n[-1] / size) ** 0.5 for size in n], color=GREY, linestyle=":")
    interval = f"(95% interval {slope[1]:.2f} to {slope[2]:.2f})"
    return fig.titled(f"{next(iter(panels)).capitalize()}: the error goes with n^{slope[0]:.2f} {interval}")


def gamble_policies(jackpots: Sequence[float], chosen: Mapping[str, Sequence[float]], eta: float) -> Figure:
    """How often each method's policy gambles, by how rare and large the prize is; the mean never changes.

    Args:
        jackpots: prizes.
        chosen: method to P(gamble), exact; "optimum" is the truth.
        eta: KL coefficient, for the caption.
    """
    fig = Figure(f"One process, exact preferences, η = {eta:g}; no sampling, so no interval.")
    words = {"xlabel": "prize (units of u); its mean is fixed", "ylabel": "probability of gambling (%)"}
    (axes,) = fig.row(1, **words, ylim=(0, 105))
    for method, values in chosen.items():
        colour, marker = style_of(method)
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5}
        if method == "optimum":
            style = {"color": BLACK, "linestyle": "--", "zorder": 5}
        axes.plot(jackpots, [100 * value for value in values], label=METHOD_NAMES[method], **style)
    best, masked, scored = (100 * chosen[method][-1] for method in ("optimum", "mdpo", "unmasked"))
    shares = f"the optimum gambles {best:.0f} %, M-DPO {masked:.0f} %, single-turn {scored:.0f} %"
    return fig.titled(f"Same mean, prize {jackpots[-1]:g}: {shares}", above=True)


def bias_by_randomness(randomness: Sequence[float], bias: ByMethod, error: ByMethod) -> Figure:
    """Term C and the paper's bound on it, and what C does to the policy, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        bias: "bound", "quantile" and "rms" of |C|, in units of u.
        error: method to total variation from the optimum.
    """
    fig = Figure(_over_processes(bias["rms"]), size=(6.5, 3.5))
    left, right = fig.row(2, xlabel=RANDOMNESS, ylabel=["size of C (units of u)", DISTANCE])
    _mean_line(left, randomness, bias["bound"], (GREY, "^"), "paper: 4 (Σ σ²)^½, mean")
    _mean_line(left, randomness, bias["quantile"], (ORANGE, "D"), "90% of |C| lie below")
    _mean_line(left, randomness, bias["rms"], (BLACK, "o"), "root mean square of C")
    left.set_ylim(top=1.4 * left.get_ylim()[1])  # room for the key
    _distances(right, randomness, error)
    moved, low, high = (100 * part for part in _column(error["mdpo"], -1))
    left_over = 100 * _column(error["exact-v"], -1)[0]
    title = f"A random tool moves M-DPO's optimum by {moved:.1f} % (95% interval {low:.1f} to {high:.1f})"
    return fig.titled(f"{title}; the margin leaves {left_over:.2g} %")


def value_samples(samples: Sequence[int], errors: ByMethod, plain: Sequence[float]) -> Figure:
    """What a margin is worth whose expectations are means of K draws.

    Args:
        samples: K, tool calls for each state and action.
        errors: method to total variation from the optimum.
        plain: of M-DPO without a margin, one per process.
    """
    fig = Figure(_over_processes(plain, log=True))
    axes = fig.panel("K (draws for each expectation)", "total variation from π*")
    axes.set(xscale="log", yscale="log")
    without = [[value] * len(samples) for value in plain]
    labels = {"learned-v": "learned V, tool asked K times", "sampled-v": "V itself from K draws"}
    words = []
    for method, rows in errors.items():
        _mean_line(axes, samples, rows, method, labels[method])
        helps = _shown_less(samples, rows, without)
        name, _, _ = labels[method].partition(",")
        words.append(name + (f" at K = {', '.join(f'{k:g}' for k in helps)}" if helps else " at no K"))
    _mean_line(axes, samples, without, "mdpo", "M-DPO, no margin")
    return fig.titled(f"The margin is shown to help: {'; '.join(words)}")


def observation_scoring(randomness: Sequence[float], panels: Mapping[str, ByMethod]) -> Figure:
    """Masking and scoring the observations, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        panels: title to method ("mdpo", "unmasked", ...) to total variation from the optimum.
    """
    first = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(first), size=(6.5, 3.5))
    row = fig.row(panels, sharey=True, xlabel=RANDOMNESS, ylabel=DISTANCE)
    words = []
    for axes, (title, methods) in zip(row, panels.items()):
        _distances(axes, randomness, methods)
        better = _shown_less(randomness, methods["mdpo"], methods["unmasked"])
        words.append(
            f"{title}: {'at ε = ' + ', '.join(f'{one:g}' for one in better) if better else 'nowhere'}"
        )
    return fig.titled(f"Where masking is shown to be nearer to π*: {'; '.join(words)}")


def reference_iterations(updated: Rows, fixed: Rows, bound: Rows) -> Figure:
    """Expected utility still missing after each exact iteration towards (17) and (16).

    Args:
        updated, fixed: max E[u] - E[u] of pi_0 .. pi_T, in units of u.
        bound: eta / t times the KL of the best policy from pi_0, from t = 1 on.
    """
    fig = Figure(_over_processes(updated))
    axes = fig.panel("iteration t", "missing utility (units of u)")
    steps = list(range(len(updated[0])))
    _mean_line(axes, steps, fixed, "fixed", "fixed reference (16)")
    _mean_line(axes, steps, updated, "mdpo", "updated reference (17)")
    _mean_line(axes, steps[1:], bound, (GREY, "v"), "bound η KL(best‖π₀) / t")
    axes.whole_steps()
    axes.set_ylim(bottom=0)
    moving, held = (_column(rows, -1)[0] for rows in (updated, fixed))
    ends = f"the updated reference misses {moving:.2f}, the fixed one {held:.2f}"
    return fig.titled(f"After {steps[-1]} exact iterations {ends}")


def coverage_and_error(
    shares: Sequence[float], cost: Rows, error: Rows, arms: ByMethod, pairs: Sequence[int]
) -> Figure:
    """Mixture data: what the share of an older policy does to coverage, to the error, and over iterations.

    Args:
        shares: of the older, broader policy in the data.
        cost: E of the density ratio between the target and the data, at least 1.
        error: total variation from the target with sampled pairs.
        arms: "onpolicy" and "mdpo" (mixture): E[u] after each iteration, as a share of the best.
        pairs: sampled, in the middle panel and in each iteration on the right.
    """
    counts = f"Pairs: {pairs[0]:,} (middle), {pairs[1]:,} per iteration (right)."
    fig = Figure(f"{_over_processes(error)} {counts}", (6.5, 3.3))
    words = ["coverage cost\n(1 = target's own data)", DISTANCE, "E[u] (% of the best)"]
    share = "share of the older policy (%)"
    left, middle, right = fig.row(3, xlabel=[share, share, "iteration t"], ylabel=words)
    left.set_yscale("log")
    positions = range(len(shares))
    _mean_line(left, positions, cost, (BLACK, "o"))
    _mean_line(middle, positions, _percent(error), "mdpo")
    for axes in (left, middle):
        axes.set_xticks(positions, [f"{100 * share:.0f}" for share in shares])
    for method, label in (("mdpo", "mixture 2:1"), ("onpolicy", "on-policy")):
        _mean_line(right, range(len(arms[method][0])), _percent(arms[method]), method, label)
    right.whole_steps()
    before, after = (100 * _column(error, column)[0] for column in (0, -2))
    gaps = [100 * (own[-1] - other[-1]) for own, other in zip(arms["mdpo"], arms["onpolicy"])]
    ahead, low, high = mean_interval(gaps)
    part = f"{100 * shares[0]:.0f} % of older data, {after:.0f} % with {100 * shares[-2]:.0f} %"
    gap = f"mixture minus on-policy at the last iteration: {ahead:+.1f} points ({low:+.1f} to {high:+.1f})"
    return fig.titled(f"The error is {before:.0f} % with {part}; {gap}")


def kto_path(steps: Sequence[int], distance: ByMethod, utility: ByMethod) -> Figure:
    """M-DPO and M-KTO on exact preferences, by gradient step.

    Args:
        steps: of the optimiser.
        distance: method to total variation from the optimum.
        utility: method to E[u].
    """
    fig = Figure(_over_processes(distance["mdpo"]), size=(6.5, 3.3))
    words = [DISTANCE, "E[u] (units of u)"]
    left, right = fig.row(2, xlabel="gradient step", ylabel=words, xscale="symlog")
    _distances(left, steps, distance)
    for method, rows in utility.items():
        _mean_line(right, steps, rows, method)
    for axes in (left, right):
        axes.set_xlim(left=0)
    mdpo, mkto = (100 * _column(distance[method], -1)[0] for method in ("mdpo", "mkto"))
    return fig.titled(f"At the last step M-DPO is {mdpo:.1f} % from the optimum of (5), M-KTO {mkto:.1f} %")


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


def _distances(axes: Panel, x: Sequence[float], methods: ByMethod) -> None:
    """A line for each method's distance, in per cent."""
    for method, rows in methods.items():
        _mean_line(axes, x, _percent(rows), method, METHOD_NAMES[method])


def _mean_line(axes: Panel, x: Sequence[float], rows: Rows, method: str | Style, label: str = "") -> None:
    """Means over processes with their intervals; of the logarithm where the y axis is logarithmic."""
    colour, marker = style_of(method) if isinstance(method, str) else method
    points = [_column(rows, column, axes.get_yscale() == "log") for column in range(len(x))]
    middle = [value for value, _, _ in points]
    bars = [[value - low for value, low, _ in points], [high - value for value, _, high in points]]
    hollow = method == "learned-v"
    look: dict[str, Any] = {"markersize": 8, "mfc": "none"} if hollow else {"markersize": 4.5}
    axes.errorbar(
        x, middle, yerr=bars, color=colour, marker=marker, capsize=2.5, linewidth=1.2, label=label or None, **look
    )  # fmt: skip
