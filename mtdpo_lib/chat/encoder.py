"""Chat: messages to token ids with a role for every token; the loss mask is read off the roles.

Sampled trajectories and written demonstrations are put together from the same pieces (`ChatFormat`), so training sees the
very tokens that sampling produces, for any chat template that can be split into pieces. Knows nothing of training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from mtdpo_lib.chat.roles import ChatTemplateError, Message, Role, RoleTokens, say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION = "Qqq7"  # stands for a question where the template is read


def tokenizer_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to call a tokenizer in an error."""
    return tokenizer.name_or_path or type(tokenizer).__name__


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    generation: bool = False,
    **arguments: Any,
) -> str:
    """What the chat template makes of the messages, with the header of an answer to come if `generation`."""
    arguments |= {"tokenize": False, "add_generation_prompt": generation}
    return cast(str, tokenizer.apply_chat_template(list(messages), **arguments))


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, control: bool = True) -> str:
    """The text of one sequence of ids, with or without its special tokens."""
    return cast(str, tokenizer.decode(list(ids), skip_special_tokens=not control))


def require_padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills up short rows of a batch.

    Raises:
        ValueError: the tokenizer has no padding token.

    >>> from mtdpo_lib.models import train_tokenizer
    >>> require_padding(train_tokenizer(["2 plus 3?"], 400))
    0
    """
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"The tokenizer {tokenizer_name(tokenizer)} has no padding token: "
            "set one, for example tokenizer.pad_token = tokenizer.eos_token."
        )
    return tokenizer.pad_token_id


@dataclass(frozen=True)
class Piece:
    """A stretch of text with its role. In the template's `own` text control tokens count, in all other text they do not."""

    text: str
    role: Role
    own: bool


class TextEncoder:
    """Pieces of text to token ids, so that only the template can write control tokens.

    Control tokens are the tokenizer's special tokens and all other added tokens that the chat template mentions. Text
    between two of them is encoded as one, just as the tokenizer would. Only a change of role cuts it, so that no token
    belongs to two roles and a turn starts with the ids that sampling starts with.

    Raises:
        ChatTemplateError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise ChatTemplateError(
                f"The tokenizer {tokenizer_name(tokenizer)} has no chat template: "
                "use an instruction-tuned model, or set tokenizer.chat_template."
            )
        template = tokenizer.get_chat_template()
        tokens = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
        self._control = {
            text: token
            for text, token in tokens.items()
            if token.special or (text in template and not text.isspace())
        }
        self.control = _any_of(self._control)  # finds control tokens in the template's own text
        self._special = _any_of(text for text, token in tokens.items() if token.special)
        self._continues, self._after_token = self._habits()

    def _habits(self) -> tuple[bool, bool]:
        """Whether text inside a text, and text after a control token, must not get the tokenizer's prefix space."""
        alone, inside = self._ids("a"), self._ids("\u0001a")
        if inside == self._ids("\u0001") + alone or not self._control:
            return False, False
        token = next(iter(self._control))
        whole = self.tokenizer(token + "a", add_special_tokens=False).input_ids
        return True, whole[1:] != alone

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def _section(self, text: str, after: str) -> list[int]:
        """Ids of text without control tokens that stands at the ``start``, or after a ``token`` or other ``text``."""
        if (after == "text" and self._continues) or (after == "token" and self._after_token):
            anchor = self._ids("\u0001")
            return self._ids("\u0001" + text)[len(anchor) :]
        return self._ids(text)

    def plain(self, text: str, role: Role, after: str = "text") -> list[int]:
        """Ids of text in which control tokens are ordinary characters.

        An assistant's text may hold added tokens that are not special, such as ``<think>``: the policy samples them.
        """
        if not text:
            return []
        forbidden = self._special if role == Role.ASSISTANT else self.control
        ids = self._section(text, after)
        written = {self.tokenizer.convert_tokens_to_ids(token) for token in forbidden.findall(text)}
        if written.isdisjoint(ids):
            return ids
        ids = []
        for index, part in enumerate(re.split(f"({forbidden.pattern})", text)):
            for character in part if index % 2 else [part] if part else []:  # a control token is spelt
                ids += self._section(character, "text" if ids else after)
        return ids

    def _sections(self, pieces: Iterable[Piece]) -> Iterator[tuple[str, str | None]]:
        """Text up to a control token of the template, and that token; at the end the rest and None."""
        text, before = "", None
        for piece in pieces:
            end = 0
            for match in self.control.finditer(piece.text) if piece.own else ():
                yield self._strip(text + piece.text[end : match.start()], before, match[0]), match[0]
                text, end, before = "", match.end(), match[0]
            text += piece.text[end:]
        yield self._strip(text, before, None), None

    def _strip(self, text: str, before: str | None, after: str | None) -> str:
        """Without the spaces that the neighbouring control tokens swallow."""
        if before is not None and self._control[before].rstrip:
            text = text.lstrip()
        return text.rstrip() if after is not None and self._control[after].lstrip else text

    def encode(self, pieces: Iterable[Piece], after: str = "start") -> RoleTokens:
        """Ids and roles of consecutive pieces."""
        ids, roles = [], []
        for role, run in groupby(pieces, key=attrgetter("role")):
            for text, token in self._sections(run):
                if text:
                    ids += self.plain(text, role, after)
                    after = "text"
                if token is not None:
                    ids.append(self.tokenizer.convert_tokens_to_ids(token))
                    after = "token"
            roles += [int(role)] * (len(ids) - len(roles))
        return RoleTokens(ids, roles)


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """Finds any of the strings, the longest first; nothing where there is none."""
    return re.compile("|".join(re.escape(text) for text in sorted(strings, key=len, reverse=True)) or r"(?!)")


def tool_as_user(text: str) -> Message:
    """The tool's turn where a template has no tool role, as in the paper (sec. 3.1)."""
    return say("user", f"```output\n{text}\n```")


class ChatFormat:
    """The pieces of a tokenizer's chat template around the turns of a tool conversation.

    The template is rendered once with marker texts and cut at the markers. Where it has no tool role, the tool speaks as
    user inside an ``output`` fence, as in the paper (sec. 3.1).

    Args:
        tokenizer: any tokenizer with a chat template.

    Raises:
        ChatTemplateError: no template, or one whose turns cannot be told apart.

    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> chat = ChatFormat(tokenizer)
    >>> tokens = chat.prompt("2 plus 3?") + chat.assistant("print(2+3)") + chat.tool("5")
    >>> tokenizer.decode(tokens.ids)
    '<|user|>2 plus 3?<|end|><|assistant|>print(2+3)<|end|><|tool|>5<|end|><|assistant|>'

    What follows the tool's text belongs to the template; the policy wrote its turn and the token that ends it:

    >>> chat.text([token for token, role in zip(tokens.ids, tokens.roles) if role == Role.ASSISTANT])
    'print(2+3)'

    See: notebook 04_rollouts_and_answers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._text = TextEncoder(tokenizer)
        pieces = self._cut(lambda text: say("tool", text)) or self._cut(tool_as_user)
        name = tokenizer_name(tokenizer)
        if pieces is None:
            raise ChatTemplateError(
                f"The chat template of {name} cannot be split into turns: "
                "it changes or drops earlier turns. Use a template that renders every turn alike."
            )
        self._before_tool, self._after_tool = (
            tokenizer(piece, add_special_tokens=False).input_ids for piece in pieces
        )
        self.end_of_turn = self._before_tool[0]
        if self.end_of_turn not in {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
            raise ChatTemplateError(
                f"The chat template of {name} does not end a turn with a special token: "
                "a sampled turn would have no end."
            )

    def _cut(self, tool: Callable[[str], Message]) -> tuple[str, str] | None:
        """Text between an assistant turn and the tool's, and between the tool's and the next assistant turn."""
        turns, tools = ["Aaa7", "Bbb7", "Ccc7"], ["Ttt7", "Uuu7"]
        question, answers = say("user", QUESTION), [say("assistant", turn) for turn in turns]
        messages = [question, answers[0], tool(tools[0]), answers[1], tool(tools[1])]
        try:
            text = render(self.tokenizer, messages, generation=True)
            whole = render(self.tokenizer, [*messages, answers[2]])
            prompt = render(self.tokenizer, [question], generation=True)
        except Exception:  # templates raise what they like when a role is unknown to them
            return None
        if any(text.count(marker) != 1 for marker in (*turns[:2], *tools)):
            return None
        before = text.partition(turns[0])[2].partition(tools[0])[0]
        after = text.partition(tools[0])[2].partition(turns[1])[0]
        built = prompt + turns[0] + before + tools[0] + after + turns[1] + before + tools[1] + after
        return (before, after) if built == text and whole.startswith(built + turns[2]) else None

    def prompt(self, question: str) -> RoleTokens:
        """The question, as plain text, and the header of the first assistant turn."""
        asked = [
            render(self.tokenizer, [say("user", text)], generation=True) for text in (QUESTION, question)
        ]
        (before, _, after), whole = asked[0].partition(QUESTION), asked[1]
        text = whole[len(before) : len(whole) - len(after)]
        if before + text + after != whole:
            raise ChatTemplateError(
                f"The chat template of {tokenizer_name(self.tokenizer)} changes with the question {question[:40]!r}: "
                "use a template that writes every question alike."
            )
        parts = ((before, True), (text, False), (after, True))
        return self._text.encode([Piece(part, Role.PROMPT, own) for part, own in parts])

    def assistant(self, text: str) -> RoleTokens:
        """A written assistant turn and its end-of-turn token."""
        return RoleTokens.of([*self._text.plain(text, Role.ASSISTANT), self.end_of_turn], Role.ASSISTANT)

    @property
    def tool_header(self) -> RoleTokens:
        """What follows an end-of-turn token when the tool was called, whatever the tool then says."""
        return RoleTokens.of(self._before_tool[1:], Role.TEMPLATE)

    def tool_answer(self, text: str) -> RoleTokens:
        """What follows `tool_header`: the tool's text and the header of the next assistant turn."""
        content = self._text.plain(text, Role.TOOL)  # template tokens written in it cannot forge a turn
        return RoleTokens.of(content, Role.TOOL) + RoleTokens.of(self._after_tool, Role.TEMPLATE)

    def tool(self, text: str) -> RoleTokens:
        """What follows an end-of-turn token: the tool's turn and the header of the next assistant turn."""
        return self.tool_header + self.tool_answer(text)

    def encode(self, messages: Sequence[Message]) -> RoleTokens:
        """A whole conversation: one question, then assistant turns with tool turns between them.

        Raises:
            ValueError: another order of roles.
        """
        roles = [message["role"] for message in messages]
        turns = ["assistant", "tool"] * len(roles)
        if len(roles) < 2 or roles != ["user", *turns[: len(roles) - 1]]:
            raise ValueError(
                f"A trajectory is user, assistant, tool, assistant, ...; got {', '.join(roles) or 'no message'}."
            )
        encode = {"user": self.prompt, "assistant": self.assistant, "tool": self.tool}
        tokens = RoleTokens([], [])
        for message in messages:
            tokens += encode[message["role"]](message["content"])
        return tokens

    def text(self, ids: Sequence[int]) -> str:
        """What the policy wrote with these ids, without the end of its turn."""
        return decode(self.tokenizer, ids, control=False)
