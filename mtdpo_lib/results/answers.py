"""Answers: the question on a notebook's card, answered in three sentences from this run and the kept study.

Every sentence is made from what was measured, whatever that is: a rival may be ahead, an interval may hold zero, and nothing
may be kept. Two policies are only ever compared by a paired metric (`compared`).

See: the cell tagged "answer" of every notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtdpo_lib.experiment.arms import in_few_words
from mtdpo_lib.results import claims
from mtdpo_lib.results.metric import Metric, Metrics, in_words

Sentences = tuple[str, str, str]
EXACT = 1e-6  # of a total variation that is zero but for the optimiser's rounding


def compared(metric: Metric | None, ours: str, theirs: str) -> str:
    """``M-DPO is above SFT: +16.7 (+3.2 to +30.1) points``: the word follows from the paired interval alone.

    >>> compared(Metric("gain", 0.1, -0.02, 0.22, seeds=(0,)), "M-DPO", "SFT")
    'M-DPO is not shown to differ from SFT: +10.0 (-2.0 to +22.0) points, one seed: indicative'
    """
    if metric is None or metric.low is None or metric.high is None:
        return f"{ours} was not compared with {theirs} here"
    word = "above" if metric.low > 0 else "below" if metric.high < 0 else "not shown to differ from"
    unit = " points" if metric.unit == "fraction" else ""
    seed = ", one seed: indicative" if len(metric.seeds) == 1 else ""
    return f"{ours} is {word} {theirs}: {metric.in_words(sign=True)}{unit}{seed}"


def in_study(study: Metrics, *arms: str, prefix: str = "") -> str:
    """Each of the arms against M-DPO, over the seeds of a study; `prefix` stands before the few words of each."""
    if not study:
        return "No study is kept here, so nothing is said over seeds."
    found = {arm: study.get("difference", "test", arm, against="mdpo") for arm in arms}
    told = (compared(one, prefix + in_few_words(arm), "M-DPO") for arm, one in found.items())
    return f"{the_study(study)} {'; '.join(told)}."


def the_study(study: Metrics) -> str:
    """``In the kept study (profile habits, seeds 0, 1)``: its profile may be another than this run's."""
    whose = f"profile {study.profile}, " if study.profile else ""
    seeds = ", ".join(map(str, study.seeds()))
    return f"In the kept study ({whose}seeds {seeds})" if study else "Without a kept study"


def last_gain(metrics: Metrics, arm: str = "mdpo") -> str:
    """The last iteration's gain over SFT, and what it rests on; the same words for a run and for several."""
    gains = metrics.by_iteration("gain", arm=arm)
    if not gains:
        return compared(None, "no policy", "SFT")
    gain = gains[max(gains)]
    return f"{compared(gain, f'the policy after iteration {max(gains)}', 'SFT')} ({gain.n:,} test problems)"


def start(own: float, margins: Sequence[float], kept: Metrics) -> Sentences:
    """00: `own` tokens of 100 are the policy's; `margins` of the toy pair without and with the tool's tokens."""
    turned = "turns the verdict round" if margins[0] * margins[1] < 0 else "leaves the sign as it is"
    runs = f"in the kept runs {last_gain(kept)}" if kept else "no run is kept here that could tell"
    return (
        "It means making the policy's own tokens likelier where the answer was right than where it was wrong; "
        f"of the tokens made here {own:.0f} of 100 are the policy's.",
        f"Scoring the tool's tokens too {turned} on the toy pair: its margin is {margins[1]:+.2f} instead of "
        f"{margins[0]:+.2f}.",
        f"Whether it makes the agent better is a question of measurement: {runs}.",
    )


def theory(sure: float, metrics: Metrics, study: Metrics) -> Sentences:
    """01: `sure` is the largest distance from the optimum with a deterministic tool."""
    word = "the optimum of the KL-regularised problem" if sure < EXACT else "near the optimum, not at it"
    biased, learned = (metrics.get("theory/tv", "random", policy=name) for name in ("mdpo", "learned-v"))
    corrected = study.get("difference", "test", "noisy-corrected", against="noisy")
    return (
        f"With a deterministic tool and exact preferences M-DPO ends at {word}: total variation {sure:.0e} at most.",
        f"With a random tool it ends away from it, by {in_words(biased, missing='an unmeasured')} % of total variation on "
        f"average over these worlds; with a learned margin by {in_words(learned, missing='an unmeasured')} %.",
        f"{the_study(study)}, on the language model, {compared(corrected, 'the learned margin', 'M-DPO without it')}.",
    )


def sft(metrics: Metrics, facts: Mapping[str, float], later: Metric, calls: int, errors: int) -> Sentences:
    """02: `facts` of the training, `later` the late checkpoint against the early one, tool calls and those that fail."""
    accuracy, sampled = (metrics.get(kind, "test", "sft") for kind in ("accuracy", "sampled"))
    share = 100 * facts["scored tokens"] / max(facts["tokens"], 1)
    return (
        f"By imitating {facts['demonstrations']:,} demonstrations; the loss saw {share:.0f} % of their tokens, those that "
        "a policy writes.",
        f"It answers {in_words(accuracy, missing='an unknown part')} % of the test problems right when it decodes greedily"
        + (f" and {sampled.in_words()} % when it samples" if sampled else "")
        + f"; {errors:,} of its {calls:,} tool calls end in an error.",
        f"More of the same training: {compared(later, 'the late checkpoint', 'the early one')}.",
    )


def sandbox(held: Mapping[str, bool], milliseconds: float, calls: int, errors: int) -> Sentences:
    """03: which promises held, a call's median time, and what the policy's own programs did."""
    broken = [promise for promise, kept in held.items() if not kept]
    word = f"{len(broken)} did not hold: {', '.join(broken)}" if broken else "all of them held"
    return (
        f"By running it where there is nothing to reach: {len(held)} promises were attacked once each, and {word}.",
        f"The median call took {milliseconds:.1f} ms; of the SFT policy's {calls:,} calls {errors:,} ended in an error.",
        "This protects the machine and not the answer: a program that runs and computes nonsense passes.",
    )


def rollouts(right: int, total: int, turned: int, coverage: Mapping[int, float]) -> Sentences:
    """04: right trajectories of all, verdicts that a lenient grader turns, and prompts covered by samples per prompt."""
    most = max(coverage)
    return (
        f"It writes, the tool answers, and so on until an answer is boxed: {total:,} trajectories were made.",
        f"The final answer alone is judged: {right:,} are right, {100 * right / total:.1f} %; a lenient grader would turn "
        f"{turned:,} of the {total - right:,} others.",
        f"With {most} samples per prompt {100 * coverage[most]:.1f} % of the prompts hold a right and a wrong one; the "
        "others teach nothing.",
    )


def pairs(prompts: Mapping[str, int], writers: Mapping[str, int], lucky: int, respelt: int) -> Sentences:
    """05: prompts by fate, who wrote the tokens at which pairs part, and what the two broken rules would have changed."""
    made, total, by_policy = prompts.get("paired", 0), sum(prompts.values()), writers.get("assistant", 0)
    others = ", ".join(f"{count:,} {fate}" for fate, count in prompts.items() if fate != "paired")
    return (
        f"Those of prompts whose samples disagree: {made:,} of {total:,} prompts give one ({others or 'none is left out'}).",
        f"Of {sum(writers.values()):,} pairs that part, {by_policy:,} part at a token that the policy wrote.",
        f"Without the error filter {lucky:,} pairs would reward an answer after a failed call, and kept as text "
        f"{respelt:,} trajectories would get other ids.",
    )


def preference(metrics: Metrics, study: Metrics, arm: str = "mdpo") -> Sentences:
    """06: this run's gain, the study's, and M-DPO's rivals, which may be ahead."""
    return (
        f"In this run {last_gain(metrics, arm)}.",
        f"{the_study(study)} {compared(study.get('gain', 'test', 'mdpo'), 'M-DPO', 'SFT')}.",
        in_study(study, "raft", "dpo"),
    )


def reference(updated: Metric | None, low: Metric | None, study: Metrics) -> Sentences:
    """07: the updated reference against the fixed one, and a tenth of eta against eta, here and over seeds."""
    return (
        f"In this run, after one iteration that differs, {compared(updated, 'the updated reference', 'the fixed one')}.",
        f"In iteration 1 {compared(low, in_few_words('eta-low'), 'all of it')}.",
        in_study(study, "fixed", "eta-low", "eta-high", prefix="M-DPO with "),
    )


def sampling(more: float, mixture: Metric | None, study: Metrics) -> Sentences:
    """08: points of coverage that the mixture adds, what it is worth, and the study's runs."""
    points = f"{abs(more):.1f} points {'more' if more > 0 else 'fewer'} of the prompts than"
    covers = f"covers {points}" if more else "covers as many prompts as"
    return (
        f"In this run the mixture {covers} the current policy alone (counted, without an interval).",
        f"After one iteration {compared(mixture, 'the mixture', 'the current policy alone')}.",
        in_study(study, "on-policy", "n-3", "n-18", prefix="M-DPO with "),
    )


def report(run: Sequence[claims.JudgedClaim], study: Sequence[claims.JudgedClaim], flips: int) -> Sentences:
    """09: the verdicts on this run's and the study's claims, and how many a single seed could have turned."""
    primary = [row for row in study if row.claim.kind == "primary"]
    others = [row for row in study if row not in primary]
    counts = [claims.verdict_counts(rows) or "none was judged" for rows in (run, primary, others)]
    tested = sum(bool(row.measured and row.measured.unit == "fraction") for row in study)
    return (
        f"Of {len(run)} claims of the paper this run says: {counts[0]}.",
        f"The kept study says of {len(primary)} primary claims: {counts[1]}; of {len(others)} others: {counts[2]}.",
        f"How sure it is: of {tested} differences in points {flips} had the other sign in at least one seed.",
    )


def real_model(differ: int, settings: int, lost: float, kept: Mapping[str, Metrics]) -> Sentences:
    """10: settings that differ, the share of the norm that four bits lose, and the runs of real models that are kept."""
    told = "; ".join(f"{name}: {last_gain(metrics)}" for name, metrics in kept.items())
    return (
        f"Sizes, rates and the way numbers are stored: {differ} of {settings} settings differ between the profiles, and "
        "none of them is the algorithm.",
        f"Four bits per frozen weight lose {100 * lost:.1f} % of a layer's norm; the adapter learns on top of what is left.",
        f"What it gave on real problems: {told or 'no run of a real model is kept here'}.",
    )
