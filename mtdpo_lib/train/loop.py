"""What every training shares around TRL's trainers: their arguments, an adapter's precision, progress and a clean log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from mtdpo_lib.common.files import read_json
from mtdpo_lib.common.progress import Progress, say
from mtdpo_lib.common.stages import KEEP_EVERY
from mtdpo_lib.profiles.sections import ModelSettings

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # one of TRL's trainers, which comes later in the order of bases

# Newer versions of transformers renamed this argument, and warn where the old name is used.
_NAMES = ("activation_checkpointing", "gradient_checkpointing")
STATE = "state"  # marks a checkpoint of `KeepState`
# Of a whole model that several GPUs train: each has a part of the weights, their gradients and the optimiser's means.
FULLY_SHARDED = {
    "version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "activation_checkpointing": True,
    "state_dict_type": "FULL_STATE_DICT",
}  # fmt: skip
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


class KeepState(TrainerCallback):
    """Every few minutes a checkpoint with all that training goes on from, beside those that are kept anyway.

    It comes after the callbacks that keep those, and the newest of its own replaces the one before.
    """

    def __init__(self, every: float):
        self.every, self._written, self._is_ours = every, time.monotonic(), False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        is_last = state.global_step >= state.max_steps
        if not (control.should_save or is_last) and time.monotonic() - self._written >= self.every:
            control.should_save = self._is_ours = True
            args.save_only_model = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._is_ours and state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / STATE).touch()  # written last, so it says that the checkpoint is whole
            forget_states(folder.parent, but=folder)
        if self._is_ours:
            args.save_only_model, self._is_ours, self._written = True, False, time.monotonic()


def forget_states(trainer: Path, but: Path | None = None) -> None:
    """Remove the checkpoints that `KeepState` has written."""
    for mark in trainer.glob(f"checkpoint-*/{STATE}"):
        if mark.parent != but:
            shutil.rmtree(mark.parent)


def state_of(trainer: Path) -> tuple[str | None, int]:
    """The newest checkpoint that training can go on from, and its step; what came after it is removed.

    >>> import tempfile
    >>> trainer = Path(tempfile.mkdtemp())
    >>> for step, files in ((2, ["adapter"]), (3, ["optimizer", STATE]), (4, ["adapter"]), (5, ["half of it"])):
    ...     (trainer / f"checkpoint-{step}").mkdir()
    ...     for file in files:
    ...         (trainer / f"checkpoint-{step}" / file).touch()
    >>> state_of(trainer)[1], sorted(folder.name for folder in trainer.iterdir())
    (3, ['checkpoint-2', 'checkpoint-3'])
    """
    steps = {int(folder.name.split("-")[1]): folder for folder in trainer.glob("checkpoint-*")}
    newest = max((step for step, folder in steps.items() if (folder / STATE).exists()), default=0)
    for step, folder in steps.items():
        if step > newest:
            shutil.rmtree(folder)
    return (str(steps[newest]), newest) if newest else (None, 0)


def training_arguments(folder: Path | str, model: ModelSettings, seed: int) -> dict[str, Any]:
    """Arguments that do not depend on the method: no hub, no reports, everything decided by `seed`.

    >>> from trl import DPOConfig
    >>> DPOConfig(**training_arguments("trainer", ModelSettings(), seed=3), beta=0.5).data_seed
    3
    """
    on_gpu = torch.cuda.is_available()
    shares_weights = on_gpu and model.trains_all and PartialState().num_processes > 1
    return {
        "output_dir": str(folder), "save_only_model": True, "seed": seed, "data_seed": seed,
        "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "lr_scheduler_type": "cosine",
        "use_cpu": not on_gpu, "dataloader_pin_memory": on_gpu, "bf16": model.dtype == "bfloat16",
        CHECKPOINTING: on_gpu and not model.is_tiny and not shares_weights,
        **({"fsdp": True, "fsdp_config": dict(FULLY_SHARDED)} if shares_weights else {}),
    }  # fmt: skip


def own_share(batch: int, what: str, section: str) -> int:
    """A process's part of a batch of so many `what`.

    Raises:
        ValueError: the processes cannot share it.
    """
    processes = PartialState().num_processes
    if batch % processes:
        raise ValueError(
            f"A batch of {batch} {what} cannot be shared by {processes} processes: set {section}.batch_size to a multiple."
        )
    return batch // processes


def train_and_log(trainer: Any, label: str, names: Mapping[str, str]) -> list[dict[str, float]]:
    """Train with progress lines headed `label`, from where a killed training came to.

    Returns:
        The log under our names for TRL's (`clean_log`).
    """
    folder = Path(trainer.args.output_dir)
    state, step = state_of(folder)
    if state:
        say(f"{label}: {step} steps are kept, training goes on from there.")
        logged = read_json(Path(state) / "trainer_state.json")["log_history"]
        trainer._total_train_tokens = logged[-1].get("num_tokens", 0)  # which TRL counts and does not keep
    trainer.add_callback(ProgressCallback(label))
    trainer.add_callback(KeepState(KEEP_EVERY))
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=state)
    if trainer.is_world_process_zero():
        forget_states(folder)
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
