"""References: a frozen adapter beside the policy's, or the bare base; and its log-probabilities, computed once.

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtdpo_lib.common.files import read_json

POLICY = "default"  # the name PEFT gives to a first adapter
REFERENCE = "ref"  # the name TRL's trainers look for


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def check_same_base(model: PeftModel, folder: Path) -> None:
    """Refuse an adapter that was made for another base.

    Raises:
        ValueError: not an adapter, or its layers or its base are not this model's.
    """
    if not is_adapter(folder):
        raise ValueError(
            f"The reference {folder} holds no adapter (adapter_config.json): give the folder of a saved adapter, "
            '"initial" or "base".'
        )
    settings = read_json(folder / "adapter_config.json")
    ours = model.peft_config[POLICY].base_model_name_or_path or ""
    theirs = settings.get("base_model_name_or_path") or ""
    # Folders move between machines, so only the last two parts of a path count; a hub name has two.
    if ours and theirs and Path(ours).parts[-2:] != Path(theirs).parts[-2:]:
        raise ValueError(
            f"The reference adapter {folder} was made for the base {theirs}, but this policy stands on {ours}: "
            "policy and reference must share their base."
        )
    layers = dict(model.get_base_model().named_modules())
    width = {"lora_A": "in_features", "lora_B": "out_features"}
    for name, weight in load_peft_weights(str(folder), device="cpu").items():
        layer, _, kind = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        size = weight.shape[1 if kind == "lora_A" else 0]
        if kind in width and getattr(layers.get(layer), width[kind], None) != size:
            raise ValueError(
                f"The reference adapter {folder} does not fit this policy's base at {layer}: it belongs to another base."
            )


def load_reference(model: PeftModel, reference: str | Path) -> None:
    """Make `reference` what TRL's trainers compare with.

    Args:
        model: the policy in a trainer: its adapter "default", and perhaps the copy "ref" that the trainer made.
        reference: "initial" (the policy as it is now), "base" (no adapter), or the folder of an adapter.

    Raises:
        ValueError: the folder's adapter belongs to another base.
    """
    if reference == "initial":
        return
    folder, copy = Path(reference), model.peft_config.get(REFERENCE)
    if reference != "base":
        check_same_base(model, folder)
        if copy is not None and _same_shape(copy, folder):
            weights = load_peft_weights(str(folder), device=str(model.device))
            set_peft_model_state_dict(model, weights, adapter_name=REFERENCE)
            return
    if copy is not None:
        model.delete_adapter(REFERENCE)
    if reference != "base":
        model.load_adapter(str(folder), adapter_name=REFERENCE, is_trainable=False)


def _same_shape(config: PeftConfig, folder: Path) -> bool:
    """Weights in `folder` mean the same under `config`: rank and scale agree."""
    saved = PeftConfig.from_pretrained(str(folder))
    names = ("r", "lora_alpha", "use_rslora")
    return all(getattr(config, name, None) == getattr(saved, name, None) for name in names)


def answers_as_reference(model: torch.nn.Module) -> bool:
    """True while TRL has switched a PEFT model to its reference: adapters off, or "ref" active."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            return module.disable_adapters or list(module.active_adapters) == [REFERENCE]
    return False


def fingerprint(model: torch.nn.Module) -> str:
    """Hash of everything that decides the reference's numbers: base, reference adapter and precision."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if ".lora_" in name and f".{REFERENCE}." not in name:
            continue  # the policy's adapter: it learns, the reference does not
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ReferenceCache:
    """Log-probabilities of the reference, kept by tokens, mask, reference and precision.

    TRL keeps its own by data set and model, so another mask over the same messages finds the wrong numbers.

    Args:
        folder: also kept there, for later runs; None keeps them in memory only.
        model: the policy with its reference loaded.

    >>> cache = ReferenceCache(torch.nn.Linear(2, 2))
    >>> ids, scored = torch.tensor([4, 5, 6]), torch.tensor([0, 1, 1])
    >>> cache.put(cache.key(ids, scored, "full"), torch.tensor([-0.5, -1.5]))
    >>> cache.get(cache.key(ids, scored, "full"))
    tensor([-0.5000, -1.5000])
    >>> cache.get(cache.key(ids, torch.tensor([1, 1, 1]), "full"))  # another mask, other numbers
    >>> cache.hits, cache.misses
    (1, 1)
    """

    def __init__(self, model: torch.nn.Module, folder: Path | str | None = None):
        self._model = fingerprint(model)
        self._file = None if folder is None else Path(folder) / f"reference-{self._model}.safetensors"
        self._rows = load_file(self._file) if self._file is not None and self._file.is_file() else {}
        self.hits = self.misses = 0

    def key(self, ids: Tensor, scored: Tensor, precision: str) -> str:
        """Of one row: ids [T] up to the last scored token, mask [T]."""
        digest = hashlib.blake2b(f"{self._model}{precision}".encode(), digest_size=16)
        end = int(scored.nonzero()[-1]) + 1 if scored.any() else 0
        digest.update(ids[:end].cpu().numpy().astype("int64").tobytes())
        digest.update(scored[:end].cpu().numpy().astype("uint8").tobytes())
        return digest.hexdigest()

    def get(self, key: str) -> Tensor | None:
        found = self._rows.get(key)
        self.hits, self.misses = self.hits + (found is not None), self.misses + (found is None)
        return found

    def put(self, key: str, log_probabilities: Tensor) -> None:
        self._rows[key] = log_probabilities.detach().float().cpu().contiguous()

    def save(self) -> None:
        """Write the file, if there is one."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            save_file(self._rows, self._file)
