"""The paper's own sources: training problems of GSM8K and MATH, and the worked answers that its SFT learns from.

MATH (``math-train.jsonl`` and, to test on, ``math.jsonl``) and the SFT set (``sft-510k.jsonl``) come from the folder that
MTDPO_BENCHMARKS_DIR names, else from the hub; GSM8K as in the world of that name.

**Paper:** section 3.1. Its 60K prompts are these questions in other words (MetaMathQA, MMIQC); here they are as published.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mtdpo_lib.chat import read_messages, say
from mtdpo_lib.common.progress import OnProgress
from mtdpo_lib.problems.answers import extract_boxed, is_correct
from mtdpo_lib.problems.base import Demonstration, Problem, keep, named
from mtdpo_lib.problems.benchmarks import FOLDER_VARIABLE, TRAINING, from_folder, load_benchmark
from mtdpo_lib.problems.gsm8k import chosen, read_records, split_problems
from mtdpo_lib.problems.published import checksums, from_hub
from mtdpo_lib.problems.splits import check_split, question_id, split_of
from mtdpo_lib.profiles.sections import ProblemSettings

SFT, SFT_HUB = "sft-510k", "RLHF4MATH/SFT_510K"
OUTPUT = re.compile(
    r"```output\n(.*?)\n?```\s*", re.DOTALL
)  # as the paper's data write what the tool printed


def load(settings: ProblemSettings, split: str, count: int | None, seed: int) -> list[Problem]:
    """Problems of both sources in one order; splits as in `mtdpo_lib.problems.gsm8k.load_gsm8k`.

    Raises:
        ValueError: one of the sources cannot be read, which the sentence names, or there are too few problems.
    """
    check_split(split)
    found = split_problems(read_records(settings.gsm8k_dir), split, settings.gsm8k_max_steps)
    tested = load_benchmark("math")
    if split == "test":
        found += tested
    else:
        asked = {question_id(problem.question) for problem in tested}
        for problem in load_benchmark("math-train"):
            key, is_development = question_id(problem.question), split_of(problem.question) == "development"
            if key not in asked and is_development == (split == "development"):
                part = split if is_development else "train"
                found.append(replace(problem, id=f"math/{part}/{key}", suite="math"))
    return chosen("GSM8K and MATH", found, split, count, seed, settings.gsm8k_max_steps)


def answers() -> Sequence[Mapping[str, Any]]:
    """The records of the SFT set.

    Raises:
        ValueError: it is neither in the folder nor on the hub.
    """
    if folder := os.environ.get(FOLDER_VARIABLE, ""):
        return from_folder(SFT, SFT_HUB, folder)
    return from_hub(
        "The SFT set", f"set {FOLDER_VARIABLE} to a folder with {SFT}.jsonl", SFT_HUB, split="train"
    )


def demonstrations(
    settings: ProblemSettings, seed: int, progress: OnProgress | None = None
) -> tuple[list[Demonstration], dict[str, int]]:
    """Worked answers to training questions, as another model gave them and the tool printed; only right ones are kept.

    Args:
        settings: of the world; at most `settings.demonstrations` are kept.
        seed: which ones, and their order.
        progress: called with (kept so far, wanted).

    Returns:
        The demonstrations, and counts: "kept", and "dropped: ..." for each reason.

    Raises:
        ValueError: a source cannot be read, or a record holds no conversation.
    """
    known = {question_id(one.question): one for one in load(settings, "demonstrations", None, seed)}
    return keep(_answered(answers(), known, seed), settings.demonstrations, progress)


def _answered(
    rows: Sequence[Mapping[str, Any]], known: Mapping[str, Problem], seed: int
) -> Iterator[Demonstration | str]:
    """The records in an order of the seed, each as a demonstration, or why it is none."""
    for place in named(seed, SFT).sample(range(len(rows)), len(rows)):
        try:
            yield _demonstration(rows[place], known)
        except ValueError as error:
            raise ValueError(
                f"Record {place + 1} of {SFT}: {error} Fetch the set again ({SFT_HUB})."
            ) from error


def _demonstration(row: Mapping[str, Any], known: Mapping[str, Problem]) -> Demonstration | str:
    """A record's conversation, its user's later turns as the tool's; or why it is left out."""
    asked, *later = read_messages(row.get("messages") or row.get("conversations"))
    problem = known.get(question_id(asked["content"]))
    if problem is None:
        return "no training question"
    messages = [say("user", problem.question)]
    for message in later:
        printed = OUTPUT.fullmatch(message["content"]) if message["role"] == "user" else None
        if message["role"] == "user" and printed is None:
            return "a turn that is neither the model's nor the tool's"
        messages.append(say("tool", printed[1]) if printed else say("assistant", message["content"]))
    if not is_correct(extract_boxed(messages[-1]["content"]), problem.answer):
        return "another answer than the gold one"
    calls = sum(message["role"] == "tool" for message in messages)
    return Demonstration(problem, "one call" if calls == 1 else f"{calls} calls", messages, correct=True)


def data() -> dict[str, Any]:
    """What a stage's key says of MATH and the SFT set: the files' checksums, or their names on the hub."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    files = [f"{name}.jsonl" for name in (*TRAINING, "math", SFT)]
    return checksums(folder, files) if folder else {"hub": [TRAINING["math-train"].hub, SFT_HUB]}
