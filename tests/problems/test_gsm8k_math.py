"""The paper's sources together: splits without overlap, and worked answers of which only right ones are kept."""

import json

import pytest

from mtdpo_lib.problems import SPLITS, Questions, load_demonstrations, load_problems
from mtdpo_lib.problems.splits import split_of
from mtdpo_lib.profiles import ProblemSettings

CALL = "I compute.\n```python\nprint(1)\n```"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    write(
        tmp_path / "train.jsonl",
        ({"question": f"Add 2 to {n}.", "answer": f"#### {n + 2}"} for n in range(100)),
    )
    write(tmp_path / "math-train.jsonl", map(halve, range(100)))
    write(tmp_path / "math.jsonl", map(halve, range(90, 120)))
    monkeypatch.setenv("MTDPO_BENCHMARKS_DIR", str(tmp_path))
    return ProblemSettings(world="gsm8k-math", gsm8k_dir=str(tmp_path), demonstrations=50)


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")


def halve(n):
    return {
        "problem": f"Halve ${n}$.",
        "type": "Algebra",
        "solution": f"It is $\\boxed{{\\frac{{{n}}}{{2}}}}$.",
    }


def spoken(question, answer, printed="```output\n1\n```"):
    turns = [question, CALL, printed, f"So it is \\boxed{{{answer}}}."]
    return [
        {"role": role, "content": turn} for role, turn in zip(("user", "assistant") * 2, turns, strict=True)
    ]


def test_no_question_is_in_two_splits_but_those_that_are_both_shown_and_asked(settings):
    found = {
        split: load_problems(settings, split, 10, 0)[:0] or load_problems(settings, split, 5, 0)
        for split in SPLITS
    }
    assert {problem.suite for problems in found.values() for problem in problems} == {"gsm8k", "math"}
    asked = {split: {one.question for one in every(settings, split)} for split in SPLITS}
    assert asked["demonstrations"] == asked["preference"]
    assert not asked["preference"] & asked["development"] and not asked["test"] & (
        asked["preference"] | asked["development"]
    )
    assert "Halve $95$." in asked["test"], "MATH's test set is one, and what it asks is not trained on"
    assert all(split_of(question) == "development" for question in asked["development"])


def every(settings, split):
    with pytest.raises(ValueError, match="GSM8K and MATH has") as caught:
        load_problems(settings, split, 999, 0)
    return load_problems(settings, split, int(str(caught.value).split()[4]), 0)


def test_only_right_answers_to_training_questions_are_shown(settings, tmp_path):
    (math, *_), (gsm8k, *_) = (
        [one for one in every(settings, "preference") if one.suite == suite] for suite in ("math", "gsm8k")
    )
    held_out = every(settings, "development")[0]
    n = int(math.question.split("$")[1])
    rows = [
        {"messages": spoken(math.question.upper() + " ", f"{n}/2")},
        {"conversations": [{"from": "human" if t["role"] == "user" else "gpt", "value": t["content"]}
                           for t in spoken(gsm8k.question, gsm8k.answer)]},
        {"messages": spoken(gsm8k.question, 1000)},
        {"messages": spoken(held_out.question, held_out.answer)},
        {"messages": spoken(gsm8k.question, gsm8k.answer, printed="Please go on.")},
    ]  # fmt: skip
    write(tmp_path / "sft-510k.jsonl", rows)
    made, report = load_demonstrations(settings, 0, pytest.fail)
    assert {one.problem for one in made} == {math, gsm8k} and report["total"] == report["correct"] == 2
    assert report["dropped"] == {
        "dropped: another answer than the gold one": 1,
        "dropped: no training question": 1,
        "dropped: a turn that is neither the model's nor the tool's": 1,
    }
    for one in made:
        assert [message["role"] for message in one.messages] == ["user", "assistant", "tool", "assistant"]
        assert one.messages[2]["content"] == "1" and one.messages[0]["content"] == one.problem.question
    write(tmp_path / "sft-510k.jsonl", rows[2:])
    with pytest.raises(
        ValueError, match=r"The data give no demonstration \(1 dropped: .*, 1 dropped: .*\): take other data"
    ):
        load_demonstrations(settings, 0, pytest.fail)
    write(tmp_path / "sft-510k.jsonl", [{"text": "no conversation"}])
    with pytest.raises(
        ValueError, match=r"Record 1 of sft-510k: A conversation is a list .* Fetch the set again"
    ):
        load_demonstrations(settings, 0, pytest.fail)


def test_the_sources_count_by_their_content(settings, tmp_path):
    before = Questions.of(settings, "preference", 3, 0).fingerprint()
    write(tmp_path / "math-train.jsonl", map(halve, range(99)))
    after = Questions.of(settings, "preference", 3, 0).fingerprint()
    assert before != after and str(tmp_path) not in json.dumps(after)


def test_without_a_folder_the_hub_is_asked_and_what_is_missing_is_named(settings, monkeypatch):
    monkeypatch.delenv("MTDPO_BENCHMARKS_DIR")
    with pytest.raises(
        ValueError, match=r"The set math cannot be had from the hub .*: set MTDPO_BENCHMARKS_DIR to a folder"
    ):
        load_problems(settings, "preference", 3, 0)
