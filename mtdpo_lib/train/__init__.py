"""Training: pairs or demonstrations, a policy and its reference give a new policy and its log."""

from mtdpo_lib.train.adaptive_margin import ask_again, luck_features
from mtdpo_lib.train.data import (
    TrajectoryLabelCollator,
    TrajectoryPairCollator,
    pairs_from_messages,
    preference_dataset,
)
from mtdpo_lib.train.losses import METHODS, kl_term, mdpo_loss, mkto_loss, nll_loss, scored_tokens
from mtdpo_lib.train.preference import train_preference
from mtdpo_lib.train.sft import sft_dataset, train_sft
from mtdpo_lib.train.trainers import TrajectoryDPOTrainer, TrajectoryKTOTrainer

__all__ = [
    "METHODS",
    "TrajectoryDPOTrainer",
    "TrajectoryKTOTrainer",
    "TrajectoryLabelCollator",
    "TrajectoryPairCollator",
    "ask_again",
    "kl_term",
    "luck_features",
    "mdpo_loss",
    "mkto_loss",
    "nll_loss",
    "pairs_from_messages",
    "preference_dataset",
    "scored_tokens",
    "sft_dataset",
    "train_preference",
    "train_sft",
]
