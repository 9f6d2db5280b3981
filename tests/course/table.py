"""What the tests of each task catch, as a table: ``PYTHONPATH=notebooks/exercises python tests/course/table.py``."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from masters import MASTERS, Master, read_master, wrong_answers
from mutants import survivors


def passed(master: Master, task: str, space: dict[str, Any]) -> str:
    """``2 of 2``: how many tests of a task pass."""
    tests = len(master.tasks[task].tests)
    return f"{tests - len(master.failures(task, space))} of {tests}"


def rows() -> Iterator[list[str]]:
    """A row for each task that tests grade, and one for all of them."""
    all_planted, all_caught, all_mutants, all_dead = 0, 0, 0, 0
    for number, file in MASTERS.items():
        master, (mutants, alive) = read_master(file), survivors(number)
        answers = list(wrong_answers(number))
        key = master.variables()
        handout = master.variables({name: task.stub for name, task in master.tasks.items()})
        for name, task in master.tasks.items():
            if task.written:
                continue
            codes = [answer.code for answer in answers if answer.task == name]
            caught = sum(bool(master.failures(name, master.variables({name: code}))) for code in codes)
            dead = mutants.get(name, 0) - len(alive.get(name, ()))
            marks = [str(task.points), passed(master, name, key), passed(master, name, handout)]
            yield [number, name, *marks, f"{caught} of {len(codes)}", f"{dead} of {mutants.get(name, 0)}"]
            all_planted, all_caught = all_planted + len(codes), all_caught + caught
            all_mutants, all_dead = all_mutants + mutants.get(name, 0), all_dead + dead
    yield ["all", "", "", "", "", f"{all_caught} of {all_planted}", f"{all_dead} of {all_mutants}"]


if __name__ == "__main__":
    with redirect_stdout(StringIO()):  # of the masters' own cells
        table = list(rows())
    head = [
        "lesson",
        "task",
        "points",
        "tests the key passes",
        "the handout",
        "wrong answers caught",
        "mutants caught",
    ]
    for row in [head, ["---"] * len(head), *table]:
        print(f"| {' | '.join(row)} |")
