"""Five ways to get the mask wrong, each as some published code does it: for the lesson, and for tests that must catch them.

See: notebook 06_multi_turn_dpo, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from mtdpo_lib.chat import Role, RoleTokens, loss_mask

Scored = tuple[RoleTokens, list[int]]  # T tokens and their mask


def tool_scored(tokens: RoleTokens, _: PreTrainedTokenizerBase) -> Scored:
    """All that follows the prompt but the headers: the tool's output is learnt as if the policy had written it."""
    return tokens, [int(role in (Role.ASSISTANT, Role.TOOL)) for role in tokens.roles]


def header_scored(tokens: RoleTokens, _: PreTrainedTokenizerBase) -> Scored:
    """The headers between the tool's text and the policy's, which the template always writes, count too."""
    return tokens, [int(role in (Role.ASSISTANT, Role.TEMPLATE)) for role in tokens.roles]


def end_missed(tokens: RoleTokens, _: PreTrainedTokenizerBase) -> Scored:
    """Every turn without its end-of-turn token: nothing teaches the policy where to stop.

    >>> end_missed(RoleTokens([4, 5, 6, 7], [Role.PROMPT, *[Role.ASSISTANT] * 3]), None)[1]
    [0, 1, 1, 0]
    """
    mask = loss_mask(tokens.roles)
    return tokens, [scored & after for scored, after in zip(mask, [*mask[1:], 0], strict=True)]


def last_turn_only(tokens: RoleTokens, _: PreTrainedTokenizerBase) -> Scored:
    """The final answer alone: the turns that called the tool and led to it have no part in the loss."""
    before_last = len(tokens) - tokens.roles[::-1].index(Role.ASSISTANT)
    while before_last and tokens.roles[before_last - 1] == Role.ASSISTANT:
        before_last -= 1
    mask = loss_mask(tokens.roles)
    return tokens, [scored * (position >= before_last) for position, scored in enumerate(mask)]


def wrong_ids(tokens: RoleTokens, tokenizer: PreTrainedTokenizerBase) -> Scored:
    """The text tokenised again: it reads the same, but these are not the tokens that the policy sampled."""
    again, start = RoleTokens([], []), 0
    for role, run in groupby(tokens.roles):
        end = start + len(list(run))
        text = tokenizer.decode(tokens.ids[start:end], clean_up_tokenization_spaces=False)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        again, start = again + RoleTokens(ids, [role] * len(ids)), end
    return again, loss_mask(again.roles)


MISTAKES: dict[str, Callable[[RoleTokens, PreTrainedTokenizerBase], Scored]] = {
    "tool output scored": tool_scored,
    "header scored": header_scored,
    "end token missed": end_missed,
    "last turn only": last_turn_only,
    "wrong ids": wrong_ids,
}
