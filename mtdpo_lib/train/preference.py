"""One iteration of preference learning: pairs, a policy and its reference give adapters and a log.

**Paper:** M-DPO, eq. (14); M-KTO, eq. (15); the baselines of sec. 3: single-turn DPO and KTO (tool output scored), RAFT.

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer
from trl import DPOConfig, KTOConfig, SFTConfig

from mtdpo_lib.models.policy import Policy
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.sections import ModelSettings, PreferenceSettings
from mtdpo_lib.rollout import Trajectory
from mtdpo_lib.train.adaptive_margin import AdaptiveMarginTrainer
from mtdpo_lib.train.data import SIDES, preference_dataset, right_trajectories
from mtdpo_lib.train.loop import train_and_log, training_arguments
from mtdpo_lib.train.losses import METHODS
from mtdpo_lib.train.reference import load_reference
from mtdpo_lib.train.sft import DemonstrationTrainer
from mtdpo_lib.train.trainers import TrajectoryDPOTrainer, TrajectoryKTOTrainer

LOG_NAMES = {
    "loss": "loss",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
    "ratio/chosen": "chosen_ratio",
    "ratio/rejected": "rejected_ratio",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "kl": "z0",
    "reference_kl": "reference_kl",
    "tool_gradient_share": "tool_gradient_share",
    "luck": "luck",
}
MarginFeatures = Callable[
    [PeftModel, PreTrainedTokenizerBase, Sequence[Trajectory]], Tensor
]  # c(tau), [N, D]
LABELS = {"mdpo": "M-DPO", "mkto": "M-KTO", "dpo": "DPO", "kto": "KTO", "raft": "RAFT"}


def set_reference(model: PeftModel, reference: Policy) -> None:
    """Make the policy `reference` the frozen adapter "ref" that TRL's trainers compare with.

    Raises:
        ValueError: it stands on another base.
    """
    load_reference(model, _place(reference))


def _place(reference: Policy) -> str | Path:
    """Where a reference's adapter is; a reference that is a whole model is the bare base."""
    return "base" if reference.base is None else reference.folder


def _check_bases(initial: Policy, reference: Policy) -> None:
    bases = [policy.base or policy for policy in (initial, reference)]
    if bases[0] != bases[1]:
        raise ValueError(
            f"The reference {reference.name} stands on {bases[1].name}, but the policy {initial.name} on {bases[0].name}: "
            "policy and reference must share their base."
        )


def _training_arguments(
    folder: Path, pairs: int, settings: PreferenceSettings, model_settings: ModelSettings, seed: int
) -> dict[str, Any]:
    """TRL's arguments for one pass over `pairs` pairs, whatever the method.

    Raises:
        ValueError: a batch that the processes cannot share.
    """
    batch, processes = min(settings.batch_size, pairs), PartialState().num_processes
    if batch % processes:
        raise ValueError(
            f"A batch of {batch} pairs cannot be shared by {processes} processes: set preference.batch_size to a multiple."
        )
    steps = math.ceil(settings.epochs * (pairs // batch))
    return {
        **training_arguments(folder, model_settings, seed),
        "per_device_train_batch_size": batch // processes,
        "dataloader_drop_last": True,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "warmup_steps": int(settings.warmup_fraction * steps),
        "max_length": None,
        "save_strategy": "steps",
        "save_steps": max(math.ceil(steps / settings.checkpoints), 1),
    }


def _trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    settings: PreferenceSettings,
    arguments: dict[str, Any],
    reference: str | Path,
) -> Trainer:
    """TRL's trainer for the method; RAFT has no reference."""
    common: dict[str, Any] = {"model": model, "processing_class": tokenizer}
    if settings.method == "raft":
        config = SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True})
        return DemonstrationTrainer(args=config, train_dataset=right_trajectories(dataset), **common)
    common |= {"reference": reference, "fast": settings.step == "fast", "rows_at_once": settings.rows_at_once}
    arguments = {**arguments, "beta": settings.eta}
    if METHODS[settings.method][0] == "labels":
        # KTO's trainer takes the rows in order, so the order is drawn here.
        order = random.Random(arguments["seed"]).sample(range(len(dataset)), len(dataset))
        dataset = cast("Dataset", dataset.select(order))
        return TrajectoryKTOTrainer(args=KTOConfig(**arguments), train_dataset=dataset, **common)
    if settings.nll_coefficient > 0:
        arguments |= {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.nll_coefficient]}
    config = DPOConfig(**arguments)
    with_margin = "chosen_margin_features" in dataset.column_names
    trainer = AdaptiveMarginTrainer if with_margin else TrajectoryDPOTrainer
    return trainer(args=config, train_dataset=dataset, **common)


def _keep_adapters(checkpoints: Path, folder: Path) -> None:
    """The adapter of each of the trainer's checkpoints, as ``folder/step-N``; all else is removed."""
    for checkpoint in sorted(checkpoints.glob("checkpoint-*")):
        target = folder / f"step-{checkpoint.name.split('-')[1]}"
        target.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(checkpoint / name, target / name)
    shutil.rmtree(checkpoints)


def train_preference(
    folder: Path,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    initial: Policy,
    reference: Policy,
    settings: PreferenceSettings,
    model_settings: ModelSettings,
    seed: int,
    label: str | None = None,
    adaptive_margin: MarginFeatures | None = None,
) -> list[dict[str, float]]:
    """Train the model's "default" adapter on `pairs` by `settings.method`; adapters are kept as ``folder/step-N``.

    Args:
        folder: where adapters go.
        model: `initial` with its adapter trainable.
        tokenizer: for the padding token.
        pairs: at least one.
        initial: the policy that `model` is.
        reference: pi_ref; the same as `initial` for the updated reference.
        settings: eta, learning rate, budget.
        model_settings: precision.
        seed: order of the pairs.
        label: of the progress lines; the method's name by default.
        adaptive_margin: gives c(tau) of each trajectory [N, D] (`margin_features`) for a learned margin; M-DPO only.

    Returns:
        The log, one row per step: loss; but for RAFT log-probabilities in nats (summed over scored tokens), margin, accuracy
        and diagnostics.

    Raises:
        ValueError: no pairs, too few for KTO, a reference on another base, or a batch that the processes cannot share.
        RuntimeError: policy and reference differ before the first step although they are the same policy.

    >>> import contextlib, tempfile
    >>> from mtdpo_lib.common.stages import Product
    >>> from mtdpo_lib.models.policy import load_for_training
    >>> from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles.overrides import get_profile
    >>> from mtdpo_lib.rollout import Turn
    >>> tokenizer, settings = train_tokenizer(["2*3?"], 300), get_profile("smoke").model
    >>> folder = Path(tempfile.mkdtemp())
    >>> for part in (tiny_model(settings, tokenizer, 64, seed=0), tokenizer):
    ...     _ = part.save_pretrained(folder / "late")
    >>> sft = Policy("sft", Product("sft", "key", folder), "late")
    >>> def side(answer, correct):
    ...     turns = [Turn("answer")]
    ...     return Trajectory("p", "s", "q", "1", "sft", 0, [7, 8, answer], [0, 0, 1], turns, "1", correct, "answer")
    >>> pairs, once = [Pair(side(11, True), side(12, False))], PreferenceSettings(checkpoints=1)
    >>> model = load_for_training(sft, settings, seed=0)
    >>> with contextlib.redirect_stdout(None):  # a slow machine would say how far it is
    ...     log = train_preference(folder, model, tokenizer, pairs, sft, sft, once, settings, seed=0)
    >>> log[0]["loss"], log[0]["margin"], (folder / "step-1").is_dir()
    (0.693147, 0.0, True)
    """
    dataset = preference_dataset(pairs, settings.method)
    if adaptive_margin is not None:
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        features = adaptive_margin(model, tokenizer, sides).tolist()
        for side, column in zip(SIDES, (features[::2], features[1::2]), strict=True):
            dataset = cast("Dataset", dataset.add_column(f"{side}_margin_features", column))
    _check_bases(initial, reference)
    arguments = _training_arguments(folder / "trainer", len(dataset), settings, model_settings, seed)
    compared_with = "initial" if reference == initial else _place(reference)
    trainer = _trainer(model, tokenizer, dataset, settings, arguments, compared_with)
    log = train_and_log(trainer, label or LABELS[settings.method], LOG_NAMES)
    if trainer.is_world_process_zero():
        _keep_adapters(folder / "trainer", folder)
    trainer.accelerator.wait_for_everyone()
    return log
