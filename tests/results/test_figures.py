"""Figures: each is drawn from full and from partial data, small enough, and says in its title what the numbers say."""

import base64
import io

import numpy as np
import pytest
from matplotlib.text import Text
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
        "chosen_ratio": -step / 100,
        "rejected_ratio": -step / 10,
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
    *[of_arm(fact, arm, size * number, size * number - 0.05, size * number + 0.05, 2, split="", iteration=number,
             unit=unit, against=rival)
      for fact, unit in (("right", "fraction"), ("chosen_ratio", "nats"))
      for number in (1, 2, 3) for arm, rival, size in (("fixed", "mdpo", 0.02), ("kto", "mkto", 4.0))],
])  # fmt: skip

STARTS = Metrics([
    of_arm(kind, arm, 0.5, 0.4, 0.6, each=each)
    for arm in ("mdpo", "raft") for kind, each in (("accuracy", (0.9, 0.6)), ("gain", (0.2, 0.05)))
])  # fmt: skip


def world(right, nats, lead, least):
    """Where two iterations of M-DPO and RAFT start, and how far M-DPO is ahead."""
    start = [
        of_arm("right", "mdpo-2", right, right, right, 2, split="", iteration=1),
        of_arm("right_nats", "mdpo-2", nats, nats, nats, 2, split="", iteration=1, unit="nats"),
    ]
    return Metrics(start + [
        of_arm("accuracy", "mdpo-2", own, least, 0.3, split="", iteration=number, against="raft-2", each=(own, own))
        for number, own in ((1, 0.0), (2, lead))
    ])  # fmt: skip


MAP = {
    "problems.level=1,problems.wordings=4": world(0.7, 9.5, 0.2, 0.1),
    "problems.level=2,problems.wordings=4": world(0.5, 10.5, 0.1, -0.1),
    "problems.level=2,problems.wordings=1": world(0.4, 2.0, 0.0, -0.2),
    "model.base=tiny-base-small": Metrics(),
}  # fmt: skip


def judged(statement, word, paper, measured):
    claim = Claim("name", "primary", "methods", statement, "more", "metric", paper, "notebook", "Table 1", "")
    return JudgedClaim(claim, measured, word)


JUDGED = [
    judged(f"{unit} of {word}", word, paper, Metric("difference", 0.2, -0.1, 0.5, 1008, unit, seeds, each=(0.1, 0.3)))
    for unit in ("fraction", "nats")
    for word, paper, seeds in (("agrees", 3.0, (0, 1)), ("leans against", None, (0, 1)), ("agrees", None, (0, 1)))
] + [judged("not measured", "x", 1.0, None)]  # fmt: skip

FIGURES = {
    "map": lambda: figures.lead_by_start(MAP),
    "map, nothing": lambda: figures.lead_by_start({"model.base=tiny-base-small": Metrics()}),
    "worlds": lambda: figures.claims_by_world({"habits": JUDGED[:3], "composed": JUDGED[:3]}),
    "worlds, nothing": lambda: figures.claims_by_world({}),
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
    "training, partial": lambda: figures.training_curves([{"step": 1, "loss": 0.7, "chosen_ratio": None}]),
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
    assert all(axes.get_xlabel() for axes in figure.panels)
    assert any(character.isdigit() for character in figure.get_supxlabel())


def test_titles_follow_the_numbers():
    assert title(figures.accuracy_by_iteration(FULL)) == (
        "Accuracy rises by 10.0 points from SFT to M-DPO 2 (95% interval +7.0 to +13.0)"
    )
    unsure = Metrics([SFT, metric("accuracy", "mdpo-1", 0.61), metric("gain", "mdpo-1", 0.01, -0.01, 0.03)])
    assert "not shown to change" in title(figures.accuracy_by_iteration(unsure))
    worse = Metrics([SFT, metric("accuracy", "mdpo-1", 0.50), metric("gain", "mdpo-1", -0.10, -0.12, -0.08)])
    assert "falls by 10.0 points" in title(figures.accuracy_by_iteration(worse))
    assert title(FIGURES["comparison"]()) == "Reference: updated 70.0 %, fixed 64.0 %"
    assert title(FIGURES["yield by fate"]()) == "30.0 % of the prompts give a pair"
    assert title(FIGURES["coverage"]()) == "With 3 samples 41.0 % of the prompts can yield a pair"
    assert title(FIGURES["draws"]()).endswith("V itself from K draws at no K")
    better = {"learned-v": [[0.3, 0.01, 0.01]] * 3}
    assert title(figures.value_samples([1, 4, 16], better, [0.2, 0.2, 0.2])).endswith(
        "learned V at K = 4, 16"
    )
    assert title(FIGURES["samples"]()).endswith("n^-0.50 (95% interval -0.60 to -0.40)")
    assert "M-DPO 40 %, single-turn 90 %" in title(FIGURES["gamble"]())


def log_of(**columns):
    """A training log, row by row."""
    return [{"step": step, **dict(zip(columns, row))} for step, row in enumerate(zip(*columns.values()), 1)]


def test_no_title_tells_a_trend_from_two_minibatches():
    """The last step's pairs lie above the first one's, and yet training pushed both sides down: the log is noise."""
    falling = log_of(
        loss=[0.5, 1.0, 1.0, 0.6, 0.6, 0.6, 0.2, 0.2, 0.8],
        chosen_ratio=[0.0, 0.1, 0.2, -0.3, -0.2, -0.4, -0.6, -0.9, 0.3],
        rejected_ratio=[0.0, 0.2, 0.1, -1.0, -1.2, -1.1, -3.0, -3.5, 0.5],
        chosen_logp=[-9.0, -1, -1, -1, -1, -1, -1, -1, -1],
        rejected_logp=[-20.0, -1, -1, -1, -1, -1, -1, -1, -1],
    )
    assert title(figures.training_curves(falling, "mdpo-1")) == (
        "M-DPO 1: log-ratios to the reference, mean of the last third of the steps: chosen -0.40, rejected -2.00 nats"
    )
    assert title(figures.sft_curve(falling)) == (
        "Mean SFT loss in the first third of the steps: 0.83 nats per token; in the last: 0.4"
    )
    assert "nothing logged yet" in title(FIGURES["training, partial"]())


def test_policies_are_compared_by_paired_differences_and_without_any_only_described():
    apart = [
        metric("accuracy", "mdpo-2", 0.62, 0.59, 0.65),
        metric("accuracy", "mdpo-2-fixed", 0.60, 0.57, 0.63),
    ]
    names = ["mdpo-2", "mdpo-2-fixed"]
    assert (
        title(figures.comparison(Metrics(apart), names)) == "Accuracy: M-DPO 2 62.0 %, M-DPO 2 fixed 60.0 %"
    )
    fields = {"split": "test", "arm": "mdpo", "policy": "mdpo-2", "against": "mdpo-2-fixed"}
    paired = Metric("difference", 0.02, 0.01, 0.03, 1200, seeds=(0,), **fields)
    told = title(figures.comparison(Metrics([*apart, paired, paired]), names, ["updated", "fixed"]))
    assert (
        told == "Accuracy: updated minus fixed +2.0 (+1.0 to +3.0) points"
    )  # though their own intervals overlap
    unpaired = Metrics([SFT, metric("accuracy", "mdpo-1", 0.70, 0.67, 0.73)])
    assert title(figures.accuracy_by_iteration(unpaired)) == "Accuracy: SFT 60.0 %, M-DPO 1 70.0 %"


def test_titles_of_the_theory_list_where_something_is_shown_and_claim_no_direction():
    """Shown at K = 4 alone, at randomness 0.5 alone; and more older data, a larger slope, levels far from the weights."""
    plain = [0.2, 0.2, 0.2]
    at_four = figures.value_samples([1, 4, 16], {"sampled-v": [[0.3, 0.01, 0.3]] * 3}, plain)
    assert title(at_four) == "The margin is shown to help: V itself from K draws at K = 4"
    methods = {"mdpo": [[0.3, 0.1, 0.3]] * 3, "unmasked": [[0.2, 0.2, 0.2]] * 3}
    shown = title(figures.observation_scoring([0, 0.5, 1], {"half guessing": methods}))
    assert shown == "Where masking is shown to be nearer to π*: half guessing: at ε = 0.5"
    rising = {"sure": {"mdpo": [row[::-1] for row in WORLDS]}}
    assert "falls" not in title(figures.sample_error([10, 100, 1000], rising, (0.5, 0.4, 0.6)))
    worse = [[0.1, 0.4, 0.5]] * 3
    told = title(
        figures.coverage_and_error([0, 1 / 3, 1], WORLDS, worse, {"mdpo": WORLDS, "onpolicy": WORLDS}, [9, 5])
    )
    assert told.startswith("The error is 10 % with 0 % of older data, 40 % with 33 %")
    assert "dense" not in title(figures.quantized_weights([0.0] * 9, [-1.0, 0.9, 1.0]))


def test_a_histogram_tells_quantiles_and_shows_the_few_beside_the_many():
    many = figures.histogram([0] * 350 + list(range(12, 80)), "tokens until they part")
    assert title(many) == "Half are at most 0, three quarters at most 0, 95 % at most 58.1"
    assert many.axes[0].get_yscale() == "log"
    assert figures.histogram([1, 2, 2, 3, 9], "length (tokens)").axes[0].get_yscale() == "linear"


def test_prompts_and_ends_are_named_and_counted_and_what_never_happened_is_left_out():
    (passport,) = [{"iteration": 1, "prompts by fate": {"paired": 467, "all right": 0, "all wrong": 13}}]
    assert figures.pair_yield([passport]).axes[0].get_legend_handles_labels()[1] == [
        "gave a pair: 467", "all wrong: 13",
    ]  # fmt: skip
    ended = figures.outcome_mix({"no_action": {"no answer": 2}, "3": {"right": 1}}, "how it ended")
    assert [text.get_text() for text in ended.axes[0].get_yticklabels()] == [
        "neither answered\nnor called the tool (n = 2)", "3 (n = 1)",
    ]  # fmt: skip


def test_gains_are_drawn_over_where_each_seed_started():
    figure = figures.gain_by_start(STARTS, ["mdpo", "raft"])
    line = figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == pytest.approx([55, 70])
    assert list(line.get_ydata()) == pytest.approx([5, 20])
    assert title(figure) == "M-DPO: gains of +5.0 to +20.0 points from SFT policies of 55.0 to 70.0 %"


def test_a_study_counts_the_arms_whose_interval_lies_above_zero():
    assert title(FIGURES["arms"]()).startswith("1 of 2 are shown")  # 0.02 - 0.03 is below zero
    assert "SFT 40.5 to 72.0 %" in title(FIGURES["pass"]())


def test_iterations_and_doses_are_told_by_their_paired_differences():
    figure = FIGURES["over iterations"]()
    assert title(figure) == (
        "After iteration 3, right samples of the current policy, paired: a fixed reference, minus M-DPO "
        "+6.0 (+1.0 to +11.0); single-turn KTO, minus M-KTO +1,200.0 (+1,195.0 to +1,205.0)"
    )
    assert [axes.get_title().split("\n")[1] for axes in figure.panels] == [
        "M-DPO: 20.0, 30.0, 40.0 %",
        "M-DPO: 0.20, 0.30, 0.40 nats",
    ]
    assert [axes.get_yscale() for axes in figure.panels] == [
        "linear",
        "symlog",
    ]  # tenths of a nat beside tens
    assert "-5.0 (-7.0 to -3.0) at 0 lines" in title(FIGURES["doses"]())


def test_arms_are_named_in_words_that_stand_alone():
    arm = [of_arm("accuracy", name, 0.6, 0.5, 0.7) for name in ("underfit-nll", "own-arm")]
    words = {"underfit-nll": "the same with the NLL term", "own-arm": "M-DPO with settings of one's own"}
    assert figures.arms(Metrics(arm), words).panels[0].rows == [
        "one iteration from an SFT that was stopped early with the NLL term", words["own-arm"],
    ]  # fmt: skip


def dots(axes):
    """Where the dots of seeds stand: x and y, one after the other."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "."]
    return [value for line in lines for point in zip(*line.get_data(), strict=True) for value in point]


def test_the_map_has_a_line_for_equally_many_wordings_and_counts_the_worlds():
    figure = figures.lead_by_start(MAP)
    assert title(figure) == "M-DPO minus RAFT after iteration 2: shown above 0 in 1 of 3 worlds, below 0 in 0"
    names = [text.get_text().replace("\n", " ") for text in figure.axes[2].get_legend().get_texts()]
    assert names == ["1 wordings, 2 nats", "4 wordings, 10 nats"]
    (line,) = (line for line in figure.panels[1].lines if line.get_marker() == "^")
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([50, 70], [10, 20])
    above = figure.panels[0].child_axes[0]
    assert above._functions[0](np.array([50.0]))[0] == 2.0 and above._functions[1](np.array([2.0]))[0] == 50.0


def test_primary_claims_stand_side_by_side_for_each_world():
    figure = figures.claims_by_world({"habits": JUDGED[:3], "composed": JUDGED[1:4]})
    assert title(figure) == "Primary claims that agree, by world: habits: 2 of 3, composed: 2 of 3"
    assert [panel.get_title() for panel in figure.panels] == ["habits", "composed"]


def test_every_seed_is_a_dot_in_every_figure_of_a_claim():
    first, _ = FIGURES["primary claims"]().panels
    assert dots(first) == pytest.approx([10, 0.22, 30, 0.22, 10, 1.22, 30, 1.22, 10, 2.22, 30, 2.22])
    each = (0.5, 0.7)
    step = [
        of_arm("right", arm, 0.6, 0.5, 0.7, 2, split="", iteration=one, each=each, against=rival)
        for one in (1, 2) for arm, rival in (("mdpo", ""), ("fixed", "mdpo"))
    ]  # fmt: skip
    (panel,) = figures.over_iterations(Metrics(step), ["right"], ["mdpo", "fixed"]).panels
    assert dots(panel) == pytest.approx([1, 50, 1, 70, 2, 50, 2, 70])
    arm = [of_arm(kind, "mdpo", 0.6, 0.5, 0.7, each=each) for kind in ("accuracy", "gain")]
    accuracy, gain, _ = figures.arms(Metrics(arm), {"mdpo": "M-DPO"}).panels
    assert dots(accuracy) == dots(gain) == pytest.approx([50, 0.22, 70, 0.22])


@pytest.mark.parametrize("name", [name for name in FIGURES if "," not in name])
def test_every_figure_says_in_sentences_its_title_its_axes_its_lines_and_what_it_rests_on(name):
    figure = FIGURES[name]()
    assert figure.alt.startswith(f"{title(figure)}. ") and figure.alt.endswith(".")
    assert figure.alt.endswith(" ".join(figure.get_supxlabel().split()))
    for axes in figure.panels:
        named = [
            axes.get_xlabel(),
            axes.get_ylabel(),
            axes.get_title(),
            *axes.get_legend_handles_labels()[1],
            *axes.rows,
        ]
        assert all(" ".join(words.split()) in figure.alt for words in named)
    assert "\n" not in figure.alt and repr(figure) == figure.alt
    with Image.open(io.BytesIO(figure.png())) as image:
        assert image.text["Description"] == figure.alt


def test_a_saved_notebook_and_its_page_carry_the_words():
    """The output's metadata, where nbconvert looks for it; its plain text holds them for pages that do not."""
    from IPython.core.formatters import DisplayFormatter
    from nbconvert import HTMLExporter
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    figure = FIGURES["sft"]()
    data, metadata = DisplayFormatter().format(figure)
    data["image/png"] = base64.b64encode(data["image/png"]).decode()
    output = new_output("display_data", data=data, metadata=metadata)
    notebook = new_notebook(cells=[new_code_cell("figure", outputs=[output])])
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert f'alt="{figure.alt}"' in page and data["text/plain"] == figure.alt


@pytest.mark.parametrize("name", FIGURES)
def test_words_are_large_enough_on_a_page_of_650_pixels_and_none_is_cut(name):
    figure = FIGURES[name]()
    figure.savefig(io.BytesIO(), dpi=100)
    assert figure.get_figwidth() <= 6.5
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    texts = [one for one in figure.findobj(Text) if one.get_text().strip() and one.get_visible()]
    inside = [one for legend in legends for one in legend.get_texts()]
    assert all(one.get_fontsize() >= 8.5 for one in (*texts, *inside))
    assert figure._supxlabel is None or figure._supxlabel.get_fontsize() >= 9
    titles = [axes.title for axes in figure.axes]
    for one in (figure._suptitle, *filter(None, [figure._supxlabel]), *titles, *inside):
        box = one.get_window_extent()
        assert not one.get_text() or (box.x0 >= -1 and box.x1 <= 651), one.get_text()


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
