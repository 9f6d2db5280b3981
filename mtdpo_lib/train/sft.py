"""Supervised fine-tuning on demonstrations with TRL's `SFTTrainer`: the loss looks at assistant tokens only."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from mtdpo_lib.chat import ChatFormat, loss_mask
from mtdpo_lib.common.stages import UNFINISHED
from mtdpo_lib.problems.base import Demonstration
from mtdpo_lib.profiles.sections import ModelSettings, SFTSettings
from mtdpo_lib.train.data import with_labels
from mtdpo_lib.train.fast.forward import ObservedForward
from mtdpo_lib.train.fast.shared_prompt import supports
from mtdpo_lib.train.loop import FullPrecisionAdapter, base_of, own_share, train_and_log, training_arguments


def sft_dataset(
    demonstrations: Sequence[Demonstration], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Dataset:
    """Demonstrations as token ids and labels (-100 where the loss does not look); over-long ones are left out.

    Raises:
        ValueError: nothing is left.

    >>> from mtdpo_lib.models.tiny import train_tokenizer
    >>> from mtdpo_lib.problems.base import Problem
    >>> tokenizer = train_tokenizer(["2 times 3?", "print(2*3)"], 300)
    >>> messages = [{"role": "user", "content": "2 times 3?"}, {"role": "assistant", "content": "6"}]
    >>> problem = Problem("a", "suite", "family", "2 times 3?", "6")
    >>> row = sft_dataset([Demonstration(problem, "correct", messages, True)], tokenizer, 100)[0]
    >>> tokenizer.decode([label for label in row["labels"] if label != -100])
    '6<|end|>'
    """
    chat = ChatFormat(tokenizer)
    encoded = [chat.encode(demonstration.messages) for demonstration in demonstrations]
    rows = [with_labels(each.ids, loss_mask(each.roles)) for each in encoded if len(each) <= max_tokens]
    if not rows:
        raise ValueError(
            f"None of {len(demonstrations)} demonstrations fits in {max_tokens} tokens: raise rollout.max_tokens."
        )
    return Dataset.from_list(rows)


class ShortFirst(Sampler[int]):
    """Row numbers: in the first pass roughly from short rows to long ones, in later passes shuffled.

    Args:
        lengths: of each row, in tokens.
        seed: of the order.

    >>> list(ShortFirst([500, 10, 100], seed=0))
    [1, 2, 0]
    """

    SPREAD = 0.2  # of a length, before sorting: neighbours in a batch still differ

    def __init__(self, lengths: Sequence[int], seed: int):
        self.lengths = torch.tensor(lengths, dtype=torch.float32)
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each pass, also when it goes on in the middle of one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(len(self), generator=generator)
        order = (self.lengths * (1 + self.SPREAD * noise)).argsort()
        for _ in range(self.epoch):
            order = torch.randperm(len(self), generator=generator)
        return iter(order.tolist())


class DemonstrationTrainer(FullPrecisionAdapter, SFTTrainer):
    """TRL's, with a curriculum where one is wanted."""

    short_first = False

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        if not self.short_first:
            return super()._get_train_sampler(rows)
        return ShortFirst(list(map(len, rows["input_ids"])), self.args.seed)


class SaveAt(TrainerCallback):
    """Keeps a checkpoint at some steps."""

    def __init__(self, steps: Iterable[int]):
        self.steps = set(steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = state.global_step in self.steps


def fast_forward(model: PreTrainedModel | PeftModel) -> None:
    """Let TRL's fused head, already on `model`, compute without padding and only what is scored (`shared_prompt`).

    Raises:
        ValueError: the fast step does not know this model.
    """
    base = base_of(model)
    if (reason := supports(base)) is not None:
        raise ValueError(f"sft.step=fast cannot train this model ({reason}): set sft.step=plain.")
    ObservedForward(base, fast=True)


def train_sft(
    folder: Path, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, dataset: Dataset,
    settings: SFTSettings, model_settings: ModelSettings, seed: int,
) -> list[dict[str, float]]:  # fmt: skip
    """Train `model` and keep it after every epoch, ``folder/epoch-1`` and so on, and after `underfit_epochs` of them.

    **Paper:** sec. 3.1: the last one starts M-DPO, and iteration 1 also samples from an early one; tables 4 and 5: others
    of the same run start it.

    More than one process shares each batch.

    Returns:
        The log: step, loss, learning rate.

    Raises:
        ValueError: a batch that the processes cannot share.

    >>> import contextlib, tempfile
    >>> from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles.overrides import get_profile
    >>> profile, tokenizer = get_profile("smoke"), train_tokenizer(["2*3?"], 300)
    >>> model = tiny_model(profile.model, tokenizer, 64, seed=0)
    >>> dataset, folder = Dataset.from_list([with_labels([7, 8, 9], [0, 1, 1])]), Path(tempfile.mkdtemp())
    >>> settings = SFTSettings(epochs=2, learning_rate=1e-2)
    >>> with contextlib.redirect_stdout(None):  # a slow machine would say how far it is
    ...     log = train_sft(folder, model, tokenizer, dataset, settings, profile.model, seed=0)
    >>> log[-1]["loss"] < log[0]["loss"], sorted(path.name for path in folder.iterdir())
    (True, ['epoch-0.2', 'epoch-1', 'epoch-2'])
    """
    steps = math.ceil(len(dataset) / settings.batch_size)
    kept = {  # part of the folder to step
        f"epoch-{epochs:g}": min(max(round(epochs * steps), 1), settings.epochs * steps)
        for epochs in (settings.underfit_epochs, *range(1, settings.epochs + 1))
    }
    trained = folder / UNFINISHED / "trainer"
    arguments = SFTConfig(
        **training_arguments(trained, model_settings, seed),
        per_device_train_batch_size=own_share(settings.batch_size, "demonstrations", "sft"),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup_fraction * settings.epochs * steps),
        save_strategy="no",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = DemonstrationTrainer(model, arguments, train_dataset=dataset, processing_class=tokenizer)
    trainer.add_callback(SaveAt(kept.values()))
    trainer.short_first = settings.short_first
    if settings.step == "fast":
        fast_forward(trainer.model)
    log = train_and_log(trainer, "SFT", {"loss": "loss", "learning_rate": "learning_rate"})
    if trainer.is_world_process_zero():
        without = shutil.ignore_patterns("training_args.bin", "*.pt", "README.md")
        for name, step in kept.items():
            shutil.copytree(trained / f"checkpoint-{step}", folder / name, ignore=without)
            tokenizer.save_pretrained(folder / name)
        shutil.rmtree(folder / UNFINISHED)
    trainer.accelerator.wait_for_everyone()
    return log
