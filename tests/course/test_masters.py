"""The exercises: a solution passes its tests, no planted wrong answer does, and what is said names its mistake."""

import pytest
from masters import MASTERS, WRONG, Master, read_master

ANSWERS = [(number, file) for number in MASTERS for file in sorted((WRONG / number).glob("*.py"))]


@pytest.fixture(scope="module")
def read():
    """A master by its number and variant, read once."""
    kept: dict[tuple[str, str], Master] = {}

    def get(number: str, variant: str = "2026a") -> Master:
        if (number, variant) not in kept:
            kept[number, variant] = read_master(MASTERS[number], variant)
        return kept[number, variant]

    return get


def checked(master: Master) -> list[str]:
    return [task.name for task in master.tasks.values() if not task.written]


@pytest.mark.parametrize("variant", ["2026a", "2026b", "2027x"])
@pytest.mark.parametrize("number", MASTERS)
def test_the_solutions_pass_in_every_variant(read, number, variant):
    master = read(number, variant)
    space = master.variables()
    assert {name: said for name in checked(master) if (said := master.failures(name, space))} == {}


@pytest.mark.parametrize("number", MASTERS)
def test_the_solutions_of_another_variant_do_not_pass(read, number):
    space = read(number, "2026b").variables()
    assert any(read(number).failures(name, space) for name in checked(read(number)))


@pytest.mark.parametrize(("number", "file"), ANSWERS, ids=[f"{n}-{file.stem}" for n, file in ANSWERS])
def test_a_planted_wrong_answer_fails_and_is_told_its_mistake(read, number, file):
    task = file.stem.partition("-")[0]
    mark, _, code = file.read_text().partition("\n")
    said = "\n".join(read(number).failures(task, read(number).variables({task: code})))
    assert said, "full marks for a wrong answer"
    assert mark.removeprefix("# feedback: ") in said, said


@pytest.mark.parametrize("number", MASTERS)
def test_every_task_has_its_share_of_tests_and_of_planted_wrong_answers(read, number):
    master = read(number)
    assert len(checked(master)) >= 2 and any(task.written for task in master.tasks.values())
    for name in checked(master):
        planted = [file for of, file in ANSWERS if of == number and file.stem.partition("-")[0] == name]
        assert len(planted) >= 3 and len(master.tasks[name].tests) >= 2, name
