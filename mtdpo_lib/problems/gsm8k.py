"""GSM8K, read from a folder or the hub; its calculator notes become short programs."""

from __future__ import annotations

import ast
import operator
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from mtdpo_lib.chat import say
from mtdpo_lib.common.files import CorruptData, numbered_jsonl
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems.answers import is_correct, number
from mtdpo_lib.problems.base import SPLITS, Demonstration, Problem, SessionFactory, call, conclude, digest
from mtdpo_lib.problems.published import checksums, from_hub
from mtdpo_lib.problems.splits import check_split, question_id, split_of

FOLDER_VARIABLE = "MTDPO_GSM8K_DIR"
HUB = "openai/gsm8k"
NOTE = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
AFTER_NOTE = re.compile(r"\$?[\d,]*(?:\.\d+)?%?[ ]*([^.,:;\n<#=+*/()$-]*)")  # "24 clips in May" after a note
WHERE = (
    f"set problems.gsm8k_dir or the environment variable {FOLDER_VARIABLE} to a folder that holds train.jsonl"
)

# SHA-256 of the files as published (github.com/openai/grade-school-math, MIT licence).
PUBLISHED = {
    "train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
}

SIGNS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip

PLAIN = re.compile(r"[\d.+*/() -]{1,200}")  # arithmetic: numbers, signs and brackets, few enough to compute

Record = dict[str, str]
Numbered = dict[int, Record]  # by the line it stands in


class Records(NamedTuple):
    """GSM8K's records. What is tested is never trained on.

    Attributes:
        train: of train.jsonl, without the questions that test.jsonl asks too.
        test: of test.jsonl; none where there is no such file.
        left_out: lines of train.jsonl whose questions are in test.jsonl.
    """

    train: list[Record]
    test: list[Record]
    left_out: list[int]

    def notice(self) -> str:
        """What a user should know about the files before long work starts; mostly nothing."""
        if not self.left_out:
            return ""
        shown, more = ", ".join(map(str, self.left_out[:9])), len(self.left_out) - 9
        lines = f"{shown} and {more} more" if more > 0 else shown
        return f"GSM8K: lines of train.jsonl that ask a question of test.jsonl are left out of training: {lines}."


def _record(row: Any) -> Record:
    """Question and answer of a line; an error for one that is not a GSM8K record."""
    question, answer = row["question"], row["answer"]
    final_answer(answer)
    if not question.strip():
        raise ValueError("an empty question")
    (question + answer).encode()  # a lone surrogate is no text
    return {"question": question, "answer": answer}


def data_folder(folder: str | os.PathLike[str] = "") -> str:
    """The folder, or without one that of MTDPO_GSM8K_DIR; "" stands for the hub."""
    return str(folder) or os.environ.get(FOLDER_VARIABLE, "")


def read_records(folder: str | os.PathLike[str] = "") -> Records:
    """Return the records of train.jsonl and, where there is one, of test.jsonl; `folder` as in `load_gsm8k`.

    Raises:
        ValueError: When the folder, its file or the hub cannot be read, or a question has two answers; the sentence
            says what to do.
    """
    train, test = _numbered(data_folder(folder))
    ours, tested = _lines_of("train.jsonl", train), _lines_of("test.jsonl", test)
    left_out = sorted(line for key in ours.keys() & tested.keys() for line in ours[key])
    for line in left_out:
        del train[line]
    return Records(list(train.values()), list(test.values()), left_out)


def _numbered(folder: str) -> tuple[Numbered, Numbered]:
    """Train and test records as they stand in the folder's files, or on the hub for ""."""
    if not folder:
        data = from_hub("GSM8K", WHERE, HUB, "main")
        return dict(enumerate(data["train"], 1)), dict(enumerate(data["test"], 1))
    train, test = (Path(folder) / name for name in PUBLISHED)
    if not Path(folder).is_dir():
        raise ValueError(f"There is no GSM8K folder {folder!r}: {WHERE}.")
    if not train.is_file():
        raise ValueError(f"The GSM8K folder {folder!r} has no train.jsonl: {WHERE}.")
    wanted = 'a GSM8K record, JSON with "question" and an "answer" that ends in "#### number"'
    remedy = f"fetch it again or {WHERE}"
    records = numbered_jsonl(train, _record, wanted, remedy)
    if not records:
        raise CorruptData(f"{train} is empty: {remedy}.")
    return records, numbered_jsonl(test, _record, wanted, remedy) if test.is_file() else {}


def _lines_of(name: str, rows: Numbered) -> dict[str, list[int]]:
    """The lines that ask each question of a file.

    Raises:
        CorruptData: a question is answered in two ways.
    """
    lines: dict[str, list[int]] = {}
    for line, record in rows.items():
        same = lines.setdefault(question_id(record["question"]), [])
        same.append(line)
        before, answer = (final_answer(rows[one]["answer"]) for one in (same[0], line))
        if number(before) != number(answer):
            raise CorruptData(
                f"Lines {same[0]} and {line} of GSM8K's {name} ask the same question and answer it with {before} and "
                f"{answer}: remove the wrong one."
            )
    return lines


def sources(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Where the data come from: "as published" or another file's checksum for each file of the folder, or the hub."""
    if not data_folder(folder):
        return {"hub": HUB}
    found = checksums(data_folder(folder), PUBLISHED)
    return {
        name: "as published" if checksum == PUBLISHED[name] else f"another file, SHA-256 {checksum}"
        for name, checksum in found.items()
    }


def final_answer(solution: str) -> str:
    """Return the gold answer of a solution, the number after "####", without thousands commas.

    Raises:
        ValueError: When there is none.
    """
    _, mark, answer = solution.rpartition("####")
    value = number(answer)
    if not mark or value is None:
        raise ValueError("the solution has no final '#### number'")
    return str(value) if value.denominator == 1 else answer.strip().lstrip("$").replace(",", "")


def load_gsm8k(
    folder: str | os.PathLike[str], split: str, count: int | None, seed: int, max_steps: int | None = None
) -> list[Problem]:
    """Load GSM8K problems of one split.

    The training file is split by the hash of the question, so that splits never overlap. "test" is the test
    file; where there is none, it is a part of the training file that no other split ever uses (also when
    there is a test file, so that adding it moves no question), and the ids say "train-heldout".

    **Paper:** section 3.1 takes its prompts from the training sets of GSM8K and MATH.

    Args:
        folder: Folder with train.jsonl and perhaps test.jsonl; "" means the environment variable
            MTDPO_GSM8K_DIR, and without that the hub.
        split: "demonstrations", "preference", "development" or "test".
        count: How many; None for all.
        seed: Which ones, and their order; a larger count begins with the same problems.
        max_steps: Keep only problems with at most this many calculator notes; None or 0 keeps all.

    Raises:
        ValueError: With one sentence on what to do: no data, a corrupt line, unknown split, too few problems.
    """
    check_split(split)
    problems = split_problems(read_records(folder), split, max_steps)
    if count is not None and count > len(problems):
        more = f" or raise problems.gsm8k_max_steps={max_steps}" if max_steps else ""
        raise ValueError(
            f"GSM8K has {len(problems)} problems in split {split!r} where {count} are wanted: ask for fewer{more}."
        )
    return sorted(problems, key=lambda problem: digest(seed, "gsm8k", problem.id))[:count]


def split_problems(records: Records, split: str, max_steps: int | None = None) -> list[Problem]:
    """The distinct problems of one split in their file's order; see `load_gsm8k`."""
    name = "train-heldout" if split == "test" and not records.test else split
    rows = (
        records.test
        if name == "test"
        else [one for one in records.train if split_of(one["question"]) == split]
    )
    if max_steps:
        rows = [row for row in rows if len(NOTE.findall(row["answer"])) <= max_steps]
    return list({problem.id: problem for problem in (_problem(row, name) for row in rows)}.values())


def training_problems(records: Records) -> list[Problem]:
    """Every problem of the training file, whatever its split, in the file's order."""
    return [_problem(record, "train") for record in records.train]


def supply(records: Records, max_steps: int = 0) -> dict[str, int]:
    """How many problems each split gives; of demonstrations those whose notes compute the gold answer."""
    found = {split: split_problems(records, split, max_steps) for split in SPLITS}
    found["demonstrations"] = [problem for problem in found["demonstrations"] if _is_shown(problem)]
    return {split: len(problems) for split, problems in found.items()}


def _is_shown(problem: Problem) -> bool:
    """Whether `gsm8k_demonstrations` will keep a problem's notes, told without running them."""
    try:
        program(problem.notes, problem.question)
        value = evaluated(_expression(NOTE.findall(problem.notes)[-1][0]))
    except ValueError:
        return False
    return number(problem.answer) in (value, round(value, 4))


def _problem(record: Record, split: str) -> Problem:
    question, solution = record["question"].strip(), record["answer"]
    name, family = f"gsm8k/{split}/{question_id(question)}", f"{len(NOTE.findall(solution))}-step"
    return Problem(name, "gsm8k", family, question, final_answer(solution), notes=solution)


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


def program(solution: str, question: str = "") -> tuple[str, str]:
    """Turn the calculator notes of a solution into a sentence and a program.

    Every note becomes a line `step_1 = 48/2  # clips in May`; a number that an earlier step gave, and that the question
    does not name, is replaced by that step's name, and the last step is printed, as a whole number where it is one.

    Args:
        solution: GSM8K's worked solution.
        question: its problem; 15 may be its weeks, although an earlier step gave 15 hours.

    Returns:
        The sentence and the program.

    Raises:
        ValueError: When there are no notes, one is more than plain arithmetic, or the last one computes nothing.
    """
    notes = list(NOTE.finditer(solution))
    if not notes:
        raise ValueError("no notes")
    named = {Fraction(word) for word in NUMBER.findall(question.replace(",", ""))}
    lines: list[str] = []
    steps: dict[Fraction, str] = {}
    expressions = [_expression(note[1]) for note in notes]
    results = [evaluated(expression) for expression in expressions]
    for position, (note, expression, result) in enumerate(zip(notes, expressions, results, strict=True), 1):
        name = f"step_{position}"
        after = AFTER_NOTE.match(solution, note.end())
        comment = " ".join(after[1].split()[:5]) if after else ""
        line = f"{name} = {with_steps(expression, steps)}"
        lines.append(f"{line}  # {comment}" if comment else line)
        if result not in named:
            steps[result] = name
    if not re.search(r"[\d.)]\s*[-+*/]", notes[-1][1]):
        raise ValueError("the last note computes nothing")
    shown = expressions[0] if len(notes) == 1 else f"step_{len(notes)}"
    if re.search(r"[/.]", "".join(note[1] for note in notes)):  # a float: print 72, not 72.0
        shown = f"round({shown})" if results[-1].denominator == 1 else f"round({shown}, 4)"
    if len(notes) == 1:
        return "One step is enough.", f"print({shown})"
    return f"I work it out in {len(notes)} steps.", "\n".join([*lines, f"print({shown})"])


def _expression(note: str) -> str:
    """A note's sum without thousands commas and leading zeros, as Python wants it."""
    return re.sub(r"(?<![\d.])0+(?=\d)", "", note.replace(",", "").strip())


def with_steps(expression: str, steps: Mapping[Fraction, str]) -> str:
    """Replace numbers that earlier steps gave by the names of those steps, each name once."""
    free = dict(steps)
    return NUMBER.sub(lambda match: free.pop(Fraction(match[0]), match[0]), expression)


def gsm8k_demonstrations(
    problems: Iterable[Problem],
    session_factory: SessionFactory,
    limit: int | None = None,
    progress: OnProgress | None = None,
) -> tuple[list[Demonstration], dict[str, int]]:
    """Make demonstrations from GSM8K's calculator notes, and keep those whose program gives the gold answer.

    **Paper:** section 3.1: demonstrations are filtered by their final answer.

    Args:
        problems: GSM8K problems, in order of preference.
        session_factory: Opens a sandbox session.
        limit: Stop after this many are kept.
        progress: Called with (kept so far, wanted).

    Returns:
        The kept demonstrations, and counts: "kept" and "dropped: ..." for each reason.
    """
    problems = list(problems)
    wanted = len(problems) if limit is None else limit
    kept: list[Demonstration] = []
    counts: Counter[str] = Counter(kept=0)
    for problem in problems:
        if len(kept) >= wanted:
            break
        try:
            sentence, code = program(problem.notes, problem.question)
        except ValueError as error:
            counts[f"dropped: {error}"] += 1
            continue
        with session_factory() as session:
            result = session.run(code)
        output = result.text.strip()
        if result.error:
            counts["dropped: the program fails"] += 1
        elif not is_correct(output, problem.answer):
            counts["dropped: the notes do not give the gold answer"] += 1
        else:
            asked, told = say("user", problem.question), say("tool", output)
            messages = [asked, call(sentence, code), told, conclude(output)]
            kept.append(Demonstration(problem, "notes", messages, correct=True))
            counts["kept"] += 1
            if progress:
                progress(len(kept), wanted)
    return kept, dict(counts)
