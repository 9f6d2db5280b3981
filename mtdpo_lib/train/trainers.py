"""Preference trainers for trajectories: TRL's losses, loop and whole surface, with our masks, references and step.

Both take the columns of `preference_dataset` or `pairs_from_messages`. Everything that TRL's trainers take is taken and
passed on (PEFT, accelerate, callbacks, checkpoints and resume, `report_to`, other loss types).

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.trainer.utils import use_adapter

from mtdpo_lib.train.data import TrajectoryLabelCollator, TrajectoryPairCollator
from mtdpo_lib.train.diagnostics import step_diagnostics
from mtdpo_lib.train.fast.forward import ObservedForward
from mtdpo_lib.train.fast.shared_prompt import supports
from mtdpo_lib.train.reference import (
    POLICY,
    REFERENCE,
    ReferenceCache,
    answers_as_reference,
    is_adapter,
    load_reference,
)
from mtdpo_lib.train.setup import FullPrecisionAdapter

logger = logging.getLogger(__name__)

COLUMNS = [
    f"{side}_{column}" for side in ("chosen", "rejected") for column in ("ids", "mask", "roles", "luck")
]
VALUE_FILE = "value_head.pt"


def without_over_long(dataset: Dataset, max_length: int | None) -> tuple[Dataset, int]:
    """Pairs whose longer side has at most `max_length` tokens, and how many were left out; nothing is ever cut.

    Raises:
        ValueError: no pair at all, or none that fits.
    """
    if len(dataset) == 0:
        raise ValueError("There is no preference pair to train on: the data set is empty.")
    if max_length is None:
        return dataset, 0
    keep = [
        place
        for place, row in enumerate(dataset)
        if max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= max_length
    ]
    if not keep:
        raise ValueError(
            f"None of {len(dataset)} pairs fits in max_length={max_length} tokens: raise it, or set it to None."
        )
    return (dataset if len(keep) == len(dataset) else dataset.select(keep)), len(dataset) - len(keep)


class _Trajectories(FullPrecisionAdapter):
    """What `TrajectoryDPOTrainer` and `TrajectoryKTOTrainer` share; TRL's trainer comes after it in the order of bases.

    Args:
        model: as TRL's: a model, or its name or folder.
        args: `DPOConfig` or `KTOConfig`. A pair longer than `max_length` is left out and counted (`dropped`).
            With `precompute_ref_log_probs` the reference's log-probabilities are computed once (PEFT policies only).
        reference: pi_ref: "initial", the policy as it is given (eq. 17); "base", its base without any adapter; or the folder
            of a saved adapter, such as the SFT policy's for eq. (16).
        fast: share prompts, pad nothing and run the head on scored tokens only. A model for which that is not tested takes
            TRL's own path, and the log says why.
        rows_at_once: pairs in memory at a time inside a step; the step's loss and gradient do not depend on it. 0: all.
        diagnostics: log log-probabilities by turn and by role, the distance to the reference and the tool's share.
        reference_cache: folder that keeps the reference's log-probabilities for later runs.

    Attributes:
        dropped: pairs left out because they are too long.
        agreement: largest difference between policy and reference before the first step, in nats, once it is checked.
    """

    collator: type
    config: type

    def __init__(
        self,
        model: Any,
        args: Any = None,
        *,
        train_dataset: Dataset,
        reference: str | Path = "initial",
        fast: bool = False,
        rows_at_once: int = 0,
        diagnostics: bool = True,
        reference_cache: str | Path | None = None,
        data_collator: Any = None,
        processing_class: Any = None,
        eval_dataset: Any = None,
        **others: Any,
    ):
        args = self.config("trajectories") if args is None else args
        train_dataset, self.dropped = without_over_long(train_dataset, args.max_length)
        if self.dropped:
            logger.warning(
                "%d pairs are longer than max_length=%d and were left out.", self.dropped, args.max_length
            )
        remember = args.precompute_ref_log_probs or reference_cache is not None
        args.precompute_ref_log_probs = False  # ours is keyed by mask and precision too
        self._reference, self._rows_at_once, self._diagnostics = reference, rows_at_once, diagnostics
        self._forward = self._reference_forward = None
        self._share, self.agreement = 1.0, None
        if processing_class is not None and not (processing_class.pad_token or processing_class.eos_token):
            raise ValueError(
                "The tokenizer has neither a pad token nor an end-of-text token: set tokenizer.pad_token to a token."
            )
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **others,
        )
        if data_collator is None:
            self.data_collator = self.collator(self._tokenizer.pad_token_id)
        is_peft = isinstance(self.model, PeftModel)
        if not is_peft and (reference != "initial" or remember):
            raise ValueError(
                'A reference other than "initial", and its log-probabilities computed once, need a policy with an adapter: '
                "pass peft_config, or a PeftModel."
            )
        if is_peft:
            load_reference(self.model, reference)
        self._observe(fast)
        if remember:
            self._forward.cache = ReferenceCache(self.model, reference_cache)

    def _observe(self, fast: bool) -> None:
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        reason = self._why_not_fast(base) if fast else None
        if reason is not None:
            logger.warning("The fast step is not used for this model: %s.", reason)
        self.fast = fast and reason is None
        own_reference = isinstance(self.model, PeftModel) and self.ref_model is None
        self._forward = ObservedForward(base, self.fast, policy_of=self.model if own_reference else None)
        if self.ref_model is not None:
            frozen = self.accelerator.unwrap_model(self.ref_model)
            self._reference_forward = ObservedForward(frozen, self.fast, is_reference=True)

    def _why_not_fast(self, base: PreTrainedModel) -> str | None:
        if getattr(self, "use_weighting", False):
            return "use_weighting wants a statistic that it does not compute"
        if isinstance(self.model, PeftModel) and self.model.active_peft_config.is_prompt_learning:
            return "prompt-learning adapters put tokens of their own before each row"
        return supports(base)

    # TRL's hooks

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        """Token ids already: not rendered and not tokenised again."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = COLUMNS

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        inputs = dict(inputs)
        roles = inputs.pop("roles", None)
        scored = inputs["completion_mask"].bool()
        watches = roles is not None and self._diagnostics
        self._forward.watched = ((roles > 0) & ~scored) if watches else None
        result = super()._compute_loss(model, inputs, return_outputs)
        self._check_start(scored[:, 1:])
        if self._diagnostics:
            self._note(inputs, scored, roles if watches else None)
        if return_outputs:
            return result[0] * self._share, result[1]
        return result if self._share == 1.0 else result * self._share

    def _known_reference(self) -> Tensor | None:
        return (self._reference_forward or self._forward).reference

    def _check_start(self, scored: Tensor) -> None:
        """Before the first step the policy is its own "initial" reference: their log-probabilities must be equal.

        Raises:
            RuntimeError: they are not, so the reference is another policy.
        """
        first = self.agreement is None and self.model.training and self.state.global_step == 0
        if not (first and self._reference == "initial" and self.args.disable_dropout):
            return
        reference = self._known_reference()
        difference = ((self._forward.policy - reference) * scored).sum(1).abs()
        if (difference > 1e-2 + 1e-3 * reference.sum(1).abs()).any():
            raise RuntimeError(
                "Before the first step policy and reference should agree, but their log-probabilities differ by "
                f"{difference.max().item():.4f} nats: the reference adapter is not the policy's."
            )
        self.agreement = difference.max().item()
        logger.info(
            "Step 0: policy and reference agree on %d trajectories (largest difference %.1e nats).",
            len(difference),
            self.agreement,
        )

    def _note(self, inputs: dict[str, Tensor], scored: Tensor, roles: Tensor | None) -> None:
        mode = "train" if self.model.training else "eval"
        found = step_diagnostics(
            self._forward.policy,
            self._known_reference(),
            scored[:, 1:],
            None if roles is None else roles[:, 1:],
            self._right(inputs),
        )
        for name, value in found.items():
            self._metrics[mode][name].append(value)

    def _right(self, inputs: dict[str, Tensor]) -> Tensor:
        """Rows of right trajectories, [N]."""
        rows = len(inputs["input_ids"])
        return torch.arange(rows, device=inputs["input_ids"].device) < rows // 2

    # A step in parts

    def _parts(self, inputs: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], float]]:
        """Pairs of a batch, `rows_at_once` at a time, without the columns that only padding fills; and their weight."""
        pairs = len(inputs["input_ids"]) // 2
        size = self._rows_at_once or pairs
        for start in range(0, pairs, size):
            rows = [*range(start, min(start + size, pairs))]
            rows += [row + pairs for row in rows]
            part = {name: value[rows] if value.dim() else value for name, value in inputs.items()}
            for prefix in ("", "KL_"):
                if f"{prefix}attention_mask" in part:
                    width = int(part[f"{prefix}attention_mask"].sum(1).max())
                    for name in ("input_ids", "attention_mask", "completion_mask"):
                        part[prefix + name] = part[prefix + name][:, :width]
                    if not prefix and "roles" in part:
                        part["roles"] = part["roles"][:, :width]
            yield part, len(rows) / 2 / pairs

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """A step; its loss and gradient are those of the whole batch however many rows are in memory at once."""
        if not 0 < self._rows_at_once < len(inputs["input_ids"]) // 2:
            return super().training_step(model, inputs, num_items_in_batch)
        total = None
        for part, share in self._parts(inputs):
            self._share = share
            try:
                loss = super().training_step(model, self._part_of(inputs, part, share), num_items_in_batch)
            finally:
                self._share = 1.0
            total = loss if total is None else total + loss
        return total

    def _part_of(self, inputs: dict[str, Tensor], part: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """What a part must know of its whole."""
        return part

    def _load_from_checkpoint(self, folder: str, model: Any = None) -> None:
        """As transformers', which in some versions (5.17) loads the reference's adapter and not the policy's."""
        super()._load_from_checkpoint(folder, model)
        if isinstance(self.model, PeftModel) and is_adapter(Path(folder)):
            self.model.load_adapter(folder, POLICY, is_trainable=True)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's; the reference's log-probabilities are saved at the end."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._forward.cache is not None:
                self._forward.cache.save()


class TrajectoryDPOTrainer(_Trajectories, DPOTrainer):
    """M-DPO, eq. (14), or single-turn DPO when the data set scores the tool's tokens (``method="dpo"``).

    The arguments beside TRL's are described at `_Trajectories`. The NLL term is TRL's loss type "sft"; under gradient
    accumulation its mean runs over all tokens of the step, as if the batch were one.

    With the columns ``chosen_luck`` and ``rejected_luck`` (`mtdpo_lib.train.adaptive_margin`) the loss gets the third term of eq. (13),
    -log sigmoid(eta (Delta_w - Delta_l) + w . (c_w - c_l)), and learns w.

    Args:
        value_learning_rate: of w; None: the policy's. An adapter's rate hardly moves a linear head in a few dozen steps.

    The log then holds ``luck``, the mean of |w . (c_w - c_l)|, in the unit of the utility.

    Attributes:
        value_head: w, [D], zero at the start; None without those columns.
    """

    collator, config = TrajectoryPairCollator, DPOConfig

    def __init__(
        self,
        model: Any,
        args: Any = None,
        *,
        train_dataset: Dataset,
        value_learning_rate: float | None = None,
        **others: Any,
    ):
        self.value_head: torch.nn.Parameter | None = None
        self._value_learning_rate = value_learning_rate
        super().__init__(model, args, train_dataset=train_dataset, **others)
        if "chosen_luck" not in train_dataset.column_names:
            return
        if self.loss_types != ["sigmoid"]:
            raise ValueError(
                f"The adaptive margin is a term of eq. (14) and needs loss_type=sigmoid alone, not {self.loss_types}: "
                "leave the columns chosen_luck and rejected_luck out, or the other loss types."
            )
        size = len(train_dataset[0]["chosen_luck"])
        self.value_head = torch.nn.Parameter(torch.zeros(size, device=self.accelerator.device))
        # A parameter of the model: optimised, clipped and synchronised between processes with all others.
        self.model.register_parameter("value_head", self.value_head)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the trainer's, with a group of its own for w."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if new and self.value_head is not None and self._value_learning_rate is not None:
            for group in optimizer.param_groups:
                group["params"] = [one for one in group["params"] if one is not self.value_head]
            own = {"params": [self.value_head], "lr": self._value_learning_rate, "weight_decay": 0.0}
            optimizer.add_param_group(own)
        return optimizer

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        if self.value_head is not None:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            torch.save(self.value_head.data, folder / VALUE_FILE)

    def _load_from_checkpoint(self, folder: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(folder, *args, **kwargs)
        if self.value_head is not None:
            saved = torch.load(Path(folder) / VALUE_FILE, weights_only=True)
            self.value_head.data.copy_(saved)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Tensor]], Any]:
        """Batches of one step; each learns its share of the step's chosen tokens, which weighs its NLL term."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        if "sft" in self.loss_types and len(batches) > 1:
            tokens = [_chosen_tokens(batch) for batch in batches]
            for batch, own in zip(batches, tokens, strict=True):
                batch["nll_share"] = own * len(tokens) / sum(tokens)
        return batches, count

    def _part_of(self, inputs: dict[str, Tensor], part: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        own = _chosen_tokens(part) / _chosen_tokens(inputs) / share
        return {**part, "nll_share": own * inputs.get("nll_share", torch.tensor(1.0)).to(own.device)}

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        luck = inputs.get("luck")
        inputs = {name: value for name, value in inputs.items() if name != "luck"}
        # TRL multiplies log-ratios by beta, so that what is added here is C in the unit of the utility.
        with_margin = self.value_head is not None and luck is not None
        self._forward.margin = luck @ self.value_head / self.beta if with_margin else None
        if with_margin and self._diagnostics:
            chosen, rejected = (luck @ self.value_head.detach()).chunk(2)
            mode = "train" if self.model.training else "eval"
            self._metrics[mode]["luck"].append((chosen - rejected).abs().mean().item())
        if "nll_share" not in inputs:
            return super()._compute_loss(model, inputs, return_outputs)
        inputs = dict(inputs)
        share, weights = inputs.pop("nll_share"), self.loss_weights
        self.loss_weights = [
            weight * share if kind == "sft" else weight
            for kind, weight in zip(self.loss_types, weights, strict=True)
        ]
        try:
            return super()._compute_loss(model, inputs, return_outputs)
        finally:
            self.loss_weights = weights


def _chosen_tokens(batch: dict[str, Tensor]) -> Tensor:
    return batch["completion_mask"][: len(batch["completion_mask"]) // 2, 1:].sum().float()


class TrajectoryKTOTrainer(_Trajectories, KTOTrainer):
    """M-KTO, eq. (15), or single-turn KTO when the data set scores the tool's tokens (``method="kto"``).

    The arguments beside TRL's are described at `_Trajectories`. A batch holds both trajectories of
    `per_device_train_batch_size` pairs; its KL term z_0 is estimated on answers to other prompts, once for the whole batch.
    Under gradient accumulation, as in TRL, every batch has its own; `rows_at_once` saves memory without that.
    """

    collator, config = TrajectoryLabelCollator, KTOConfig

    def __init__(self, model: Any, args: Any = None, *, train_dataset: Dataset, **others: Any):
        args = self.config("trajectories") if args is None else args
        size, pairs = args.per_device_train_batch_size, len(train_dataset)
        if size < 2 or pairs == 1:
            raise ValueError(
                "KTO's KL term needs answers to different prompts in every batch: give it at least 2 pairs and a batch size "
                f"of at least 2; got {pairs} pairs and a batch size of {size}."
            )
        if pairs % size == 1 and not args.dataloader_drop_last:
            raise ValueError(
                f"The last batch of {pairs} pairs would hold one pair, and KTO's KL term needs two prompts: take another "
                f"batch size than {size}, or dataloader_drop_last=True."
            )
        self._z0: Tensor | None = None
        super().__init__(model, args, train_dataset=train_dataset, **others)

    def _right(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["label"].bool()

    def _compute_kl_logps(self, model: Any, batch: dict[str, Tensor]) -> Tensor | None:
        """Log-probabilities of mismatched rows; inside a part, numbers whose difference is the whole batch's z_0."""
        if self._z0 is not None:
            return torch.zeros_like(self._z0) if self._is_reference(model) else self._z0
        forwards: Sequence[ObservedForward] = [
            forward for forward in (self._forward, self._reference_forward) if forward is not None
        ]
        for forward in forwards:
            forward.noting = False
        try:
            return super()._compute_kl_logps(model, batch)
        finally:
            for forward in forwards:
                forward.noting = True

    def _is_reference(self, model: Any) -> bool:
        return model is self.ref_model or answers_as_reference(self.accelerator.unwrap_model(self.model))

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        if 0 < self._rows_at_once < len(inputs["input_ids"]) // 2:
            self._z0 = self._whole_kl(model, inputs)
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        finally:
            self._z0 = None

    def _whole_kl(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Mean log-ratio over all mismatched rows of the batch, before it is cut at zero."""
        model.train()
        total = torch.zeros((), device=self.accelerator.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for part, share in self._parts(self._prepare_inputs(inputs)):
                total += share * self._log_ratio(model, part).mean()
        return total

    def _log_ratio(self, model: Any, part: dict[str, Tensor]) -> Tensor:
        policy = self._compute_kl_logps(model, part)
        if self.ref_model is not None:
            return policy - self._compute_kl_logps(self.ref_model, part)
        frozen = self.accelerator.unwrap_model(self.model)
        with use_adapter(frozen, adapter_name=REFERENCE if REFERENCE in frozen.peft_config else None):
            return policy - self._compute_kl_logps(self.model, part)
