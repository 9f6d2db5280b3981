"""GSM8K, read from a folder or the hub, and demonstrations from its worked solutions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from mtdpo_lib.chat import say
from mtdpo_lib.common.files import CorruptData, numbered_jsonl
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems.answers import is_correct, number
from mtdpo_lib.problems.base import (
    SPLITS,
    Demonstration,
    Problem,
    SessionFactory,
    call,
    conclude,
    digest,
    keep,
    named,
)
from mtdpo_lib.problems.notes import NOTE, WAYS, Call, steps, ways
from mtdpo_lib.problems.published import checksums, from_hub
from mtdpo_lib.problems.splits import check_split, question_id, split_of

FOLDER_VARIABLE = "MTDPO_GSM8K_DIR"
HUB = "openai/gsm8k"
SAME_QUESTIONS = ("demonstrations", "preference")
WHERE = (
    f"set problems.gsm8k_dir or the environment variable {FOLDER_VARIABLE} to a folder that holds train.jsonl"
)

# SHA-256 of the files as published (github.com/openai/grade-school-math, MIT licence).
PUBLISHED = {
    "train.jsonl": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "test.jsonl": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
}

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

    Demonstrations and preference prompts come from the same training questions, each in its own order. Development questions
    are a part of the training file, by the hash of the question, that neither uses. "test" is the test file; where there is
    none, it is another part of the training file that nothing else uses, and the ids say "train-heldout".

    **Paper:** section 3.1 takes prompts and demonstrations from the training sets of GSM8K and MATH, and 1K prompts more for
    development.

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
    return chosen("GSM8K", problems, split, count, seed, max_steps)


def chosen(
    source: str, problems: list[Problem], split: str, count: int | None, seed: int, max_steps: int | None
) -> list[Problem]:
    """Of a source's problems in a split so many, in an order of the seed; see `load_gsm8k`."""
    if count is not None and count > len(problems):
        more = f" or raise problems.gsm8k_max_steps={max_steps}" if max_steps else ""
        raise ValueError(
            f"{source} has {len(problems)} problems in split {split!r} where {count} are wanted: ask for fewer{more}."
        )
    return sorted(problems, key=lambda problem: digest(seed, split, problem.id))[:count]


def split_problems(records: Records, split: str, max_steps: int | None = None) -> list[Problem]:
    """The distinct problems of one split in their file's order; see `load_gsm8k`."""
    wanted = "train" if split in SAME_QUESTIONS else split
    rows = [one for one in records.train if _part(one, bool(records.test)) == wanted]
    name = "train-heldout" if wanted == "test" else wanted
    if split == "test" and records.test:
        rows, name = records.test, "test"
    if max_steps:
        rows = [row for row in rows if len(NOTE.findall(row["answer"])) <= max_steps]
    return list({problem.id: problem for problem in (_problem(row, name) for row in rows)}.values())


def _part(record: Record, has_test_file: bool) -> str:
    """What a question of the training file is for: "train", "development" or, where there is no test file, "test"."""
    split = split_of(record["question"])
    return split if split == "development" or (split == "test" and not has_test_file) else "train"


def training_problems(records: Records) -> list[Problem]:
    """Every problem of the training file, whatever its split, in the file's order."""
    return [_problem(record, "train") for record in records.train]


def supply(records: Records, max_steps: int = 0) -> dict[str, int]:
    """How many problems each split gives, and how many demonstrations at most: not every solution can be shown."""
    told = {split: len(split_problems(records, split, max_steps)) for split in SPLITS}
    return told | {"demonstrations": WAYS * told["demonstrations"]}


def _problem(record: Record, split: str) -> Problem:
    question, solution = record["question"].strip(), record["answer"]
    name, family = f"gsm8k/{split}/{question_id(question)}", f"{len(NOTE.findall(solution))}-step"
    return Problem(name, "gsm8k", family, question, final_answer(solution), notes=solution)


def programs(problem: Problem) -> list[list[Call]]:
    """Different programs for a problem, in an order of its own.

    Raises:
        ValueError: When its notes give none; the reason in a few words.
    """
    stream, answer = named(0, "gsm8k", problem.question), number(problem.answer)
    found = ways(steps(problem.notes, problem.question, answer or Fraction(0)), stream)
    return stream.sample(found, len(found))


def gsm8k_demonstrations(
    problems: Iterable[Problem],
    session_factory: SessionFactory,
    limit: int | None = None,
    progress: OnProgress | None = None,
) -> tuple[list[Demonstration], dict[str, int]]:
    """Make demonstrations from GSM8K's worked solutions, and keep those whose programs give the gold answer.

    A problem is shown in up to `WAYS` ways, some in two calls; all problems are shown once before one is shown twice.

    **Paper:** section 3.1: demonstrations are filtered by their final answer; there a question has up to 50.

    Args:
        problems: GSM8K problems, in order of preference.
        session_factory: Opens a sandbox session.
        limit: Stop after this many are kept.
        progress: Called with (kept so far, wanted).

    Returns:
        The kept demonstrations, and counts: "kept", and "dropped: ..." for each reason.
    """
    problems = list(problems)
    wanted = WAYS * len(problems) if limit is None else limit
    return keep(_in_turn(problems, session_factory), wanted, progress)


def _in_turn(problems: list[Problem], session_factory: SessionFactory) -> Iterator[Demonstration | str]:
    """Every problem's first program, executed, then every second one, and so on; or why there is none."""
    made: dict[str, list[list[Call]]] = {}
    for turn in range(WAYS):
        for problem in problems:
            if turn == 0:
                try:
                    made[problem.id] = programs(problem)
                except ValueError as error:
                    yield str(error)
            for way in made.get(problem.id, [])[turn : turn + 1]:
                yield _executed(problem, way, session_factory)


def _executed(problem: Problem, way: list[Call], session_factory: SessionFactory) -> Demonstration | str:
    """The demonstration of a program, each call run in one session; or why there is none."""
    messages, output = [say("user", problem.question)], ""
    with session_factory() as session:
        for sentence, code, prints in way:
            result = session.run(code)
            output = result.text.strip()
            if result.error:
                return "the program fails"
            if output != prints:
                return "the program prints another number"
            messages += [call(sentence, code), say("tool", output)]
    if not is_correct(output, problem.answer):
        return "the program does not give the gold answer"
    strategy = "one call" if len(way) == 1 else "two calls"
    return Demonstration(problem, strategy, [*messages, conclude(output)], correct=True)
