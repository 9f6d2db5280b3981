"""GSM8K's worked solutions as programs: each sentence a comment, and its note the line below, with a name from its words."""

from __future__ import annotations

import ast
import builtins
import itertools
import keyword
import operator
import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

NOTE = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
IN_TEXT = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
# A sum in words' company, "$20 + 2 x 30 = $80", whose note is missing or only repeats the result, "<<80=80>>".
SUM = re.compile(
    r"<<[^<>]*>>|(\$?\d[\d,.]*(?:\s*[-+*/x×]\s*\$?\d[\d,.]*)+)\s*=\s*(\$?)\s*(?:<<([^<>=]*)=[^<>]*>>)?\$?(\d[\d,]*(?:\.\d+)?)"
)
COMPUTES = re.compile(r"[\d.)]\s*[-+*/]")
RESULT = re.compile(r"\s*=?\s*\$?" + NOTE.pattern + r"\$?[\d,]*(?:\.\d+)?")  # "= $<<48/2=24>>24"
AFTER = re.compile(r"\$?[\d,]*(?:\.\d+)?%?[ ]*([^.,:;<#=+*/()$-]*)")  # "24 clips in May" after a note
REFERENCE = re.compile("\0(\\d+)\0")  # to an earlier step's result, inside a sentence or an expression

SIGNS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
PLAIN = re.compile(r"[\d.+*/() -]{1,200}")  # arithmetic: numbers, signs and brackets, few enough to compute

# Words that no name begins or ends with.
WEAK = frozenset(re.findall(
    "[a-z]+",
    "a an and are as at be because been by can costs did do does each finally first for from gets had has have he her his "
    "if in is it its left makes means more needs next now of on only or she since so spends than that the their then there "
    "therefore they this thus to was we were which while will with would you add adding divide find hence made multiply "
    "paid spent subtract",
))  # fmt: skip
# Numbers that a question names in words.
SPELT = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "half": 2, "twice": 2, "double": 2, "third": 3, "triple": 3, "quarter": 4, "dozen": 12,
}  # fmt: skip
FIRST = "I work it out with Python."
WAYS = 3  # at most, of working a problem out


class Step(NamedTuple):
    """One line of a program to be.

    Attributes:
        sentences: that explain it, one comment each; empty for a second note of the same sentence.
        expression: of numbers, signs and references to earlier steps.
        result: of it.
        after, before: words for its name, those behind the result and those at the sentence's beginning.
    """

    sentences: tuple[str, ...]
    expression: str
    result: Fraction
    after: tuple[str, ...]
    before: tuple[str, ...]

    def uses(self) -> set[int]:
        """The earlier steps that it refers to."""
        return set(map(int, REFERENCE.findall(" ".join((*self.sentences, self.expression)))))


class Call(NamedTuple):
    """One call of the tool: a sentence before it, a program, and what it should print."""

    sentence: str
    code: str
    prints: str


def evaluated(expression: str) -> Fraction:
    """Compute a note's sum exactly.

    Raises:
        ValueError: When it is more than numbers, + - * / and brackets.
    """

    def value(node: ast.AST) -> Fraction:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float()):
                return Fraction(ast.get_source_segment(expression, node) or "")  # exact: 0.1 is 1/10
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in SIGNS:
                return SIGNS[type(sign)](value(left), value(right))
        raise ValueError("not plain arithmetic")

    if not PLAIN.fullmatch(expression):
        raise ValueError("not plain arithmetic")
    try:
        return value(ast.parse(expression, mode="eval"))
    except (SyntaxError, ZeroDivisionError, RecursionError) as error:
        raise ValueError("not plain arithmetic") from error


def steps(solution: str, question: str, answer: Fraction) -> list[Step]:
    """Read a worked solution as steps up to the last one that gives the answer.

    A number that an earlier step gave, and that the question does not name, becomes a reference to that step.

    Args:
        solution: GSM8K's, with calculator notes.
        question: its problem; 15 may be its weeks, although an earlier step gave 15 hours.
        answer: the gold answer.

    Raises:
        ValueError: When there are no notes, one is more than plain arithmetic, none gives the answer, or the one that gives
            it computes nothing; the reason in a few words.
    """
    named = {Fraction(word) for word in NUMBER.findall(question.replace(",", ""))}
    spelt = (SPELT.get(word.rstrip("s")) for word in re.findall("[a-z]+", question.lower()))
    named |= {Fraction(value) for value in spelt if value}
    made: list[Step] = []
    known: dict[Fraction, str] = {}
    waiting: list[str] = []  # sentences for the next step
    for line in solution.partition("####")[0].splitlines():
        text = SUM.sub(_with_note, "".join(filter(str.isprintable, line)).strip())
        notes, explained = list(NOTE.finditer(text)), False
        waiting += [RESULT.sub("", text)] if text else []
        for note in notes:
            expression = _expression(note[1])
            result = evaluated(expression)
            expression = _referring(expression, NUMBER, dict(known), once=True)
            if result not in named:
                known[result] = f"\0{len(made)}\0"
            sentences = () if explained else tuple(_referring(one, IN_TEXT, known) for one in waiting)
            made.append(Step(sentences, expression, result, *_words(text, note)))
            waiting, explained = [], True
    if not made:
        raise ValueError("no notes")
    last = max((place for place, one in enumerate(made) if answer in _shown(one.result)), default=None)
    if last is None:
        raise ValueError("the notes do not give the gold answer")
    if not COMPUTES.search(REFERENCE.sub("1", made[last].expression)):
        raise ValueError("the last note computes nothing")
    return made[: last + 1]


def _with_note(match: re.Match[str]) -> str:
    """A sum in a sentence with a note that computes it, where it has none and its result is right."""
    text, money, note, result = match.groups()
    if text is None:  # a note without such a sum before it
        return match[0]
    expression = _expression(re.sub(r"[x×]", "*", re.sub(r"[\s$]|[.,](?=\s|$)", "", text)))
    try:
        if COMPUTES.search(note or "") or evaluated(expression) != Fraction(result.replace(",", "")):
            return match[0]
    except ValueError:
        return match[0]
    return f"{text} = {money}<<{expression}={result}>>{result}"


def _expression(note: str) -> str:
    """A note's sum without thousands commas and leading zeros, as Python wants it."""
    return re.sub(r"(?<![\d.])0+(?=\d)", "", note.replace(",", "").strip())


def _referring(text: str, numbers: re.Pattern[str], known: dict[Fraction, str], once: bool = False) -> str:
    """The text with numbers that earlier steps gave as references to them; each step once, or as often as it is there."""
    find = known.pop if once else known.get
    return numbers.sub(lambda match: find(Fraction(match[0].replace(",", "")), match[0]), text)


def _shown(result: Fraction) -> tuple[Fraction, Fraction]:
    """A result, and as it is printed."""
    return result, round(result, 4)


def _words(text: str, note: re.Match[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words for the name of a note's quantity: those after its result, and those at the beginning of its sentence."""
    found, start = AFTER.match(text, note.end()), text[: note.start()].rstrip()
    after = found[1].split() if found else []
    if start.endswith("$"):
        after = ["dollars", *after]
    before = re.split(r"[.,:;] |[\d$<=]", re.sub(r"^\W+|[^.]*\. (?=[A-Z])", "", start))
    begin = next((words for part in before if (words := _name_words(part.split()))), ())
    return _name_words(after), begin


def _name_words(words: Sequence[str]) -> tuple[str, ...]:
    """At most four words of a text as a name has them, without weak ones at its ends."""
    plain = [word for one in words if (word := re.sub(r"[^a-z]", "", one.lower().removesuffix("'s")))]
    while plain and plain[0] in WEAK:
        plain.pop(0)
    plain = plain[:4]
    while plain and plain[-1] in WEAK:
        plain.pop()
    return tuple(plain)


def names(made: Sequence[Step], behind: bool) -> list[str]:
    """A name for each step, different from the others and from Python's own.

    Args:
        made: the steps.
        behind: try the words behind a result first, where they say more than the currency, then those at the beginning.
    """
    given: list[str] = []
    for one in made:
        words = (one.after, one.before) if behind else (one.before, one.after)
        both = ["_".join(part) for part in words if part and part != ("dollars",)] or ["amount"]
        free = [
            name for name in both if not (name in given or keyword.iskeyword(name) or hasattr(builtins, name))
        ]
        numbered = (f"{both[0]}_{number}" for number in itertools.count(2))
        given.append(free[0] if free else next(name for name in numbered if name not in given))
    return given


def ways(made: Sequence[Step], stream: random.Random) -> list[list[Call]]:
    """Different programs for the same steps: as they are; in two calls; in another order. Names differ too.

    Args:
        made: of `steps`.
        stream: chooses where a program is divided, and its order.

    Returns:
        One to three programs of one or two calls each.
    """
    blocks: list[list[int]] = []  # steps that one sentence explains stay together
    for place, one in enumerate(made):
        if one.sentences or not blocks:
            blocks.append([])
        blocks[-1].append(place)
    behind, begins = names(made, behind=True), names(made, behind=False)
    whole, order = [_call(made, blocks, behind)], _another_order(made, blocks, stream)
    halves = [place for place in range(1, len(blocks)) if _divides(made, blocks, place)]
    found = [whole]
    if halves:
        place = stream.choice(halves)
        found.append(_two_calls(made, blocks[:place], blocks[place:], begins))
    found.append([_call(made, order, begins if order == blocks else behind)])
    return [way for place, way in enumerate(found) if way not in found[:place]]


def _another_order(made: Sequence[Step], blocks: list[list[int]], stream: random.Random) -> list[list[int]]:
    """The blocks in an order in which each still comes after those that it refers to; the last stays the last."""
    order, left = list[list[int]](), blocks[:-1]
    while left:
        done = {place for block in order for place in block}
        ready = [
            block for block in left if set().union(*(made[one].uses() for one in block)) <= done | set(block)
        ]
        order.append(stream.choice(ready))
        left.remove(order[-1])
    return [*order, blocks[-1]]


def _divides(made: Sequence[Step], blocks: list[list[int]], place: int) -> bool:
    """Whether a second call from block `place` on uses what a first one prints, and sees it exactly."""
    printed = blocks[place - 1][-1]
    used = set().union(*(made[one].uses() for block in blocks[place:] for one in block))
    return printed in used and _shown(made[printed].result)[1] == made[printed].result


def _two_calls(
    made: Sequence[Step], first: list[list[int]], then: list[list[int]], given: list[str]
) -> list[Call]:
    """A program in two calls: the second takes the number that the first printed, other results by their names."""
    opening = _call(made, first, given)
    seen = [*given]
    seen[first[-1][-1]] = opening.prints
    return [opening, _call(made, then, seen, given, f"That is {opening.prints}.")]


def _call(
    made: Sequence[Step], blocks: list[list[int]], read: list[str], given: list[str] | None = None, sentence: str = FIRST
) -> Call:  # fmt: skip
    """One call with the steps of `blocks`; results are read as `read` says and kept under the names `given`."""
    given, lines = given or read, list[str]()
    places = [place for block in blocks for place in block]
    for place in places:
        texts = [REFERENCE.sub(lambda match: read[int(match[1])], text)
                 for text in (*made[place].sentences, made[place].expression)]  # fmt: skip
        lines += [*(f"# {text}" for text in texts[:-1]), f"{given[place]} = {texts[-1]}"]
    result, name = made[places[-1]].result, given[places[-1]]
    is_whole = result.denominator == 1
    if any(
        re.search(r"[/.]", one.expression) for one in made[: places[-1] + 1]
    ):  # a float: print 72, not 72.0
        name = f"round({name})" if is_whole else f"round({name}, 4)"
    return Call(
        sentence, "\n".join([*lines, f"print({name})"]), str(result if is_whole else float(round(result, 4)))
    )
