"""TODO: results.figures.theory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mtdpo_lib.results.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Figure, _legend, style_of
from mtdpo_lib.results.stats import mean_interval

# --- The exact theory: worlds of tables ------------------------------------------------------------------------------
# `Rows` hold one row a random process and one column a point of the x axis. Lines are means with 95% t intervals over
# processes; on a logarithmic axis both are taken of the logarithm.

Rows = Sequence[Sequence[float]]


def eta_effect(etas: Sequence[float], first_turn: Rows, gain: Rows, kl: Rows) -> Figure:
    """What eta does to the optimum of (5).

    Args:
        etas: KL coefficients.
        first_turn: pi_1(a | x) of one process, one row an eta, one column an action.
        gain: share of the attainable gain in E[u] over the reference, a fraction; rows are processes, columns etas.
        kl: of the same, sum_h KL in nats.
    """
    fig = Figure(_over_processes(gain, "middle and right"), size=(8.0, 3.2))
    left, middle, right = fig.subplots(1, 3)
    for action, (probabilities, colour, line) in enumerate(
        zip(zip(*first_turn), (BLUE, ORANGE, GREEN, RED), ("-", "--", ":", "-."))
    ):
        left.plot(etas, probabilities, color=colour, linestyle=line, label=f"action {action + 1}")
    left.set_ylabel("π₁(a | x), one process")
    _mean_line(middle, etas, [[100 * value for value in row] for row in gain], "mdpo", "")
    middle.set_ylabel("attainable gain in E[u] (%)")
    _mean_line(right, etas, kl, "mdpo", "")
    right.set_ylabel("KL to the reference (nats)")
    for axes in (left, middle, right):
        axes.set(xscale="log", xlabel="η (units of u)")
    _legend(left)
    ends = [100 * _column(gain, column)[0] for column in (0, -1)]
    fig.suptitle(
        f"η = {etas[0]:g} takes {ends[0]:.0f} % of the attainable utility, η = {etas[-1]:g} takes {ends[1]:.0f} %",
        fontsize=10,
    )
    return fig


def identity_scatter(panels: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """A + B against u, one point a possible trajectory: the distance from the diagonal is C of (13).

    Args:
        panels: title to (utilities, A + B).
    """
    fig = Figure(
        "n = " + ", ".join(str(len(u)) for u, _ in panels.values()) + " trajectories, one process each."
    )
    for axes, (title, (utility, known)) in zip(
        fig.subplots(1, len(panels), squeeze=False)[0], panels.items()
    ):
        limits = [min(*utility, *known) - 0.05, max(*utility, *known) + 0.05]
        axes.plot(limits, limits, color=GREY, linewidth=0.8)
        axes.plot(utility, known, linestyle="", marker="s", markersize=3.5, color=BLUE)
        axes.set(xlabel="utility u", ylabel="A + B (units of u)")
        axes.set_title(title, fontsize=9)
    off = [max(abs(a - b) for a, b in zip(u, known)) for u, known in panels.values()]
    said = "; ".join(f"{title}: {value:.0e}" for title, value in zip(panels, off))
    fig.suptitle(f"A + B misses u by at most ... {said}", fontsize=10)
    return fig


def sample_error(n: Sequence[int], panels: dict[str, dict[str, Rows]], slope: Sequence[float]) -> Figure:
    """Distance from the optimum by number of sampled pairs.

    Args:
        n: pairs.
        panels: title to method to total variation from the optimum.
        slope: of log error on log n in the first panel, with its interval.
    """
    first = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(first, log=True) + " Dotted: slope -1/2.", size=(7.5, 3.5))
    for axes, (title, methods) in zip(
        fig.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()
    ):
        for method, rows in methods.items():
            _mean_line(axes, n, rows, method, _METHOD_NAMES.get(method, method), log=True)
        start = (
            _column(next(iter(methods.values())), -1, log=True)[0] if title == next(iter(panels)) else None
        )
        if start:
            axes.plot(n, [start * (n[-1] / size) ** 0.5 for size in n], color=GREY, linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="sampled pairs n", ylabel="total variation from π*")
        axes.set_title(title, fontsize=9)
        _legend(axes)
    fig.suptitle(
        f"With a deterministic tool the error falls as n^{slope[0]:.2f} (95% interval {slope[1]:.2f} to {slope[2]:.2f})",
        fontsize=10,
    )
    return fig


def gamble_policies(jackpots: Sequence[float], chosen: dict[str, Sequence[float]], eta: float) -> Figure:
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
        style = {"color": colour, "marker": marker, "markersize": 5}
        if method == "optimum":
            style = {"color": BLACK, "linestyle": "--", "zorder": 5}
        axes.plot(jackpots, [100 * value for value in values], label=_METHOD_NAMES[method], **style)
    axes.set_ylim(0, 105)
    _legend(axes, outside=True)
    ends = {method: 100 * values[-1] for method, values in chosen.items()}
    fig.suptitle(
        f"Same mean, prize {jackpots[-1]:g}: the optimum gambles {ends['optimum']:.0f} %, M-DPO "
        f"{ends['mdpo']:.0f} %, single-turn {ends['unmasked']:.0f} %",
        fontsize=9.5,
    )
    return fig


def bias_by_randomness(randomness: Sequence[float], luck: dict[str, Rows], error: dict[str, Rows]) -> Figure:
    """Term C and the paper's bound on it, and what C does to the policy, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        luck: "bound", "quantile" and "rms" of |C|, in units of u.
        error: method to total variation from the optimum.
    """
    fig = Figure(_over_processes(luck["rms"]), size=(7.5, 3.5))
    left, right = fig.subplots(1, 2)
    for name, label, colour, marker in (
        ("bound", "paper: 4 (Σ σ²)^½, mean", GREY, "^"),
        ("quantile", "90% of |C| lie below", ORANGE, "D"),
        ("rms", "root mean square of C", BLACK, "o"),
    ):
        _mean_line(left, randomness, luck[name], (colour, marker), label)
    left.set(xlabel="randomness ε of the tool", ylabel="size of C (units of u)")
    for method, rows in error.items():
        _mean_line(
            right, randomness, [[100 * value for value in row] for row in rows], method, _METHOD_NAMES[method]
        )
    right.set(xlabel="randomness ε of the tool", ylabel="total variation from π* (%)")
    _legend(left)
    _legend(right)
    plain, exact = (_column(error[method], -1) for method in ("mdpo", "exact-v"))
    fig.suptitle(
        f"A random tool moves M-DPO's optimum by {100 * plain[0]:.1f} % (95% interval {100 * plain[1]:.1f} to "
        f"{100 * plain[2]:.1f}); the margin leaves {100 * exact[0]:.0e} %",
        fontsize=9.5,
    )
    return fig


def value_samples(samples: Sequence[int], errors: dict[str, Rows], plain: Sequence[float]) -> Figure:
    """What a margin is worth whose expectations are means of K draws.

    Args:
        samples: K, tool calls for each state and action.
        errors: method to total variation from the optimum.
        plain: of M-DPO without a margin, one a process.
    """
    fig = Figure(_over_processes(plain, log=True))
    axes = fig.add_subplot(xlabel="K (draws for each expectation)", ylabel="total variation from π*")
    said = []
    for method, rows in errors.items():
        label = {"learned-v": "learned V, tool asked K times", "sampled-v": "V itself from K draws"}[method]
        _mean_line(axes, samples, rows, method, label, log=True)
        paired = [
            mean_interval([row[k] - base for row, base in zip(rows, plain)]) for k in range(len(samples))
        ]
        helps = [size for size, (_, _, high) in zip(samples, paired) if high < 0]
        said.append(label.partition(",")[0] + (f" from K = {min(helps)} on" if helps else " at no K"))
    _mean_line(
        axes, samples, [[value] * len(samples) for value in plain], "mdpo", "M-DPO, no margin", log=True
    )
    axes.set(xscale="log", yscale="log")
    _legend(axes)
    axes.set_title("The margin is shown to help:\n" + "; ".join(said), fontsize=10)
    return fig


def observation_scoring(randomness: Sequence[float], panels: dict[str, dict[str, Rows]]) -> Figure:
    """Masking and scoring the observations, as the tool becomes random.

    Args:
        randomness: epsilon of the tool.
        panels: title to method ("mdpo", "unmasked", ...) to total variation from the optimum.
    """
    rows = next(iter(next(iter(panels.values())).values()))
    fig = Figure(_over_processes(rows), size=(7.5, 3.5))
    said = []
    for axes, (title, methods) in zip(
        fig.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()
    ):
        for method, table in methods.items():
            _mean_line(
                axes, randomness, [[100 * v for v in row] for row in table], method, _METHOD_NAMES[method]
            )
        axes.set(xlabel="randomness ε of the tool", ylabel="total variation from π* (%)")
        axes.set_title(title, fontsize=9)
        _legend(axes)
        better = [
            value
            for column, value in enumerate(randomness)
            if mean_interval(
                [own[column] - other[column] for own, other in zip(methods["mdpo"], methods["unmasked"])]
            )[2]
            < 0
        ]
        said.append(f"{title}: at ε ≤ {max(better):g}" if better else f"{title}: nowhere")
    fig.suptitle("Where masking is shown to be nearer to π*: " + "; ".join(said), fontsize=9.5)
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
    _legend(axes)
    ends = [_column(rows, -1)[0] for rows in (updated, fixed)]
    axes.set_title(
        f"After {steps[-1]} exact iterations the updated reference misses {ends[0]:.2f}, the fixed one {ends[1]:.2f}",
        fontsize=10,
    )
    return fig


def coverage_and_error(
    shares: Sequence[float], cost: Rows, error: Rows, arms: dict[str, Rows], pairs: Sequence[int]
) -> Figure:
    """Mixture data: what the share of an older policy does to coverage, to the error, and over iterations.

    Args:
        shares: of the older, broader policy in the data.
        cost: E of the density ratio between the target and the data, at least 1.
        error: total variation from the target with sampled pairs.
        arms: "onpolicy" and "mdpo" (mixture): E[u] after each iteration, as a share of the best.
        pairs: sampled, in the middle panel and in each iteration on the right.
    """
    fig = Figure(
        _over_processes(error) + f" Pairs: {pairs[0]:,} (middle), {pairs[1]:,} an iteration (right).",
        (8.5, 3.3),
    )
    left, middle, right = fig.subplots(1, 3)
    places, labels = range(len(shares)), [f"{100 * share:.0f}" for share in shares]
    _mean_line(left, places, cost, (BLACK, "o"), "", log=True)
    left.set(yscale="log", ylabel="coverage cost (1 = target's own data)")
    _mean_line(middle, places, [[100 * value for value in row] for row in error], "mdpo", "")
    middle.set_ylabel("total variation from π* (%)")
    for axes in (left, middle):
        axes.set_xticks(places, labels)
        axes.set_xlabel("share of the older policy (%)")
    steps = range(len(next(iter(arms.values()))[0]))
    for method, label in (("mdpo", "mixture 2:1"), ("onpolicy", "on-policy")):
        _mean_line(right, steps, [[100 * value for value in row] for row in arms[method]], method, label)
    right.set(xlabel="iteration t", ylabel="E[u] (% of the best)")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(right)
    ends = [100 * _column(error, column)[0] for column in (0, shares.index(1 / 3) if 1 / 3 in shares else -1)]
    gain = mean_interval([100 * (own[-1] - other[-1]) for own, other in zip(arms["mdpo"], arms["onpolicy"])])
    fig.suptitle(
        f"A third of older data cuts the error from {ends[0]:.0f} to {ends[1]:.0f} %; at the last iteration the mixture "
        f"is {gain[0]:+.1f} points ahead ({gain[1]:+.1f} to {gain[2]:+.1f})",
        fontsize=9.5,
    )
    return fig


def kto_path(steps: Sequence[int], distance: dict[str, Rows], utility: dict[str, Rows]) -> Figure:
    """M-DPO and M-KTO on exact preferences, by gradient step.

    Args:
        steps: of the optimiser.
        distance: method to total variation from the optimum.
        utility: method to E[u].
    """
    fig = Figure(_over_processes(distance["mdpo"]), size=(7.5, 3.3))
    left, right = fig.subplots(1, 2)
    for method, rows in distance.items():
        _mean_line(
            left, steps, [[100 * value for value in row] for row in rows], method, _METHOD_NAMES[method]
        )
        _mean_line(right, steps, utility[method], method, _METHOD_NAMES[method])
    left.set(xlabel="gradient step", ylabel="total variation from π* (%)", xscale="symlog")
    right.set(xlabel="gradient step", ylabel="E[u] (units of u)", xscale="symlog")
    for axes in (left, right):
        axes.set_xlim(left=0)
    _legend(left)
    ends = [100 * _column(distance[method], -1)[0] for method in ("mdpo", "mkto")]
    fig.suptitle(
        f"M-DPO ends {ends[0]:.1f} % from the optimum of (5), M-KTO {ends[1]:.0f} %: it aims elsewhere",
        fontsize=10,
    )
    return fig


_METHOD_NAMES = {
    "optimum": "optimum π*",
    "mdpo": "M-DPO (observations masked)",
    "unmasked": "single-turn (observations scored)",
    "exact-v": "with margin, exact V",
    "learned-v": "with margin, learned V",
    "sampled-v": "with margin, V from K draws",
    "mkto": "M-KTO",
}


def _over_processes(rows: Rows, which: str = "", log: bool = False) -> str:
    place = f" ({which})" if which else ""
    mean = "Geometric means" if log else "Means"
    return f"n = {len(rows)} random processes{place}. {mean} and 95% intervals over processes."


def _column(rows: Rows, column: int, log: bool = False) -> tuple[float, float, float]:
    values = [row[column] for row in rows]
    if not log:
        return mean_interval(values)
    return tuple(math.exp(part) for part in mean_interval([math.log(max(value, 1e-300)) for value in values]))


def _mean_line(
    axes: Axes, x: Sequence[float], rows: Rows, style: str | tuple[str, str], label: str, log: bool = False
) -> None:
    colour, marker = style_of(style) if isinstance(style, str) else style
    points = [_column(rows, column, log) for column in range(len(x))]
    middle = [value for value, _, _ in points]
    bars = [[value - low for value, low, _ in points], [high - value for value, _, high in points]]
    hollow = {"markerfacecolor": "none", "markersize": 8} if style == "learned-v" else {"markersize": 4.5}
    axes.errorbar(
        x, middle, yerr=bars, color=colour, marker=marker, capsize=2.5, linewidth=1.2, label=label or None, **hollow
    )  # fmt: skip
