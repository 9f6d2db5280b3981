"""Models: tokenizers, bases and policies. A policy is a base and, mostly, one named LoRA adapter on it."""

from mtdpo_lib.models.bases import MissingModel, check_loadable, prepare_base
from mtdpo_lib.models.policy import (
    Policy,
    device,
    load_base,
    load_for_sampling,
    load_for_training,
    load_tokenizer,
    load_whole,
    lora_config,
    merge,
)  # fmt: skip
from mtdpo_lib.models.quiet import quiet_libraries
from mtdpo_lib.models.sizes import SHAPES, Shape, shape_of
from mtdpo_lib.models.tiny import tiny_model, train_tokenizer

__all__ = [
    "SHAPES", "MissingModel", "Policy", "Shape", "check_loadable", "device", "load_base", "load_for_sampling",
    "load_for_training", "load_tokenizer", "load_whole", "lora_config", "merge", "prepare_base", "quiet_libraries",
    "shape_of", "tiny_model", "train_tokenizer",
]  # fmt: skip
