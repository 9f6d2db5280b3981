"""Data: trajectories or message lists to columns, and columns to the batches that TRL's trainers expect.

A *side* is one trajectory, ``<name>_ids`` with ``<name>_roles`` and ``<name>_mask`` (1 where the loss looks). A pair has the
sides "chosen" and "rejected".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mtdpo_lib.chat.messages import MessageFormat
from mtdpo_lib.chat.roles import Role, RoleTokens
from mtdpo_lib.pairs import Pair
from mtdpo_lib.train.losses import different_prompts, scored_tokens

SIDES = ("chosen", "rejected")
PADDED = -1  # role of a padding place


def prompt_of(ids: Sequence[int], roles: Sequence[int]) -> tuple[int, ...]:
    """The prompt's ids: everything before the first token of the first answer."""
    length = next((place for place, role in enumerate(roles) if role != Role.PROMPT), len(roles))
    return tuple(ids[:length])


def _columns(side: str, tokens: RoleTokens, method: str) -> dict[str, list[int]]:
    roles = list(map(int, tokens.roles))
    return {
        f"{side}_ids": list(tokens.ids),
        f"{side}_mask": scored_tokens(roles, method),
        f"{side}_roles": roles,
    }


def _pair_columns(chosen: RoleTokens, rejected: RoleTokens, method: str, name: str) -> dict[str, list[int]]:
    """One row of the data set.

    Raises:
        ValueError: a side without a scored token, or sides that answer different prompts.
    """
    row = {**_columns("chosen", chosen, method), **_columns("rejected", rejected, method)}
    for side in SIDES:
        if not any(row[f"{side}_mask"]):
            raise ValueError(
                f"{name} has a side without any assistant token ({side}): nothing in it could be scored. "
                "Leave the pair out, or check how its messages are written."
            )
    prompts = [prompt_of(row[f"{side}_ids"], row[f"{side}_roles"]) for side in SIDES]
    if prompts[0] != prompts[1]:
        raise ValueError(
            f"{name} answers two different prompts: eq. (14) compares trajectories of one prompt, so the chosen and the "
            "rejected side must begin with the same one."
        )
    return row


def preference_dataset(pairs: Sequence[Pair], method: str = "mdpo") -> Dataset:
    """Pairs as columns.

    Raises:
        ValueError: no pair, one in which a side has no token to score, or one of two prompts.
    """
    if not pairs:
        raise ValueError(
            "There is no preference pair to train on: sample more (rollout.samples_current, "
            "problems.prompts_per_iteration), or start from a policy that is right sometimes and wrong sometimes."
        )
    return Dataset.from_list(
        [
            _pair_columns(
                pair.chosen.tokens,
                pair.rejected.tokens,
                method,
                f"A pair of problem {pair.chosen.problem_id}",
            )
            for pair in pairs
        ]
    )


def pairs_from_messages(
    rows: Iterable[dict[str, list[dict[str, str]]]],
    tokenizer: PreTrainedTokenizerBase,
    method: str = "mdpo",
    max_tokens: int | None = None,
) -> tuple[Dataset, dict[str, int]]:
    """A user's own conversations as a data set for `TrajectoryDPOTrainer` and `TrajectoryKTOTrainer`.

    Args:
        rows: each with "chosen" and "rejected", two whole conversations (a list of messages) that begin with one prompt.
        tokenizer: with a chat template.
        method: decides which tokens are scored ("mdpo", "mkto": the assistant's; "dpo", "kto": all after the prompt).
        max_tokens: a pair with a longer side is left out and counted, never cut; None keeps all.

    Returns:
        The data set, and how many pairs were left out, by reason.

    Raises:
        ValueError: no row, nothing left, a side that cannot be scored, two prompts in a pair.
        ChatTemplateError: the tokenizer's template cannot be used.
    """
    form, kept, dropped = MessageFormat(tokenizer), [], Counter()
    for number, row in enumerate(rows):
        chosen, rejected = (_encode(form, row, side, number) for side in SIDES)
        pair = _pair_columns(chosen, rejected, method, f"Pair {number}")
        if max_tokens is not None and max(len(chosen), len(rejected)) > max_tokens:
            dropped[f"longer than {max_tokens} tokens"] += 1
        else:
            kept.append(pair)
    if not kept:
        reasons = "; ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the list is empty"
        raise ValueError(f"There is no preference pair to train on: {reasons}.")
    return Dataset.from_list(kept), dict(dropped)


def _encode(form: MessageFormat, row: dict[str, Any], side: str, number: int) -> RoleTokens:
    if side not in row:
        raise ValueError(f"Pair {number} has no {side!r} conversation; it has {', '.join(row) or 'nothing'}.")
    if not any(message["role"] == "assistant" for message in row[side]):
        raise ValueError(f"Pair {number} has no assistant turn in its {side} conversation.")
    return form.encode(row[side])


def right_trajectories(dataset: Dataset) -> Dataset:
    """RAFT's data: the chosen sides with labels, -100 where the loss does not look."""
    return Dataset.from_list(
        [
            {
                "input_ids": row["chosen_ids"],
                "labels": [
                    token if scored else -100
                    for token, scored in zip(row["chosen_ids"], row["chosen_mask"], strict=True)
                ],
            }
            for row in dataset
        ]
    )


def padded(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    """Lists of different lengths as one tensor [N, T], padded on the right."""
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (width - len(sequence))] for sequence in sequences])


def _batch(sides: Sequence[tuple[Sequence[int], Sequence[int]]], pad_token_id: int) -> dict[str, Tensor]:
    """TRL's three tensors from (ids, mask) of each row, [N, T]."""
    return {
        "input_ids": padded([ids for ids, _ in sides], pad_token_id),
        "attention_mask": padded([[1] * len(ids) for ids, _ in sides], 0),
        "completion_mask": padded([mask for _, mask in sides], 0),
    }


def _sides(examples: Sequence[dict[str, Any]], column: str) -> list[Any]:
    """All chosen rows, then all rejected rows."""
    return [example[f"{side}_{column}"] for side in SIDES for example in examples]


@dataclass
class TrajectoryPairCollator:
    """Pairs to the batch `DPOTrainer` expects: B chosen rows, then B rejected rows, padded on the right.

    Each example holds ``chosen_ids``, ``chosen_mask``, ``rejected_ids`` and ``rejected_mask``, whole trajectories with their
    prompt. The masks are one where the loss looks. With ``..._roles`` too, the batch has them for the diagnostics; with
    ``..._luck`` (`luck_features`) for the adaptive margin.
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask``, ``completion_mask``, perhaps ``roles``, [2B, T]; perhaps ``luck``, [2B, D]."""
        rows = list(zip(_sides(examples, "ids"), _sides(examples, "mask"), strict=True))
        batch = _batch(rows, self.pad_token_id)
        if "chosen_luck" in examples[0]:
            batch["luck"] = torch.tensor(_sides(examples, "luck"))
        if "chosen_roles" in examples[0]:
            batch["roles"] = padded(_sides(examples, "roles"), PADDED)
        return batch


@dataclass
class TrajectoryLabelCollator:
    """Pairs to the batch `KTOTrainer` expects: both trajectories of each pair with their verdicts, N = 2B rows.

    Right and wrong are balanced in every batch, and the KL rows put each prompt before an answer to *another* prompt, with
    that answer's mask.
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """TRL's tensors, ``KL_`` ones beside them, ``roles`` and ``label``.

        Raises:
            ValueError: the batch has no answers to different prompts.
        """
        ids, masks, roles = (_sides(examples, column) for column in ("ids", "mask", "roles"))
        prompts = [prompt_of(*side) for side in zip(ids, roles, strict=True)]
        mismatched = []
        for prompt, other in zip(prompts, different_prompts(prompts), strict=True):
            start = len(prompts[other])
            mismatched.append(([*prompt, *ids[other][start:]], [0] * len(prompt) + masks[other][start:]))
        batch = _batch(list(zip(ids, masks, strict=True)), self.pad_token_id)
        batch |= {f"KL_{name}": value for name, value in _batch(mismatched, self.pad_token_id).items()}
        batch["roles"] = padded(roles, PADDED)
        batch["label"] = torch.tensor([True] * len(examples) + [False] * len(examples))
        return batch
