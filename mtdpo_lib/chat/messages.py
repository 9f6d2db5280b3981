"""Message lists from elsewhere, demonstrations or a user's own data: a role for every token, for any chat template.

No generation markers are needed. The template is rendered with a mark in place of every text, and for each turn as it
stands before and after that turn; how far these renderings agree says where a turn begins and ends. What the template does
to a text, such as trimming or quoting it, is read off a rendering with that text alone. A conversation for which all this
does not add up to exactly what the template renders is refused, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtdpo_lib.chat.encoder import Piece, TextEncoder, tokenizer_name
from mtdpo_lib.chat.roles import ChatTemplateError, Message, Role, RoleTokens, loss_mask
from mtdpo_lib.chat.template_reader import (
    _mark,
    _Misfit,
    _name,
    _Reader,
    _Refusal,
    _Shape,
    _shapes,
    _shared,
    _Skeleton,
    _with_arguments,
    _written,
)

ROLES = ("system", "user", "assistant", "tool")
CACHED = 1000  # kinds of conversations remembered: texts do not count, tool calls do


class MessageFormat:
    """Reads message lists with a tokenizer's chat template.

    Messages are dictionaries with ``role`` (system, user, assistant or tool) and ``content``, and whatever else the
    template reads: ``tool_calls``, ``reasoning_content``. Where it has no tool role the tool speaks as user in an
    ``output`` fence, as in the paper (sec. 3.1); where it has no system role that text leads the first user turn.

    Args:
        tokenizer: any tokenizer with a chat template.
        tools: schemas for templates that list them.
        template_arguments: handed to the template, for example ``enable_thinking=False``.

    Raises:
        ChatTemplateError: no chat template.

    See: notebook 06_multi_turn_dpo, section 5.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: list[Any] | None = None, **template_arguments: Any
    ):
        self.tokenizer = tokenizer
        self.text = TextEncoder(tokenizer)
        self._arguments = {"tools": tools, **template_arguments}
        self._skeletons: dict[str, _Skeleton | _Refusal] = {}

    def encode(self, messages: Sequence[Message], finished: bool = True) -> RoleTokens:
        """Ids and roles of a conversation, up to the end of its last turn.

        Args:
            messages: at least one of them an assistant's.
            finished: False when the last turn, the assistant's, was cut off: then it has no end-of-turn token.

        Returns:
            T tokens. Everything up to the first assistant turn is prompt; later user turns are prompt with template headers.

        Raises:
            ValueError: messages that are none, no assistant turn, nothing to score.
            ChatTemplateError: the template cannot be handled, with its reason.
        """
        messages = _checked(messages, finished)
        reasons = []
        for shape in _shapes(messages):
            try:
                tokens = self._encode(messages, shape, finished)
            except _Misfit as reason:
                reasons.append(str(reason))
                continue
            except _Refusal as reason:
                reasons.insert(0, str(reason))
                break
            if not any(loss_mask(tokens.roles)):
                raise ValueError(
                    "Nothing is scored: the assistant's turns are empty. Give them text, or leave the row out."
                )
            return tokens
        raise ChatTemplateError(
            f"The chat template of {tokenizer_name(self.tokenizer)} cannot be handled for these messages: "
            f"it {reasons[0]}. Write them as this template wants them, or set tokenizer.chat_template to one "
            "that takes them."
        )

    def encode_pair(
        self,
        chosen: Sequence[Message],
        rejected: Sequence[Message],
        finished: tuple[bool, bool] = (True, True),
    ) -> tuple[RoleTokens, RoleTokens]:
        """Both sides of a preference pair, whole conversations with the same messages up to the first assistant turn.

        Args:
            chosen, rejected: as for `encode`; what both share after the prompt is scored in both.
            finished: for each side.

        Raises:
            ValueError: they answer different prompts, or as `encode`.
        """
        tokens = self.encode(chosen, finished[0]), self.encode(rejected, finished[1])
        if _prompt(chosen) != _prompt(rejected):
            raise ValueError(
                "The two sides of a pair answer different prompts: "
                "give both the same messages up to the first assistant turn."
            )
        return tokens

    def render(self, messages: list[Message], generation: bool = False) -> str:
        """What the template makes of the messages."""
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation, **self._arguments
            )
        except Exception as error:  # templates raise what they like
            raise _Misfit(f"raises {type(error).__name__} ({error})") from error

    def _encode(self, messages: list[Message], shape: _Shape, finished: bool) -> RoleTokens:
        skeleton = self._skeleton(messages, shape)
        contents = [message["content"] for message in messages]
        rendered = self.render(_written(messages, contents, shape)) + skeleton.added
        for form in (str, str.strip):
            texts = {
                hole.message: hole.lead + form(contents[hole.message]) + hole.tail for hole in skeleton.holes
            }
            if skeleton.fill(texts) == rendered:
                break
        else:
            texts = self._extract(messages, contents, shape, skeleton)
            if skeleton.fill(texts) != rendered:
                raise _Refusal("writes one message differently because of the text of another")
        return self.text.encode(_pieces(skeleton, texts, finished))

    def _extract(
        self, messages: list[Message], contents: list[str], shape: _Shape, skeleton: _Skeleton
    ) -> dict[int, str]:
        """The text of every hole as the template writes it, each from a rendering in which it is the only real one."""
        texts = {}
        for hole in skeleton.holes:
            mixed = [*skeleton.marks]
            mixed[hole.message] = contents[hole.message]
            text = self.render(_written(messages, mixed, shape)) + skeleton.added
            before, after = skeleton.text[: hole.start], skeleton.text[hole.end :]
            written = text[len(before) : len(text) - len(after)]
            if before + written + after != text:
                raise _Refusal(
                    f"writes other text differently because of that of {_name(messages, hole.message)}"
                )
            texts[hole.message] = written
        return texts

    def _skeleton(self, messages: list[Message], shape: _Shape) -> _Skeleton:
        """The skeleton of this kind of conversation, made once."""
        marks = [_mark(place) if one["content"] else one["content"] for place, one in enumerate(messages)]
        key = json.dumps([shape, _written(messages, marks, shape)], default=str)
        if key not in self._skeletons:
            if len(self._skeletons) >= CACHED:
                self._skeletons.clear()
            try:
                self._skeletons[key] = _Reader(
                    self.render, self.text.control, messages, marks, shape
                ).skeleton()
            except _Refusal as reason:
                self._skeletons[key] = reason
        found = self._skeletons[key]
        if isinstance(found, _Refusal):
            raise found
        return found


def _checked(messages: Sequence[Message], finished: bool) -> list[Message]:
    """The messages with their contents as texts."""
    checked = []
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(
                f"Message {place + 1} is no message: a message is a dictionary with a role, one of "
                f"{', '.join(ROLES)}, and its content; got {str(message)[:60]}."
            )
        content = message.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
                raise ValueError(f"Message {place + 1} holds more than text: leave out images and sounds.")
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise ValueError(
                f"Message {place + 1} ({message['role']}) has no text: give it a string as content."
            )
        kept = {
            key: value for key, value in message.items() if value is not None
        }  # data sets fill up with None
        checked.append({**kept, "content": content or ""})
        if message.get("tool_calls"):
            checked[-1]["tool_calls"] = [_with_arguments(call, _from_json) for call in message["tool_calls"]]
    if not any(message["role"] == "assistant" for message in checked):
        raise ValueError(
            "The conversation has no assistant turn, so there is nothing to score: add one, or leave it out."
        )
    if not finished and checked[-1]["role"] != "assistant":
        raise ValueError(
            "Only an assistant's last turn can be unfinished: this conversation ends with another role."
        )
    return checked


def _from_json(arguments: Any) -> Any:
    """Arguments as a mapping, also where they came as JSON text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except json.JSONDecodeError:
        return arguments


def _prompt(messages: Sequence[Message]) -> list[tuple[str, Any]]:
    """Role and content of all that comes before the first assistant turn."""
    before = takewhile(lambda message: message["role"] != "assistant", messages)
    return [(message["role"], message["content"]) for message in before]


def _pieces(skeleton: _Skeleton, texts: dict[int, str], finished: bool) -> Iterator[Piece]:
    """The conversation cut by role, up to the end of its last turn."""
    place, between = 0, Role.PROMPT
    last = skeleton.holes[-1]
    for hole in skeleton.holes:
        yield Piece(skeleton.text[place : hole.start], between, own=True)
        text = texts[hole.message]
        lead = _shared(hole.lead, text)
        tail = _shared(hole.tail[::-1], text[lead:][::-1])
        yield Piece(text[:lead], hole.role, own=True)
        yield Piece(text[lead : len(text) - tail], hole.role, own=False)
        if hole.role == Role.ASSISTANT and (finished or hole is not last):
            tail_and_end = text[len(text) - tail :] + skeleton.text[hole.end : hole.stop]
            yield Piece(tail_and_end, hole.role, own=True)
        place = hole.end
        if hole.role == Role.ASSISTANT:
            between, place = Role.TEMPLATE, hole.stop
    if last.role != Role.ASSISTANT:
        yield Piece(skeleton.text[place:], between, own=True)
