"""What all trainings share: arguments TRL's trainers take, progress, and a clean log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerCallback

from mtdpo_lib.common.progress import Progress
from mtdpo_lib.profiles.sections import ModelSettings


class FullPrecisionAdapter:
    """For TRL's trainers, before them in the order of bases: an adapter on a quantised base stays as it was given.

    TRL casts it to bfloat16, whose neighbour of 0.01 is 0.01006: steps of a preference learning rate (1e-5, the paper's
    4e-7) are rounded away. And the rounded policy would no longer be its own reference before the first step.
    """

    def __init__(self, model: Any = None, *arguments: Any, **others: Any):
        given = {}
        if isinstance(model, PeftModel):
            given = {name: one.data for name, one in model.named_parameters() if one.requires_grad}
        super().__init__(model, *arguments, **others)
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        if getattr(base, "is_quantized", False):
            for name, one in self.model.named_parameters():
                if one.requires_grad:
                    one.data = given.get(name, one.data).float()


class ProgressCallback(TrainerCallback):
    """Steps as progress lines."""

    def __init__(self, label: str):
        self.progress = Progress(label, "steps")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps)


def training_arguments(folder: Path, model: ModelSettings, seed: int) -> dict[str, Any]:
    """Arguments that do not depend on the method: no hub, no reports, everything decided by `seed`."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not on_gpu,
        "bf16": model.dtype == "bfloat16",
        "gradient_checkpointing": on_gpu and model.base != "tiny",
        "dataloader_pin_memory": on_gpu,
        "save_only_model": True,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
    }


def clean_log(history: list[dict[str, float]], names: dict[str, str]) -> list[dict[str, float]]:
    """TRL's log with our names, one row a step; rows without a loss (the closing summary) are left out."""
    rows = [row for row in history if "loss" in row]
    return [
        {
            "step": row["step"],
            **{ours: round(float(row[theirs]), 6) for theirs, ours in names.items() if theirs in row},
        }
        for row in rows
    ]
