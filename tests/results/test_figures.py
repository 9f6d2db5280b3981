"""Figures: each is drawn from full and from partial data, small enough, and says in its title what the numbers say."""

import io

import pytest
from PIL import Image

from mtdpo_lib.results import JudgedClaim, Metric, Metrics, figures
from mtdpo_lib.results.claims import Claim

POLICIES = {
    "sft": ("sft", 0),
    "mdpo-1": ("mdpo", 1),
    "mdpo-2": ("mdpo", 2),
    "mdpo-2-fixed": ("mdpo", 2),
    "raft": ("raft", 1),
}


def metric(kind, policy, value, low=None, high=None, n=1200, seeds=(0,), split="test"):
    """Of a run."""
    arm, iteration = POLICIES[policy]
    fields = {"split": split, "arm": arm, "iteration": iteration, "policy": policy}
    return Metric(kind, value, low, high, n, seeds=seeds, **fields)


def of_arm(kind, arm, value, low=None, high=None, n=1008, **fields):
    """Of a study over two seeds."""
    return Metric(kind, value, low, high, n, seeds=(0, 1), arm=arm, **{"split": "test", **fields})


SFT = metric("accuracy", "sft", 0.60, 0.57, 0.63)
FULL = Metrics([
    SFT,
    metric("accuracy", "sft", 0.7, 0.66, 0.74, 600, split="gsm-like"),
    metric("accuracy", "mdpo-1", 0.66, 0.63, 0.69),
    metric("accuracy", "mdpo-2", 0.70, 0.67, 0.73),
    metric("accuracy", "mdpo-2-fixed", 0.64, 0.61, 0.66),
    metric("gain", "mdpo-2", 0.10, 0.07, 0.13),
    metric("gain", "mdpo-2-fixed", 0.04, 0.01, 0.07),
])  # fmt: skip
LOG = [
    {
        "step": step,
        "loss": 0.7 / step,
        "chosen_logp": -9.0 - step / 10,
        "rejected_logp": -11.0 - step,
        "margin": step / 5,
    }
    for step in range(1, 30)
]
PASSPORTS = [
    {"iteration": 1, "prompts by fate": {"paired": 210, "no right answer": 120, "no wrong answer": 150}},
    {"iteration": 2, "prompts by fate": {"paired": 190, "too long": 3}},
]
MIX = {"1": {"right": 60, "wrong": 30, "no answer": 10, "tool error": 20}, "2": {"right": 5, "wrong": 5}}

STUDY = Metrics([
    *[of_arm(kind, arm, value, value - 0.03, value + 0.03)
      for arm, value in (("mdpo", 0.1), ("raft", 0.02)) for kind in ("accuracy", "gain")],
    *[of_arm("cost", arm, 4e5, split=cost)
      for arm in ("mdpo", "raft") for cost in ("sampled-tokens", "trained-tokens")],
    *[of_arm("pass", "mdpo", value + n / 200, value, 1.0, 120, split=str(n), policy=policy)
      for n in (1, 4, 64) for policy, value in (("mdpo", 0.6), ("mdpo/sft", 0.4))],
    *[one for dose in (0, 6) for one in (
        of_arm("gain", f"log-{dose}", 0.1, 0.08, 0.12), of_arm("gain", f"log-{dose}-dpo", 0.05, 0.03, 0.07),
        of_arm("difference", f"log-{dose}-dpo", -0.05, -0.07, -0.03, against=f"log-{dose}"),
        of_arm("tool_gradient_share", f"log-{dose}-dpo", 0.5 + dose / 20, 0.48 + dose / 20, 0.52 + dose / 20,
               split="", iteration=1))],
    *[of_arm(fact, arm, value + number / 10, value, 0.9, 2, split="", iteration=number, unit=unit)
      for fact, unit in (("right", "fraction"), ("chosen_ratio", "nats"))
      for number in (1, 2, 3) for arm, value in (("mdpo", 0.1), ("fixed", 0.2))],
    of_arm("right", "mdpo", 0.2, -0.05, 0.45, 2, split="", iteration=3, since=1),
])  # fmt: skip

STARTS = Metrics([
    of_arm(kind, arm, 0.5, 0.4, 0.6, each=each)
    for arm in ("mdpo", "raft") for kind, each in (("accuracy", (0.9, 0.6)), ("gain", (0.2, 0.05)))
])  # fmt: skip


def judged(statement, word, paper, measured):
    claim = Claim("name", "primary", "methods", statement, "more", "metric", paper, "notebook", "Table 1", "")
    return JudgedClaim(claim, measured, word)


JUDGED = [
    judged(f"{unit} of {word}", word, paper, Metric("difference", 0.2, -0.1, 0.5, 1008, unit, seeds, each=(0.1, 0.3)))
    for unit in ("fraction", "nats")
    for word, paper, seeds in (("agrees", 3.0, (0, 1)), ("leans against", None, (0, 1)), ("agrees", None, (0, 1)))
] + [judged("not measured", "x", 1.0, None)]  # fmt: skip

FIGURES = {
    "claims": lambda: figures.claims(JUDGED, "methods"),
    "primary claims": lambda: figures.claims(JUDGED, "primary"),
    "claims, nothing": lambda: figures.claims(JUDGED, "sampling"),
    "over iterations": lambda: figures.over_iterations(
        STUDY, ["right", "chosen_ratio", "covered", "x"], ["mdpo", "fixed", "kto"]
    ),
    "over iterations, nothing": lambda: figures.over_iterations(Metrics(), ["right"], ["mdpo"]),
    "arms": lambda: figures.arms(STUDY, {"mdpo": "M-DPO", "kto": "not measured", "raft": "RAFT"}),
    "arms, nothing": lambda: figures.arms(Metrics(), {"mdpo": "M-DPO"}),
    "doses": lambda: figures.dose_response(STUDY, (0, 2, 6)),
    "doses, nothing": lambda: figures.dose_response(Metrics(), (0, 2, 6)),
    "start": lambda: figures.gain_by_start(STARTS, ["mdpo", "raft"]),
    "start, nothing": lambda: figures.gain_by_start(Metrics(), ["mdpo"]),
    "pass": lambda: figures.pass_at_n(STUDY, {"mdpo/sft": "SFT", "mdpo": "M-DPO"}),
    "pass, nothing": lambda: figures.pass_at_n(Metrics(), {"mdpo": "M-DPO"}),
    "accuracy": lambda: figures.accuracy_by_iteration(
        FULL, {0: {"gsm8k": "77.5", "math": "46.1"}, 1: {"gsm8k": 81.5, "math": 49}}
    ),
    "accuracy, SFT only": lambda: figures.accuracy_by_iteration(Metrics([SFT])),
    "accuracy, nothing": lambda: figures.accuracy_by_iteration(Metrics()),
    "training": lambda: figures.training_curves(LOG),
    "training, partial": lambda: figures.training_curves([{"step": 1, "loss": 0.7, "chosen_logp": None}]),
    "training, nothing": lambda: figures.training_curves([]),
    "sft": lambda: figures.sft_curve(LOG),
    "sft, nothing": lambda: figures.sft_curve([]),
    "comparison": lambda: figures.comparison(
        FULL, ["mdpo-2", "mdpo-2-fixed"], ["updated", "fixed"], "Reference"
    ),
    "comparison, one": lambda: figures.comparison(Metrics([SFT]), ["sft", "mdpo-1"]),
    "comparison, nothing": lambda: figures.comparison(Metrics(), ["sft"]),
    "yield": lambda: figures.pair_yield(PASSPORTS),
    "yield by fate": lambda: figures.pair_yield(
        [
            {
                "iteration": 1,
                "policy": "mdpo-1",
                "pairs": 3,
                "prompts by fate": {"paired": 3, "all right": 7},
                "dropped": {"x": 9},
            }
        ]
    ),
    "yield, nothing": lambda: figures.pair_yield([]),
    "coverage": lambda: figures.coverage_curve({1: 0.0, 2: 0.3, 3: 0.41}, {6: 0.6, 12: 0.83}),
    "coverage, nothing": lambda: figures.coverage_curve({}),
    "mix": lambda: figures.outcome_mix(MIX),
    "mix, nothing": lambda: figures.outcome_mix({}),
    "memory": lambda: figures.memory_by_part(
        {"a": {"base": 5.0, "adapter": 1.0}, "b": {"base": 4.0, "adapter": 2.5}}, {"24 GB": 24, "80 GB": 80}
    ),
    "memory, nothing": lambda: figures.memory_by_part({}, {}),
    "levels": lambda: figures.quantized_weights([-1.0, -0.1, 0.0, 0.2, 1.0], [-1.0, 0.0, 1.0]),
    "histogram": lambda: figures.histogram([1, 2, 2, 3, 9], "length (tokens)"),
    "histogram, nothing": lambda: figures.histogram([], "length (tokens)"),
}

WORLDS = [[0.3, 0.2, 0.1], [0.4, 0.2, 0.15], [0.35, 0.25, 0.05]]
METHODS = {"mdpo": WORLDS, "exact-v": [[0.1, 0.01, 0.001]] * 3, "learned-v": WORLDS}
FIGURES |= {
    "eta": lambda: figures.eta_effect([0.1, 1, 10], [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], WORLDS, WORLDS),
    "identity": lambda: figures.identity_scatter(
        {"deterministic": ([0, 1], [0, 1]), "random": ([0, 1], [0.2, 1])}
    ),
    "samples": lambda: figures.sample_error(
        [10, 100, 1000], {"sure": {"mdpo": WORLDS}, "random": METHODS}, (-0.5, -0.6, -0.4)
    ),
    "gamble": lambda: figures.gamble_policies(
        [1, 2], {"optimum": [0.5, 0.5], "mdpo": [0.5, 0.4], "unmasked": [0.5, 0.9]}, 0.25
    ),
    "bias": lambda: figures.bias_by_randomness(
        [0, 0.5, 1], {"bound": WORLDS, "quantile": WORLDS, "rms": WORLDS}, METHODS
    ),
    "draws": lambda: figures.value_samples([1, 4, 16], {"sampled-v": WORLDS}, [0.2, 0.2, 0.25]),
    "observations": lambda: figures.observation_scoring(
        [0, 0.5, 1], {"foreseen": {"mdpo": WORLDS, "unmasked": WORLDS}}
    ),
    "mirror": lambda: figures.reference_iterations(WORLDS, WORLDS, [row[1:] for row in WORLDS]),
    "mixture": lambda: figures.coverage_and_error(
        [0, 1 / 3, 1], WORLDS, WORLDS, {"mdpo": WORLDS, "onpolicy": WORLDS}, [100, 50]
    ),
    "kto": lambda: figures.kto_path(
        [0, 10, 100], {"mdpo": WORLDS, "mkto": WORLDS}, {"mdpo": WORLDS, "mkto": WORLDS}
    ),
}


def title(figure):
    return figure.headline


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_small_titled_and_the_same_each_time(name):
    png = FIGURES[name]().png()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and len(png) <= 150 * 1024
    assert title(FIGURES[name]())
    assert png == FIGURES[name]().png()


@pytest.mark.parametrize("name", [name for name in FIGURES if "," not in name])
def test_axes_have_labels_and_the_caption_says_how_many(name):
    figure = FIGURES[name]()
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert any(character.isdigit() for character in figure.get_supxlabel())


def test_titles_follow_the_numbers():
    assert title(figures.accuracy_by_iteration(FULL)) == (
        "Accuracy rises by 10.0 points from SFT to M-DPO 2 (95% interval +7.0 to +13.0)"
    )
    unsure = Metrics([SFT, metric("accuracy", "mdpo-1", 0.61), metric("gain", "mdpo-1", 0.01, -0.01, 0.03)])
    assert "not shown to change" in title(figures.accuracy_by_iteration(unsure))
    worse = Metrics([SFT, metric("accuracy", "mdpo-1", 0.50), metric("gain", "mdpo-1", -0.10, -0.12, -0.08)])
    assert "falls by 10.0 points" in title(figures.accuracy_by_iteration(worse))
    assert title(FIGURES["comparison"]()) == "Reference: updated is 6.0 points above fixed"
    near = Metrics([SFT, metric("accuracy", "raft", 0.62, 0.59, 0.65)])
    assert title(figures.comparison(near, ["sft", "raft"])).endswith(
        "2.0 points above sft, within the intervals"
    )
    assert title(FIGURES["yield by fate"]()) == "30 % of the prompts give a pair"
    assert title(FIGURES["coverage"]()) == "With 3 samples 41.0 % of the prompts can yield a pair"
    assert title(FIGURES["draws"]()).endswith("V itself from K draws at no K")
    better = {"learned-v": [[0.3, 0.01, 0.01]] * 3}
    assert title(figures.value_samples([1, 4, 16], better, [0.2, 0.2, 0.2])).endswith(
        "learned V from K = 4 on"
    )
    assert title(FIGURES["samples"]()).endswith("n^-0.50 (95% interval -0.60 to -0.40)")
    assert "M-DPO 40 %, single-turn 90 %" in title(FIGURES["gamble"]())
    assert "does not fall" in title(figures.sft_curve([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}]))


def test_gains_are_drawn_over_where_each_seed_started():
    (axes,) = figures.gain_by_start(STARTS, ["mdpo", "raft"]).axes
    line = axes.get_lines()[0]
    assert list(line.get_xdata()) == pytest.approx([55, 70])
    assert list(line.get_ydata()) == pytest.approx([5, 20])
    assert axes.get_title() == "mdpo: +5.0 points from 55.0 %, +20.0 points from 70.0 %"


def test_a_study_counts_the_arms_whose_interval_lies_above_zero():
    assert title(FIGURES["arms"]()).startswith("1 of 2 arms")  # 0.02 - 0.03 is below zero
    assert "SFT 40.5 to 72.0 %" in title(FIGURES["pass"]())


def test_changes_over_iterations_and_doses_are_told_with_their_paired_intervals():
    assert title(FIGURES["over iterations"]()) == (
        "Change from the first to the last iteration, right samples of the current policy (%): mdpo +20.0 (-5.0 to +45.0)"
    )
    assert "-5.0 (-7.0 to -3.0) at 0 lines" in " ".join(title(FIGURES["doses"]()).split())


def dots(axes):
    """Where the dots of seeds stand: x and y, one after the other."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "."]
    return [value for line in lines for point in zip(*line.get_data(), strict=True) for value in point]


def test_every_seed_is_a_dot_in_every_figure_of_a_claim():
    first, _ = FIGURES["primary claims"]().panels
    assert dots(first) == pytest.approx([10, 0.22, 30, 0.22, 10, 1.22, 30, 1.22, 10, 2.22, 30, 2.22])
    each = (0.5, 0.7)
    step = [of_arm("right", "mdpo", 0.6, 0.5, 0.7, 2, split="", iteration=one, each=each) for one in (1, 2)]
    (panel,) = figures.over_iterations(Metrics(step), ["right"], ["mdpo"]).panels
    assert dots(panel) == pytest.approx([1, 50, 1, 70, 2, 50, 2, 70])
    arm = [of_arm(kind, "mdpo", 0.6, 0.5, 0.7, each=each) for kind in ("accuracy", "gain")]
    accuracy, gain, _ = figures.arms(Metrics(arm), {"mdpo": "M-DPO"}).panels
    assert dots(accuracy) == dots(gain) == pytest.approx([50, 0.22, 70, 0.22])


def test_a_figure_says_in_words_what_it_shows():
    figure = FIGURES["primary claims"]()
    assert figure.alt.startswith(
        "Claims of the paper (primary): 4 agrees, 2 leans against. n = 1,008 problems"
    )
    with Image.open(io.BytesIO(figure.png())) as image:
        assert image.text["Description"] == figure.alt
    wrapped = FIGURES["doses"]()
    assert "\n" in title(wrapped) and "\n" not in wrapped.alt


def test_intervals_are_drawn_to_scale():
    axes = figures.accuracy_by_iteration(Metrics([SFT])).axes[0]
    (bars,) = [container for container in axes.containers if container.has_yerr]
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((57, 63))


def test_a_method_keeps_its_colour_and_no_two_methods_share_one():
    styles = [figures.style_of(name) for name in ("sft", "mdpo-1", "mdpo-2-fixed", "mdpo-2-onpolicy", "raft")]
    assert figures.style_of("mdpo-1") == figures.style_of("mdpo-3")
    assert (
        len(set(styles))
        == len({colour for colour, _ in styles})
        == len({marker for _, marker in styles})
        == 5
    )


def test_one_seed_is_called_indicative_and_several_are_not():
    assert "indicative" in figures.accuracy_by_iteration(Metrics([SFT])).get_supxlabel()
    over_seeds = Metrics([metric("accuracy", "sft", 0.6, seeds=(0, 1, 2))])
    several = figures.accuracy_by_iteration(over_seeds).get_supxlabel()
    assert "seeds 0, 1, 2" in several and "indicative" not in several


def test_a_figure_shows_itself_once_in_a_notebook_with_its_words():
    from IPython.core.formatters import DisplayFormatter

    figure = FIGURES["sft"]()
    data, about = DisplayFormatter().format(figure)
    assert data["image/png"] == figure.png() and about["image/png"] == {"alt": figure.alt}
