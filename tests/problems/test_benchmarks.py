"""Published test sets: read with the hub's own fields, or refused in one sentence. The records are invented."""

import json

import pytest

from mtdpo_lib.problems.answers import is_correct
from mtdpo_lib.problems.benchmarks import BENCHMARKS, FOLDER_VARIABLE, MATH_SUBJECTS, load_benchmark

RECORDS = {
    "math": [
        {"problem": "What is half of one third?", "level": "Level 1", "type": "Prealgebra",
         "solution": "Half of $\\frac13$ is $\\boxed{\\frac{1}{6}}$."},
        {"problem": "Name a prime.", "level": "Level 1", "type": "Number Theory", "solution": "No box here."},
    ],
    "svamp": [{"ID": "x-1", "Body": "Ann has 9 pens. ", "Question": "How many are left after 2?", "Answer": "7.0",
               "Equation": "( 9.0 - 2.0 )", "Type": "Subtraction"}],
    "asdiv": [
        {"body": "Bo eats 4 plums and 5 pears.", "question": "How much fruit?", "solution_type": "Addition",
         "answer": "9 (pieces)", "formula": "4+5=9"},
        {"body": "Two numbers.", "question": "Which?", "solution_type": "Algebra-2", "answer": "4; 5", "formula": ""},
    ],
    "mawps": [{"id": "m-1", "question": "Cy buys 2.5 kg and 1 kg. How many kg?", "chain": "", "result": "3.5",
               "result_float": 3.5, "equation": "x=2.5+1", "expression": "2.5+1"}],
    "gsm-hard": [{"input": "Di packs 1,000,001 boxes of 2. How many?", "code": "def solution(): return 2000002",
                  "target": 2000002.0}],
}  # fmt: skip
ANSWERS = {"math": "\\frac{1}{6}", "svamp": "7", "asdiv": "9", "mawps": "3.5", "gsm-hard": "2000002"}


@pytest.fixture
def folder(tmp_path):
    for name, records in RECORDS.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf8")
    return tmp_path


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_set_gives_problems_with_one_answer(name, folder):
    (problem,) = load_benchmark(name, folder)
    assert problem.answer == ANSWERS[name]
    assert problem.suite == name and problem.id.startswith(f"{name}/test/")
    assert is_correct(problem.answer, problem.answer) and not is_correct("8", problem.answer)


def test_answers_are_compared_as_mathematics(folder):
    (problem,) = load_benchmark("math", folder)
    assert is_correct("1/6", problem.answer) and is_correct("\\dfrac16", problem.answer)
    assert problem.family == "Prealgebra"


def test_a_larger_count_begins_with_the_same_problems(tmp_path):
    lines = [{**RECORDS["mawps"][0], "question": f"What is {n} kg and 1 kg?"} for n in (*range(30), 3, 3)]
    (tmp_path / "mawps.jsonl").write_text("\n".join(map(json.dumps, lines)))
    every = load_benchmark("mawps", tmp_path)
    assert len(every) == 30  # repeated questions once
    assert load_benchmark("mawps", tmp_path, 7) == every[:7]
    assert load_benchmark("mawps", tmp_path, seed=1) != every


def test_the_folder_may_come_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert load_benchmark("svamp")[0].question == "Ann has 9 pens. How many are left after 2?"


def test_the_hub_is_asked_by_name_and_parts(monkeypatch):
    import datasets

    asked = []

    def load_dataset(hub, config, split):
        asked.append((hub, config, split))
        return RECORDS["math"]

    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("mtdpo_lib.problems.published.look_up", lambda *_: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_benchmark("math")) == 1
    assert asked == [("EleutherAI/hendrycks_math", subject, "test") for subject in MATH_SUBJECTS]


def test_bad_input_has_its_sentence(folder, monkeypatch):
    with pytest.raises(ValueError, match="known are math, svamp"):
        load_benchmark("svampp", folder)
    (folder / "svamp.jsonl").write_text('{"Body": "x"}\n')
    with pytest.raises(
        ValueError, match=r"Record 1 of svamp is not one of ChilleD/SVAMP \(KeyError: 'Question'\)"
    ):
        load_benchmark("svamp", folder)
    (folder / "svamp.jsonl").write_text(
        '{"Body": "x \\ud800", "Question": "y", "Answer": "7", "Type": "z"}\n'
    )
    with pytest.raises(ValueError, match=r"Record 1 of svamp is not one of .* \(UnicodeEncodeError: "):
        load_benchmark("svamp", folder)
    (folder / "svamp.jsonl").write_text("no json\n")
    with pytest.raises(ValueError, match=r"Line 1 of .*svamp.jsonl is not a JSON object .*: fetch"):
        load_benchmark("svamp", folder)
    (folder / "svamp.jsonl").unlink()
    with pytest.raises(ValueError, match=r"put svamp.jsonl there"):
        load_benchmark("svamp", folder)

    import datasets

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("mtdpo_lib.problems.published.look_up", lambda *_: None)
    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        ValueError, match=r"cannot be had from the hub \(ConnectionError\): set MTDPO_BENCHMARKS_DIR"
    ):
        load_benchmark("svamp")
