"""M-DPO on TRL's `DPOTrainer`: its loss and loop, with the multi-turn mask handed in by the collator.

**Paper:** eq. (14): the ordinary DPO loss in which only the policy's own tokens are summed. TRL scores every token after the
prompt, tool output too; its loss honours any ``completion_mask``, so a collator is all that eq. (14) needs.

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import DPOConfig, DPOTrainer

from mtdpo_lib.chat import loss_mask
from mtdpo_lib.models import Policy
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles import ModelSettings, PreferenceSettings
from mtdpo_lib.train.common import ProgressCallback, clean_log, training_arguments

LOG_NAMES = {
    "loss": "loss",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}


@dataclass
class TrajectoryPairCollator:
    """Pairs to the batch `DPOTrainer` expects: B chosen rows, then B rejected rows, padded on the right.

    Each example holds ``chosen_ids``, ``chosen_mask``, ``rejected_ids`` and ``rejected_mask``, whole trajectories with their
    prompt. The masks are one where the policy wrote the token.
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Tensors ``input_ids``, ``attention_mask`` and ``completion_mask``, each [2B, T]."""
        sides = [
            (example[f"{side}_ids"], example[f"{side}_mask"])
            for side in ("chosen", "rejected")
            for example in examples
        ]
        width = max(len(ids) for ids, _ in sides)
        shape = (len(sides), width)
        ids = torch.full(shape, self.pad_token_id, dtype=torch.long)
        attention = torch.zeros(shape, dtype=torch.long)
        completion = torch.zeros(shape, dtype=torch.long)
        for row, (tokens, mask) in enumerate(sides):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            attention[row, : len(tokens)] = 1
            completion[row, : len(tokens)] = torch.tensor(mask)
        return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


class TrajectoryDPOTrainer(DPOTrainer):
    """`DPOTrainer` on pairs that are token ids already: they are neither rendered nor tokenised again."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def preference_dataset(pairs: Sequence[Pair]) -> Dataset:
    """Pairs as columns for `TrajectoryPairCollator`.

    Raises:
        ValueError: no pair, or one in which a side has no token to score.
    """
    if not pairs:
        raise ValueError(
            "There is no preference pair to train on: sample more (rollout.samples_current, "
            "problems.prompts_per_iteration), or start from a policy that is right sometimes and wrong sometimes."
        )
    rows = []
    for pair in pairs:
        row = {
            "chosen_ids": pair.chosen.ids,
            "chosen_mask": loss_mask(pair.chosen.roles),
            "rejected_ids": pair.rejected.ids,
            "rejected_mask": loss_mask(pair.rejected.roles),
        }
        if not any(row["chosen_mask"]) or not any(row["rejected_mask"]):
            raise ValueError(
                f"A pair of problem {pair.chosen.problem_id} has a side without any assistant token."
            )
        rows.append(row)
    return Dataset.from_list(rows)


def set_reference(model: PeftModel, reference: Policy) -> None:
    """Make `reference` the frozen adapter "ref" that `DPOTrainer` compares with.

    A reference that is a whole model is the base itself: without "ref", TRL switches all adapters off.
    """
    if reference.base is None:
        model.delete_adapter("ref")
        return
    weights = load_peft_weights(str(reference.folder), device=str(model.device))
    set_peft_model_state_dict(model, weights, adapter_name="ref")


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
    label: str = "M-DPO",
) -> list[dict[str, float]]:
    """Train the model's "default" adapter on `pairs` and keep `settings.checkpoints` adapters as ``folder/step-N``.

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
        label: of the progress lines.

    Returns:
        The log, a row a step: loss, log-probabilities in nats (summed over scored tokens), margin and accuracy.

    Raises:
        ValueError: no pairs.
        RuntimeError: policy and reference differ before the first step although they are the same policy.
    """
    dataset = preference_dataset(pairs)
    batch = min(settings.batch_size, len(dataset))
    steps = math.ceil(settings.epochs * (len(dataset) // batch))
    with_nll = settings.nll_coefficient > 0
    arguments = DPOConfig(
        **training_arguments(folder / "trainer", model_settings, seed),
        per_device_train_batch_size=batch,
        dataloader_drop_last=True,
        max_steps=steps,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup_fraction * steps),
        beta=settings.eta,
        loss_type=["sigmoid", "sft"] if with_nll else ["sigmoid"],
        loss_weights=[1.0, settings.nll_coefficient] if with_nll else None,
        max_length=None,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=max(math.ceil(steps / settings.checkpoints), 1),
    )
    trainer = TrajectoryDPOTrainer(
        model=model,
        args=arguments,
        data_collator=TrajectoryPairCollator(tokenizer.pad_token_id),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[ProgressCallback(label)],
    )
    same = reference == initial
    if not same:
        set_reference(model, reference)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    log = clean_log(trainer.state.log_history, LOG_NAMES)
    if same and abs(log[0]["margin"]) > 1e-2:
        raise RuntimeError(
            f"Before the first step policy and reference should agree, but the margin is {log[0]['margin']:.4f}: "
            "the reference adapter is not the policy's."
        )
    for checkpoint in sorted((folder / "trainer").glob("checkpoint-*")):
        target = folder / f"step-{checkpoint.name.split('-')[1]}"
        target.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(checkpoint / name, target / name)
    shutil.rmtree(folder / "trainer")
    return log
