"""The paired difference of any two runs: run folders of `reproduce`, or records of a study's arms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mtdpo_lib.common.files import read_json
from mtdpo_lib.experiment.algorithm1 import DATA_SEED
from mtdpo_lib.problems import Questions
from mtdpo_lib.profiles import ProblemSettings
from mtdpo_lib.results import report
from mtdpo_lib.results.metric import Metric
from mtdpo_lib.results.records import merge_outcomes
from mtdpo_lib.results.stats import paired_bootstrap


class Answers(NamedTuple):
    """What the policies of one run answered.

    Attributes:
        name: of the run, with its seed.
        asked: which questions, as `Questions.fingerprint` says, and how many.
        right: "last" and, where it is known, "selected": right (1) or wrong (0) of every test problem.
    """

    name: str
    asked: Any
    right: dict[str, list[int]]


def compare(one: Path, other: Path) -> Iterator[str]:
    """What the last policy of the first run, and the selected one, answers better than the second run's: a line for each.

    Raises:
        ValueError: a path that is neither a run nor an arm's record, or runs that answered different test problems.
    """
    first, second = _answers(one), _answers(other)
    if first.asked != second.asked:
        raise ValueError(
            f"{one} and {other} answered different test problems: compare runs of one profile with the same settings of "
            "problems."
        )
    for which in (which for which in first.right if which in second.right):
        ours, theirs = first.right[which], second.right[which]
        metric = Metric("difference", *paired_bootstrap(ours, theirs), n=len(ours))
        shares = " and ".join(f"{100 * sum(row) / len(row):.1f}" for row in (ours, theirs))
        yield (
            f"{which}: {first.name} minus {second.name} {metric.in_words(sign=True)} points ({shares} %), "
            f"n = {metric.n:,} test problems, paired; 95% interval over problems"
        )


def _answers(run: Path) -> Answers:
    try:
        return _of_run(run) if run.is_dir() else _of_arm(read_json(run))
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration, ValidationError):
        raise ValueError(
            f"{run} is neither a finished run folder of `reproduce` nor the record of a study's arm (arms/NAME-seedN.json)."
        ) from None


def _of_arm(record: dict[str, Any]) -> Answers:
    ends, outcomes = {"last": record["policies"][-1], "selected": record.get("selected")}, record["outcomes"]
    right = {
        which: list(map(int, outcomes[name])) for which, name in ends.items() if name in record["policies"]
    }
    asked = record.get("questions"), len(right["last"])
    return Answers(f"{record['arm']} (seed {record['seed']})", asked, right)


def _of_run(folder: Path) -> Answers:
    state = report.read_run(folder)
    records = report.run_records(folder, state)
    settings = next(iter(records.values()))["settings"]
    right = merge_outcomes(records)[f"{settings['preference']['method']}-{settings['iterations']}"]
    problems = ProblemSettings(**settings["problems"])
    asked = Questions.of(problems, "test", problems.test, DATA_SEED).fingerprint(), len(right)
    return Answers(f"{folder.name} (seed {state['seed']})", asked, {"last": right})
