"""Trajectories to look at: who wrote what, and where the loss looks."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from mtdpo_lib.chat.encoder import decode
from mtdpo_lib.chat.roles import Role, RoleTokens, loss_mask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ROLE_COLOURS = dict(zip(Role, ("#e8e8e8", "#9fd3c7", "#f6c28b", "#f7f7f7"), strict=True))
TERMINAL_COLOURS = dict(zip(Role, ("90", "32", "33", "2"), strict=True))


def _runs(
    tokens: RoleTokens, tokenizer: PreTrainedTokenizerBase, mask: Sequence[int] | None
) -> Iterator[tuple[Role, int, int, str]]:
    """Neighbours alike as one: who wrote them, whether the loss looks, how many tokens, their text."""
    mask, start = loss_mask(tokens.roles) if mask is None else mask, 0
    for (role, scored), run in groupby(zip(tokens.roles, mask, strict=True)):
        end = start + len(list(run))
        yield Role(role), scored, end - start, decode(tokenizer, tokens.ids[start:end])
        start = end


def _block(role: Role, text: str) -> str:
    return f'<span style="background:{ROLE_COLOURS[role]};color:#222">{text}</span>'


def _printable(text: str) -> str:
    """Line ends shown and kept; what does not print, such as marks that turn the reading direction, spelt."""
    spelt = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return "".join(one + "\n" if one == "\\n" else one for one in spelt)


LEGEND = (
    "<p><b>[in brackets]</b> who wrote what follows, and how many tokens; <ins>underlined</ins> what the loss sees: "
    + " ".join(_block(role, f"<b>[{role.name.lower()}]</b>") for role in Role)
    + "</p>"
)


def to_html(
    tokens: RoleTokens,
    tokenizer: PreTrainedTokenizerBase,
    mask: Sequence[int] | None = None,
    legend: bool = True,
) -> str:
    """A trajectory as HTML: who wrote each run of tokens, in brackets and as background, underlined where the loss looks.

    It says the same where styles are taken out. What the trajectory holds is text here whatever it is: it is escaped.

    Args:
        tokens: T tokens with their roles.
        tokenizer: to show them.
        mask: 0 or 1 for each token, `loss_mask` of the roles unless given.
        legend: begin with what the signs mean.

    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> tokens = RoleTokens.of(tokenizer("2 < 3").input_ids, Role.ASSISTANT)
    >>> to_html(tokens, tokenizer, legend=False)  # doctest: +ELLIPSIS
    '<pre style="white-space:pre-wrap"><span style="..."><b>[assistant 5]</b> <ins>2 &lt; 3</ins></span></pre>'
    """
    blocks = []
    for role, scored, count, text in _runs(tokens, tokenizer, mask):
        shown = html.escape(_printable(text))
        shown = f"<ins>{shown}</ins>" if scored else shown
        blocks.append(_block(role, f"<b>[{role.name.lower()} {count}]</b> {shown}"))
    return f'{LEGEND if legend else ""}<pre style="white-space:pre-wrap">{"".join(blocks)}</pre>'


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
    lines = []
    for role, scored, count, text in _runs(tokens, tokenizer, mask):
        line = f"{'*' if scored else ' '} {role.name.lower():<9} {count:>4}  {text!r}"
        lines.append(f"\033[{TERMINAL_COLOURS[role]}m{line}\033[0m" if colour else line)
    return "\n".join(lines)
