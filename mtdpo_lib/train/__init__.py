"""Training: pairs or demonstrations, a policy and its reference give a new policy and its log."""

from mtdpo_lib.train.preference import (
    TrajectoryDPOTrainer,
    TrajectoryPairCollator,
    preference_dataset,
    train_preference,
)
from mtdpo_lib.train.sft import sft_dataset, train_sft

__all__ = [
    "TrajectoryDPOTrainer", "TrajectoryPairCollator", "preference_dataset", "sft_dataset", "train_preference", "train_sft",
]  # fmt: skip
