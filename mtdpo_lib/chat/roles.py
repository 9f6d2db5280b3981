"""TODO: chat.roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

Message = dict[str, Any]  # at least role and content


class Role(IntEnum):
    """Who wrote a token."""

    PROMPT = 0  # x, with the template up to the first assistant token
    ASSISTANT = 1  # a_h, with its end-of-turn token: what the policy samples
    TOOL = 2  # o_h, the observation
    TEMPLATE = 3  # headers and separators between them


class ChatTemplateError(ValueError):
    """A tokenizer without a chat template, or with one that cannot be handled."""


@dataclass(frozen=True)
class RoleTokens:
    """Token ids and the role of each, both of length T."""

    ids: list[int]
    roles: list[int]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.roles):
            raise ValueError(
                f"Every token needs one role: got {len(self.ids)} tokens and {len(self.roles)} roles."
            )

    def __add__(self, other: RoleTokens) -> RoleTokens:
        return RoleTokens(self.ids + other.ids, self.roles + other.roles)

    def __len__(self) -> int:
        return len(self.ids)


def loss_mask(roles: Sequence[int]) -> list[int]:
    """1 for tokens the policy wrote, 0 for all others: the sum over h of eq. (14) runs over the ones."""
    return [int(role == Role.ASSISTANT) for role in roles]
