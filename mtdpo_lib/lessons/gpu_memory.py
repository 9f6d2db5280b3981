"""What a run needs of a GPU, by arithmetic: bytes of each part, what fits on a card, and for how long.

An estimate before anything is loaded. Sizes follow from the model's shape and the settings; times also from the assumptions
`EFFICIENCY` and `TYPICAL_LENGTH`.

    python -m mtdpo_lib memory paper --gpus 8 --machines 2

See: notebook 10_real_model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtdpo_lib.models.sizes import FULL, HALF, shape_of
from mtdpo_lib.profiles.sections import Profile

GIB = 2**30
# bitsandbytes: a level of 4 bits per weight; a scale of 8 bits for 64 weights; a scale of 32 bits for 256 of those.
NF4_BYTES = (4 + 8 / 64 + 32 / 64 / 256) / 8
LEARNT = 4 * FULL  # an adapter's weight, its gradient and Adam's two means
# Tokens whose logits exist at a time (`train.fast.shared_prompt`), and how often.
HEAD_ROWS, HEAD_COPIES = 256, 3
RESERVE = 1.5 * GIB  # CUDA's context, its libraries' workspaces, fragments

EFFICIENCY = 0.35  # of a card's peak arithmetic that a QLoRA step or a decoding step reaches: assumed
TYPICAL_LENGTH = 0.4  # of `rollout.max_tokens` that a trajectory has on average: assumed
SHARING = 0.9  # of its own pace that a card keeps when others share the work: assumed


@dataclass(frozen=True)
class Card:
    """A GPU: memory, peak of dense bfloat16 arithmetic, and how fast it reads its memory (data sheets)."""

    name: str
    gib: float
    flops: float  # per second
    bytes_per_second: float


CARDS = (
    Card("T4, 16 GB", 15, 65e12, 0.32e12),  # float16; it has no bfloat16
    Card("RTX 4090, 24 GB", 24, 165e12, 1.01e12),
    Card("A100, 40 GB", 40, 312e12, 1.56e12),
    Card("H100, 80 GB", 80, 989e12, 3.35e12),
)

PAPERS_MACHINE = (
    "The paper's own (sec. 3.1), which trains all weights: 8 A100 of 80 GB learn and 8 A100 of 40 GB sample; SFT takes 10 "
    "to 15 hours, a main experiment 24 to 48."
)


def training_bytes(profile: Profile, pairs: int = 1, gpus: int = 1) -> dict[str, float]:
    """Memory of one step of preference learning on each card, by part, in bytes.

    Checkpointing, as on a GPU: one hidden state is kept per block, and the rest computed again.

    Args:
        profile: model and lengths.
        pairs: in memory at a time, each of two trajectories of full length (`preference.rows_at_once`).
        gpus: of one machine, which share the step. Each has all of a base with an adapter, and of whole models its part.

    Returns:
        base; adapter (with gradient and optimiser); reference; activations; head.
    """
    model, shape = profile.model, shape_of(profile.model)
    tokens = 2 * pairs * profile.pairs.max_tokens
    kept = shape.layers * HALF * shape.hidden + shape.block_activations()
    adapter = shape.adapter(model.lora_rank)
    policies = {"base": base_bytes(profile), "adapter": LEARNT * adapter, "reference": FULL * adapter}
    if model.trains_all:
        policies = {"base": LEARNT * shape.weights / gpus, "reference": FULL * shape.weights / gpus}
    return {
        **policies,
        "activations": tokens * kept,
        "head": HEAD_COPIES * FULL * HEAD_ROWS * shape.vocabulary + HALF * tokens * shape.hidden,
    }


def base_bytes(profile: Profile) -> float:
    """Memory of the base as it is sampled from, in bytes."""
    model, shape = profile.model, shape_of(profile.model)
    wide = HALF if model.dtype == "bfloat16" else FULL
    return (NF4_BYTES if model.quantization == "nf4" else wide) * shape.linear + wide * shape.embeddings


def sampling_bytes(profile: Profile, rows: int) -> dict[str, float]:
    """Memory of sampling `rows` trajectories of full length at a time, by part, in bytes."""
    model, shape = profile.model, shape_of(profile.model)
    return {
        "base": base_bytes(profile),
        "adapter": FULL * shape.adapter(model.lora_rank) * (not model.trains_all),
        "cache": rows * profile.rollout.max_tokens * shape.cache(),
        "head": rows * shape.vocabulary * (FULL + HALF),
    }


def fit(profile: Profile, card: Card, gpus: int = 1) -> tuple[int, int]:
    """How many pairs fit in memory at a time, on each of `gpus` cards, and how many trajectories can be sampled together.

    Each 0 where not even one fits; at most the profile's batch sizes.
    """
    room = card.gib * GIB - RESERVE

    def most(needs: Callable[[int], dict[str, float]], limit: int) -> int:
        return max((count for count in range(1, limit + 1) if sum(needs(count).values()) <= room), default=0)

    pairs = most(lambda count: training_bytes(profile, count, gpus), profile.preference.batch_size)
    return pairs, most(lambda count: sampling_bytes(profile, count), profile.rollout.batch_size)


def hours(profile: Profile, card: Card, rows: int, gpus: int = 1) -> dict[str, float]:
    """Time of each part of a run, in hours, under the module's assumptions.

    Args:
        profile: of the run.
        card: which.
        rows: trajectories sampled together on one card.
        gpus: cards that share the batches of a step, and the prompts of an iteration.

    Returns:
        SFT; sampling and learning, over all iterations.
    """
    shape = shape_of(profile.model)
    length = TYPICAL_LENGTH * profile.rollout.max_tokens
    forward = 2 * (shape.linear + shape.vocabulary * shape.hidden)  # operations per token
    peak = EFFICIENCY * card.flops
    # The gradient costs one more forward pass through frozen weights and two through trained ones, checkpointing one; the
    # reference has its own.
    passes = 4 if profile.model.trains_all else 3
    sft = passes * forward * length * profile.problems.demonstrations * profile.sft.epochs / peak
    prompts = profile.iterations * profile.problems.prompts_per_iteration
    learning = 2 * (passes + 1) * forward * length * prompts * profile.preference.epochs / peak
    # A decoding step reads all weights once for all rows, and each row's cache.
    read = (base_bytes(profile) + rows * length / 2 * shape.cache()) / card.bytes_per_second
    step = max(read, rows * forward / card.flops) / EFFICIENCY
    samples = prompts * (profile.rollout.samples_current + profile.rollout.samples_previous)
    answer = samples * length / max(rows, 1) * step
    pace = 3600 * (gpus * SHARING if gpus > 1 else 1)
    return {"SFT": sft / pace, "sampling": answer / pace, "learning": learning / pace}


def plan(
    profile: Profile, cards: Sequence[Card] = CARDS, gpus: int = 1, machines: int = 1
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: what fits on each card, with the GiB it takes there, and for how long.

    On so many machines, each with `gpus` of the cards.
    """
    stages = "SFT", "sampling", "learning"
    head = ["card", "pairs at a time (GiB)", "trajectories together (GiB)", *stages, "in all"]
    rows = []
    for card in cards:
        pairs, together = fit(profile, card, gpus)
        if not pairs or not together:
            rows.append([card.name, "does not fit", *[""] * (len(head) - 2)])
            continue
        each = hours(profile, card, together, gpus * machines)
        times = [_shown(value) for value in (*each.values(), sum(each.values()))]
        needs = ((pairs, training_bytes(profile, pairs, gpus)), (together, sampling_bytes(profile, together)))
        fitting = [f"{count} ({(sum(parts.values()) + RESERVE) / GIB:.1f})" for count, parts in needs]
        rows.append([card.name, *fitting, *times])
    return head, rows


def _shown(value: float) -> str:
    if value < 1:
        return f"{60 * value:.0f} min"
    return f"{value:.1f} h" if value < 10 else f"{value:,.0f} h"
