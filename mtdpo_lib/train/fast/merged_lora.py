"""LoRA layers that multiply their factors first: x (W + s B A)' instead of x W' + s (x A') B'.

The same numbers but for rounding, in fewer operations where a step has many more tokens than the weight has rows.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn.functional import linear

MOST_WEIGHTS = 2**16  # of a layer: a larger one's whole gradient costs more than is saved


def merge_factors(model: nn.Module) -> None:
    """Let small LoRA layers in full precision multiply their factors first, whichever adapters are active.

    PEFT's own forward stays in place for a call in which anything else takes part: autocast, dropout, biases, a variant of
    LoRA, or arguments beside the input.
    """
    for module in model.modules():
        if isinstance(module, Linear):
            module.forward = MethodType(_merged, module)


def _merged(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs or torch.is_autocast_enabled(x.device.type) or not _is_plain(layer):
        return Linear.forward(layer, x, *args, **kwargs)
    weight = layer.base_layer.weight
    for name in filter(layer.lora_A.__contains__, layer.active_adapters):
        up, down = layer.lora_B[name].weight, layer.lora_A[name].weight
        weight = torch.addmm(weight, up, down, alpha=layer.scaling[name])
    return linear(x, weight, layer.base_layer.bias)


def _is_plain(layer: Any) -> bool:
    base, factors = layer.base_layer, [*layer.lora_A.values(), *layer.lora_B.values()]
    if layer.disable_adapters or layer.merged or layer.lora_variant or type(base) is not nn.Linear:
        return False
    full = all(one.weight.dtype == torch.float32 for one in (base, *factors))
    no_dropout = all(type(dropout) is nn.Identity for dropout in layer.lora_dropout.values())
    return (
        base.weight.numel() <= MOST_WEIGHTS
        and full
        and no_dropout
        and not any(one.bias is not None for one in factors)
    )
