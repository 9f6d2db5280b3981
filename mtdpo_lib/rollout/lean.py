"""One decoding step of a Llama written out on its weights: what transformers computes, in fewer operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import linear, silu

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel


def is_lean(model: PreTrainedModel) -> bool:
    """Whether `LeanStep` computes what `model` does: a Llama of plain linear layers without biases, on a CPU."""
    linears = [module for name, module in model.named_modules() if name.endswith("_proj")]
    plain = all(type(one) is torch.nn.Linear and one.bias is None for one in linears)
    kind = type(model).__name__, getattr(model.config, "hidden_act", ""), model.device.type
    return plain and kind == ("LlamaForCausalLM", "silu", "cpu")


def _joined(*parts: torch.nn.Linear) -> Tensor:
    return torch.cat([part.weight for part in parts])


class LeanStep:
    """The logits of one new token per row. Copies of the weights of Q, K and V, and of gate and up, are joined once."""

    def __init__(self, model: PreTrainedModel):
        self._whole: Any = model
        parts = [(layer.self_attn, layer.mlp) for layer in self._whole.model.layers]
        self._joined = [
            [_joined(own.q_proj, own.k_proj, own.v_proj), _joined(mlp.gate_proj, mlp.up_proj)]
            for own, mlp in parts
        ]

    def __call__(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Logits [N, V] of tokens [N, 1] at positions [N, 1] that see the columns [N, T] of the mask; they join `cache`."""
        x = self._whole.model.embed_tokens(ids[:, 0])
        cos, sin = self._whole.model.rotary_emb(x, positions)  # [N, 1, D]
        size = cos.shape[-1]
        sin = torch.cat([-sin[..., : size // 2], sin[..., size // 2 :]], dim=-1)
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill_(mask == 0, -torch.inf)[:, None, None]
        for index, (layer, (qkv, gate_up)) in enumerate(
            zip(self._whole.model.layers, self._joined, strict=True)
        ):
            states = linear(layer.input_layernorm(x), qkv).view(len(x), -1, size)
            pairs = layer.self_attn.k_proj.out_features // size
            turned = states[:, :-pairs] * cos + states[:, :-pairs].roll(size // 2, -1) * sin
            keys, values = cache.update(turned[:, -pairs:, None], states[:, -pairs:, None], index)
            # The heads of a pair are its rows; keys lie transposed, and so three plain products beat fused attention
            queries = (turned[:, :-pairs] * size**-0.5).reshape(len(x) * pairs, -1, size)
            scores = torch.bmm(queries, keys.transpose(-1, -2).flatten(0, 1)).view(
                len(x), pairs, -1, mask.shape[1]
            )
            weights = scores.add_(bias).softmax(-1)
            seen = torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).view(len(x), -1)
            x = torch.addmm(x, seen, layer.self_attn.o_proj.weight.T)
            gate, up = linear(layer.post_attention_layernorm(x), gate_up).chunk(2, -1)
            x = torch.addmm(x, silu(gate).mul_(up), layer.mlp.down_proj.weight.T)
        return self._whole.lm_head(self._whole.model.norm(x))
