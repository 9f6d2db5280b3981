"""Training: pairs or demonstrations, a policy and its reference give a new policy and its log."""

from mtdpo_lib.train.adaptive_margin import AdaptiveMarginTrainer, ask_again, margin_features
from mtdpo_lib.train.data import (
    TrajectoryLabelCollator,
    TrajectoryPairCollator,
    pairs_from_messages,
    preference_dataset,
    trajectory_batch,
)
from mtdpo_lib.train.loop import training_arguments
from mtdpo_lib.train.losses import kl_term, mdpo_loss, mkto_loss, nll_loss, scored_tokens, sequence_logps
from mtdpo_lib.train.preference import PreferenceJob, set_reference, train_preference
from mtdpo_lib.train.sft import sft_dataset, train_sft
from mtdpo_lib.train.trainers import TrajectoryDPOTrainer, TrajectoryKTOTrainer

__all__ = [
    "AdaptiveMarginTrainer", "PreferenceJob", "TrajectoryDPOTrainer", "TrajectoryKTOTrainer", "TrajectoryLabelCollator",
    "TrajectoryPairCollator", "ask_again", "kl_term", "margin_features", "mdpo_loss", "mkto_loss", "nll_loss",
    "pairs_from_messages", "preference_dataset", "scored_tokens", "sequence_logps", "set_reference", "sft_dataset",
    "train_preference", "train_sft", "training_arguments", "trajectory_batch",
]  # fmt: skip
