"""Tiny models: a tokenizer and a Llama of about a million weights, made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mtdpo_lib.models.quiet import quiet_libraries
from mtdpo_lib.profiles.sections import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast


TINY_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TINY_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with single digits and a chat template with four roles."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=TINY_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>",
        additional_special_tokens=TINY_SPECIAL[2:], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = TINY_TEMPLATE
    return fast


def tiny_model(
    settings: ModelSettings, tokenizer: PreTrainedTokenizerBase, max_tokens: int, seed: int
) -> PreTrainedModel:
    """A Llama of about one million parameters, from config, with weights drawn from `seed`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    quiet_libraries()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=settings.hidden, num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads, num_key_value_heads=max(settings.heads // 2, 1),
        intermediate_size=settings.intermediate, max_position_embeddings=max(2 * max_tokens, 512),
        tie_word_embeddings=True,
        # 0.02, the usual value, is for wide models and learns copying late
        initializer_range=settings.hidden**-0.5 * 0.7,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _attend_to_likes(model)
    return model


@torch.no_grad()
def _attend_to_likes(model: PreTrainedModel) -> None:
    """Start attention where pretraining would bring it: every head looks for tokens like its own and passes on what it sees.

    With W_Q = W_K and W_O = W_V^T, as drawn for keys and values, copying a number out of a question is learnt in about two
    thirds of the steps (Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers", arXiv 2305.09828).
    """
    heads, pairs = model.config.num_attention_heads, model.config.num_key_value_heads
    for layer in model.model.layers:
        attention = layer.self_attn
        for own, shared in ((attention.q_proj, attention.k_proj), (attention.o_proj, attention.v_proj)):
            groups = shared.weight.unflatten(0, (pairs, -1))
            each = groups.repeat_interleave(heads // pairs, dim=0).flatten(0, 1)
            own.weight.copy_(each if own is attention.q_proj else each.T)
