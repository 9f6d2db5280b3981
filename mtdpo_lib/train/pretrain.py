"""Pretraining of the tiny base: every token of many kinds of text, the tool's outputs among them, from random weights."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets import Dataset
from trl import SFTConfig

from mtdpo_lib.chat import ChatFormat, Message
from mtdpo_lib.common.files import checksum, write_json
from mtdpo_lib.common.progress import Progress
from mtdpo_lib.common.provenance import versions
from mtdpo_lib.models import tiny_model, train_tokenizer
from mtdpo_lib.models.sizes import shape_of
from mtdpo_lib.problems.composed.texts import base_texts
from mtdpo_lib.profiles.sections import ModelSettings, SandboxSettings
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.train.data import with_labels
from mtdpo_lib.train.loop import train_and_log, training_arguments
from mtdpo_lib.train.sft import DemonstrationTrainer, fast_forward

LOG_STEPS = 50
TOKENIZER_TEXTS = 4000  # the tokenizer is made from so many texts, spread over all


@dataclass(frozen=True)
class Recipe:
    """How the base is made.

    Attributes:
        problems: with a demonstration and two short texts each.
        decisions: easy problems whose decisions, where they have one, are shown alone.
        epochs: passes over the texts; in the first short ones come first.
        max_tokens: longer texts are left out.
        seed: of the texts, the weights and the order.
    """

    problems: int = 6_000
    decisions: int = 22_500
    learning_rate: float = 3e-3
    batch_size: int = 16
    epochs: int = 2
    max_tokens: int = 400
    seed: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)


def recipe_of(base: str) -> Recipe:
    """The recipe of a base of ours: they differ in their shape only.

    >>> recipe_of("tiny-base") == Recipe(), recipe_of("tiny-base-large").model.hidden
    (True, 256)
    """
    shape = shape_of(ModelSettings(base=base))
    sizes = {name: getattr(shape, name) for name in ("hidden", "layers", "heads", "intermediate")}
    return Recipe(model=ModelSettings(**sizes))


def make_base(folder: Path, recipe: Recipe) -> None:
    """Make the base: texts, tokenizer, model, log and the recipe with the checksum of the weights, all in `folder`."""
    with SandboxPool(SandboxSettings()) as pool:
        texts = base_texts(recipe.problems, recipe.decisions, recipe.seed, pool.session, Progress("texts"))
    log, tokens = pretrain(folder, texts, recipe)
    write_json(folder / "log.json", means(log))
    facts = {"texts": len(texts), "tokens": tokens, "sha256": checksum(folder / "model.safetensors")}
    write_json(folder / "recipe.json", {"recipe": asdict(recipe), **facts, "versions": versions()})


def means(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """A log's means over every `LOG_STEPS` steps, at the last of them."""
    parts = [log[start : start + LOG_STEPS] for start in range(0, len(log), LOG_STEPS)]
    return [
        {"step": part[-1]["step"], "loss": round(statistics.mean(row["loss"] for row in part), 4)}
        for part in parts
    ]


def pretrain(
    folder: Path, texts: Sequence[list[Message]], recipe: Recipe
) -> tuple[list[dict[str, float]], int]:
    """Train a tokenizer and a tiny model on conversations; keep both in `folder`, the weights in half precision.

    Args:
        folder: where they go.
        texts: conversations; all their tokens are learnt but the first of each.
        recipe: everything else.

    Returns:
        The log (step, loss, learning rate), and the number of tokens in all texts.
    """
    some = texts[:: max(len(texts) // TOKENIZER_TEXTS, 1)]
    tokenizer = train_tokenizer(
        [message["content"] for text in some for message in text], recipe.model.vocabulary
    )
    network = tiny_model(recipe.model, tokenizer, recipe.max_tokens, recipe.seed)
    chat = ChatFormat(tokenizer)
    rows = [ids for text in texts if len(ids := chat.encode(text).ids) <= recipe.max_tokens]
    dataset = Dataset.from_list([with_labels(ids, [0] + [1] * (len(ids) - 1)) for ids in rows])
    arguments = SFTConfig(
        **training_arguments(folder / "trainer", recipe.model, recipe.seed),
        per_device_train_batch_size=recipe.batch_size, num_train_epochs=recipe.epochs, warmup_steps=100,
        learning_rate=recipe.learning_rate, save_strategy="no", max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = DemonstrationTrainer(network, arguments, train_dataset=dataset, processing_class=tokenizer)
    trainer.short_first = True
    fast_forward(trainer.model)
    log = train_and_log(trainer, "base", {"loss": "loss", "learning_rate": "learning_rate"})
    shutil.rmtree(folder / "trainer")
    network.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return log, sum(map(len, rows))
