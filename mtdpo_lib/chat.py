"""Chat: messages to token ids with a role for every token; the loss mask is read off the roles.

Sampled trajectories and written demonstrations are put together from the same pieces (`ChatFormat`), so training sees the
very tokens that sampling produces, for any chat template that can be split into pieces. Knows nothing of training.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Message = dict[str, str]


class Role(IntEnum):
    """Who wrote a token."""

    PROMPT = 0  # x, with the template up to the first assistant token
    ASSISTANT = 1  # a_h, with its end-of-turn token: what the policy samples
    TOOL = 2  # o_h, the observation
    TEMPLATE = 3  # headers and separators between them


class ChatTemplateError(ValueError):
    """A tokenizer without a chat template, or with one that cannot be handled."""


@dataclass(frozen=True)
class RoleTokens:
    """Token ids and the role of each, both of length T."""

    ids: list[int]
    roles: list[int]

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
    """1 for tokens the policy wrote, 0 for all others: the sum over h of eq. (14) runs over the ones."""
    return [int(role == Role.ASSISTANT) for role in roles]


class ChatFormat:
    """The pieces of a tokenizer's chat template around the turns of a tool conversation.

    The template is rendered once with marker texts and cut at the markers. Where it has no tool role, the tool speaks as
    user inside an ``output`` fence, as in the paper (sec. 3.1).

    Args:
        tokenizer: any tokenizer with a chat template.

    Raises:
        ChatTemplateError: no template, or one whose turns cannot be told apart.

    See: notebook 04_rollouts_and_answers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise ChatTemplateError(
                f"The tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} has no chat template: "
                "use an instruction-tuned model, or set tokenizer.chat_template."
            )
        self.tool_as_user = False
        pieces = self._cut()
        if pieces is None:
            self.tool_as_user = True
            pieces = self._cut()
        if pieces is None:
            raise ChatTemplateError(
                f"The chat template of {tokenizer.name_or_path} cannot be split into turns: "
                "it changes or drops earlier turns. Use a template that renders every turn alike."
            )
        self._before_tool, self._after_tool = (self._encode(piece) for piece in pieces)
        self.end_of_turn = self._before_tool[0]
        if self.end_of_turn not in tokenizer.all_special_ids and not self._is_added(self.end_of_turn):
            raise ChatTemplateError(
                f"The chat template of {tokenizer.name_or_path} does not end a turn with a special token: "
                "a sampled turn would have no end."
            )

    def _is_added(self, token: int) -> bool:
        return token in self.tokenizer.added_tokens_decoder

    def _tool_message(self, text: str) -> Message:
        if self.tool_as_user:
            return {"role": "user", "content": f"```output\n{text}\n```"}
        return {"role": "tool", "content": text}

    def _render(self, messages: list[Message], generation: bool) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)

    def _cut(self) -> tuple[str, str] | None:
        """Text between an assistant turn and the tool's, and between the tool's and the next assistant turn."""
        question, turns, tools = "Qqq7", ["Aaa7", "Bbb7", "Ccc7"], ["Ttt7", "Uuu7"]
        messages = [{"role": "user", "content": question}]
        for turn, tool in zip(turns, tools, strict=False):
            messages += [{"role": "assistant", "content": turn}, self._tool_message(tool)]
        try:
            text = self._render(messages, generation=True)
            whole = self._render([*messages, {"role": "assistant", "content": turns[2]}], generation=False)
            prompt = self._render(messages[:1], generation=True)
        except Exception:  # templates raise what they like when a role is unknown to them
            return None
        if any(text.count(marker) != 1 for marker in (*turns[:2], *tools)):
            return None
        before = text.partition(turns[0])[2].partition(tools[0])[0]
        after = text.partition(tools[0])[2].partition(turns[1])[0]
        built = prompt + turns[0] + before + tools[0] + after + turns[1] + before + tools[1] + after
        return (before, after) if built == text and whole.startswith(built + turns[2]) else None

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _encode_plain(self, text: str) -> list[int]:
        """Ids of untrusted text: template tokens written in it stay ordinary characters and cannot forge a turn."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def prompt(self, question: str) -> RoleTokens:
        """The question and the header of the first assistant turn."""
        ids = self._encode(self._render([{"role": "user", "content": question}], generation=True))
        return RoleTokens(ids, [Role.PROMPT] * len(ids))

    def assistant(self, text: str) -> RoleTokens:
        """A written assistant turn and its end-of-turn token."""
        ids = [*self._encode_plain(text), self.end_of_turn]
        return RoleTokens(ids, [Role.ASSISTANT] * len(ids))

    def tool(self, text: str) -> RoleTokens:
        """What follows an end-of-turn token: the tool's turn and the header of the next assistant turn."""
        before, after = self._before_tool[1:], self._after_tool
        content = self._encode_plain(text)
        roles = [Role.TEMPLATE] * len(before) + [Role.TOOL] * len(content) + [Role.TEMPLATE] * len(after)
        return RoleTokens(before + content + after, roles)

    def encode(self, messages: Sequence[Message]) -> RoleTokens:
        """A whole conversation: one question, then assistant turns with tool turns between them.

        Raises:
            ValueError: another order of roles.
        """
        roles = [message["role"] for message in messages]
        expected = ["user"] + [
            "assistant" if place % 2 == 0 else "tool" for place in range(len(messages) - 1)
        ]
        if roles != expected or len(messages) < 2:
            raise ValueError(
                f"A trajectory is user, assistant, tool, assistant, ...; got {', '.join(roles) or 'no message'}."
            )
        tokens = self.prompt(messages[0]["content"])
        for message in messages[1:]:
            tokens += (
                self.assistant(message["content"])
                if message["role"] == "assistant"
                else self.tool(message["content"])
            )
        return tokens


ROLE_COLOURS = {
    Role.PROMPT: "#e8e8e8",
    Role.ASSISTANT: "#9fd3c7",
    Role.TOOL: "#f6c28b",
    Role.TEMPLATE: "#f7f7f7",
}


def to_html(tokens: RoleTokens, tokenizer: PreTrainedTokenizerBase) -> str:
    """A trajectory as HTML: background by role, bold and underlined where the loss looks."""
    legend = " ".join(
        f'<span style="background:{colour};color:#222;padding:0 .4em">{role.name.lower()}</span>'
        for role, colour in ROLE_COLOURS.items()
    )
    spans = []
    for token, role in zip(tokens.ids, tokens.roles, strict=True):
        text = html.escape(tokenizer.decode([token])).replace("\n", "\\n\n")
        weight = "font-weight:600;text-decoration:underline" if role == Role.ASSISTANT else ""
        spans.append(f'<span style="background:{ROLE_COLOURS[Role(role)]};color:#222;{weight}">{text}</span>')
    head = f"<div>{legend} <small>(underlined: in the loss)</small></div>"
    return f'{head}<pre style="white-space:pre-wrap">{"".join(spans)}</pre>'


def to_text(tokens: RoleTokens, tokenizer: PreTrainedTokenizerBase) -> str:
    """The same for a terminal: one line a run of tokens with the same role, ``*`` where the loss looks."""
    lines, start = [], 0
    for end in range(1, len(tokens) + 1):
        if end == len(tokens) or tokens.roles[end] != tokens.roles[start]:
            role = Role(tokens.roles[start])
            mark = "*" if role == Role.ASSISTANT else " "
            lines.append(
                f"{mark} {role.name.lower():<9} {end - start:>4}  {tokenizer.decode(tokens.ids[start:end])!r}"
            )
            start = end
    return "\n".join(lines)
