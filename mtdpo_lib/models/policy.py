"""Policies: a base and, mostly, one named LoRA adapter on it; how they are loaded and merged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from mtdpo_lib.common.hub import missing_model
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models.bases import SOURCE, read_tokenizer
from mtdpo_lib.models.quiet import quiet_libraries
from mtdpo_lib.profiles.sections import ModelSettings

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Policy:
    """A policy by name: `part` of `product` is a whole model, or an adapter on `base`.

    Two policies with equal products and parts are the same policy, whatever they are called and wherever they are stored.

    Attributes:
        name: for tables and figures.
        arm: the way it was trained, for figures and tables: "sft", "mdpo", "mdpo-fixed", ...
        iteration: of Algorithm 1; 0 is the SFT policy, None where there is none.
    """

    name: str = field(compare=False, metadata={"in_stage_key": False})
    product: Product
    part: str = ""
    base: Policy | None = None
    arm: str = field(default="", compare=False, metadata={"in_stage_key": False})
    iteration: int | None = field(default=None, compare=False, metadata={"in_stage_key": False})

    @property
    def folder(self) -> Path:
        """Where the model or the adapter is."""
        return self.product.path / self.part

    @property
    def weights(self) -> str:
        """Where the base's weights are: its folder, or the folder or hub name that it notes."""
        note = (self.base or self).folder / SOURCE
        return note.read_text(encoding="utf8") if note.exists() else str(note.parent)


def device() -> torch.device:
    """Where models live: the GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(policy: Policy) -> PreTrainedTokenizerBase:
    """The tokenizer of the policy's base; every policy on one base shares it."""
    tokenizer = read_tokenizer((policy.base or policy).folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(policy: Policy, settings: ModelSettings) -> PreTrainedModel:
    """The whole model in the policy's base folder, on `device()`, 4-bit where the settings say so.

    Raises:
        MissingModel: its weights cannot be had; the sentence says what to do.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quiet_libraries()
    dtype, quantization = getattr(torch, settings.dtype), None
    if settings.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )  # fmt: skip
    try:
        model = AutoModelForCausalLM.from_pretrained(
            policy.weights, dtype=dtype, quantization_config=quantization, device_map={"": device()}
        )
    except OSError as error:
        raise missing_model(policy.weights, error) from error
    for module in model.modules():
        # On some CPUs the first forward pass in evaluation mode would repack the 4-bit weights with coarser scales, for
        # good: the policy that samples would not be the one that is trained.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def lora_config(settings: ModelSettings) -> LoraConfig:
    """LoRA on all linear layers but the head (TRL reads the head's weight directly)."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.lora_alpha, lora_dropout=0.0, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip


def load_whole(policy: Policy, settings: ModelSettings) -> PreTrainedModel:
    """A policy without an adapter, in 32-bit precision: in fewer bits small steps of its weights would be rounded away."""
    return load_base(policy, replace(settings, dtype="float32"))


def load_for_training(policy: Policy, settings: ModelSettings, seed: int) -> PeftModel | PreTrainedModel:
    """The policy with one trainable adapter, called "default": its own, or a new one that changes nothing yet.

    With ``model.adapter=none`` it is the whole model, all of whose weights are trained.
    """
    from peft import PeftModel, get_peft_model

    if settings.trains_all:
        return load_whole(policy, settings)
    base = load_base(policy, settings)
    torch.manual_seed(seed)
    if policy.base is None:
        return get_peft_model(base, lora_config(settings))
    return PeftModel.from_pretrained(base, policy.folder, is_trainable=True)


def load_for_sampling(policy: Policy, settings: ModelSettings) -> PreTrainedModel:
    """The policy ready to sample: in evaluation mode, its adapter merged where the base is not quantised."""
    from peft import PeftModel

    model = load_base(policy, settings)
    if policy.base is not None:
        adapted = PeftModel.from_pretrained(model, policy.folder)
        whole = adapted.merge_and_unload() if settings.quantization == "none" else adapted
        model = cast("PreTrainedModel", whole)
    return model.eval().requires_grad_(False)


def merge(policy: Policy, settings: ModelSettings, folder: Path) -> Path:
    """Write the policy to `folder` as one whole model with its tokenizer, for use without this library or PEFT.

    An adapter that was trained on a 4-bit base is added to the base at full precision, as usual with QLoRA: the merged model
    is close to what was trained, not equal to it.
    """
    load_for_sampling(policy, replace(settings, quantization="none")).save_pretrained(folder)
    load_tokenizer(policy).save_pretrained(folder)
    return folder
