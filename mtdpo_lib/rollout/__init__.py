"""Rollouts: a policy, problems and a tool give trajectories and outcomes. Knows nothing of preference learning."""

from mtdpo_lib.rollout.engine import choose, extract_code, rollout, uniform
from mtdpo_lib.rollout.evaluate import (
    Outcome,
    accuracy,
    evaluate,
    load_outcomes,
    outcome_string,
    save_outcomes,
)
from mtdpo_lib.rollout.trajectory import Journal, Trajectory, Turn, load_trajectories, save_trajectories
from mtdpo_lib.rollout.vllm import load_sampler

__all__ = [
    "Journal", "Outcome", "Trajectory", "Turn", "accuracy", "choose", "evaluate", "extract_code", "load_outcomes",
    "load_sampler", "load_trajectories", "outcome_string", "rollout", "save_outcomes", "save_trajectories", "uniform",
]  # fmt: skip
