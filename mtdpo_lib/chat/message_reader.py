"""Message lists as people have them, in OpenAI's form or ShareGPT's: read, or refused with the message and what it needs."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable
from typing import Any

from mtdpo_lib.chat.roles import Message

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT = {
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
}  # who speaks; function_call is another
WANTED = {  # by what is wrong
    "message": 'a role and a text, as in {"role": "user", "content": "2+3?"}',
    "role": f"a role, one of {', '.join(ROLES)}",
    "content": 'a text as content, or a list of {"type": "text", "text": ...} (leave out images and sounds)',
    "tool_calls": 'tool calls such as [{"function": {"name": "python", "arguments": {"code": "print(2+3)"}}}]',
    "encoding": "JSON in UTF-8, without lone surrogates (text.encode(errors='replace').decode() replaces them)",
}
brief = reprlib.Repr(maxstring=60, maxother=60).repr


def read_messages(messages: Any) -> list[Message]:
    """Messages with a role and a text each.

    Args:
        messages: dictionaries with ``role`` and ``content``, a text or a list of text parts, and perhaps ``tool_calls`` in
            OpenAI's form, their arguments a mapping or JSON; or ShareGPT's with ``from`` (system, human, gpt, function_call,
            observation) and ``value``. Other keys are kept for the template, but for those without a value.

    Raises:
        ValueError: says which message, counted from 1, cannot be read, and what it needs.

    >>> read_messages([{"from": "human", "value": "2+3?"}, {"from": "gpt", "value": "5", "weight": None}])
    [{'role': 'user', 'content': '2+3?'}, {'role': 'assistant', 'content': '5'}]
    >>> read_messages([{"role": "user", "content": 5}])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: Message 1 cannot be read: it needs a text as content, ...; got 5.
    """
    if not isinstance(messages, (list, tuple)):
        raise ValueError(
            f"A conversation is a list of messages, each with {WANTED['message']}; got {brief(messages)}."
        )
    read = []
    for number, message in enumerate(map(_from_sharegpt, messages), 1):
        if wrong := _wrong(message):
            got = message.get(wrong, message) if isinstance(message, dict) else message
            raise ValueError(f"Message {number} cannot be read: it needs {WANTED[wrong]}; got {brief(got)}.")
        kept = {
            key: value for key, value in message.items() if value is not None
        }  # data sets fill up with None
        text = kept.get("content", "")
        kept["content"] = text if isinstance(text, str) else "".join(part["text"] for part in text)
        if "tool_calls" in kept:
            kept["tool_calls"] = [with_arguments(call, _from_json) for call in kept["tool_calls"]]
        read.append(kept)
    return read


def _from_sharegpt(message: Any) -> Any:
    """ShareGPT's speaker and text as role and content; any other message as it is."""
    if not isinstance(message, dict) or "from" not in message or "role" in message:
        return message
    others = {key: value for key, value in message.items() if key not in ("from", "value")}
    speaker, text = message["from"], message.get("value")
    if speaker == "function_call":
        calls = _from_json(text)
        return {**others, "role": "assistant", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return {**others, "role": SHAREGPT.get(str(speaker), speaker), "content": text}


def _wrong(message: Any) -> str | None:
    """What about a message is not as wanted: a key of `WANTED`."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        return "role" if isinstance(message, dict) else "message"
    text, calls = message.get("content"), message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
        return "tool_calls"
    texts = (
        [_text(part) for part in text] if isinstance(text, list) else ["" if text is None and calls else text]
    )
    if not all(isinstance(one, str) for one in texts):
        return "content"
    try:
        json.dumps(message, ensure_ascii=False, default=str).encode()
    except (ValueError, TypeError, RecursionError):
        return "encoding"
    return None


def _text(part: Any) -> Any:
    """The text of a part of a content, if it is one."""
    return part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None


def _is_call(call: Any) -> bool:
    function: Any = call.get("function", call) if isinstance(call, dict) else None
    named = isinstance(function, dict) and isinstance(function.get("name"), str)
    return named and isinstance(function.get("arguments") or "", (dict, str))


def _from_json(arguments: Any) -> Any:
    """Arguments as a mapping, also where they came as JSON text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def with_arguments(call: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """A tool call with its arguments converted, wherever they stand."""
    if "function" in call:
        return {**call, "function": with_arguments(call["function"], convert)}
    return {**call, "arguments": convert(call["arguments"])} if "arguments" in call else call
