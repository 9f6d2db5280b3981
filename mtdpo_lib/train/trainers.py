"""Preference trainers for trajectories: TRL's losses, loop and whole surface, with our masks, references and step.

Both take the columns of `preference_dataset` or `pairs_from_messages`. Everything that TRL's trainers take is taken and
passed on (PEFT, accelerate, callbacks, checkpoints and resume, `report_to`, other loss types).

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from mtdpo_lib.train.data import SIDES, TrajectoryLabelCollator, TrajectoryPairCollator, require_fit
from mtdpo_lib.train.diagnostics import step_diagnostics
from mtdpo_lib.train.fast.forward import ObservedForward
from mtdpo_lib.train.fast.shared_prompt import supports
from mtdpo_lib.train.loop import FullPrecisionAdapter, base_of
from mtdpo_lib.train.reference import POLICY, ReferenceCache, answers_as_reference, is_adapter, load_reference

logger = logging.getLogger(__name__)

COLUMNS = [f"{side}_{column}" for side in SIDES for column in ("ids", "mask", "roles", "margin_features")]
Batch = dict[str, Tensor]


def parts(batch: Batch, pairs_at_once: int) -> Iterator[Batch]:
    """Pairs of a batch, a few at a time, without the columns that only padding fills.

    Args:
        batch: tensors of 2B rows, chosen ones first. Numbers, and KTO's mismatched rows (``KL_...``), which belong to the
            batch as a whole, are in every part.
        pairs_at_once: B or fewer.

    >>> rows = torch.tensor([[4, 5, 6], [4, 7, 0], [4, 8, 9], [4, 0, 0]])  # chosen, chosen, rejected, rejected
    >>> batch = {"input_ids": rows, "attention_mask": rows.clamp(max=1), "completion_mask": rows.clamp(max=1)}
    >>> [part["input_ids"].tolist() for part in parts(batch, 1)]
    [[[4, 5, 6], [4, 8, 9]], [[4, 7], [4, 0]]]
    """
    pairs = len(batch["input_ids"]) // 2
    for start in range(0, pairs, pairs_at_once):
        chosen = range(start, min(start + pairs_at_once, pairs))
        rows = [*chosen, *(row + pairs for row in chosen)]
        part = {
            name: value if value.dim() == 0 or name.startswith("KL_") else value[rows]
            for name, value in batch.items()
        }
        width = int(part["attention_mask"].sum(1).max())
        for name in ("input_ids", "attention_mask", "completion_mask", "roles"):
            if name in part:
                part[name] = part[name][:, :width]
        yield part


class TrajectoryTrainer(FullPrecisionAdapter):
    """What `TrajectoryDPOTrainer` and `TrajectoryKTOTrainer` share; TRL's trainer comes after it in the order of bases.

    Args:
        model: as TRL's: a model, or its name or folder.
        args: `DPOConfig` or `KTOConfig`. A pair longer than `max_length` is refused, never cut: set it to None, since the
            data set has the one limit. With `precompute_ref_log_probs` the reference's log-probabilities are computed once
            (PEFT policies only).
        reference: pi_ref: "initial", the policy as it is given (eq. 17); "base", its base without any adapter; or the folder
            of a saved adapter, such as the SFT policy's for eq. (16).
        fast: share prompts, pad nothing and run the head on scored tokens only. A model for which that is not tested takes
            TRL's own path, and the log says why.
        rows_at_once: pairs in memory at a time inside a step; the step's loss and gradient do not depend on it. 0: all.
        diagnostics: log log-probabilities by turn and by role, the distance to the reference and the tool's share.
        reference_cache: folder that keeps the reference's log-probabilities for later runs.

    Attributes:
        agreement: largest difference between policy and reference before the first step, in nats, once it is checked.
    """

    collator: type[TrajectoryPairCollator]
    config: type[DPOConfig | KTOConfig]
    # What TRL's trainers have beside transformers':
    args: Any
    ref_model: torch.nn.Module | None
    _tokenizer: PreTrainedTokenizerBase
    _metrics: Any

    def __init__(
        self, model: Any, args: Any = None, *, train_dataset: Dataset, reference: str | Path = "initial",
        fast: bool = False, rows_at_once: int = 0, diagnostics: bool = True,
        reference_cache: str | Path | None = None, **others: Any,
    ):  # fmt: skip
        args = self.config("trajectories", max_length=None) if args is None else args
        require_fit(train_dataset, args.max_length)
        remember = args.precompute_ref_log_probs or reference_cache is not None
        args.precompute_ref_log_probs = False  # ours is keyed by mask and precision too
        self._reference, self._rows_at_once, self._diagnostics = reference, rows_at_once, diagnostics
        self._whole: Batch | None = None  # the batch, while a step goes through it in parts
        self.agreement: float | None = None
        tokenizer = others.get("processing_class")
        if tokenizer is not None and not (tokenizer.pad_token or tokenizer.eos_token):
            raise ValueError(
                "The tokenizer has neither a pad token nor an end-of-text token: set tokenizer.pad_token to a token."
            )
        super().__init__(model=model, args=args, train_dataset=train_dataset, **others)
        if others.get("data_collator") is None:
            self.data_collator = self.collator(self._tokenizer.pad_token_id)
        if isinstance(self.model, PeftModel):
            load_reference(self.model, reference)
        elif remember or (reference != "initial" and others.get("ref_model") is None):
            raise ValueError(
                'A reference other than "initial", and its log-probabilities computed once, need a policy with an adapter: '
                "pass peft_config or a PeftModel; or a reference that is a whole model as ref_model."
            )
        self._observe(fast)
        if remember:
            self._forward.cache = ReferenceCache(self.model, reference_cache)

    def _observe(self, fast: bool) -> None:
        """Stand between TRL's loss and its models: the policy, and the reference if that is not one of its adapters."""
        reason = self._why_not_fast() if fast else None
        if reason is not None:
            logger.warning("The fast step is not used for this model: %s.", reason)
        self.fast = fast and reason is None
        is_adapter_of = self.model if isinstance(self.model, PeftModel) and self.ref_model is None else None
        self._forward = ObservedForward(base_of(self.model), self.fast, policy_of=is_adapter_of)
        self._reference_forward = self._forward
        if self.ref_model is not None:
            frozen: Any = self.accelerator.unwrap_model(self.ref_model)
            self._reference_forward = ObservedForward(frozen, self.fast, is_reference=True)

    def _why_not_fast(self) -> str | None:
        if getattr(self, "use_weighting", False):
            return "use_weighting wants a statistic that it does not compute"
        if isinstance(self.model, PeftModel) and self.model.active_peft_config.is_prompt_learning:
            return "prompt-learning adapters put tokens of their own before each row"
        return supports(base_of(self.model))

    # TRL's hooks

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        """Token ids already: not rendered and not tokenised again."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = COLUMNS

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, times its weight where the batch is a part of one; watched, checked and noted on the way."""
        inputs = dict(inputs)
        roles, scored = inputs.pop("roles", None), inputs["completion_mask"].bool()
        watches = self._diagnostics and roles is not None
        self._forward.watched = (roles > 0) & ~scored if watches else None
        result: Any = super().compute_loss(model, inputs, *args, **kwargs)
        self._check_start(scored[:, 1:])
        if self._diagnostics:
            self._note(inputs, scored, roles)
        share = self._share(inputs)
        return (result[0] * share, result[1]) if isinstance(result, tuple) else result * share

    def _check_start(self, scored: Tensor) -> None:
        """Before the first step the policy is its own "initial" reference: their log-probabilities must be equal.

        Raises:
            RuntimeError: they are not, so the reference is another policy.
        """
        first = self.agreement is None and self.model.training and self.state.global_step == 0
        reference = self._reference_forward.reference
        if not (first and self._reference == "initial" and self.args.disable_dropout) or reference is None:
            return
        difference = ((self._forward.policy - reference) * scored).sum(1).abs()
        if (difference > 1e-2 + 1e-3 * reference.sum(1).abs()).any():
            raise RuntimeError(
                "Before the first step policy and reference should agree, but their log-probabilities differ by "
                f"{difference.max().item():.4f} nats: the reference adapter is not the policy's."
            )
        self.agreement = difference.max().item()
        said = "Step 0: policy and reference agree on %d trajectories (largest difference %.1e nats)."
        logger.info(said, len(difference), self.agreement)

    def _note(self, inputs: Batch, scored: Tensor, roles: Tensor | None) -> None:
        rows = torch.arange(len(scored), device=scored.device)
        found = step_diagnostics(
            self._forward.policy,
            self._reference_forward.reference,
            scored[:, 1:],
            None if roles is None else roles[:, 1:],
            right=inputs["label"].bool() if "label" in inputs else rows < len(rows) // 2,
        )
        for name, value in found.items():
            self._log_metric(name, value)

    def _log_metric(self, name: str, value: float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(value)

    # A step in parts

    def _share(self, inputs: Batch) -> float:
        """How much of its batch a part is; 1 outside of parts."""
        return 1.0 if self._whole is None else len(inputs["input_ids"]) / len(self._whole["input_ids"])

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """A step; its loss and gradient are those of the whole batch however many rows are in memory at once."""
        if not 0 < self._rows_at_once < len(inputs["input_ids"]) // 2:
            return super().training_step(model, inputs, num_items_in_batch)
        self._whole, total = inputs, torch.zeros((), device=self.accelerator.device)
        try:
            for part in parts(inputs, self._rows_at_once):
                total = total + super().training_step(model, part, num_items_in_batch)
        finally:
            self._whole = None
        return total

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As transformers', which in some versions (5.17) loads the reference's adapter and not the policy's."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if isinstance(self.model, PeftModel) and is_adapter(Path(resume_from_checkpoint)):
            self.model.load_adapter(resume_from_checkpoint, POLICY, is_trainable=True)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL's; the reference's log-probabilities are saved at the end."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._forward.cache is not None:
                self._forward.cache.save()


class TrajectoryDPOTrainer(TrajectoryTrainer, DPOTrainer):
    """M-DPO, eq. (14), or single-turn DPO when the data set scores the tool's tokens (``method="dpo"``).

    The arguments beside TRL's are described at `TrajectoryTrainer`. The NLL term is TRL's loss type "sft"; under gradient
    accumulation its mean runs over all tokens of the step, as if the batch were one.

    >>> import tempfile
    >>> from peft import LoraConfig
    >>> from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles.overrides import get_profile
    >>> from mtdpo_lib.train import pairs_from_messages, training_arguments
    >>> tokenizer, settings = train_tokenizer(["2*3?"], 300), get_profile("smoke").model
    >>> question = {"role": "user", "content": "2*3?"}
    >>> sides = {"chosen": [question, {"role": "assistant", "content": "6"}]}
    >>> sides["rejected"] = [question, {"role": "assistant", "content": "5"}]
    >>> dataset, _ = pairs_from_messages([sides], tokenizer)
    >>> trainer = TrajectoryDPOTrainer(
    ...     tiny_model(settings, tokenizer, 64, seed=0),
    ...     DPOConfig(**training_arguments(tempfile.mkdtemp(), settings, seed=0), beta=0.5),
    ...     train_dataset=dataset, processing_class=tokenizer,
    ...     peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"),
    ... )
    >>> loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(dataset)))
    >>> f"{loss:.4f}, {trainer.agreement:.4f} nats apart"  # policy and reference are one: log 2
    '0.6931, 0.0000 nats apart'
    """

    collator, config = TrajectoryPairCollator, DPOConfig

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Batch], Any]:
        """Batches of one step; each learns its share of the step's chosen tokens, which weighs its NLL term."""
        batches, count = super().get_batch_samples(*args, **kwargs)
        if "sft" in self.loss_types and len(batches) > 1:
            tokens = [_chosen_tokens(batch) for batch in batches]
            for batch, own in zip(batches, tokens, strict=True):
                batch["nll_share"] = own * len(tokens) / sum(tokens)
        return batches, count

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """As `TrajectoryTrainer`'s, with the NLL term weighed as in the whole step."""
        inputs = dict(inputs)
        share: Any = inputs.pop("nll_share", 1.0)
        if self._whole is not None:
            share = share * _chosen_tokens(inputs) / _chosen_tokens(self._whole) / self._share(inputs)
        weights = self.loss_weights
        kinds = zip(self.loss_types, weights, strict=True)
        self.loss_weights = [weight * share if kind == "sft" else weight for kind, weight in kinds]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.loss_weights = weights


def _chosen_tokens(batch: Batch) -> Tensor:
    return batch["completion_mask"][: len(batch["completion_mask"]) // 2, 1:].sum().float()


class TrajectoryKTOTrainer(TrajectoryTrainer, KTOTrainer):
    """M-KTO, eq. (15), or single-turn KTO when the data set scores the tool's tokens (``method="kto"``).

    The arguments beside TRL's are described at `TrajectoryTrainer`. A batch holds both trajectories of
    `per_device_train_batch_size` pairs; its KL term z_0 is estimated on answers to other prompts, once for the whole batch.
    Under gradient accumulation, as in TRL, every batch has its own; `rows_at_once` saves memory without that.

    >>> import tempfile
    >>> from mtdpo_lib.profiles.sections import ModelSettings
    >>> from mtdpo_lib.train import training_arguments
    >>> common = training_arguments(tempfile.mkdtemp(), ModelSettings(), seed=0)
    >>> two_pairs, config = Dataset.from_dict({"chosen_ids": [[1], [2]]}), KTOConfig(**common, per_device_train_batch_size=1)
    >>> TrajectoryKTOTrainer(None, config, train_dataset=two_pairs)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: KTO's KL term needs answers to different prompts in every batch: ...
    """

    collator, config = TrajectoryLabelCollator, KTOConfig

    def __init__(self, model: Any, args: Any = None, *, train_dataset: Dataset, **others: Any):
        args = self.config("trajectories", max_length=None) if args is None else args
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
        self._kl_logps: dict[bool, Tensor] = {}  # of reference and policy, for all parts of a step
        super().__init__(model, args, train_dataset=train_dataset, **others)

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """As `TrajectoryTrainer`'s, with a KL term of its own."""
        self._kl_logps.clear()
        return super().training_step(model, inputs, num_items_in_batch)

    def _compute_kl_logps(self, model: Any, batch: Batch) -> Any:
        """Log-probabilities of the whole batch's mismatched rows; all parts of a step share them."""
        if self._whole is None:
            return self._mismatched_logps(model, batch)
        is_reference = model is self.ref_model or answers_as_reference(base_of(self.model))
        if is_reference not in self._kl_logps:
            mismatched = [name for name in batch if name.startswith("KL_")]
            rows = {name.removeprefix("KL_"): batch[name] for name in mismatched}
            logps = [
                self._mismatched_logps(model, {f"KL_{name}": value for name, value in part.items()})
                for part in parts(rows, self._rows_at_once)
            ]
            self._kl_logps[is_reference] = torch.cat(logps)
        return self._kl_logps[is_reference]

    def _mismatched_logps(self, model: Any, batch: Batch) -> Any:
        """TRL's; these rows are not what the diagnostics are about."""
        self._forward.noting = self._reference_forward.noting = False
        try:
            return super()._compute_kl_logps(model, batch)
        finally:
            self._forward.noting = self._reference_forward.noting = True
