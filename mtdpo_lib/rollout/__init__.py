"""Rollouts: a policy, problems and a tool give trajectories. Knows nothing of preference learning."""

from mtdpo_lib.common.files import CorruptData, read_jsonl, write_jsonl
from mtdpo_lib.rollout.engine import extract_code, rollout
from mtdpo_lib.rollout.trajectory import Trajectory, Turn, load_trajectories, save_trajectories
from mtdpo_lib.rollout.vllm import load_sampler

__all__ = [
    "CorruptData", "Trajectory", "Turn", "extract_code", "load_sampler", "load_trajectories", "read_jsonl", "rollout",
    "save_trajectories", "write_jsonl",
]  # fmt: skip
