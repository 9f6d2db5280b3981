"""Between TRL's loss and the model: one place that sees every log-probability of a step.

TRL's trainers ask their model for log-probabilities with ``model(..., labels=labels, fused_lm_head=True)``.
`ObservedForward` stands in for that call and leaves everything around it (losses, metrics, reference switching, distributed
training) to TRL. It can compute the same numbers faster (`shared_prompt`), remember the reference's (`ReferenceCache`), and
note what the diagnostics need.
"""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput, use_adapter

from mtdpo_lib.train.data import IGNORED
from mtdpo_lib.train.fast.merged_lora import merge_factors
from mtdpo_lib.train.fast.shared_prompt import ATTENTION, scored_forward
from mtdpo_lib.train.reference import REFERENCE, ReferenceCache, answers_as_reference


def precision() -> str:
    """Of the arithmetic now: autocast changes a model's numbers, so it is part of a cache key.

    >>> precision()
    'full'
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "full"


class ObservedForward:
    """A causal model's forward inside a preference trainer.

    Args:
        model: already given TRL's fused head.
        fast: compute on packed rows (`shared_prompt`).
        is_reference: the model is a frozen copy, not a policy with switchable adapters.
        policy_of: the PEFT policy that `model` is the base of, when its reference is one of its adapters. The reference is
            then computed just before the policy, while no activations are kept for a gradient yet, and not after it as TRL
            asks for it: its own would come on top of them.

    Attributes:
        cache: where the reference's log-probabilities are looked up; None computes them every time.
        watched: [N, T], tokens to watch beside the scored ones in main policy calls; None watches none.
        policy, reference: log-probabilities of the last main call of each, [N, T - 1], without gradient.
        margin: [N], added to the policy's log-probability of each row (on its first scored token); None adds nothing.
        noting: False while calls are not about the batch itself (KTO's mismatched rows).
    """

    def __init__(
        self, model: PreTrainedModel, fast: bool, is_reference: bool = False, policy_of: PeftModel | None = None
    ):  # fmt: skip
        self.model, self.fast, self.is_reference, self._policy_of = model, fast, is_reference, policy_of
        self._ahead: tuple[Tensor, Tensor, FusedCausalLMOutput] | None = None
        self.cache: ReferenceCache | None = None
        self.watched: Tensor | None = None
        self.policy: Tensor  # from the first call on
        self.reference: Tensor | None = None
        self.margin: Tensor | None = None
        self.noting = True
        self._fused = model.forward
        if fast:
            model.set_attn_implementation(ATTENTION)
            merge_factors(model)

        @functools.wraps(type(model).forward)
        def forward(_: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
            if not fused_lm_head:
                return self._fused(*args, **kwargs)
            return self._observed(*args, **kwargs)

        model.forward = MethodType(forward, model)

    def _observed(self, *args: Any, **kwargs: Any) -> FusedCausalLMOutput:
        if self.is_reference or answers_as_reference(self.model):
            output: Any = self._taken(kwargs) or self._remembered(*args, **kwargs)
            if self.noting:
                self.reference = output.log_probs.detach()
            return output
        if self._policy_of is not None and torch.is_grad_enabled():
            self._compute_ahead(self._policy_of, *args, **kwargs)
        watched = self.watched if self.noting else None
        output, noted = self._computed(*args, watched=watched, **kwargs)
        if self.noting:
            self.policy = noted
            if self.margin is not None:
                first = (kwargs["labels"][:, 1:] != IGNORED).int().argmax(1, keepdim=True)
                margin = self.margin[:, None].to(output.log_probs)
                output.log_probs = output.log_probs.scatter_add(1, first, margin)
        return output

    def _compute_ahead(self, policy: PeftModel, *args: Any, **kwargs: Any) -> None:
        """The reference's output for the rows that the policy is about to see."""
        with torch.no_grad(), use_adapter(policy, REFERENCE if REFERENCE in policy.peft_config else None):
            self._ahead = (kwargs["input_ids"], kwargs["labels"], self._remembered(*args, **kwargs))
        torch.clear_autocast_cache()  # it holds the reference's weights in half precision, for nobody

    def _taken(self, kwargs: dict[str, Any]) -> FusedCausalLMOutput | None:
        """What was computed ahead, once, if it was for these rows."""
        if self._ahead is None:
            return None
        ids, labels, output = self._ahead
        if not (torch.equal(ids, kwargs["input_ids"]) and torch.equal(labels, kwargs["labels"])):
            return None
        self._ahead = None
        return output

    def _computed(self, *args: Any, watched: Tensor | None = None, **kwargs: Any) -> tuple[Any, Tensor]:
        """The output, and log-probabilities of scored and watched tokens."""
        ids, labels = kwargs["input_ids"], kwargs["labels"]
        if self.fast:
            found, noted = scored_forward(self.model, ids, labels, watched)
            output = FusedCausalLMOutput(**found, label_mask=labels[:, 1:] != IGNORED)
            return output, found["log_probs"].detach() if noted is None else noted
        kwargs["labels"] = labels if watched is None else torch.where(watched, ids, labels)
        output = self._fused(*args, fused_lm_head=True, **kwargs)
        noted = output.log_probs.detach()
        if watched is not None:
            output.log_probs = output.log_probs.masked_fill(labels[:, 1:] == IGNORED, 0)
        return output, noted

    def _remembered(self, *args: Any, **kwargs: Any) -> FusedCausalLMOutput:
        """The reference's output; rows that the cache knows are not computed again."""
        if self.cache is None:
            return self._computed(*args, **kwargs)[0]
        ids, labels = kwargs["input_ids"], kwargs["labels"]
        scored = labels != IGNORED
        keys = [self.cache.key(row, mask, precision()) for row, mask in zip(ids, scored, strict=True)]
        log_probs, missing = torch.zeros(ids.shape[0], ids.shape[1] - 1, device=ids.device), []
        for row, key in enumerate(keys):
            values = self.cache.get(key)
            if values is None:
                missing.append(row)
            else:
                log_probs[row, scored[row, 1:]] = values.to(log_probs)
        if missing:
            tensors = {name: value[missing] for name, value in kwargs.items() if isinstance(value, Tensor)}
            output, _ = self._computed(*args, **(kwargs | tensors))
            for row, computed in zip(missing, output.log_probs, strict=True):
                values = computed[scored[row, 1:]]
                self.cache.put(keys[row], values)
                log_probs[row, scored[row, 1:]] = values.to(log_probs)
        return FusedCausalLMOutput(log_probs=log_probs)
