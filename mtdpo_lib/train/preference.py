"""One iteration of preference learning: pairs, a policy and its reference give adapters and a log.

**Paper:** M-DPO, eq. (14); M-KTO, eq. (15); the baselines of sec. 3: single-turn DPO and KTO (tool output scored), RAFT.

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Trainer
from trl import DPOConfig, KTOConfig, SFTConfig

from mtdpo_lib.common.seeds import stream31
from mtdpo_lib.common.stages import UNFINISHED
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer, load_whole
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.sections import ModelSettings, PreferenceSettings
from mtdpo_lib.rollout import Trajectory
from mtdpo_lib.train.adaptive_margin import AdaptiveMarginTrainer
from mtdpo_lib.train.data import SIDES, preference_dataset, with_labels
from mtdpo_lib.train.loop import own_share, train_and_log, training_arguments
from mtdpo_lib.train.losses import METHODS, scored_tokens
from mtdpo_lib.train.reference import load_reference
from mtdpo_lib.train.sft import DemonstrationTrainer
from mtdpo_lib.train.trainers import TrajectoryDPOTrainer, TrajectoryKTOTrainer

LOG_NAMES = {
    "loss": "loss", "logps/chosen": "chosen_logp", "logps/rejected": "rejected_logp", "ratio/chosen": "chosen_ratio",
    "ratio/rejected": "rejected_ratio", "rewards/margins": "margin", "rewards/accuracies": "accuracy", "kl": "z0",
    "reference_kl": "reference_kl", "tool_gradient_share": "tool_gradient_share", "luck": "luck", "num_tokens": "tokens",
}  # fmt: skip
# Gives c(tau) of each trajectory, [N, D].
MarginFeatures = Callable[[PeftModel, PreTrainedTokenizerBase, Sequence[Trajectory]], Tensor]
WHOLE = ("config.json", "generation_config.json", "model*.safetensors*")  # the files of a whole model
LABELS = {"mdpo": "M-DPO", "mkto": "M-KTO", "dpo": "DPO", "kto": "KTO", "raft": "RAFT"}


@dataclass(frozen=True)
class PreferenceJob:
    """One iteration's training: everything that a process needs to know.

    Attributes:
        folder: where adapters go.
        pairs: at least one.
        initial: the policy to start from.
        reference: pi_ref; the same as `initial` for the updated reference.
        settings: method, eta, learning rate, budget.
        model: its precision, and the adapter's rank.
        seed: the run's; decides a new adapter's start and the order of the pairs.
        right: what RAFT learns from.

    With the updated reference of eq. (17) a policy starts from its own reference:

    >>> from mtdpo_lib.common.stages import Product
    >>> sft = Policy("sft", Product("sft", "key", Path("sft")), "late")
    >>> job = PreferenceJob(Path("out"), [], sft, sft, PreferenceSettings(eta=0.1), ModelSettings(), seed=0)
    >>> job.initial == job.reference
    True
    """

    folder: Path
    pairs: Sequence[Pair]
    initial: Policy
    reference: Policy
    settings: PreferenceSettings
    model: ModelSettings
    seed: int
    right: Sequence[Trajectory] = ()


def set_reference(model: PeftModel, reference: Policy) -> None:
    """Make the policy `reference` the frozen adapter "ref" that TRL's trainers compare with.

    Raises:
        ValueError: it stands on another base.

    A policy that is a whole model needs no adapter: its reference is the bare base.

    >>> from peft import LoraConfig, get_peft_model
    >>> from mtdpo_lib.common.stages import Product
    >>> from mtdpo_lib.models import tiny_model, train_tokenizer
    >>> lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    >>> network = tiny_model(ModelSettings(layers=1), train_tokenizer(["2*3?"], 300), 64, seed=0)
    >>> model = get_peft_model(network, lora)
    >>> model.add_adapter("ref", lora)
    >>> set_reference(model, Policy("sft", Product("sft", "key", Path("sft")), "late"))
    >>> list(model.peft_config)
    ['default']
    """
    load_reference(model, _place(reference))


def _place(reference: Policy) -> str | Path:
    """Where a reference's adapter is; a reference that is a whole model is the bare base."""
    return "base" if reference.base is None else reference.folder


def _check_bases(initial: Policy, reference: Policy) -> None:
    bases = [policy.base or policy for policy in (initial, reference)]
    if bases[0] != bases[1]:
        raise ValueError(
            f"The reference {reference.name} stands on {bases[1].name}, but the policy {initial.name} on {bases[0].name}: "
            "policy and reference must share their base."
        )


def _training_arguments(job: PreferenceJob) -> dict[str, Any]:
    """TRL's arguments, whatever the method: it takes the steps of so many passes over the job's pairs.

    Raises:
        ValueError: a batch that the processes cannot share.
    """
    settings, pairs = job.settings, len(job.pairs)
    batch = min(settings.batch_size, pairs)
    steps = math.ceil(settings.epochs * (pairs // batch))
    return {
        **training_arguments(
            job.folder / UNFINISHED / "trainer", job.model, stream31(job.seed, "preference")
        ),
        "per_device_train_batch_size": own_share(batch, "pairs", "preference"),
        "dataloader_drop_last": True,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "warmup_steps": int(settings.warmup_fraction * steps),
        "max_length": None,
        "save_strategy": "steps",
        "save_steps": max(math.ceil(steps / settings.checkpoints), 1),
    }


def _trainer(job: PreferenceJob, dataset: Dataset, **common: Any) -> Trainer:
    """TRL's trainer for the job's method.

    RAFT has no reference. It takes the steps that its rivals take from the pairs of the same samples, and goes through its
    right trajectories, of which there are more, until then.
    """
    settings, arguments = job.settings, _training_arguments(job)
    if settings.method == "raft":
        rows = [with_labels(row.ids, scored_tokens(row.roles)) for row in job.right]
        arguments["per_device_train_batch_size"] *= settings.raft_rows
        arguments["dataloader_drop_last"] = False
        config = SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True})
        return DemonstrationTrainer(args=config, train_dataset=Dataset.from_list(rows), **common)
    reference = "initial" if job.reference == job.initial else _place(job.reference)
    if job.model.trains_all and reference != "initial":
        common["ref_model"] = load_whole(job.reference, job.model)
    common |= {"reference": reference, "fast": settings.step == "fast", "rows_at_once": settings.rows_at_once}
    arguments["beta"] = settings.eta
    # What whole batches hold is drawn here, so that all methods see the same pairs; KTO's trainer takes them in this order.
    whole = len(dataset) - len(dataset) % min(settings.batch_size, len(dataset))
    order = random.Random(arguments["seed"]).sample(range(len(dataset)), whole)
    dataset = cast("Dataset", dataset.select(order))
    if METHODS[settings.method][0] == "labels":
        return TrajectoryKTOTrainer(args=KTOConfig(**arguments), train_dataset=dataset, **common)
    if settings.nll_coefficient > 0:
        # TRL's term is a mean per token, and the DPO term moves a sum over tokens, at first by eta / 2 for each nat.
        tokens = sum(map(sum, dataset["chosen_mask"])) / len(dataset)
        weights = [1.0, settings.nll_coefficient * settings.eta / 2 * tokens]
        arguments |= {"loss_type": ["sigmoid", "sft"], "loss_weights": weights}
    config = DPOConfig(**arguments)
    with_margin = "chosen_margin_features" in dataset.column_names
    trainer = AdaptiveMarginTrainer if with_margin else TrajectoryDPOTrainer
    return trainer(args=config, train_dataset=dataset, **common)


def _keep_policies(folder: Path, tokenizer: PreTrainedTokenizerBase, whole: bool) -> None:
    """The adapter, or whole model, of each of the trainer's checkpoints, as ``folder/step-N``; all else is removed."""
    for checkpoint in sorted((folder / UNFINISHED / "trainer").glob("checkpoint-*")):
        target = folder / f"step-{checkpoint.name.split('-')[1]}"
        target.mkdir()
        for pattern in WHOLE if whole else ("adapter_config.json", "adapter_model.safetensors"):
            for file in checkpoint.glob(pattern):
                shutil.copy(file, target)
        if whole:
            tokenizer.save_pretrained(target)
    shutil.rmtree(folder / UNFINISHED)


def train_preference(
    job: PreferenceJob, adaptive_margin: MarginFeatures | None = None
) -> list[dict[str, float]]:
    """Train the adapter of `job.initial` on the pairs by the settings' method; adapters are kept as ``folder/step-N``.

    Args:
        job: what to train, on what, against what.
        adaptive_margin: gives c(tau) of each trajectory [N, D] (`margin_features`) for a learned margin; M-DPO only.

    Returns:
        The log, one row per step: loss, tokens trained on so far; but for RAFT log-probabilities in nats (summed over scored
        tokens), margin, accuracy and diagnostics.

    Raises:
        ValueError: no pairs, too few for KTO, a reference on another base, or a batch that the processes cannot share.
        RuntimeError: policy and reference differ before the first step although they are the same policy.

    >>> import contextlib, tempfile
    >>> from mtdpo_lib.common.stages import Product
    >>> from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles.overrides import get_profile
    >>> from mtdpo_lib.rollout import Turn
    >>> tokenizer, settings = train_tokenizer(["2*3?"], 300), get_profile("smoke").model
    >>> folder = Path(tempfile.mkdtemp())
    >>> for part in (tiny_model(settings, tokenizer, 64, seed=0), tokenizer):
    ...     _ = part.save_pretrained(folder / "late")
    >>> sft = Policy("sft", Product("sft", "key", folder), "late")
    >>> def side(answer, correct):
    ...     turns = [Turn("answer")]
    ...     return Trajectory("p", "s", "q", "1", "sft", 0, [7, 8, answer], [0, 0, 1], turns, "1", correct, "answer")
    >>> pairs, once = [Pair(side(11, True), side(12, False))], PreferenceSettings(checkpoints=1)
    >>> with contextlib.redirect_stdout(None):  # a slow machine would say how far it is
    ...     log = train_preference(PreferenceJob(folder, pairs, sft, sft, once, settings, seed=0))
    >>> log[0]["loss"], log[0]["margin"], (folder / "step-1").is_dir()
    (0.693147, 0.0, True)
    """
    dataset = preference_dataset(job.pairs, job.settings.method)
    if not job.model.trains_all:  # whole models stand on nothing
        _check_bases(job.initial, job.reference)
    model = load_for_training(job.initial, job.model, stream31(job.seed, "adapter"))
    tokenizer = load_tokenizer(job.initial)
    if adaptive_margin is not None:
        sides = [side for pair in job.pairs for side in (pair.chosen, pair.rejected)]
        features = adaptive_margin(cast("PeftModel", model), tokenizer, sides).tolist()
        for side, column in zip(SIDES, (features[::2], features[1::2]), strict=True):
            dataset = cast("Dataset", dataset.add_column(f"{side}_margin_features", column))
    trainer = _trainer(job, dataset, model=model, processing_class=tokenizer)
    log = train_and_log(trainer, LABELS[job.settings.method], LOG_NAMES)
    if trainer.is_world_process_zero():
        _keep_policies(job.folder, tokenizer, job.model.trains_all)
    trainer.accelerator.wait_for_everyone()
    return log
