"""GSM8K: reading, splitting and turning calculator notes into programs, on invented records."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from support import fuzzed

from mtdpo_lib.problems import (
    SPLITS,
    Problem,
    gsm8k_demonstrations,
    load_demonstrations,
    load_gsm8k,
    load_problems,
)
from mtdpo_lib.problems.gsm8k import (
    FOLDER_VARIABLE,
    PUBLISHED,
    final_answer,
    programs,
    read_records,
    sources,
    supply,
    training_problems,
)
from mtdpo_lib.profiles import ProblemSettings, get_profile
from mtdpo_lib.sandbox import SandboxPool

GSM8K = Path(os.environ.get("MTDPO_GSM8K_DIR") or Path(__file__).parents[2] / "../shared/data/gsm8k")


def settings_of(folder="", demonstrations=20):
    return ProblemSettings(world="gsm8k", gsm8k_dir=folder, demonstrations=demonstrations)


class TrustedSession:
    """Runs programs made from this file's own notes, in this process. Never for a model's code."""

    def __enter__(self):
        self.names = {}
        return self

    def __exit__(self, *_):
        return None

    def run(self, code):
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, self.names)
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


def problem_of(question, answer):
    return Problem("gsm8k/train/0", "gsm8k", "2-step", question, final_answer(answer), notes=answer)


# ---- reading and splitting


def questions(folder, split):
    return {problem.question for problem in load_gsm8k(folder, split, None, seed=0)}


def test_demonstrations_and_prompts_share_questions_and_what_is_tested_is_apart(folder):
    training, prompts, development, test = (questions(folder, split) for split in SPLITS)
    assert training == prompts and len(training | development | test) == 200
    assert len(training) + len(development) + len(test) == 200 and development and test
    for problem in load_gsm8k(folder, "test", None, seed=0):
        assert problem.id.startswith("gsm8k/train-heldout/") and problem.suite == "gsm8k"
    orders = [load_gsm8k(folder, split, None, seed=0) for split in SPLITS[:2]]
    assert orders[0] != orders[1] and set(orders[0]) == set(orders[1])


def test_a_test_file_is_the_test_split_and_lets_the_held_out_questions_train(folder):
    before = {split: questions(folder, split) for split in SPLITS}
    write(folder, [record(i) for i in range(500, 520)], "test.jsonl")
    after = {split: questions(folder, split) for split in SPLITS}
    assert after["development"] == before["development"]
    assert after["preference"] == after["demonstrations"] == before["preference"] | before["test"]
    assert len(after["test"]) == 20 and not after["test"] & before["test"]
    assert all(p.id.startswith("gsm8k/test/") for p in load_gsm8k(folder, "test", None, seed=0))


def test_the_seed_chooses_and_a_larger_count_begins_alike(folder):
    ten = load_gsm8k(folder, "demonstrations", 10, seed=1)
    assert ten == load_gsm8k(folder, "demonstrations", 30, seed=1)[:10]
    assert ten != load_gsm8k(folder, "demonstrations", 10, seed=2)


def test_max_steps_counts_calculator_notes(tmp_path):
    long = {"question": "A long one?", "answer": "<<1+1=2>>2 <<2+1=3>>3 <<3+1=4>>4\n#### 4"}
    write(tmp_path, [long, *(record(i) for i in range(1, 9))])
    for limit, number in ((0, 9), (None, 9), (3, 9), (2, 8), (1, 0)):
        assert sum(len(load_gsm8k(tmp_path, split, None, 0, limit)) for split in SPLITS[1:]) == number


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
    assert sum(len(load_gsm8k(tmp_path, split, None, seed=0)) for split in SPLITS[1:]) == 2
    write(tmp_path, [record(1), record(2), "", record(3), wrong])
    with pytest.raises(
        ValueError, match=r"Lines 2 and 5 of GSM8K's train.jsonl ask the same .* with 6 and 7: remove"
    ):
        read_records(tmp_path)
    write(tmp_path, [record(1)])
    write(tmp_path, [wrong, record(2)], "test.jsonl")
    with pytest.raises(ValueError, match=r"Lines 1 and 2 of GSM8K's test.jsonl"):
        load_gsm8k(tmp_path, "demonstrations", None, seed=0)


def test_supply_tells_what_the_splits_give_and_how_many_demonstrations_at_most(folder):
    odd = ["<<2/3=.67>>.67\n#### 0.6667", "<<1/0=6>>6\n#### 6", "No notes.\n#### 5", "<<2*3=6>>6\n#### 7"]
    own = [{"question": f"{i} {n}?", "answer": answer} for i in range(30) for n, answer in enumerate(odd)]
    write(folder, [*own, *(record(i) for i in range(1, 201))])
    for max_steps in (0, 1, 2):
        told = supply(read_records(folder), max_steps)
        given = {split: load_gsm8k(folder, split, None, 0, max_steps) for split in SPLITS}
        kept, _ = gsm8k_demonstrations(given["demonstrations"], TrustedSession)
        at_most = 3 * len(given["demonstrations"])
        assert told == {split: len(problems) for split, problems in given.items()} | {
            "demonstrations": at_most
        }
        assert (
            0 < len({one.problem.id for one in kept}) < len(given["demonstrations"]) and len(kept) < at_most
        )


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
        problems = list({problem.id: problem for problem in training_problems(records)}.values())
        kept, counts = gsm8k_demonstrations(problems, TrustedSession)
        shown = {one.problem.id for one in kept}
        assert len(shown) + sum(counts.values()) - counts["kept"] == len(problems)
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


# ---- what is made of it


def only(question, answer, calls=1):
    """The programs of an invented solution, or of the first call of those in two calls."""
    return {way[0].code for way in programs(problem_of(question, answer)) if len(way) == calls}


def test_a_problem_is_shown_in_several_ways():
    problem = problem_of(**record(24))
    (one, *more), two = (
        [way for way in programs(problem) if len(way) == calls] for calls in (1, 2)
    )  # fmt: skip
    assert [call.code for call in two[0]] == [
        "# The lid weighs 48/2 grams.\nlid_weighs = 48/2\nprint(round(lid_weighs))",
        "# Together 48+24 grams.\ntogether = 48+24\nprint(round(together))",
    ]
    assert two[0][1].sentence == "That is 24." and [call.prints for call in two[0]] == ["24", "72"]
    assert {one[0].code, *(way[0].code for way in more)} == {
        "# The lid weighs 48/2 grams.\n{0} = 48/2\n# Together 48+{0} grams.\n{1} = 48+{0}\nprint(round({1}))".format(
            *names
        )
        for names in (("grams", "together"), ("lid_weighs", "together"))
    }


INDEPENDENT = (
    "Ann has 2*3=<<2*3=6>>6 red pens.\nBo has 4*5=<<4*5=20>>20 blue pens.\n"
    "They have 6+20=<<6+20=26>>26 pens.\n#### 26"
)


def test_steps_that_do_not_need_each_other_come_in_another_order_too():
    found = {
        tuple(line.split(" = ")[1] for line in code.splitlines() if " = " in line)
        for code in orders_of(INDEPENDENT)
    }
    assert found == {("2*3", "4*5", "red_pens+blue_pens"), ("4*5", "2*3", "red_pens+blue_pens")} | {
        ("2*3", "4*5", "ann+bo")
    }


def orders_of(answer):
    """Programs in one call of many solutions that differ in nothing but their problem's name."""
    return {code for number in range(20) for code in only(f"{'Pens' * number}?", answer)}


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("She sold 48/2 = <<48/2=24>>24 clips in May.\n#### 24", "clips_in_may = 48/2"),
        ("The total cost of cookies is 4*2=$<<4*2=8>>8\n#### 8", "total_cost_of_cookies = 4*2"),
        ("That is 4*2=$<<4*2=8>>8 per minute.\n#### 8", "dollars_per_minute = 4*2"),
        ("<<3*4=12>>12\n#### 12", "amount = 3*4"),
        ("<<.5*10=5>>5 for import <<5+05=10>>10 round\n#### 10", "import_2 = .5*10"),
        ("They are 3*4=<<3*4=12>>12 round\n#### 12", "round_2 = 3*4"),
        ("So it is $20 + 2 x 30 = $80 in all.\n#### 80", "dollars_in_all = 20+2*30"),
        ("Then 287 - 260 = <<27=27>>27 points are left.\n#### 27", "points = 287-260"),
        ("They make <<1,000*2=2,000>>2,000 euros\n#### 2000", "euros = 1000*2"),
    ],
)
def test_results_are_named_after_quantities(answer, line):
    assert any(line in code.splitlines() for code in only("How much?", answer)), only("How much?", answer)


def test_a_comment_stands_before_its_line_and_tells_no_result():
    answer = "We are told little.\nThe 24 clips are 48/2 = <<48/2=24>>24 clips in May.\nSo 24+48=<<24+48=72>>72.\n#### 72"
    for code in only("How many, if 48?", answer):
        lines = code.splitlines()
        assert lines[0] == "# We are told little." and "24" not in code and "72" not in code
        assert [line.startswith("#") for line in lines] == [True, True, False, True, False, False]


def test_a_number_of_the_question_is_not_taken_for_an_earlier_result():
    solution = "<<3*5=15>>15 hours <<15+9=24>>24 days <<15*24=360>>360 in all\n#### 360"
    for weeks in ("15 weeks", "fifteen, that is 15,000/1000 or 15.0, weeks"):
        codes = only(f"How long in {weeks}?", solution)
        assert all("= 15+9" in code and "= 15*days" in code for code in codes)
    codes = only("How long?", solution)
    assert all("= hours+9" in code and "= hours*days" in code for code in codes)
    assert "days = 2+9" in next(iter(only("Twice?", "<<1*2=2>>2 hours <<2+9=11>>11 days\n#### 11")))


def test_a_float_is_printed_as_the_number_it_is():
    assert "print(total)" in next(iter(only("?", "Total: <<3*4=12>>12\n#### 12")))
    assert "print(round(total))" in next(iter(only("?", "Total: <<24/2=12>>12\n#### 12")))
    assert "print(round(total, 4))" in next(iter(only("?", "Total: <<25/2=12.5>>12.5\n#### 12.5")))


def test_a_second_call_sees_exactly_what_the_first_printed():
    """A third is no number of four decimals, so that no second call begins with it."""
    assert not only("?", "A: <<1/3=.33>>.33\nB: <<.33*3=1>>1 and more: <<1/3*3=1>>1\n#### 1", calls=2)


def test_the_command_tells_the_share_and_shows_some(folder, capsys):
    from mtdpo_lib.__main__ import main

    assert main(["gsm8k", str(folder), "--sample", "2"]) == 0
    shown = capsys.readouterr().out
    assert "200 of 200 solutions (100.0%): 599 kept" in shown and shown.count("===") == 2
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
def test_what_cannot_be_shown_is_dropped_with_its_reason(solution, reason):
    kept, counts = gsm8k_demonstrations([problem_of("Why?", solution)], TrustedSession)
    assert kept == [] and counts == {"kept": 0, reason: 1}


@pytest.mark.parametrize(
    ("code", "reason"), [("1/0", "the program fails"), ("print(7)", "the program prints another number")]
)
def test_a_program_that_does_otherwise_in_the_sandbox_is_dropped(code, reason):
    class Broken(TrustedSession):
        def run(self, _):
            return super().run(code)

    kept, counts = gsm8k_demonstrations([problem_of("Why?", "<<2*3=6>>6\n#### 6")], Broken)
    assert kept == [] and counts == {"kept": 0, f"dropped: {reason}": 1}


def test_demonstrations_show_the_tools_output(folder):
    problems = load_gsm8k(folder, "demonstrations", None, seed=0)
    kept, counts = gsm8k_demonstrations(problems, TrustedSession)
    assert 2 * len(problems) < len(kept) == counts["kept"] <= 3 * len(problems)
    assert {one.strategy for one in kept} == {"one call", "two calls"}
    assert kept[: len(problems)] == gsm8k_demonstrations(problems, TrustedSession, limit=len(problems))[0]
    assert [one.problem for one in kept[: len(problems)]] == problems, (
        "each is shown once before one is shown twice"
    )
    for one in kept:
        calls = 1 + (one.strategy == "two calls")
        assert [message["role"] for message in one.messages] == [
            "user",
            *["assistant", "tool"] * calls,
            "assistant",
        ]
        assert one.messages[-2]["content"] == one.problem.answer  # "72", not "72.0"
        assert one.messages[-1]["content"] == f"The answer is \\boxed{{{one.problem.answer}}}."
        assert one.correct and not re.search("<<|####|steps", str(one.messages))
        assert not re.search(r"^[^#\n]+#", one.messages[1]["content"], re.MULTILINE), (
            "no comment behind an expression"
        )


@pytest.mark.skipif(not (GSM8K / "train.jsonl").is_file(), reason="needs GSM8K: set MTDPO_GSM8K_DIR")
def test_more_than_nine_in_ten_published_solutions_are_shown():
    problems = training_problems(read_records(GSM8K))
    reasons = Counter(reason_of(problem) for problem in problems)
    assert reasons[""] > 0.94 * len(problems), reasons
    with SandboxPool(get_profile("small").sandbox) as pool:
        kept, counts = gsm8k_demonstrations(problems[:40], pool.session)
    assert counts.keys() <= {"kept", *(f"dropped: {reason}" for reason in reasons)}, (
        "what the sandbox ran was right"
    )
    assert len(kept) > 80 and len({str(one.messages) for one in kept}) == len(kept)


def reason_of(problem):
    try:
        return "" if programs(problem) else "none"
    except ValueError as error:
        return str(error)


# ---- through the settings


def test_settings_choose_gsm8k(folder, monkeypatch):
    settings = settings_of(str(folder))
    assert load_problems(settings, "preference", 5, 0) == load_gsm8k(folder, "preference", 5, 0)
    made, report = load_demonstrations(settings, 0, TrustedSession)
    assert len(made) == report["total"] == report["correct"] == 20 and report["dropped"] == {}
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert load_problems(settings_of(), "preference", 5, 0) == load_gsm8k(folder, "preference", 5, 0)
    made, report = load_demonstrations(settings_of(demonstrations=5000), 0, TrustedSession)
    training = load_gsm8k(folder, "demonstrations", None, 0)
    assert {one.problem for one in made} == set(training)
    assert report["total"] == len(made) > 2 * len(training)
    write(folder, [{"question": f"{i}?", "answer": "Just so.\n#### 5"} for i in range(9)])
    with pytest.raises(
        ValueError, match=r"The data give no demonstration \([1-9] dropped: no notes\): take other data"
    ):
        load_demonstrations(settings_of(), 0, TrustedSession)
