"""Published test sets beside GSM8K: MATH, and four that no suite here trains on (SVAMP, ASDiv, MAWPS, GSM-Hard).

They are for evaluation only, but for "math-train", MATH's training part. Each comes from the hub by name, or from
``<name>.jsonl`` with the hub's own fields in the folder that MTDPO_BENCHMARKS_DIR names.

**Paper:** MATH is its second column; the other sets are read by the authors' code, which reports no number for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import read_jsonl
from mtdpo_lib.problems.answers import extract_boxed, number
from mtdpo_lib.problems.base import Problem, digest
from mtdpo_lib.problems.published import from_hub
from mtdpo_lib.problems.splits import question_id

FOLDER_VARIABLE = "MTDPO_BENCHMARKS_DIR"
MATH_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip

Record = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Where a test set is on the hub, and how its records read.

    Attributes:
        hub: its name there.
        split: the part to test on.
        question: the fields that make it up.
        answer: from a record; None leaves the record out.
        family: the field with the kind of question.
        configs: the hub's parts that make up the set.
    """

    hub: str
    split: str
    question: tuple[str, ...]
    answer: Callable[[Record], str | None]
    family: str = ""
    configs: tuple[str | None, ...] = (None,)


def _number(text: object) -> str | None:
    """``"9 (apples)"``, ``"1,200.0"`` or 7.0 as a plain number; None when it is none."""
    value = number(str(text).split("(")[0].strip())
    if value is None:
        return None
    return str(value) if value.denominator == 1 else str(float(value))


BENCHMARKS = {
    "math": Benchmark(
        "EleutherAI/hendrycks_math", "test", ("problem",), lambda record: extract_boxed(record["solution"]), "type",
        MATH_SUBJECTS,
    ),
    "svamp": Benchmark(
        "ChilleD/SVAMP", "test", ("Body", "Question"), lambda record: _number(record["Answer"]), "Type"
    ),
    "asdiv": Benchmark(
        "EleutherAI/asdiv", "validation", ("body", "question"),
        lambda record: None if ";" in record["answer"] else _number(record["answer"]), "solution_type",
    ),
    "mawps": Benchmark("MU-NLPC/Calc-mawps", "test", ("question",), lambda record: _number(record["result"])),
    "gsm-hard": Benchmark(
        "reasoning-machines/gsm-hard", "train", ("input",), lambda record: _number(record["target"])
    ),
}  # fmt: skip
TRAINING = {"math-train": replace(BENCHMARKS["math"], split="train")}


def load_benchmark(
    name: str, folder: str | os.PathLike[str] = "", count: int | None = None, seed: int = 0
) -> list[Problem]:
    """Problems of a published test set.

    Records without a single answer of the set's kind (ASDiv's questions with two answers, say) are left out, and so are
    repeated questions.

    Args:
        name: of `BENCHMARKS`, or "math-train".
        folder: with ``<name>.jsonl``; "" means MTDPO_BENCHMARKS_DIR, and without that the hub.
        count: at most so many; None for all.
        seed: which ones, and their order.

    Raises:
        ValueError: an unknown name, nothing to read, or a record of another kind; the sentence says what to do.
    """
    known = BENCHMARKS | TRAINING
    if name not in known:
        raise ValueError(f"Unknown test set {name!r}: known are {', '.join(BENCHMARKS)}.")
    benchmark, folder = known[name], str(folder) or os.environ.get(FOLDER_VARIABLE, "")
    records = from_folder(name, benchmark.hub, folder) if folder else _from_hub(name, benchmark)
    problems: dict[str, Problem] = {}
    for position, record in enumerate(records, 1):
        try:
            question = " ".join(record[field].strip() for field in benchmark.question)
            key = question_id(question)
            answer, family = benchmark.answer(record), record[benchmark.family] if benchmark.family else "all"
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"Record {position} of {name} is not one of {benchmark.hub} ({type(error).__name__}: {error}): "
                "fetch the set again."
            ) from error
        if answer is not None:
            problems[key] = Problem(f"{name}/test/{key}", name, family, question, answer)
    return sorted(problems.values(), key=lambda problem: digest(seed, name, problem.id))[:count]


def from_folder(name: str, hub: str, folder: str) -> list[Record]:
    """The records of ``<name>.jsonl`` in the folder, with the fields that the data set `hub` has.

    Raises:
        ValueError: there is no such file, or a line is no JSON object.
    """
    file = Path(folder) / f"{name}.jsonl"
    if not file.is_file():
        raise ValueError(
            f"The set {name} is not in {str(folder)!r}: put {name}.jsonl there, with the fields of {hub}, or"
            f" leave {FOLDER_VARIABLE} empty to take it from the hub."
        )
    return read_jsonl(file, remedy="fetch the file again")


def _from_hub(name: str, benchmark: Benchmark) -> Iterable[Record]:
    what, remedy = f"The set {name}", f"set {FOLDER_VARIABLE} to a folder with {name}.jsonl"
    for config in benchmark.configs:
        yield from from_hub(what, remedy, benchmark.hub, config, split=benchmark.split)
