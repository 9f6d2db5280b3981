"""Pairs: trajectories to preference pairs, and every dropped item with its reason. Knows nothing of tokenizers."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from mtdpo_lib.common.seeds import stream
from mtdpo_lib.profiles.sections import PairSettings
from mtdpo_lib.rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Pair:
    """A right and a wrong trajectory of the same prompt: tau^w and tau^l of eq. (14)."""

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
    """

    trajectories: dict[str, int] = field(default_factory=dict)
    dropped_trajectories: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    pairs: int = 0


def drop_reason(trajectory: Trajectory, settings: PairSettings) -> str | None:
    """Why a trajectory may not enter a pair; None when it may (sec. 3.1)."""
    if len(trajectory.ids) > settings.max_tokens:
        return "longer than the limit"
    if settings.drop_winner_errors and trajectory.correct and trajectory.last_tool_failed:
        return "right, but the last tool output is an error"
    return None


def make_pairs(
    trajectories: Sequence[Trajectory], settings: PairSettings, seed: int
) -> tuple[list[Pair], PairReport]:
    """One random right trajectory against one random wrong one for each prompt that has both.

    **Paper:** sec. 3.1. More pairs a prompt (`settings.pairs_per_prompt`) never use a trajectory twice.

    Args:
        trajectories: of any number of prompts and policies.
        settings: rules.
        seed: of the choice; each prompt has its own stream.

    Returns:
        Pairs in the order of their prompts' first trajectories, and the report.
    """
    report = PairReport(
        trajectories={
            "right": sum(trajectory.correct for trajectory in trajectories),
            "wrong": sum(not trajectory.correct for trajectory in trajectories),
        }
    )
    by_prompt: dict[str, dict[bool, list[Trajectory]]] = defaultdict(lambda: {True: [], False: []})
    sampled: dict[str, set[bool]] = defaultdict(set)
    dropped, prompts = Counter(), Counter()
    for trajectory in trajectories:
        sampled[trajectory.problem_id].add(trajectory.correct)
        kept = by_prompt[trajectory.problem_id]
        reason = drop_reason(trajectory, settings)
        if reason is None:
            kept[trajectory.correct].append(trajectory)
        else:
            dropped[reason] += 1
    pairs = []
    for problem_id, kept in by_prompt.items():
        winners, losers = kept[True], kept[False]
        if winners and losers:
            prompts["paired"] += 1
            draw = random.Random(stream(seed, "pairs", problem_id))
            count = min(settings.pairs_per_prompt, len(winners), len(losers))
            pairs += map(Pair, draw.sample(winners, count), draw.sample(losers, count))
        elif sampled[problem_id] == {True}:
            prompts["all right"] += 1
        elif sampled[problem_id] == {False}:
            prompts["all wrong"] += 1
        else:
            prompts["one side dropped"] += 1
    report.dropped_trajectories, report.prompts, report.pairs = dict(dropped), dict(prompts), len(pairs)
    return pairs, report
