"""A step in parts: a batch cut so that few of its rows are in memory at once."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def parts(batch: dict[str, Tensor], pairs_at_once: int) -> Iterator[dict[str, Tensor]]:
    """Pairs of a batch, a few at a time, without the columns that only padding fills.

    Args:
        batch: tensors of 2B rows, chosen ones first. Numbers, and KTO's mismatched rows (``KL_...``), which belong to the
            batch as a whole, are in every part.
        pairs_at_once: B or fewer; 0: all.

    >>> import torch
    >>> rows = torch.tensor([[4, 5, 6], [4, 7, 0], [4, 8, 9], [4, 0, 0]])  # chosen, chosen, rejected, rejected
    >>> batch = {"input_ids": rows, "attention_mask": rows.clamp(max=1), "completion_mask": rows.clamp(max=1)}
    >>> [part["input_ids"].tolist() for part in parts(batch, 1)]
    [[[4, 5, 6], [4, 8, 9]], [[4, 7], [4, 0]]]
    """
    pairs = len(batch["input_ids"]) // 2
    size = pairs_at_once or pairs
    for start in range(0, pairs, size):
        chosen = range(start, min(start + size, pairs))
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
