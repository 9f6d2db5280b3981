"""Rollouts: a policy, problems and a tool give trajectories. Knows nothing of preference learning."""

from mtdpo_lib.rollout.engine import extract_code, rollout
from mtdpo_lib.rollout.served import load_sampler
from mtdpo_lib.rollout.trajectory import (
    CorruptData,
    Trajectory,
    Turn,
    load_trajectories,
    read_jsonl,
    save_trajectories,
    write_jsonl,
)

__all__ = [
    "CorruptData", "Trajectory", "Turn", "extract_code", "load_sampler", "load_trajectories", "read_jsonl", "rollout",
    "save_trajectories", "write_jsonl",
]  # fmt: skip
