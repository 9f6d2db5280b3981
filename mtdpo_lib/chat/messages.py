"""Message lists from elsewhere, demonstrations or a user's own data: a role for every token, for any chat template.

No generation markers are needed: `template_reader` says how the template writes a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtdpo_lib.chat.encoder import TextEncoder, render, tokenizer_name
from mtdpo_lib.chat.roles import ChatTemplateError, Message, RoleTokens, loss_mask
from mtdpo_lib.chat.template_reader import Misfit, Refusal, TemplateReader, with_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ROLES = ("system", "user", "assistant", "tool")


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

    >>> from mtdpo_lib.chat import Role, say
    >>> from mtdpo_lib.models import train_tokenizer
    >>> tokenizer = train_tokenizer(["2 plus 3?"], 400)
    >>> conversation = [say("user", "2 plus 3?"), say("assistant", "5")]
    >>> tokens = MessageFormat(tokenizer).encode(conversation)
    >>> tokenizer.decode([token for token, role in zip(tokens.ids, tokens.roles) if role == Role.ASSISTANT])
    '5<|end|>'

    See: notebook 06_multi_turn_dpo, section 5.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, tools: list[Any] | None = None, **template_arguments: Any
    ):
        self.tokenizer = tokenizer
        self.text = TextEncoder(tokenizer)
        self._arguments: dict[str, Any] = {"tools": tools, **template_arguments}
        self._template = TemplateReader(self.render, self.text.control)

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
        try:
            pieces = self._template.read(messages, finished)
        except Refusal as reason:
            raise ChatTemplateError(
                f"The chat template of {tokenizer_name(self.tokenizer)} cannot be handled for these messages: "
                f"it {reason}. Write them as this template wants them, or set tokenizer.chat_template to one "
                "that takes them."
            ) from reason
        tokens = self.text.encode(pieces)
        if not any(loss_mask(tokens.roles)):
            raise ValueError(
                "Nothing is scored: the assistant's turns are empty. Give them text, or leave the row out."
            )
        return tokens

    def render(self, messages: list[Message], generation: bool = False) -> str:
        """What the template makes of the messages."""
        try:
            return render(self.tokenizer, messages, generation, **self._arguments)
        except Exception as error:  # templates raise what they like
            raise Misfit(f"raises {type(error).__name__} ({error})") from error


def _checked(messages: Sequence[Message], finished: bool) -> list[Message]:
    """The messages with their contents as texts."""
    checked = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(
                f"Message {number} is no message: a message is a dictionary with a role, one of "
                f"{', '.join(ROLES)}, and its content; got {str(message)[:60]}."
            )
        content = message.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
                raise ValueError(f"Message {number} holds more than text: leave out images and sounds.")
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise ValueError(
                f"Message {number} ({message['role']}) has no text: give it a string as content."
            )
        # data sets fill up with None
        kept = {key: value for key, value in message.items() if value is not None}
        checked.append({**kept, "content": content or ""})
        if message.get("tool_calls"):
            checked[-1]["tool_calls"] = [with_arguments(call, _from_json) for call in message["tool_calls"]]
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
