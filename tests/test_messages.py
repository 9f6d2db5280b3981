"""Roles from message lists: written out for three templates, and by properties on every one that TRL ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trl
from conftest import TEXTS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from mtdpo_lib.chat import (
    ChatFormat,
    ChatTemplateError,
    Role,
    RoleTokens,
    TextEncoder,
    loss_mask,
    require_padding,
    to_html,
    to_text,
)
from mtdpo_lib.messages import MessageFormat
from mtdpo_lib.mistakes import MISTAKES
from mtdpo_lib.models import train_tokenizer

SHIPPED = {
    path.stem: path.read_text(encoding="utf8")
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
}
# Not special in their models' tokenizers: a policy may write them, and so may a tool.
PLAIN = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
SPECIAL = [
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "<|endoftext|>",
]
SPECIAL += ["<start_of_turn>", "<end_of_turn>", "<end_of_utterance>", "[gMASK]", "<sop>"]
SHIPPED_SPECIAL = sorted(
    {
        token
        for template in SHIPPED.values()
        for token in re.findall(r"<\|[^<>|\s]+\|?>|<[^<>|\s/=]+\|>|<｜[^｜]+｜>", template)
    }
)
MISTRAL = (  # as Mistral-7B-Instruct v0.3 first came
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_TOOLS = (  # and with tools; the system's text stands only before a last user turn
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for message in rest %}"
    "{% if message.role == 'user' %}{{ '[INST] ' }}{% if loop.last and system is defined %}"
    "{{ system + '\n\n' }}{% endif %}{{ message.content + '[/INST]' }}"
    "{% elif message.tool_calls is defined %}{{ '[TOOL_CALLS] [' }}{% for call in message.tool_calls %}"
    "{{ call.function | tojson }}{% endfor %}{{ ']' + eos_token }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + message.content | trim + eos_token }}"
    "{% elif message.role == 'tool' %}{{ '[TOOL_RESULTS] {\"content\": ' + message.content + '}[/TOOL_RESULTS]' }}"
    "{% endif %}{% endfor %}"
)

QUESTION = {"role": "user", "content": "How many is 3*4?"}
CODE = {"role": "assistant", "content": "Multiply.\n```python\nprint(3*4)\n```"}
OUTPUT = {"role": "tool", "name": "python", "tool_call_id": "abcdefghi", "content": "12 apples"}
ANSWER = {"role": "assistant", "content": "So \\boxed{12}."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "id": "abcdefghi", "function": {"name": "python", "arguments": {"code": "3*4"}}}
    ],
}
TEXT = [QUESTION, CODE, OUTPUT, ANSWER]
CONVERSATIONS = {
    "text": TEXT,
    "system": [{"role": "system", "content": "Use the tool."}, *TEXT],
    "two questions": [*TEXT, {"role": "user", "content": "And 5*6?"}, {"role": "assistant", "content": "30"}],
    "ends with the tool": TEXT[:3],
}
CALLS = [QUESTION, CALL, OUTPUT, ANSWER]


@pytest.fixture(scope="module")
def shared():
    tokenizer = train_tokenizer(TEXTS, 400)
    wide = [
        token for token in SHIPPED_SPECIAL if token.startswith("<｜")
    ]  # DeepSeek's are not special either
    tokenizer.add_tokens(PLAIN + wide)
    special = SPECIAL + [token for token in SHIPPED_SPECIAL if token not in wide]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "<|endoftext|>"
    return tokenizer


@pytest.fixture
def speaking(shared):
    """The tokenizer, speaking a template: by its name in TRL, or the template itself."""

    def speak(name: str, template: str | None = None, eos: str = "<|endoftext|>"):
        shared.chat_template = SHIPPED[name] if template is None else template
        shared.name_or_path, shared.eos_token = name, eos
        return shared

    return speak


def runs(tokens, mask, tokenizer) -> list[str]:
    """The texts of the scored stretches."""
    found, before = [], 0
    for token, one in zip(tokens.ids, mask, strict=True):
        if one and not before:
            found.append([])
        if one:
            found[-1].append(token)
        before = one
    return [tokenizer.decode(ids) for ids in found]


def rows(tokens, tokenizer) -> list[tuple[str, str]]:
    """(role, text) of each stretch of tokens with one role."""
    lines = to_text(tokens, tokenizer).splitlines()
    return [(line.split()[0 if line[0] == " " else 1], eval(line[17:])) for line in lines]


# --- written out, row by row ------------------------------------------------------------------------------------------


def test_chatml_row_by_row(chatml):
    tokens = MessageFormat(chatml).encode(CONVERSATIONS["system"] + CONVERSATIONS["two questions"][4:])
    assert rows(tokens, chatml) == [
        (
            "prompt",
            "<|im_start|>system\nUse the tool.<|im_end|>\n<|im_start|>user\nHow many is 3*4?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        ("assistant", "Multiply.\n```python\nprint(3*4)\n```<|im_end|>"),
        ("template", "\n<|im_start|>tool\n"),
        ("tool", "12 apples"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("assistant", "So \\boxed{12}.<|im_end|>"),
        ("template", "\n<|im_start|>user\n"),
        ("prompt", "And 5*6?"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("assistant", "30<|im_end|>"),
    ]


def test_mistral_row_by_row(speaking):
    """No tool role, no system role, no generation prompt, and the space before an answer is the policy's."""
    tokenizer = speaking("mistral", MISTRAL, "</s>")
    assert rows(MessageFormat(tokenizer).encode(CONVERSATIONS["system"]), tokenizer) == [
        ("prompt", "<s>[INST] Use the tool.\n\nHow many is 3*4?[/INST]"),
        ("assistant", " Multiply.\n```python\nprint(3*4)\n```</s>"),
        ("template", "[INST] ```output\n"),
        ("tool", "12 apples"),
        ("template", "\n```[/INST]"),
        ("assistant", " So \\boxed{12}.</s>"),
    ]


def test_mistral_with_tools_row_by_row(speaking):
    tokenizer = speaking("mistral-tools", MISTRAL_TOOLS, "</s>")
    system = {"role": "system", "content": "Use the tool."}
    assert rows(MessageFormat(tokenizer).encode([system, *CALLS]), tokenizer) == [
        ("prompt", "<s>[INST] Use the tool.\n\nHow many is 3*4?[/INST]"),
        ("assistant", '[TOOL_CALLS] [{"name": "python", "arguments": {"code": "3*4"}}]</s>'),
        ("template", '[TOOL_RESULTS] {"content": '),
        ("tool", "12 apples"),
        ("template", "}[/TOOL_RESULTS]"),
        ("assistant", " So \\boxed{12}.</s>"),
    ]


def test_gemma_row_by_row(speaking):
    """Texts are trimmed, and the tool speaks as user."""
    tokenizer = speaking("gemma")
    messages = [QUESTION, CODE, {**OUTPUT, "content": " 12 apples\n"}, {**ANSWER, "content": " So 12.\n"}]
    assert rows(MessageFormat(tokenizer).encode(messages), tokenizer) == [
        ("prompt", "<s><start_of_turn>user\nHow many is 3*4?<end_of_turn>\n<start_of_turn>model\n"),
        ("assistant", "Multiply.\n```python\nprint(3*4)\n```<end_of_turn>"),
        ("template", "\n<start_of_turn>user\n```output\n"),
        ("tool", " 12 apples\n"),
        ("template", "\n```<end_of_turn>\n<start_of_turn>model\n"),
        ("assistant", "So 12.<end_of_turn>"),
    ]


def test_a_quoted_tool_text_is_the_tools(speaking):
    tokenizer = speaking("llama3_1")
    tokens = MessageFormat(tokenizer).encode([QUESTION, CODE, {**OUTPUT, "content": 'a "b"\n'}, ANSWER])
    assert rows(tokens, tokenizer)[2:5] == [
        ("template", '<|start_header_id|>ipython<|end_header_id|>\n\n"'),
        ("tool", 'a \\"b\\"\\n'),
        ("template", '"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n'),
    ]


def test_an_end_that_only_the_next_header_gives_is_scored(speaking):
    """GLM has no end-of-turn token: the policy stops with the token that opens the next turn."""
    tokenizer = speaking("glm4moe")
    tokens = MessageFormat(tokenizer).encode(CALLS)
    scored = runs(tokens, loss_mask(tokens.roles), tokenizer)
    assert [text.rpartition("<|")[2] for text in scored] == ["observation|>", "user|>"]


# --- properties, on every template ------------------------------------------------------------------------------------


def broken(tokens, mask, tokenizer, messages) -> set[str]:
    """Which properties a mask breaks; told from texts alone, not from roles."""
    found, text = set(), tokenizer.decode(tokens.ids)
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    scored, ends = [], []
    for place, one in enumerate(mask):
        if one and (place == 0 or not mask[place - 1]):
            scored.append(place)
        if one and (place + 1 == len(mask) or not mask[place + 1]):
            ends.append(place)
    texts = [tokenizer.decode(tokens.ids[a : b + 1]) for a, b in zip(scored, ends, strict=True)]
    if len(texts) != len(turns):
        found.add("every turn is one scored stretch")
    for turn, start, end, written in zip(turns, scored, ends, texts, strict=False):
        if messages[turn]["content"].strip() not in written:
            found.add("a turn's text is scored whole")
        last = tokenizer.decode([tokens.ids[end]])
        if last not in tokenizer.get_added_vocab() or last in PLAIN:
            found.add("the end-of-turn token is scored")
        asked = prompt_text(tokenizer, messages[:turn])
        if asked is not None:
            before = tokenizer.decode(tokens.ids[:start])
            if not asked[0].startswith(before) or (asked[0] != asked[1] and len(before) <= len(asked[1])):
                found.add("scoring starts where sampling does")
    others = [one["content"] for one in messages if one["role"] != "assistant"]
    if any(other.strip() in written for other in others for written in texts):
        found.add("nobody else's text is scored")
    whole = rendered(tokenizer, messages)
    if whole is not None and not whole.startswith(text) and not text.startswith(whole):
        found.add("the text is the template's")
    return found


def rendered(tokenizer, messages, generation=False):
    """What the template makes of the messages, None where it does not take them as they are."""
    forms = [messages]
    forms.append([{**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages])
    for form in forms:
        try:
            text = tokenizer.apply_chat_template(form, tokenize=False, add_generation_prompt=generation)
        except Exception:
            continue
        if all(one["content"].strip() in text for one in messages):
            return text
    return None


def prompt_text(tokenizer, messages):
    with_header, without = rendered(tokenizer, messages, True), rendered(tokenizer, messages)
    return None if with_header is None else (with_header, without)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_template(name, speaking):
    tokenizer = speaking(name)
    form = MessageFormat(tokenizer)
    for kind, messages in CONVERSATIONS.items():
        tokens = form.encode(messages)
        assert broken(tokens, loss_mask(tokens.roles), tokenizer, messages) == set(), kind
        place = next(n for n, message in enumerate(messages) if message["role"] == "tool")
        longer = [*messages]
        longer[place] = {**OUTPUT, "content": "NameError: name 'math'\nis not defined\n\n" * 3}
        other = form.encode(longer)
        assert [token for token, one in zip(other.ids, loss_mask(other.roles), strict=True) if one] == [
            token for token, one in zip(tokens.ids, loss_mask(tokens.roles), strict=True) if one
        ], kind
    unfinished = form.encode([*TEXT[:3], {**ANSWER, "content": "So \\boxed{"}], finished=False)
    assert runs(unfinished, loss_mask(unfinished.roles), tokenizer)[-1].endswith("So \\boxed{")
