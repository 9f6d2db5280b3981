"""Message lists from elsewhere, demonstrations or a user's own data: a role for every token, for any chat template.

No generation markers are needed: `template_reader` says how the template writes a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtdpo_lib.chat.encoder import TextEncoder, render, tokenizer_name
from mtdpo_lib.chat.message_reader import read_messages
from mtdpo_lib.chat.roles import ChatTemplateError, Message, RoleTokens, loss_mask
from mtdpo_lib.chat.template_reader import Misfit, Refusal, TemplateReader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class MessageFormat:
    """Reads message lists with a tokenizer's chat template.

    Messages are dictionaries with ``role`` (system, user, assistant or tool) and ``content``, or in ShareGPT's form, and
    whatever else the template reads: ``tool_calls``, ``reasoning_content``. Where it has no tool role the tool speaks as
    user in an ``output`` fence, as in the paper (sec. 3.1); where it has no system role that text leads the first user turn.

    What the assistant wrote is what is learnt, so a template that rewrites its turns is refused: one that cuts or replaces
    text, takes the ``<think>`` out of earlier turns, or drops reasoning or a tool call. White space at the ends of a text
    does not count, since most templates trim it and nothing depends on it; inside a text it does, since code depends on it.

    Args:
        tokenizer: any tokenizer with a chat template.
        tools: schemas for templates that list them.
        allow_rewriting: learn what the template makes of the turns all the same; `rewritten` then says what it changed.
        template_arguments: handed to the template, for example ``enable_thinking=False``.

    Attributes:
        rewritten: for each conversation whose assistant turns were changed, the first change.

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
        self, tokenizer: PreTrainedTokenizerBase, tools: list[Any] | None = None, allow_rewriting: bool = False,
        **template_arguments: Any,
    ):  # fmt: skip
        self.tokenizer, self.allow_rewriting = tokenizer, allow_rewriting
        self.rewritten: list[str] = []
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
            ValueError: messages that are none (named, counted from 1), no assistant turn, nothing to score.
            ChatTemplateError: the template cannot be handled, or rewrites the assistant's turns; with its reason.
        """
        messages = read_messages(messages)
        roles = [message["role"] for message in messages]
        if "assistant" not in roles:
            raise ValueError(
                "The conversation has no assistant turn, so there is nothing to score: add one, or leave it out."
            )
        if not finished and roles[-1] != "assistant":
            raise ValueError(
                "Only an assistant's last turn can be unfinished: this conversation ends with another role."
            )
        try:
            pieces, changes = self._template.read(messages, finished)
        except Refusal as reason:
            raise self._refused(str(reason)) from reason
        if changes and not self.allow_rewriting:
            raise self._refused(changes[0], ", or pass allow_rewriting=True to learn what it makes of them")
        self.rewritten += changes[:1]
        tokens = self.text.encode(pieces)
        if not any(loss_mask(tokens.roles)):
            raise ValueError(
                "Nothing is scored: the assistant's turns are empty. Give them text, or leave the row out."
            )
        return tokens

    def _refused(self, reason: str, otherwise: str = "") -> ChatTemplateError:
        return ChatTemplateError(
            f"The chat template of {tokenizer_name(self.tokenizer)} cannot be handled for these messages: it {reason}. "
            f"Write them as it wants them, or set tokenizer.chat_template to one that takes them{otherwise}."
        )

    def render(self, messages: list[Message], generation: bool = False) -> str:
        """What the template makes of the messages."""
        try:
            return render(self.tokenizer, messages, generation, **self._arguments)
        except Exception as error:  # templates raise what they like
            raise Misfit(f"raises {type(error).__name__} ({error})") from error
