"""What every training shares around TRL's trainers: their arguments, an adapter's precision, progress and a clean log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from mtdpo_lib.common.progress import Progress
from mtdpo_lib.profiles.sections import ModelSettings

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # one of TRL's trainers, which comes later in the order of bases

# Newer versions of transformers renamed this argument, and warn where the old name is used.
_NAMES = ("activation_checkpointing", "gradient_checkpointing")
CHECKPOINTING = next(name for name in _NAMES if hasattr(TrainingArguments, name))


def base_of(model: Any) -> PreTrainedModel:
    """The model itself, without the adapters that may be on it."""
    return cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)


class FullPrecisionAdapter(Trainer):
    """For TRL's trainers, before them in the order of bases: an adapter on a quantised base stays as it was given.

    TRL casts it to bfloat16, whose neighbour of 0.01 is 0.01006: steps of a preference learning rate (1e-5, the paper's
    4e-7) are rounded away. And the rounded policy would no longer be its own reference before the first step.
    """

    model: Any  # a PreTrainedModel or a PeftModel

    def __init__(self, model: Any = None, *arguments: Any, **others: Any):
        given = {}
        if isinstance(model, PeftModel):
            given = {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
        super().__init__(model, *arguments, **others)
        if getattr(base_of(self.model), "is_quantized", False):
            for name, weight in self.model.named_parameters():
                if weight.requires_grad:
                    weight.data = given.get(name, weight.data).float()


class ProgressCallback(TrainerCallback):
    """Steps as progress lines."""

    def __init__(self, label: str):
        self.progress = Progress(label, "steps")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


def training_arguments(folder: Path | str, model: ModelSettings, seed: int) -> dict[str, Any]:
    """Arguments that do not depend on the method: no hub, no reports, everything decided by `seed`.

    >>> from trl import DPOConfig
    >>> DPOConfig(**training_arguments("trainer", ModelSettings(), seed=3), beta=0.5).data_seed
    3
    """
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder), "save_only_model": True, "seed": seed, "data_seed": seed,
        "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "lr_scheduler_type": "cosine",
        "use_cpu": not on_gpu, "dataloader_pin_memory": on_gpu, "bf16": model.dtype == "bfloat16",
        CHECKPOINTING: on_gpu and not model.is_tiny,
    }  # fmt: skip


def train_and_log(trainer: Any, label: str, names: Mapping[str, str]) -> list[dict[str, float]]:
    """Train with progress lines headed `label`; the log under our names for TRL's (`clean_log`)."""
    trainer.add_callback(ProgressCallback(label))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clean_log(trainer.state.log_history, names)


def clean_log(history: Sequence[dict[str, float]], names: Mapping[str, str]) -> list[dict[str, float]]:
    """TRL's log with our names, one row per step; rows without a loss (the closing summary) are left out.

    >>> clean_log([{"step": 1, "loss": 0.5, "epoch": 1.0}, {"step": 1, "train_runtime": 2.0}], {"loss": "loss"})
    [{'step': 1, 'loss': 0.5}]
    """
    rows = []
    for row in history:
        if "loss" in row:
            found = {ours: round(float(row[theirs]), 6) for theirs, ours in names.items() if theirs in row}
            rows.append({"step": row["step"], **found})
    return rows
