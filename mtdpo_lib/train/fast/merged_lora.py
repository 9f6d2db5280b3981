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
    """Let LoRA layers in full precision, without dropout or variants, multiply their factors first.

    Whichever adapters are active; under autocast, and where a weight is large, a layer does as before.
    """
    for module in model.modules():
        if isinstance(module, Linear) and _is_plain(module):
            module.forward = MethodType(_merged, module)


def _is_plain(layer: Linear) -> bool:
    base: Any = layer.base_layer
    no_dropout = all(type(dropout) is nn.Identity for dropout in layer.lora_dropout.values())
    return (
        type(base) is nn.Linear
        and base.weight.dtype == torch.float32
        and no_dropout
        and not layer.lora_variant
    )


def _merged(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    weight = layer.base_layer.weight
    bare = layer.disable_adapters or layer.merged
    if bare or torch.is_autocast_enabled(x.device.type) or weight.numel() > MOST_WEIGHTS:
        return Linear.forward(layer, x, *args, **kwargs)
    for name in filter(layer.lora_A.__contains__, layer.active_adapters):
        up, down = layer.lora_B[name].weight, layer.lora_A[name].weight
        weight = torch.addmm(weight, up, down, alpha=layer.scaling[name])
    return linear(x, weight, layer.base_layer.bias)
