"""Chat: who wrote which token, for every chat template; every loss mask is a lookup in the roles."""

from mtdpo_lib.chat.encoder import ChatFormat, require_padding
from mtdpo_lib.chat.message_reader import read_messages
from mtdpo_lib.chat.messages import MessageFormat
from mtdpo_lib.chat.roles import ChatTemplateError, Message, Role, RoleTokens, loss_mask, say
from mtdpo_lib.chat.show import to_html, to_text

__all__ = [
    "ChatFormat", "ChatTemplateError", "Message", "MessageFormat", "Role", "RoleTokens", "loss_mask", "read_messages",
    "require_padding", "say", "to_html", "to_text",
]  # fmt: skip
