"""Trajectories to look at: who wrote what, and where the loss looks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from mtdpo_lib.chat.encoder import decode
from mtdpo_lib.chat.roles import Role, RoleTokens, loss_mask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ROLE_COLOURS = dict(zip(Role, ("#e8e8e8", "#9fd3c7", "#f6c28b", "#f7f7f7"), strict=True))
TERMINAL_COLOURS = dict(zip(Role, ("90", "32", "33", "2"), strict=True))


def to_html(tokens: RoleTokens, tokenizer: PreTrainedTokenizerBase, mask: Sequence[int] | None = None) -> str:
    """A trajectory as HTML: background by role, bold and underlined where the loss looks.

    Args:
        tokens: T tokens with their roles.
        tokenizer: to show them.
        mask: 0 or 1 for each token, `loss_mask` of the roles unless given.

    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> page = to_html(RoleTokens.of(tokenizer("2 < 3").input_ids, Role.ASSISTANT), tokenizer)
    >>> page.count("text-decoration:underline"), "&lt;" in page
    (5, True)
    """
    mask = loss_mask(tokens.roles) if mask is None else mask
    legend = " ".join(
        f'<span style="background:{colour};color:#222;padding:0 .4em">{role.name.lower()}</span>'
        for role, colour in ROLE_COLOURS.items()
    )
    spans = []
    for token, role, scored in zip(tokens.ids, tokens.roles, mask, strict=True):
        text = html.escape(decode(tokenizer, [token])).replace("\n", "\\n\n")
        weight = "font-weight:600;text-decoration:underline" if scored else ""
        spans.append(f'<span style="background:{ROLE_COLOURS[Role(role)]};color:#222;{weight}">{text}</span>')
    head = f"<div>{legend} <small>(underlined: in the loss)</small></div>"
    return f'{head}<pre style="white-space:pre-wrap">{"".join(spans)}</pre>'


def to_text(
    tokens: RoleTokens,
    tokenizer: PreTrainedTokenizerBase,
    mask: Sequence[int] | None = None,
    colour: bool = False,
) -> str:
    """The same for a terminal: one line per run of tokens alike, ``*`` where the loss looks, in `colour` if wanted.

    >>> from mtdpo_lib.chat import ChatFormat
    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> chat = ChatFormat(tokenizer)
    >>> print(to_text(chat.prompt("2 plus 3?") + chat.assistant("5"), tokenizer))
      prompt       8  '<|user|>2 plus 3?<|end|><|assistant|>'
    * assistant    2  '5<|end|>'
    """
    mask = loss_mask(tokens.roles) if mask is None else mask
    lines, start = [], 0
    for (role, scored), run in groupby(zip(tokens.roles, mask, strict=True)):
        end = start + len(list(run))
        text = decode(tokenizer, tokens.ids[start:end])
        line = f"{'*' if scored else ' '} {Role(role).name.lower():<9} {end - start:>4}  {text!r}"
        lines.append(f"\033[{TERMINAL_COLOURS[Role(role)]}m{line}\033[0m" if colour else line)
        start = end
    return "\n".join(lines)
