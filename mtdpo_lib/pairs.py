"""Pairs: trajectories to preference pairs, and every dropped item with its reason. Knows nothing of tokenizers."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mtdpo_lib.common.seeds import stream
from mtdpo_lib.profiles.sections import PairSettings
from mtdpo_lib.rollout import Trajectory


@dataclass(frozen=True)
class Pair:
    """A right and a wrong trajectory of the same prompt: tau^w and tau^l of eq. (14).

    Attributes:
        chosen: tau^w, right.
        rejected: tau^l, wrong.

    >>> right = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 0, [7, 8], [0, 1], [], "5", True, "answer")
    >>> wrong = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 1, [7, 9], [0, 1], [], "6", False, "answer")
    >>> pair = Pair(right, wrong)
    >>> pair.chosen.answer, pair.rejected.answer
    ('5', '6')
    """

    chosen: Trajectory
    rejected: Trajectory


@dataclass
class PairReport:
    """What became of every trajectory and every prompt.

    Attributes:
        trajectories: sampled, by verdict: "right" and "wrong".
        dropped_trajectories: reason to count.
        prompts: with a pair ("paired") or why without.
        pairs: number of pairs.

    >>> report = PairReport({"right": 5, "wrong": 7}, {}, {"paired": 2, "all wrong": 1}, pairs=2)
    >>> f"{report.prompts['paired']} of {sum(report.prompts.values())} prompts give a pair"
    '2 of 3 prompts give a pair'
    """

    trajectories: dict[str, int]
    dropped_trajectories: dict[str, int]
    prompts: dict[str, int]
    pairs: int


def drop_reason(trajectory: Trajectory, settings: PairSettings) -> str | None:
    """Why a trajectory may not enter a pair; None when it may (sec. 3.1).

    >>> from mtdpo_lib.rollout import Turn
    >>> turns = [Turn("Try.", "print(x)", "NameError: ...", error="NameError"), Turn("It must be 4.")]
    >>> guessed = Trajectory("p", "s", "2 + 2?", "4", "sft", 0, [1, 2], [0, 1], turns, "4", True, "answer")
    >>> drop_reason(guessed, PairSettings())
    'right, but the last tool output is an error'
    >>> drop_reason(guessed, PairSettings(drop_winner_errors=False))
    """
    if len(trajectory.ids) > settings.max_tokens:
        return "longer than the limit"
    if settings.drop_winner_errors and trajectory.correct and trajectory.last_tool_failed:
        return "right, but the last tool output is an error"
    return None


def make_pairs(
    trajectories: Sequence[Trajectory], settings: PairSettings, seed: int
) -> tuple[list[Pair], PairReport]:
    """One random right trajectory against one random wrong one for each prompt that has both.

    **Paper:** sec. 3.1. More pairs per prompt (`settings.pairs_per_prompt`) never use a trajectory twice.

    Args:
        trajectories: of any number of prompts and policies.
        settings: rules.
        seed: of the choice; each prompt has its own stream.

    Returns:
        Pairs in the order of their prompts' first trajectories, and the report.

    >>> from mtdpo_lib.rollout import Turn
    >>> def sampled(problem, correct):
    ...     turns = [Turn("answer")]
    ...     return Trajectory(problem, "s", "q", "1", "sft", 0, [1, 2], [0, 1], turns, "1", correct, "answer")
    >>> rows = [sampled("a", True), sampled("b", True), sampled("b", False), sampled("b", False)]
    >>> pairs, report = make_pairs(rows, PairSettings(), seed=0)
    >>> [(pair.chosen.problem_id, pair.rejected.correct) for pair in pairs]
    [('b', False)]
    >>> report.prompts
    {'all right': 1, 'paired': 1}
    """
    sampled: dict[str, set[bool]] = defaultdict(set)
    kept: dict[tuple[str, bool], list[Trajectory]] = defaultdict(list)
    dropped, prompts = Counter(), Counter()
    for trajectory in trajectories:
        sampled[trajectory.problem_id].add(trajectory.correct)
        reason = drop_reason(trajectory, settings)
        if reason is None:
            kept[trajectory.problem_id, trajectory.correct].append(trajectory)
        else:
            dropped[reason] += 1
    pairs: list[Pair] = []
    for problem_id, verdicts in sampled.items():
        winners, losers = kept[problem_id, True], kept[problem_id, False]
        if winners and losers:
            prompts["paired"] += 1
            draw = random.Random(stream(seed, "pairs", problem_id))
            count = min(settings.pairs_per_prompt, len(winners), len(losers))
            pairs += map(Pair, draw.sample(winners, count), draw.sample(losers, count))
        elif len(verdicts) == 1:
            prompts["all right" if True in verdicts else "all wrong"] += 1
        else:
            prompts["one side dropped"] += 1
    right = sum(trajectory.correct for trajectory in trajectories)
    by_verdict = {"right": right, "wrong": len(trajectories) - right}
    return pairs, PairReport(by_verdict, dict(dropped), dict(prompts), len(pairs))


def right_trajectories(
    trajectories: Sequence[Trajectory], settings: PairSettings, seed: int
) -> list[Trajectory]:
    """RAFT's data: right trajectories of every prompt that has some, whether or not a wrong one stands against them.

    **Paper:** sec. 3.1. Of each prompt at most `settings.right_per_prompt`, drawn at random, no two with the same tokens.

    Args:
        trajectories: of any number of prompts and policies.
        settings: rules; a trajectory that may not enter a pair is left out here too.
        seed: of the choice; each prompt has its own stream.

    >>> rows = [
    ...     Trajectory("p", "s", "q", "1", "sft", sample, ids, [0, 1], [], "1", correct, "answer")
    ...     for sample, (ids, correct) in enumerate([([1, 2], True), ([1, 2], True), ([1, 3], True), ([1, 4], False)])]
    >>> [len(right_trajectories(rows, PairSettings(right_per_prompt=most), seed=0)) for most in (1, 2, 3)]
    [1, 2, 2]
    """
    right: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.correct and drop_reason(trajectory, settings) is None:
            right[trajectory.problem_id].append(trajectory)
    chosen: list[Trajectory] = []
    for problem_id, rows in right.items():
        drawn = random.Random(stream(seed, "right", problem_id)).sample(rows, len(rows))
        distinct = {tuple(row.ids): row for row in drawn}
        chosen += list(distinct.values())[: settings.right_per_prompt]
    return chosen
