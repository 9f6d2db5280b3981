"""How a chat template writes a conversation: rendered with marks in place of texts, and cut where turns begin and end.

The template is rendered with a mark in place of every text, and for each turn as it stands before and after that turn; how
far these renderings agree says where a turn begins and ends. What the template does to a text, such as trimming or quoting
it, is read off a rendering with that text alone, and compared with what the assistant wrote. A conversation for which all
this does not add up to exactly what the template renders is refused, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from mtdpo_lib.chat.encoder import Piece, tool_as_user
from mtdpo_lib.chat.message_reader import brief, with_arguments
from mtdpo_lib.chat.roles import Message, Role, say

REASONING = ("reasoning_content", "reasoning", "thinking")  # where templates look for it
CACHED = 1000  # kinds of conversations remembered: texts do not count, tool calls do
NO_END = "does not end a turn with a special token"
Render = Callable[[list[Message], bool], str]  # messages, and whether the header of an answer to come follows


class Refusal(Exception):
    """Why a template cannot be read: a clause about "it"."""


class Misfit(Refusal):
    """The template does not take the messages in this shape; another one may do."""


class Shape(NamedTuple):
    """How messages are put to a template that does not take them as they are."""

    in_parts: bool  # content as a list of text parts
    system_in_user: bool  # no system role: its text leads the first user turn
    tool_as_user: bool  # no tool role: the tool speaks as user
    calls_as_json: bool  # arguments of tool calls as JSON text

    def put(self, messages: Sequence[Message], contents: Sequence[str]) -> list[Message]:
        """The messages with these contents, in this shape."""
        shaped: list[Message] = []
        for index, (message, content) in enumerate(zip(messages, contents, strict=True)):
            new: Message = {**message, "content": content}
            if self.tool_as_user and new["role"] == "tool":
                new = tool_as_user(content)
                if index and messages[index - 1]["role"] == "tool":  # several tools answer in one turn
                    new["content"] = f"{shaped.pop()['content']}\n{new['content']}"
            if self.calls_as_json and new.get("tool_calls"):
                new["tool_calls"] = [with_arguments(call, _to_json) for call in new["tool_calls"]]
            if self.system_in_user and index == 1 and new["role"] == "user":
                new["content"] = f"{shaped.pop()['content']}\n\n{content}"
            shaped.append(new)
        if self.in_parts:
            for new in shaped:
                new["content"] = [{"type": "text", "text": new["content"]}]
        return shaped


def _shapes(messages: list[Message]) -> Iterator[Shape]:
    """Ways to put the messages to a template, the plainest first."""
    system = messages[0]["role"] == "system"
    tool = any(message["role"] == "tool" for message in messages)
    calls = any(message.get("tool_calls") for message in messages)
    options = ((False, True) if needed else (False,) for needed in (True, system, tool, calls))
    return (Shape(*choice) for choice in product(*options))


@dataclass(frozen=True)
class Hole:
    """Where one message's text stands in a skeleton."""

    message: int
    role: Role
    start: int
    end: int
    lead: str = ""  # the template's own text in an assistant's turn, before and after what was written
    tail: str = ""
    stop: int = 0  # of an assistant's turn, behind its end-of-turn token


@dataclass(frozen=True)
class Skeleton:
    """A conversation as the template writes it, with marks in the holes.

    `added` is an end that it leaves out; `dropped` says what it leaves out of the assistant's turns beside their texts.
    """

    text: str
    holes: list[Hole]
    marks: list[str]
    dropped: list[str]
    added: str = ""

    def changes(self, messages: list[Message], texts: dict[int, str]) -> Iterator[str]:
        """What the template makes of the assistant's turns other than what was written, as clauses about "it"."""
        yield from self.dropped
        for hole in self.holes:
            written, text = messages[hole.message]["content"].strip(), texts[hole.message]
            text = text.removesuffix(hole.tail).rstrip()
            given = self.text[: hole.start]  # the header may hold the text's first words, such as <think>
            more = text[: -len(written)].strip()  # may only be the template's own
            kept = (given + text).endswith(written) and hole.lead.strip().startswith(more)
            if hole.role == Role.ASSISTANT and not kept:
                text = text.removeprefix(hole.lead).lstrip()
                same = max(_shared(text, written) - 10, 0)
                yield f"makes {brief(text[same:])} of {brief(written[same:])} in {_name(messages, hole.message)}"

    def fill(self, texts: dict[int, str]) -> str:
        """The conversation with these texts in its holes."""
        parts, end = [], 0
        for hole in self.holes:
            parts += [self.text[end : hole.start], texts[hole.message]]
            end = hole.end
        return "".join([*parts, self.text[end:]])

    def pieces(self, texts: dict[int, str], finished: bool) -> Iterator[Piece]:
        """The conversation cut by role, up to the end of its last turn."""
        end, between = 0, Role.PROMPT
        last = self.holes[-1]
        for hole in self.holes:
            yield Piece(self.text[end : hole.start], between, own=True)
            text = texts[hole.message]
            lead = _shared(hole.lead, text)
            tail = _shared(hole.tail[::-1], text[lead:][::-1])
            yield Piece(text[:lead], hole.role, own=True)
            yield Piece(text[lead : len(text) - tail], hole.role, own=False)
            if hole.role == Role.ASSISTANT and (finished or hole is not last):
                tail_and_end = text[len(text) - tail :] + self.text[hole.end : hole.stop]
                yield Piece(tail_and_end, hole.role, own=True)
            end = hole.end
            if hole.role == Role.ASSISTANT:
                between, end = Role.TEMPLATE, hole.stop
        if last.role != Role.ASSISTANT:
            yield Piece(self.text[end:], between, own=True)


class TemplateReader:
    """Reads what a template makes of conversations.

    Args:
        render: messages to text.
        control: finds control tokens in the template's own text.
    """

    def __init__(self, render: Render, control: re.Pattern[str]):
        self.render, self.control = render, control
        self._skeletons: dict[str, Skeleton | Refusal] = {}

    def read(self, messages: list[Message], finished: bool) -> tuple[Iterator[Piece], list[str]]:
        """A conversation cut by role, up to the end of its last turn, and what was changed in the assistant's turns.

        Raises:
            Misfit: the messages fit in no shape.
            Refusal: they are not written in a way that can be told apart.
        """
        misfits = []
        for shape in _shapes(messages):
            try:
                skeleton = self._skeleton(messages, shape)
                texts = self._texts(messages, shape, skeleton)
                return skeleton.pieces(texts, finished), list(skeleton.changes(messages, texts))
            except Misfit as reason:
                misfits.append(reason)
        raise misfits[0]

    def _texts(self, messages: list[Message], shape: Shape, skeleton: Skeleton) -> dict[int, str]:
        """The text of every hole as the template writes it."""
        contents = [message["content"] for message in messages]
        rendered = self.render(shape.put(messages, contents), False) + skeleton.added
        for form in (str, str.strip):
            texts = {
                hole.message: hole.lead + form(contents[hole.message]) + hole.tail for hole in skeleton.holes
            }
            if skeleton.fill(texts) == rendered:
                return texts
        for hole in skeleton.holes:  # each from a rendering in which it is the only real one
            mixed = [*skeleton.marks]
            mixed[hole.message] = contents[hole.message]
            text = self.render(shape.put(messages, mixed), False) + skeleton.added
            before, after = skeleton.text[: hole.start], skeleton.text[hole.end :]
            texts[hole.message] = text[len(before) : len(text) - len(after)]
            if before + texts[hole.message] + after != text:
                name = _name(messages, hole.message)
                raise Refusal(f"writes other text differently because of that of {name}")
        if skeleton.fill(texts) != rendered:
            raise Refusal("writes one message differently because of the text of another")
        return texts

    def _skeleton(self, messages: list[Message], shape: Shape) -> Skeleton:
        """The skeleton of this kind of conversation, made once."""
        marks = [_mark(index) if message["content"] else "" for index, message in enumerate(messages)]
        key = json.dumps([shape, shape.put(messages, marks)], default=str)
        if key not in self._skeletons:
            if len(self._skeletons) >= CACHED:
                self._skeletons.clear()
            try:
                self._skeletons[key] = _TurnFinder(self, messages, marks, shape).skeleton()
            except Refusal as reason:
                self._skeletons[key] = reason
        found = self._skeletons[key]
        if isinstance(found, Refusal):
            raise found
        return found


class _TurnFinder:
    """Finds the turns of one kind of conversation in what the template makes of its marks."""

    def __init__(self, reader: TemplateReader, messages: list[Message], marks: list[str], shape: Shape):
        self._render, self._control = reader.render, reader.control
        self.messages, self.marks, self.shape = messages, marks, shape
        self.text = self._first()
        found = ((index, self.text.find(mark), len(mark)) for index, mark in enumerate(marks) if mark)
        self.spans = {index: (start, start + length) for index, start, length in found if start >= 0}

    def _first(self, count: int | None = None, generation: bool = False) -> str:
        """The first `count` messages as rendered."""
        return self._render(self.shape.put(self.messages[:count], self.marks[:count]), generation)

    def _next_mark(self, index: int) -> int:
        """Where the first mark of message `index` or a later one stands."""
        return min((span[0] for other, span in self.spans.items() if other >= index), default=len(self.text))

    def skeleton(self) -> Skeleton:
        """The conversation with its holes."""
        self._check_texts()
        holes: list[Hole] = []
        dropped: list[str] = []
        floor, added = 0, ""  # what lies before floor belongs to earlier messages
        for index, message in enumerate(self.messages):
            span = self.spans.get(index)
            if message["role"] == "assistant":
                begin = self._begin(index, floor)
                end, floor, added = self._end(index, span[1] if span else begin)
                token, calls = self.text[end:floor], str(message.get("tool_calls"))
                if token in self.text[begin:end] or token in calls:
                    raise Refusal(f"finds its own end-of-turn token {token!r} inside {self._name(index)}")
                first, last = span or (end, end)
                lead, tail = self.text[begin:first], self.text[last:end]
                dropped += self._dropped(index)
                holes.append(Hole(index, Role.ASSISTANT, begin, end, lead, tail, floor))
            elif span:
                role = Role.TOOL if message["role"] == "tool" else Role.PROMPT
                holes.append(Hole(index, role, *span))
                floor = span[1]
        return Skeleton(self.text, holes, self.marks, dropped, added)

    def _name(self, index: int) -> str:
        return _name(self.messages, index)

    def _check_texts(self) -> None:
        if self.shape.in_parts and re.search(r"""["']type["']: ["']text["']""", self.text):
            raise Misfit("takes no content in parts")
        for index, mark in enumerate(self.marks):
            count = self.text.count(mark) if mark else 1
            if count != 1:
                raise Misfit(f"{'repeats' if count else 'drops'} the text of {self._name(index)}")
        if list(self.spans.values()) != sorted(self.spans.values()):
            raise Refusal("changes the order of the messages")

    def _dropped(self, index: int) -> Iterator[str]:
        """What an assistant wrote beside its text and the template does not read: without it, it writes the same."""
        message = self.messages[index]
        calls, thoughts = message.get("tool_calls", []), [key for key in REASONING if message.get(key)]
        less: list[tuple[str, Message]] = [(key, {**message, key: None}) for key in thoughts]
        for number in range(len(calls)):
            less.append(("tool call", {**message, "tool_calls": calls[:number] + calls[number + 1 :]}))
        for name, other in less:
            others = [*self.messages]
            others[index] = {key: value for key, value in other.items() if value}
            try:
                dropped = self._render(self.shape.put(others, self.marks), False) == self.text
            except Refusal:
                dropped = False  # it cannot do without, so it reads it
            if dropped:
                yield f"drops the {name} of {self._name(index)}"

    def _begin(self, index: int, floor: int) -> int:
        """Where sampling would have begun this turn: behind the generation prompt."""
        limit = self._next_mark(index)
        asked, header = self._first(index, generation=True), self._header(index)
        begin = self._agree(asked, self.text)
        if not floor <= begin <= limit:  # earlier turns are written differently now
            opening = self._control.match(header)
            start = self.text.rfind(opening[0], floor, limit) if opening else -1
            if start < 0:
                raise Refusal(f"rewrites the turns before {self._name(index)} when later ones follow")
            begin = start + self._agree(header, self.text[start:limit])
        if header:
            return begin
        # asked without a header, but it may be written with one, such as the first turn's
        first = next(n for n, message in enumerate(self.messages) if message["role"] == "assistant")
        written = self._header(first) or self._silent_header()
        return begin + len(written) if self.text.startswith(written, begin) else begin

    def _header(self, index: int) -> str:
        """The generation prompt of a turn."""
        asked = self._first(index, generation=True)
        return asked[_shared(asked, self._first(index)) :]

    def _silent_header(self) -> str:
        """What stands between a question and an answer; spaces alone are the policy's."""
        question, answer = self._probe("user"), self._probe("user", "assistant")
        between = answer[self._agree(question, answer) :].partition(_mark(1))[0]
        return between if between.strip() else ""

    def _end(self, index: int, written: int) -> tuple[int, int, str]:
        """Where the end-of-turn token begins and ends, the first at `written` at most; and that token, if it was added."""
        count = index + 1
        is_last = count == len(self.messages)
        last = self._first(count)
        if not self._writes_ends():  # the policy stops with the token that begins the next header
            if is_last:
                self.text += (added := self._usual_next())
                return len(last), len(last) + len(added), added
            match = self._control.match(self.text, len(last)) if self.text.startswith(last) else None
            if match is None:
                raise Refusal(NO_END)
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
            raise Refusal(NO_END)
        return found[0].start(), found[0].end(), ""

    def _followed(self, last: str, count: int) -> str:
        """The first messages and one more in a role that the template takes; `last` where it takes none."""
        for role in ("user", "tool"):
            more = [*self.messages[:count], {"role": role}]
            try:
                text = self._render(self.shape.put(more, [*self.marks[:count], _mark(count)]), False)
            except Refusal:
                continue
            if _mark(count) in text:
                return text
        return last

    def _probe(self, *roles: str) -> str:
        """A short conversation as rendered."""
        marks = [_mark(index) for index in range(len(roles))]
        return self._render(self.shape.put([say(role, "") for role in roles], marks), False)

    def _writes_ends(self) -> bool:
        """Whether the template writes a control token behind the text of a last turn."""
        return bool(self._control.search(self._probe("user", "assistant").partition(_mark(1))[2]))

    def _usual_next(self) -> str:
        """The control token that begins a user's turn after an answer."""
        answer, question = self._probe("user", "assistant"), self._probe("user", "assistant", "user")
        match = self._control.match(question, len(answer)) if question.startswith(answer) else None
        if match is None:
            raise Refusal(NO_END)
        return match[0]

    def _agree(self, one: str, other: str) -> int:
        """How far two renderings agree, not counting a control token that only one of them has whole."""
        shared = _shared(one, other)
        for text in (one, other):
            for match in self._control.finditer(text, max(shared - 100, 0)):
                if match.start() < shared < match.end():
                    shared = match.start()
        return shared


def _mark(index: int) -> str:
    """Stands for the text of a message; survives trimming, quoting and changes of case at its ends."""
    return f"Zq{index}qZ"


def _name(messages: list[Message], index: int) -> str:
    return f"message {index + 1} ({messages[index]['role']})"


def _shared(one: str, other: str) -> int:
    """Length of the prefix that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _to_json(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
