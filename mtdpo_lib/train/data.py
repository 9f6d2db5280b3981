"""Data: trajectories or message lists to columns, and columns to the batches that TRL's trainers expect.

A *side* is one trajectory, ``<name>_ids`` with ``<name>_roles`` and ``<name>_mask`` (1 where the loss looks). A pair has the
sides "chosen" and "rejected".
"""

from __future__ import annotations

import logging
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mtdpo_lib.chat import Message, MessageFormat, Role, RoleTokens, read_messages, say
from mtdpo_lib.pairs import Pair
from mtdpo_lib.train.losses import different_prompts, scored_tokens

logger = logging.getLogger(__name__)

SIDES = ("chosen", "rejected")
PAIR = '{"chosen": messages, "rejected": messages}'
IGNORED = -100  # label of a token that no loss looks at
PADDED = -1  # role of a padding token


def prompt_of(ids: Sequence[int], roles: Sequence[int]) -> tuple[int, ...]:
    """The prompt's ids: everything before the first token of the first answer."""
    length = next((position for position, role in enumerate(roles) if role != Role.PROMPT), len(roles))
    return tuple(ids[:length])


def with_labels(ids: Sequence[int], mask: Sequence[int]) -> dict[str, list[int]]:
    """Columns of an SFT row: ids, and labels that are -100 where the loss does not look.

    >>> with_labels([5, 6, 7], [0, 1, 1])
    {'input_ids': [5, 6, 7], 'labels': [-100, 6, 7]}
    """
    labels = [token if scored else IGNORED for token, scored in zip(ids, mask, strict=True)]
    return {"input_ids": list(ids), "labels": labels}


# --- Columns ---


def _pair_columns(tokens_of_sides: Iterable[RoleTokens], method: str, name: str) -> dict[str, list[int]]:
    """One row of the data set, from its chosen and its rejected side.

    Raises:
        ValueError: a side without a scored token, or sides that answer different prompts.
    """
    row, prompts = {}, set()
    for side, tokens in zip(SIDES, tokens_of_sides, strict=True):
        roles = list(map(int, tokens.roles))
        mask = scored_tokens(roles, method)
        if not any(mask):
            raise ValueError(
                f"{name} has a side without any assistant token ({side}): nothing in it could be scored. "
                "Leave the pair out, or check how its messages are written."
            )
        row |= {f"{side}_ids": list(tokens.ids), f"{side}_mask": mask, f"{side}_roles": roles}
        prompts.add(prompt_of(tokens.ids, roles))
    if len(prompts) > 1:
        raise ValueError(
            f"{name} answers two different prompts: eq. (14) compares trajectories of one prompt, so the chosen and the "
            "rejected side must begin with the same one."
        )
    return row


def preference_dataset(pairs: Sequence[Pair], method: str = "mdpo") -> Dataset:
    """Pairs as columns.

    Args:
        pairs: at least one.
        method: decides which tokens are scored (`METHODS`).

    Raises:
        ValueError: no pair, one in which a side has no token to score, or one of two prompts.

    >>> from mtdpo_lib.rollout import Trajectory, Turn
    >>> def side(ids, correct):  # a question of two tokens, then the policy's own
    ...     turns, roles = [Turn("text")], [Role.PROMPT, Role.PROMPT, *[Role.ASSISTANT] * (len(ids) - 2)]
    ...     return Trajectory("p", "s", "q", "1", "sft", 0, ids, roles, turns, "1", correct, "answer")
    >>> preference_dataset([Pair(side([4, 5, 6], True), side([4, 5, 8, 9], False))])[0]["rejected_mask"]
    [0, 0, 1, 1]
    """
    if not pairs:
        raise ValueError(
            "There is no preference pair to train on: sample more (rollout.samples_current, "
            "problems.prompts_per_iteration), or start from a policy that is right sometimes and wrong sometimes."
        )
    rows = []
    for pair in pairs:
        sides = (pair.chosen.tokens, pair.rejected.tokens)
        rows.append(_pair_columns(sides, method, f"A pair of problem {pair.chosen.problem_id}"))
    return Dataset.from_list(rows)


def pairs_from_messages(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    method: str = "mdpo",
    max_tokens: int | None = None,
    allow_rewriting: bool = False,
) -> tuple[Dataset, dict[str, int]]:
    """A user's own conversations as a data set for `TrajectoryDPOTrainer` and `TrajectoryKTOTrainer`.

    Args:
        rows: each with "chosen" and "rejected", two whole conversations that begin with one prompt; or two that begin with
            the assistant's turn, and their "prompt" beside them, as in TRL's pairs. A conversation is a list of messages in
            OpenAI's form, tool calls included, or in ShareGPT's (`MessageFormat`).
        tokenizer: with a chat template.
        method: decides which tokens are scored ("mdpo", "mkto": the assistant's; "dpo", "kto": all after the prompt).
        max_tokens: a pair with a longer side is left out and counted, never cut; None keeps all. No other limit follows.
        allow_rewriting: learn what the template makes of the assistant's turns where it changes them, and log a warning
            that counts them; otherwise such a turn is refused (`MessageFormat` says what counts as rewriting).

    Returns:
        The data set, and how many pairs were left out, by reason.

    Raises:
        ValueError: no row, nothing left, a row or message of another form, a side that cannot be scored, two prompts in a
            pair. Pairs and messages are counted from 1.
        ChatTemplateError: the tokenizer's template cannot be used, or rewrites a turn.

    >>> from mtdpo_lib.models.tiny import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 times 3?", "print(2*3)"], 300)
    >>> question = {"role": "user", "content": "2 times 3?"}
    >>> calls = [{"role": "assistant", "content": "print(2*3)"}, {"role": "tool", "content": "6"}]
    >>> chosen = [question, *calls, {"role": "assistant", "content": "6"}]
    >>> rejected = [question, {"role": "assistant", "content": "5"}]
    >>> dataset, dropped = pairs_from_messages([{"chosen": chosen, "rejected": rejected}], tokenizer)
    >>> row = dataset[0]
    >>> tokenizer.decode([token for token, scored in zip(row["chosen_ids"], row["chosen_mask"]) if scored])
    'print(2*3)<|end|>6<|end|>'
    """
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise ValueError(
            f"The pairs are a list of {PAIR}, or one split of a data set; got {reprlib.repr(rows)}."
        )
    form, kept, dropped = MessageFormat(tokenizer, allow_rewriting=allow_rewriting), [], Counter()
    for number, row in enumerate(rows, 1):
        pair = encode_pair(form, row, method, f"Pair {number}")
        if max_tokens is not None and longer_side(pair) > max_tokens:
            dropped[f"longer than {max_tokens} tokens"] += 1
        else:
            kept.append(pair)
    if not kept:
        reasons = "; ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the list is empty"
        raise ValueError(f"There is no preference pair to train on: {reasons}.")
    if form.rewritten:
        said = "The chat template rewrites the assistant's turns of %d conversations; in the first, it %s."
        logger.warning(said, len(form.rewritten), form.rewritten[0])
    return Dataset.from_list(kept), dict(dropped)


def encode_pair(form: MessageFormat, row: Mapping[str, Any], method: str, name: str) -> dict[str, list[int]]:
    """One row of the data set: ids, roles and mask of both sides, a list each.

    Args:
        form: reads conversations with a chat template.
        row: as of `pairs_from_messages`.
        method: decides which tokens are scored.
        name: what errors call the pair.

    Raises:
        ValueError: a row of another form, a side that cannot be scored, two prompts.
        ChatTemplateError: the template cannot be used, or rewrites a turn.
    """
    return _pair_columns([_encode(form, row, side, name) for side in SIDES], method, name)


def longer_side(pair: Mapping[str, Any]) -> int:
    """Tokens of the longer of a row's two sides."""
    return max(len(pair[f"{side}_ids"]) for side in SIDES)


def _encode(form: MessageFormat, row: Mapping[str, Any], side: str, name: str) -> RoleTokens:
    """One side's tokens; errors begin with the name of the pair."""
    if not isinstance(row, Mapping) or side not in row:
        raise ValueError(f"{name} has no {side!r} conversation: a pair is {PAIR}; got {reprlib.repr(row)}.")
    try:
        return form.encode(_whole(row[side], row.get("prompt")))
    except ValueError as error:
        error.args = (f"{name}, {side}: {error}",)
        raise


def _whole(side: Any, prompt: Any) -> list[Message]:
    """A side's messages, behind the prompt where they begin with the assistant's turn."""
    messages = read_messages(side)
    if not messages or messages[0]["role"] != "assistant":
        return messages
    if not prompt:
        raise ValueError("It begins with the assistant: put the question first, or beside it as 'prompt'.")
    return read_messages([say("user", prompt)] if isinstance(prompt, str) else prompt) + messages


def require_fit(dataset: Dataset, max_length: int | None) -> None:
    """Refuse pairs that the trainer's own limit would cut: the data set has the one limit, and says what it left out.

    Raises:
        ValueError: no pair at all, or one whose longer side has more than `max_length` tokens.

    >>> pairs = Dataset.from_dict({"chosen_ids": [[1, 2], [1, 2, 3]], "rejected_ids": [[1, 4], [1, 5]]})
    >>> require_fit(pairs, 2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The trainer's max_length=2 is shorter than 1 of 2 pairs, ...
    """
    if len(dataset) == 0:
        raise ValueError("There is no preference pair to train on: the data set is empty.")
    sides = zip(dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
    over = [] if max_length is None else [pair for pair in sides if max(map(len, pair)) > max_length]
    if over:
        raise ValueError(
            f"The trainer's max_length={max_length} is shorter than {len(over)} of {len(dataset)} pairs, and none is cut or "
            "left out here: set max_length=None, and limit the data set instead (max_tokens of pairs_from_messages)."
        )


# --- Batches ---


def padded(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    """Lists of different lengths as one tensor [N, T], padded on the right.

    >>> padded([[1, 2, 3], [4]], 0)
    tensor([[1, 2, 3],
            [4, 0, 0]])
    """
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (width - len(sequence))] for sequence in sequences])


def trajectory_batch(
    ids: Sequence[Sequence[int]], masks: Sequence[Sequence[int]], pad_token_id: int
) -> dict[str, Tensor]:
    """TRL's three tensors, [N, T] each, which `sequence_logps` takes too.

    Args:
        ids: of N whole trajectories, with their prompts.
        masks: 1 where the loss looks.
        pad_token_id: fills the rows on the right.

    >>> trajectory_batch([[4, 5, 6], [4, 9]], [[0, 1, 1], [0, 1]], pad_token_id=0)["completion_mask"]
    tensor([[0, 1, 1],
            [0, 1, 0]])
    """
    return {
        "input_ids": padded(ids, pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "completion_mask": padded(masks, 0),
    }


def _sides(examples: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    """All chosen rows, then all rejected rows."""
    return [example[f"{side}_{column}"] for side in SIDES for example in examples]


@dataclass
class TrajectoryPairCollator:
    """Pairs to the batch `DPOTrainer` expects: B chosen rows, then B rejected rows, padded on the right.

    Each example holds ``chosen_ids``, ``chosen_mask``, ``rejected_ids`` and ``rejected_mask``, whole trajectories with their
    prompt. The masks are one where the loss looks. With ``..._roles`` too, the batch has them for the diagnostics; with
    ``..._margin_features`` (`margin_features`) for the adaptive margin.

    >>> example = {"chosen_ids": [4, 5, 6], "chosen_mask": [0, 1, 1], "rejected_ids": [4, 9], "rejected_mask": [0, 1]}
    >>> TrajectoryPairCollator(pad_token_id=0)([example])["input_ids"]
    tensor([[4, 5, 6],
            [4, 9, 0]])
    """

    pad_token_id: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """TRL's tensors, perhaps ``roles``, [2B, T]; perhaps ``margin_features``, [2B, D]."""
        batch = trajectory_batch(_sides(examples, "ids"), _sides(examples, "mask"), self.pad_token_id)
        if "chosen_margin_features" in examples[0]:
            batch["margin_features"] = torch.tensor(_sides(examples, "margin_features"))
        if "chosen_roles" in examples[0]:
            batch["roles"] = padded(_sides(examples, "roles"), PADDED)
        return batch


class TrajectoryLabelCollator(TrajectoryPairCollator):
    """Pairs to the batch `KTOTrainer` expects: both trajectories of each pair with their verdicts, N = 2B rows.

    Right and wrong are balanced in every batch, and the KL rows put each prompt before an answer to *another* prompt, with
    that answer's mask.

    >>> def pair(prompt, good, bad):
    ...     sides = {"chosen": good, "rejected": bad}
    ...     row = {f"{side}_ids": [prompt, answer] for side, answer in sides.items()}
    ...     return row | {f"{side}_{name}": [0, 1] for side in sides for name in ("mask", "roles")}
    >>> batch = TrajectoryLabelCollator(pad_token_id=0)([pair(4, 11, 12), pair(5, 13, 14)])
    >>> batch["input_ids"].tolist(), batch["label"].tolist()
    ([[4, 11], [5, 13], [4, 12], [5, 14]], [True, True, False, False])
    >>> batch["KL_input_ids"].tolist()  # each prompt with an answer to the other
    [[4, 13], [5, 11], [4, 14], [5, 12]]
    """

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """TRL's tensors, ``KL_`` ones beside them, ``roles`` and ``label``.

        Raises:
            ValueError: the batch has no answers to different prompts.
        """
        ids, masks, roles = (_sides(examples, column) for column in ("ids", "mask", "roles"))
        prompts = [prompt_of(*side) for side in zip(ids, roles, strict=True)]
        mixed_ids, mixed_masks = [], []
        for prompt, other in zip(prompts, different_prompts(prompts), strict=True):
            start = len(prompts[other])
            mixed_ids.append([*prompt, *ids[other][start:]])
            mixed_masks.append([0] * len(prompt) + masks[other][start:])
        mismatched = trajectory_batch(mixed_ids, mixed_masks, self.pad_token_id)
        batch = super().__call__(examples) | {f"KL_{name}": value for name, value in mismatched.items()}
        return batch | {"label": torch.tensor([True] * len(examples) + [False] * len(examples))}
