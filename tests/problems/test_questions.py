"""Questions: the same problems as the settings give, and a fingerprint of their content."""

import json

import pytest

from mtdpo_lib.problems import Questions, load_benchmark, load_problems
from mtdpo_lib.profiles import ProblemSettings, get_profile

ROW = {"question": "Ann has 2 pens and buys 3. How many has she?", "answer": "2+3=<<2+3=5>>5\n#### 5"}


def write(folder, rows, name="train.jsonl"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_questions_are_the_problems_of_the_settings():
    settings = get_profile("smoke", "problems.families=2").problems
    questions = Questions.of(settings, "preference", 4, seed=3, first=6)
    assert questions.load() == load_problems(settings, "preference", 10, 3)[6:]
    assert len(questions.load()) == 4


def test_a_data_set_counts_by_its_content(tmp_path):
    def told(folder):
        return Questions("test", 1, world=ProblemSettings(world="gsm8k", gsm8k_dir=folder)).fingerprint()

    here, there = write(tmp_path / "here", [ROW]), write(tmp_path / "there", [ROW])
    assert told(here) == told(there) and "here" not in json.dumps(told(here))
    before = told(there)
    write(tmp_path / "there", [{**ROW, "answer": "2+3=<<2+3=6>>6\n#### 6"}])
    assert told(there) != before
    write(tmp_path / "here", [ROW], "test.jsonl")
    assert told(here) != before


def test_without_a_folder_the_hubs_name_counts(monkeypatch, tmp_path):
    monkeypatch.delenv("MTDPO_GSM8K_DIR", raising=False)
    questions = Questions("test", 1, world=ProblemSettings(world="gsm8k"))
    assert questions.fingerprint()["data"] == {"hub": "openai/gsm8k"}
    monkeypatch.setenv("MTDPO_GSM8K_DIR", write(tmp_path / "data", [ROW]))
    assert set(questions.fingerprint()["data"]) == {"train.jsonl"}
    assert "data" not in Questions("test", 1).fingerprint()


def test_a_published_test_set_counts_by_its_file(monkeypatch, tmp_path):
    row = {"question": "How many?", "result": "5"}
    monkeypatch.setenv("MTDPO_BENCHMARKS_DIR", write(tmp_path / "sets", [row], "mawps.jsonl"))
    questions = Questions("mawps", 10)
    before = questions.fingerprint()
    assert questions.load() == load_benchmark("mawps", count=10) and len(questions.load()) == 1
    write(tmp_path / "sets", [{**row, "result": "6"}], "mawps.jsonl")
    assert questions.fingerprint() != before
    monkeypatch.delenv("MTDPO_BENCHMARKS_DIR")
    assert questions.fingerprint()["data"] == {"hub": "MU-NLPC/Calc-mawps"}


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="Unknown split"):
        Questions("tests", 1).load()
