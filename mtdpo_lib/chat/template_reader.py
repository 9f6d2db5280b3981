"""How a chat template writes a conversation: rendered with marks in place of texts, and cut where turns begin and end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from mtdpo_lib.chat.encoder import tool_as_user
from mtdpo_lib.chat.roles import Message, Role


class _Refusal(Exception):
    """Why a template cannot be read: a clause about "it"."""


class _Misfit(_Refusal):
    """The template does not take the messages in this shape; another one may do."""


class _Shape(NamedTuple):
    """How messages are put to a template that does not take them as they are."""

    in_parts: bool  # content as a list of text parts
    system_in_user: bool  # no system role: its text leads the first user turn
    tool_as_user: bool  # no tool role: the tool speaks as user
    calls_as_json: bool  # arguments of tool calls as JSON text


@dataclass(frozen=True)
class _Hole:
    """Where one message's text stands in a skeleton."""

    message: int
    role: Role
    start: int
    end: int
    lead: str = ""  # the template's own text in an assistant's turn, before and after what was written
    tail: str = ""
    stop: int = 0  # of an assistant's turn, behind its end-of-turn token


@dataclass(frozen=True)
class _Skeleton:
    """A conversation as the template writes it, with marks in the holes; `added` is an end that it leaves out."""

    text: str
    holes: list[_Hole]
    marks: list[str]
    added: str = ""

    def fill(self, texts: dict[int, str]) -> str:
        parts, place = [], 0
        for hole in self.holes:
            parts += [self.text[place : hole.start], texts[hole.message]]
            place = hole.end
        return "".join([*parts, self.text[place:]])


class _Reader:
    """Finds the turns of one kind of conversation in what the template makes of its marks."""

    def __init__(
        self,
        render: Callable[[list[Message], bool], str],
        control: re.Pattern[str],
        messages: list[Message],
        marks: list[str],
        shape: _Shape,
    ):
        self._render, self._control = render, control
        self.messages, self.marks, self.shape = messages, marks, shape
        self.text = self._first()
        self.places = {
            place: self.text.index(mark) for place, mark in enumerate(marks) if mark and mark in self.text
        }

    def _first(self, count: int | None = None, generation: bool = False) -> str:
        """The first `count` messages as rendered."""
        return self._render(_written(self.messages[:count], self.marks[:count], self.shape), generation)

    def _next_mark(self, place: int) -> int:
        """Where the first mark of message `place` or a later one stands."""
        return min((at for one, at in self.places.items() if one >= place), default=len(self.text))

    def skeleton(self) -> _Skeleton:
        self._check_texts()
        holes: list[_Hole] = []
        floor, added = 0, ""  # what lies before floor belongs to earlier messages
        for place, message in enumerate(self.messages):
            start = self.places.get(place)
            stop = None if start is None else start + len(self.marks[place])
            if message["role"] == "assistant":
                if message.get("tool_calls"):
                    self._check_tool_calls(place)
                begin = self._begin(place, floor)
                end, floor, added = self._end(place, begin if stop is None else stop)
                token, calls = self.text[end:floor], str(message.get("tool_calls"))
                if token in self.text[begin:end] or token in calls:
                    raise _Refusal(f"finds its own end-of-turn token {token!r} inside {self._name(place)}")
                lead, tail = (begin, end), (end, end)
                if start is not None:
                    lead, tail = (begin, start), (stop, end)
                parts = self.text[slice(*lead)], self.text[slice(*tail)]
                holes.append(_Hole(place, Role.ASSISTANT, begin, end, *parts, floor))
            elif start is not None:
                role = Role.TOOL if message["role"] == "tool" else Role.PROMPT
                holes.append(_Hole(place, role, start, stop))
                floor = stop
        return _Skeleton(self.text, holes, self.marks, added)

    def _name(self, place: int) -> str:
        return _name(self.messages, place)

    def _check_texts(self) -> None:
        if self.shape.in_parts and re.search(r"""["']type["']: ["']text["']""", self.text):
            raise _Misfit("takes no content in parts")
        for place, mark in enumerate(self.marks):
            count = self.text.count(mark) if mark else 1
            if count != 1:
                raise _Misfit(f"{'repeats' if count else 'drops'} the text of {self._name(place)}")
        if list(self.places.values()) != sorted(self.places.values()):
            raise _Refusal("changes the order of the messages")

    def _check_tool_calls(self, place: int) -> None:
        others = [{**message} for message in self.messages]
        del others[place]["tool_calls"]
        try:
            dropped = self._render(_written(others, self.marks, self.shape), False) == self.text
        except _Refusal:
            return  # it cannot do without them, so it reads them
        if dropped:
            raise _Refusal(f"drops the tool call of {self._name(place)}")

    def _begin(self, place: int, floor: int) -> int:
        """Where sampling would have begun this turn: behind the generation prompt."""
        limit = self._next_mark(place)
        asked = self._first(place, generation=True)
        header = asked[_shared(asked, self._first(place)) :]
        begin = self._agree(asked, self.text)
        if not floor <= begin <= limit:  # earlier turns are written differently now
            opening = self._control.match(header)
            place_of = self.text.rfind(opening[0], floor, limit) if opening else -1
            if place_of < 0:
                raise _Refusal(f"rewrites the turns before {self._name(place)} when later ones follow")
            begin = place_of + self._agree(header, self.text[place_of:limit])
        if header:
            return begin
        # asked without a header, but it may be written with one
        written = self._usual_header() or self._silent_header()
        return begin + len(written) if self.text.startswith(written, begin) else begin

    def _usual_header(self) -> str:
        """The generation prompt of the first turn."""
        first = next(n for n, message in enumerate(self.messages) if message["role"] == "assistant")
        asked = self._first(first, generation=True)
        return asked[_shared(asked, self._first(first)) :]

    def _silent_header(self) -> str:
        """What stands between a question and an answer; spaces alone are the policy's."""
        question, answer = self._probe("user"), self._probe("user", "assistant")
        between = answer[self._agree(question, answer) :].partition(_mark(1))[0]
        return between if between.strip() else ""

    def _end(self, place: int, written: int) -> tuple[int, int, str]:
        """Where the end-of-turn token begins and ends, the first at `written` at most; and that token, if it was added."""
        count = place + 1
        is_last = count == len(self.messages)
        last = self._first(count)
        if not self._writes_ends():  # the policy stops with the token that begins the next header
            if is_last:
                self.text += (added := self._usual_next())
                return len(last), len(last) + len(added), added
            match = self._control.match(self.text, len(last)) if self.text.startswith(last) else None
            if match is None:
                raise _Refusal("does not end a turn with a special token")
            return match.start(), match.end(), ""
        follow = self._followed(last, count) if is_last else self.text
        limit = self._next_mark(count)
        agreed = min(max(self._agree(last, follow), written), limit)
        found = list(self._control.finditer(self.text, written, agreed))[-1:]
        if not found:  # it is written differently when it is the last turn
            after = list(self._control.finditer(self.text, written, limit))
            closing = [match[0] for match in self._control.finditer(last)][-1:]
            found = [match for match in after if match[0] in closing][:1] or after[:1]
        if not found:
            raise _Refusal("does not end a turn with a special token")
        return found[0].start(), found[0].end(), ""

    def _followed(self, last: str, count: int) -> str:
        """The first messages and one more in a role that the template takes; `last` where it takes none."""
        for role in ("user", "tool"):
            more = [*self.messages[:count], {"role": role}]
            try:
                text = self._render(_written(more, [*self.marks[:count], _mark(count)], self.shape), False)
            except _Refusal:
                continue
            if _mark(count) in text:
                return text
        return last

    def _probe(self, *roles: str) -> str:
        """A short conversation as rendered."""
        marks = [_mark(place) for place in range(len(roles))]
        return self._render(_written([{"role": role} for role in roles], marks, self.shape), False)

    def _writes_ends(self) -> bool:
        """Whether the template writes a control token behind the text of a last turn."""
        return bool(self._control.search(self._probe("user", "assistant").partition(_mark(1))[2]))

    def _usual_next(self) -> str:
        """The control token that begins a user's turn after an answer."""
        answer, question = self._probe("user", "assistant"), self._probe("user", "assistant", "user")
        match = self._control.match(question, len(answer)) if question.startswith(answer) else None
        if match is None:
            raise _Refusal("does not end a turn with a special token")
        return match[0]

    def _agree(self, one: str, other: str) -> int:
        """How far two renderings agree, not counting a control token that only one of them has whole."""
        shared = _shared(one, other)
        for text in (one, other):
            for match in self._control.finditer(text, max(shared - 100, 0)):
                if match.start() < shared < match.end():
                    shared = match.start()
        return shared


def _mark(place: int) -> str:
    """Stands for the text of a message; survives trimming, quoting and changes of case at its ends."""
    return f"Zq{place}qZ"


def _shared(one: str, other: str) -> int:
    """Length of the prefix that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _with_arguments(call: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """A tool call with its arguments converted, wherever they stand."""
    if "function" in call:
        return {**call, "function": _with_arguments(call["function"], convert)}
    return {**call, "arguments": convert(call["arguments"])} if "arguments" in call else call


def _to_json(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _shapes(messages: list[Message]) -> Iterator[_Shape]:
    """Ways to put the messages to a template, the plainest first."""
    system = (False, True) if messages[0]["role"] == "system" else (False,)
    tool = (False, True) if any(message["role"] == "tool" for message in messages) else (False,)
    calls = (False, True) if any(message.get("tool_calls") for message in messages) else (False,)
    return (_Shape(*shape) for shape in product((False, True), system, tool, calls))


def _written(messages: Sequence[Message], contents: Sequence[str], shape: _Shape) -> list[Message]:
    """The messages with these contents, as `shape` puts them."""
    written: list[Message] = []
    for place, (message, content) in enumerate(zip(messages, contents, strict=True)):
        one = {**message, "content": content}
        if shape.tool_as_user and one["role"] == "tool":
            one = tool_as_user(content)
            if place and messages[place - 1]["role"] == "tool":  # several tools answer in one turn
                one["content"] = f"{written.pop()['content']}\n{one['content']}"
        if shape.calls_as_json and one.get("tool_calls"):
            one["tool_calls"] = [_with_arguments(call, _to_json) for call in one["tool_calls"]]
        if shape.system_in_user and place == 1 and one["role"] == "user":
            one["content"] = f"{written.pop()['content']}\n\n{content}"
        written.append(one)
    if shape.in_parts:
        for one in written:
            one["content"] = [{"type": "text", "text": one["content"]}]
    return written


def _name(messages: list[Message], place: int) -> str:
    return f"message {place + 1} ({messages[place]['role']})"
