"""GSM8K: reading, splitting and turning calculator notes into programs, on invented records."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from support import fuzzed

from mtdpo_lib.problems import SPLITS, gsm8k_demonstrations, load_demonstrations, load_gsm8k, load_problems
from mtdpo_lib.problems.gsm8k import (
    FOLDER_VARIABLE,
    PUBLISHED,
    final_answer,
    program,
    read_records,
    sources,
    supply,
    training_problems,
)
from mtdpo_lib.profiles import ProblemSettings


def settings_of(folder="", demonstrations=20):
    return ProblemSettings(world="gsm8k", gsm8k_dir=folder, demonstrations=demonstrations)


class TrustedSession:
    """Runs programs made from this file's own notes, in this process. Never for a model's code."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def run(self, code):
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, {})
        except Exception as error:
            return SimpleNamespace(text=f"{type(error).__name__}: {error}", error=type(error).__name__)
        return SimpleNamespace(text=out.getvalue().strip(), error=None)


def record(i):
    """An invented record with two notes; the right answer is i // 2 + i for even i."""
    i *= 2
    return {
        "question": f"Box {i} weighs {i} grams and its lid half of that. What do they weigh?",
        "answer": f"The lid weighs {i}/2 = <<{i}/2={i // 2}>>{i // 2} grams.\n"
        f"Together {i}+{i // 2} = <<{i}+{i // 2}={i + i // 2}>>{i + i // 2} grams.\n#### {i + i // 2}",
    }


def write(folder, records, name="train.jsonl"):
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    return write(tmp_path, [record(i) for i in range(1, 201)])


def problem_of(tmp_path, question, answer):
    write(tmp_path, [{"question": question, "answer": answer}])
    (problem,) = [p for split in SPLITS for p in load_gsm8k(tmp_path, split, None, seed=0)]
    return problem


# ---- reading and splitting


def test_splits_are_a_partition_of_the_training_file(folder):
    loaded = {split: {p.question for p in load_gsm8k(folder, split, None, seed=0)} for split in SPLITS}
    assert sum(map(len, loaded.values())) == len(set().union(*loaded.values())) == 200
    assert all(loaded.values())
    for problem in load_gsm8k(folder, "test", None, seed=0):
        assert problem.id.startswith("gsm8k/train-heldout/") and problem.suite == "gsm8k"


def test_a_test_file_is_the_test_split_and_moves_no_other_question(folder):
    before = {split: load_gsm8k(folder, split, None, seed=0) for split in SPLITS}
    write(folder, [record(i) for i in range(500, 520)], "test.jsonl")
    after = {split: load_gsm8k(folder, split, None, seed=0) for split in SPLITS}
    assert all(before[split] == after[split] for split in SPLITS if split != "test")
    assert len(after["test"]) == 20 and all(p.id.startswith("gsm8k/test/") for p in after["test"])


def test_the_seed_chooses_and_a_larger_count_begins_alike(folder):
    ten = load_gsm8k(folder, "demonstrations", 10, seed=1)
    assert ten == load_gsm8k(folder, "demonstrations", 30, seed=1)[:10]
    assert ten != load_gsm8k(folder, "demonstrations", 10, seed=2)


def test_max_steps_counts_calculator_notes(tmp_path):
    long = {"question": "A long one?", "answer": "<<1+1=2>>2 <<2+1=3>>3 <<3+1=4>>4\n#### 4"}
    write(tmp_path, [long, *(record(i) for i in range(1, 9))])
    for limit, number in ((0, 9), (None, 9), (3, 9), (2, 8), (1, 0)):
        assert sum(len(load_gsm8k(tmp_path, split, None, 0, limit)) for split in SPLITS) == number


def test_what_is_tested_is_left_out_of_training_and_said_with_its_lines(folder):
    shared = [record(i) for i in range(21, 180)]
    again = [
        {**one, "question": one["question"].upper() + " "} for one in shared
    ]  # the same question, told by its words
    write(folder, ["", *shared[:3], *map(record, range(1, 201))])  # three stand twice
    write(folder, [*again, record(999)], "test.jsonl")
    records = read_records(folder)
    assert len(records.train) == 200 - 159 and len(records.test) == 160
    assert records.left_out == [2, 3, 4, *range(25, 184)]
    assert records.notice() == (
        "GSM8K: lines of train.jsonl that ask a question of test.jsonl are left out of training: 2, 3, 4, 25, 26, 27, 28, "
        "29, 30 and 153 more."
    )
    tested = {p.question.lower() for p in load_gsm8k(folder, "test", None, seed=0)}
    assert len(tested) == 160
    for split in SPLITS[:3]:
        assert not tested & {p.question.lower() for p in load_gsm8k(folder, split, None, seed=0)}
    assert len(training_problems(records)) == 41


def test_a_question_with_two_answers_is_refused_with_its_lines(tmp_path):
    wrong = {**record(2), "question": record(2)["question"].replace(" ", "  "), "answer": "#### 7"}
    same = {**record(2), "answer": record(2)["answer"] + ".0"}
    write(tmp_path, [record(1), record(2), "", record(2), same])
    assert len(training_problems(read_records(tmp_path))) == 4
    assert sum(len(load_gsm8k(tmp_path, split, None, seed=0)) for split in SPLITS) == 2
    write(tmp_path, [record(1), record(2), "", record(3), wrong])
    with pytest.raises(
        ValueError, match=r"Lines 2 and 5 of GSM8K's train.jsonl ask the same .* with 6 and 7: remove"
    ):
        read_records(tmp_path)
    write(tmp_path, [record(1)])
    write(tmp_path, [wrong, record(2)], "test.jsonl")
    with pytest.raises(ValueError, match=r"Lines 1 and 2 of GSM8K's test.jsonl"):
        load_gsm8k(tmp_path, "demonstrations", None, seed=0)


def test_supply_tells_what_the_splits_and_the_sandbox_will_give(folder):
    odd = ["<<2/3=.67>>.67\n#### 0.6667", "<<1/0=6>>6\n#### 6", "No notes.\n#### 5", "<<2*3=6>>6\n#### 7"]
    own = [{"question": f"{i} {n}?", "answer": answer} for i in range(30) for n, answer in enumerate(odd)]
    write(folder, [*own, *(record(i) for i in range(1, 201))])
    for max_steps in (0, 1, 2):
        told = supply(read_records(folder), max_steps)
        given = {split: load_gsm8k(folder, split, None, 0, max_steps) for split in SPLITS}
        kept, _ = gsm8k_demonstrations(given["demonstrations"], TrustedSession)
        assert told == {split: len(problems) for split, problems in given.items()} | {
            "demonstrations": len(kept)
        }
        assert len(kept) < len(given["demonstrations"])


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("#### 1,200", "1200"),
        ("x\n#### 72", "72"),
        ("#### -5", "-5"),
        ("#### $18.50", "18.50"),
        ("#### 4.0", "4"),
    ],
)
def test_final_answers_lose_commas(line, answer):
    assert final_answer(line) == answer


# ---- clear sentences


def test_a_missing_folder_and_a_missing_file_name_the_setting(tmp_path):
    for where, what in ((tmp_path / "nowhere", "no GSM8K folder"), (tmp_path, "has no train.jsonl")):
        with pytest.raises(ValueError, match=what) as caught:
            load_gsm8k(where, "test", 1, seed=0)
        assert "problems.gsm8k_dir" in str(caught.value) and FOLDER_VARIABLE in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "cut off',
        '{"question": "no answer"}',
        '["a list"]',
        '{"question": "q", "answer": "no gold"}',
        '{"question": "q", "answer": 7}',
        '{"question": 5, "answer": "#### 1"}',
        '{"question": " ", "answer": "#### 1"}',
        '{"question": "no \\ud800 text", "answer": "#### 1"}',
        '{"question": "q", "answer": "no \\ud800 text #### 1"}',
        '{"question": "q", "answer": "#### ' + "1" * 5000 + '"}',
        "[" * 100_000,
        '"text"',
    ],
)
def test_a_corrupt_line_is_named(tmp_path, line):
    write(tmp_path, [record(1), "", line, record(2)])
    with pytest.raises(ValueError, match=r"Line 3 of .*train\.jsonl is not a GSM8K record") as caught:
        load_gsm8k(tmp_path, "demonstrations", 1, seed=0)
    assert FOLDER_VARIABLE in str(caught.value)


def test_bytes_that_are_no_text_are_named_too(tmp_path):
    latin = '{"question": "Wie groß?", "answer": "#### 1"}'.encode("latin-1")
    for line in (b"\xff\xfe\xfa", latin, json.dumps(record(2)).encode("utf-16")):
        (tmp_path / "train.jsonl").write_bytes(json.dumps(record(1)).encode() + b"\n" + line + b"\n")
        with pytest.raises(ValueError, match=r"Line 2 of .*train\.jsonl is not a GSM8K record"):
            load_gsm8k(tmp_path, "test", 1, seed=0)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, content, capsys):
    from mtdpo_lib.__main__ import main

    (tmp_path / "train.jsonl").write_bytes(content)
    assert main(["gsm8k", str(tmp_path)]) == 2
    assert f"error: {tmp_path / 'train.jsonl'} is empty: fetch it again or set" in capsys.readouterr().err


TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)  # lone surrogates too
NOTES = st.text("0123456789.+-*/()<>=#$,% e\r\u2028٣²", max_size=40).map(
    lambda text: f"<<{text}=1>>{text}\n#### 1"
)
RECORDS = st.fixed_dictionaries(
    {"question": TEXT | st.integers() | st.none(), "answer": TEXT | NOTES | st.none()}
)
LINES = st.one_of(
    st.binary(max_size=60), TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    RECORDS.map(lambda row: json.dumps(row).encode()), RECORDS.map(lambda row: json.dumps(list(row)).encode()),
)  # fmt: skip


@fuzzed(st.lists(LINES, max_size=5), st.sampled_from([b"\n", b"\r\n", b"\xef\xbb\xbf\n"]))
def test_any_line_is_read_or_named(lines, end):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.jsonl").write_bytes(end.join([json.dumps(record(1)).encode(), *lines]))
        try:
            records = read_records(folder)
        except ValueError as error:
            assert str(error).count("\n") == 0 and re.search("Lines? [0-9]+", str(error)), error
            return
        kept, counts = gsm8k_demonstrations(training_problems(records), TrustedSession)
        assert len(kept) + sum(counts.values()) - counts["kept"] == len(records.train)
        assert supply(records).keys() == set(SPLITS)


def test_line_ends_of_other_systems_and_a_byte_order_mark_are_read(folder, tmp_path):
    before = load_gsm8k(folder, "demonstrations", None, seed=0)
    file = folder / "train.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_gsm8k(folder, "demonstrations", None, seed=0) == before != []


def test_the_files_are_told_by_their_checksums(folder, monkeypatch):
    ((name, told),) = sources(folder).items()
    assert name == "train.jsonl" and told.startswith("another file, SHA-256 ")
    checksum = told.rpartition(" ")[2]
    monkeypatch.setitem(PUBLISHED, "train.jsonl", checksum)
    assert sources(folder) == {"train.jsonl": "as published"}
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert sources("") == {"hub": "openai/gsm8k"}


def test_too_few_problems(folder):
    with pytest.raises(ValueError, match=r"in split 'development' where 5000 are wanted: ask for fewer\."):
        load_gsm8k(folder, "development", 5000, seed=0)
    with pytest.raises(ValueError, match=r"ask for fewer or raise problems\.gsm8k_max_steps=1\."):
        load_gsm8k(folder, "development", 5000, 0, max_steps=1)
    with pytest.raises(ValueError, match="Unknown split 'train'"):
        load_gsm8k(folder, "train", 1, seed=0)


def test_without_a_folder_the_hub_is_asked_and_its_failure_names_the_setting(monkeypatch):
    import datasets

    monkeypatch.setattr("mtdpo_lib.problems.published.look_up", lambda *_: None)

    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    rows = [record(i) for i in range(1, 101)]
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *names: {"train": rows, "test": rows[:3]}, raising=False
    )
    assert len(load_gsm8k("", "test", None, seed=0)) == 3

    def offline(*names):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        ValueError, match=r"hub \(ConnectionError\): set problems.gsm8k_dir or .* MTDPO_GSM8K_DIR"
    ):
        load_gsm8k("", "test", None, seed=0)


# ---- programs


def test_notes_become_named_steps():
    sentence, code = program(record(24)["answer"])
    assert sentence == "I work it out in 2 steps."
    assert code == "step_1 = 48/2  # grams\nstep_2 = 48+step_1  # grams\nprint(round(step_2))"


@pytest.mark.parametrize(
    ("solution", "code"),
    [
        ("<<48/2=24>>24 clips\n#### 24", "print(round(48/2))"),
        ("<<3*4=12>>12\n#### 12", "print(3*4)"),
        (
            "<<.5*10=5>>5 <<5+05=10>>10 eggs (all)\n#### 10",
            "step_1 = .5*10\nstep_2 = step_1+5  # eggs\nprint(round(step_2))",
        ),
        (
            "<<1.05*3=3.15>>3.15 <<3.15*2=6.3>>6.3\n#### 6.3",
            "step_1 = 1.05*3\nstep_2 = step_1*2\nprint(round(step_2, 4))",
        ),
    ],
)
def test_programs(solution, code):
    assert program(solution)[1] == code


def test_a_number_of_the_question_is_not_taken_for_an_earlier_result():
    solution = "<<3*5=15>>15 hours <<15+9=24>>24 <<15*24=360>>360\n#### 360"
    assert program(solution, "How long in 15 weeks?")[1].splitlines()[1:3] == [
        "step_2 = 15+9",
        "step_3 = 15*step_2",
    ]
    assert program(solution, "How long?")[1].splitlines()[1:3] == [
        "step_2 = step_1+9",
        "step_3 = step_1*step_2",
    ]


def test_the_command_tells_the_share_and_shows_some(folder, capsys):
    from mtdpo_lib.__main__ import main

    assert main(["gsm8k", str(folder), "--sample", "2"]) == 0
    shown = capsys.readouterr().out
    assert "200 of 200 solutions (100.0%): 200 kept" in shown and shown.count("===") == 2
    assert main(["gsm8k", str(folder / "nowhere")]) == 2


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("No notes.\n#### 5", "dropped: no notes"),
        ("<<2*3=6>>6 and six more make 12.\n#### 12", "dropped: the notes do not give the gold answer"),
        ("<<x*3=6>>6\n#### 6", "dropped: not plain arithmetic"),
        ("<<1/0=6>>6\n#### 6", "dropped: not plain arithmetic"),
        ("<<__import__('os').getpid()=6>>6\n#### 6", "dropped: not plain arithmetic"),
        ("<<2**9=512>>512\n#### 512", "dropped: not plain arithmetic"),
        ("<<5=5>>5\n#### 5", "dropped: the last note computes nothing"),
        ("<<2*3=6>>6 and so <<-6=-6>>-6\n#### -6", "dropped: the last note computes nothing"),
    ],
)
def test_what_cannot_be_shown_is_dropped_with_its_reason(tmp_path, solution, reason):
    kept, counts = gsm8k_demonstrations([problem_of(tmp_path, "Why?", solution)], TrustedSession)
    assert kept == [] and counts == {"kept": 0, reason: 1}


def test_a_failing_program_is_dropped(tmp_path):
    class Broken(TrustedSession):
        def run(self, code):
            return super().run("1/0")

    kept, counts = gsm8k_demonstrations([problem_of(tmp_path, "Why?", "<<2*3=6>>6\n#### 6")], Broken)
    assert kept == [] and counts == {"kept": 0, "dropped: the program fails": 1}


def test_demonstrations_show_the_tools_output(folder):
    problems = load_gsm8k(folder, "demonstrations", None, seed=0)
    kept, counts = gsm8k_demonstrations(problems, TrustedSession)
    assert len(kept) == counts["kept"] == len(problems)
    for one in kept:
        assert [message["role"] for message in one.messages] == ["user", "assistant", "tool", "assistant"]
        assert one.messages[2]["content"] == one.problem.answer  # "72", not "72.0"
        assert one.messages[3]["content"] == f"The answer is \\boxed{{{one.problem.answer}}}."
        assert one.correct and not re.search("<<|####", str(one.messages))


# ---- through the settings


def test_settings_choose_gsm8k(folder, monkeypatch):
    settings = settings_of(str(folder))
    assert load_problems(settings, "preference", 5, 0) == load_gsm8k(folder, "preference", 5, 0)
    made, report = load_demonstrations(settings, 0, TrustedSession)
    assert len(made) == report["total"] == report["correct"] == 20 and report["dropped"] == {}
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert load_problems(settings_of(), "preference", 5, 0) == load_gsm8k(folder, "preference", 5, 0)
    with pytest.raises(ValueError, match=r"asks for 5000: lower it\."):
        load_demonstrations(settings_of(demonstrations=5000), 0, TrustedSession)
