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


# Of different lightness, so that they can be told apart in grey too.
ROLE_COLOURS = dict(zip(Role, ("#c8c8c8", "#6fae9b", "#ffd98a", "#fafafa"), strict=True))
TERMINAL_COLOURS = dict(zip(Role, ("90", "32", "33", "2"), strict=True))


def _runs(
    tokens: RoleTokens, tokenizer: PreTrainedTokenizerBase, mask: Sequence[int] | None, mark: int | None
) -> Iterator[tuple[Role, int, int, str, bool]]:
    """Neighbours alike as one: who wrote them, whether the loss looks, how many tokens, their text, if it is `mark`."""
    mask, start = loss_mask(tokens.roles) if mask is None else mask, 0
    marked = (place == mark for place in range(len(tokens)))
    for (role, scored, found), run in groupby(zip(tokens.roles, mask, marked, strict=True)):
        end = start + len(list(run))
        yield Role(role), scored, end - start, decode(tokenizer, tokens.ids[start:end]), found
        start = end


def _block(role: Role, text: str) -> str:
    return f'<span style="background:{ROLE_COLOURS[role]};color:#222">{text}</span>'


def _printable(text: str) -> str:
    """Line ends shown and kept; what does not print, such as marks that turn the reading direction, spelt."""
    spelt = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return "".join(one + "\n" if one == "\\n" else one for one in spelt)


# A page may set tables to the right and break words anywhere; a trajectory keeps its lines, spaces and words.
PAGE = "text-align:left;white-space:pre-wrap;word-break:normal;overflow-wrap:break-word"
LEGEND = (
    "<p><b>[in brackets]</b> who wrote what follows, and how many tokens; <ins>underlined</ins> what the loss sees; "
    "<mark>here</mark> one token to look at: "
    + " ".join(_block(role, f"<b>[{role.name.lower()}]</b>") for role in Role)
    + "</p>"
)


def to_html(
    tokens: RoleTokens,
    tokenizer: PreTrainedTokenizerBase,
    mask: Sequence[int] | None = None,
    legend: bool = True,
    mark: int | None = None,
) -> str:
    """A trajectory as HTML: who wrote each run of tokens, in brackets and as background, underlined where the loss looks.

    Each run begins a line, and nothing is lost where styles are taken out. What the trajectory holds is
    text here whatever it is: it is escaped.

    Args:
        tokens: T tokens with their roles.
        tokenizer: to show them.
        mask: 0 or 1 for each token, `loss_mask` of the roles unless given.
        legend: begin with what the signs mean.
        mark: a token to point at by its place, e.g. the one where a pair parts.

    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> tokens = RoleTokens.of(tokenizer("2 < 3").input_ids, Role.ASSISTANT)
    >>> to_html(tokens, tokenizer, legend=False)  # doctest: +ELLIPSIS
    '<pre style="..."><span style="..."><b>[assistant 5]</b> <ins>2 &lt; 3</ins></span></pre>'
    """
    blocks = []
    for role, scored, count, text, marked in _runs(tokens, tokenizer, mask, mark):
        shown = html.escape(_printable(text))
        shown = f"<ins>{shown}</ins>" if scored else shown
        here, shown = (", here", f"<mark>{shown}</mark>") if marked else ("", shown)
        blocks.append(_block(role, f"<b>[{role.name.lower()} {count}{here}]</b> {shown}"))
    return f'{LEGEND if legend else ""}<pre style="{PAGE}">{"\n".join(blocks)}</pre>'


def to_text(
    tokens: RoleTokens,
    tokenizer: PreTrainedTokenizerBase,
    mask: Sequence[int] | None = None,
    colour: bool = False,
    mark: int | None = None,
) -> str:
    """The same for a terminal: one line per run, ``*`` where the loss looks, ``>`` at `mark`, in `colour` if wanted.

    >>> from mtdpo_lib.chat import ChatFormat
    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> chat = ChatFormat(tokenizer)
    >>> print(to_text(chat.prompt("2 plus 3?") + chat.assistant("5"), tokenizer))
      prompt       8  '<|user|>2 plus 3?<|end|><|assistant|>'
    * assistant    2  '5<|end|>'
    """
    lines = []
    for role, scored, count, text, marked in _runs(tokens, tokenizer, mask, mark):
        line = f"{'*' if scored else ' '}{'>' if marked else ' '}{role.name.lower():<9} {count:>4}  {text!r}"
        lines.append(f"\033[{TERMINAL_COLOURS[role]}m{line}\033[0m" if colour else line)
    return "\n".join(lines)
