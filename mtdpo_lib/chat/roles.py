"""Roles: who wrote which token. Every loss mask is a lookup in them, so nothing downstream has to find turns again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

Message = dict[str, Any]  # at least role and content


def say(role: str, text: str) -> Message:
    """A message.

    >>> say("user", "2 plus 3?")
    {'role': 'user', 'content': '2 plus 3?'}
    """
    return {"role": role, "content": text}


class Role(IntEnum):
    """Who wrote a token.

    >>> [role.name for role in Role]
    ['PROMPT', 'ASSISTANT', 'TOOL', 'TEMPLATE']
    """

    PROMPT = 0  # x, with the template up to the first assistant token
    ASSISTANT = 1  # a_h, with its end-of-turn token: what the policy samples
    TOOL = 2  # o_h, the observation
    TEMPLATE = 3  # headers and separators between them


class ChatTemplateError(ValueError):
    """A tokenizer without a chat template, or with one that cannot be handled.

    >>> from mtdpo_lib.chat import ChatFormat
    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["Hello."], 300)
    >>> tokenizer.chat_template = None
    >>> ChatFormat(tokenizer)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mtdpo_lib.chat.roles.ChatTemplateError: The tokenizer ... has no chat template: ...
    """


@dataclass(frozen=True)
class RoleTokens:
    """Token ids and the role of each, both of length T. Pieces of a conversation add up to the whole.

    >>> question = RoleTokens.of([5, 6, 7], Role.PROMPT)
    >>> question + RoleTokens.of([8, 9], Role.ASSISTANT)
    RoleTokens(ids=[5, 6, 7, 8, 9], roles=[0, 0, 0, 1, 1])
    """

    ids: list[int]
    roles: list[int]

    @classmethod
    def of(cls, ids: list[int], role: Role) -> RoleTokens:
        """Tokens of one role."""
        return cls(ids, [int(role)] * len(ids))

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
    """1 for tokens the policy wrote, 0 for all others: the sum over h of eq. (14) runs over the ones.

    >>> loss_mask([Role.PROMPT, Role.ASSISTANT, Role.TEMPLATE, Role.TOOL, Role.TEMPLATE, Role.ASSISTANT])
    [0, 1, 0, 0, 0, 1]
    """
    return [int(role == Role.ASSISTANT) for role in roles]
