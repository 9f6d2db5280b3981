"""What input can get wrong is said by both commands before anything starts: exit code 2, one sentence, nothing made."""

import json
import shutil
import socket
import time

import pytest

from mtdpo_lib.__main__ import main
from mtdpo_lib.experiment.check import check
from mtdpo_lib.lessons import run as runner
from mtdpo_lib.models import tiny_model
from mtdpo_lib.profiles import get_profile

ENOUGH = {
    "problems.demonstrations": 20, "problems.prompts_per_iteration": 10, "problems.development": 4, "problems.test": 8,
    "model.quantization": "none", "iterations": 3,
}  # fmt: skip


def rows(count):
    for number in range(count):
        answer = f"{number}+2=<<{number}+2={number + 2}>>{number + 2}\n#### {number + 2}"
        yield json.dumps({"question": f"Ann has {number} pens and buys 2. How many?", "answer": answer})


@pytest.fixture
def data(tmp_path, monkeypatch):
    """GSM8K with 200 questions, and no hub."""
    monkeypatch.delenv("MTDPO_GSM8K_DIR", raising=False)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(rows(200)))
    return folder


@pytest.fixture(scope="module")
def base(tokenizer, smoke, tmp_path_factory):
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model(smoke.model, tokenizer, 320, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def given(data, base):
    """Settings with which everything is there."""
    return {**ENOUGH, "problems.gsm8k_dir": data, "model.base": base}


def test_with_everything_there_nothing_is_said(given, data):
    said = []
    check(get_profile("small", {name: str(value) for name, value in given.items()}), said.append)
    assert said == []
    (data / "test.jsonl").write_text("\n".join(rows(9)))
    check(get_profile("small", {name: str(value) for name, value in given.items()}), said.append)
    assert said == [
        "GSM8K: lines of train.jsonl that ask a question of test.jsonl are left out of training: 1, 2, 3, 4, 5, 6, 7, 8, 9."
    ]


@pytest.mark.parametrize("command", ["reproduce", "study"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"problems.gsm8k_dir": "/no/where"}, "There is no GSM8K folder '/no/where': set problems.gsm8k_dir"),
        (
            {"problems.gsm8k_dir": None},
            "GSM8K cannot be had from the hub (OfflineModeIsEnabled): set problems.gsm8k",
        ),
        (
            {"problems.prompts_per_iteration": 60},
            " iterations of problems.prompts_per_iteration=60. Ask for no",
        ),
        ({"problems.demonstrations": 5000}, " for problems.demonstrations=5000. Ask for no more than that."),
        (
            {"problems.test": 100, "problems.gsm8k_max_steps": 1},
            "or raise problems.gsm8k_max_steps=1 (0: no limit).",
        ),
        (
            {"model.base": "no/such-model"},
            "'no/such-model' is neither a folder here nor reachable on the hub",
        ),
        ({"model.base": "tests"}, "holds no language model that loads"),
        ({"rollout.sampler": "http://127.0.0.1:9"}, "No vLLM server answers at http://127.0.0.1:9"),
        ({"rollout.sampler": "vllm"}, "rollout.sampler=vllm needs vLLM"),
        ({"model.heads": 9, "model.base": "tiny"}, "Setting model.heads is 9"),
        ({"problems.families": 99}, "Setting problems.families wants a whole number from 0 to 12, got 99."),
        (
            {"preference.eta": "nan"},
            "Setting preference.eta wants a number above zero, at most 10000000, got nan.",
        ),
        (
            {"preference.epochs": "inf"},
            "Setting preference.epochs wants a number above zero, at most 10000000, got inf.",
        ),
        ({"sft.warmup_fraction": 5}, "Setting sft.warmup_fraction wants a number between 0 and 1, got 5."),
        ({"sft.early_epochs": 9}, "Setting sft.early_epochs is 9, more than the 3 of sft.epochs"),
        (
            {"sft.epochs": 1, "sft.early_epochs": 2},
            "Setting sft.early_epochs is 2, more than the 1 of sft.epochs",
        ),
    ],
)
def test_what_cannot_work_is_one_sentence(command, change, sentence, given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "run_notebooks", lambda *_: pytest.fail("a notebook started"))
    settings = {name: value for name, value in {**given, **change}.items() if value is not None}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    out = tmp_path / "out"
    assert main([command, "--profile", "small", "--out", str(out), *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1, said
    assert sentence in said.err
    assert not list(out.rglob("*.json"))


TWO = [*rows(2)]
OTHER = TWO[0].replace("#### 2", "#### 3")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "train.jsonl is empty: fetch it again"),
        ([*TWO, '{"question": "cut off'], "Line 3 of {}/train.jsonl is not a GSM8K record"),
        ([*TWO, '{"question": "Why?"}'], "Line 3 of {}/train.jsonl is not a GSM8K record"),
        (
            [TWO[0], '{"question": "Why?", "answer": "no number"}'],
            "Line 2 of {}/train.jsonl is not a GSM8K record",
        ),
        (
            [TWO[0], TWO[1].replace("pens", "gr\u00f6\u00dfe")],
            "Line 2 of {}/train.jsonl is not a GSM8K record",
        ),
        (
            [*TWO, OTHER],
            "Lines 1 and 3 of GSM8K's train.jsonl ask the same question and answer it with 2 and 3",
        ),
        (None, "has no train.jsonl: set problems.gsm8k_dir"),
    ],
)
def test_bad_data_is_one_sentence_with_its_line(lines, sentence, given, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "run_notebooks", lambda *_: pytest.fail("a notebook started"))
    (data / "train.jsonl").unlink()
    if lines is not None:
        (data / "train.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    settings = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    assert main(["reproduce", "--profile", "small", "--out", str(tmp_path / "out"), *settings]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and sentence.format(data) in said.err, said


def test_a_model_folder_without_tokenizer_is_one_sentence(given, base, tmp_path):
    shutil.copytree(base, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*", "*.jinja"))
    settings = {name: str(value) for name, value in {**given, "model.base": tmp_path / "bare"}.items()}
    with pytest.raises(
        ValueError, match=r"The folder .*bare holds no language model that loads .* tokenizer"
    ) as caught:
        check(get_profile("small", settings))
    assert "\n" not in str(caught.value)


def test_without_a_network_the_profiles_are_refused_within_seconds(monkeypatch, tmp_path, capsys):
    """The hub is asked for the data, which every one of them needs before anything else."""
    monkeypatch.delenv("MTDPO_GSM8K_DIR", raising=False)
    for profile in ("small", "paper", "paper-mistral"):
        start = time.monotonic()
        assert main(["reproduce", "--profile", profile, "--out", str(tmp_path / profile)]) == 2
        assert (
            "GSM8K cannot be had from the hub" in capsys.readouterr().err
            and not (tmp_path / profile).exists()
        )
        assert time.monotonic() - start < 60, "ten seconds on a machine with nothing else to do"


def test_a_server_that_never_answers_is_not_waited_for(given, monkeypatch):
    monkeypatch.setattr("mtdpo_lib.rollout.vllm.GREETING_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {name: str(value) for name, value in {**given, "rollout.sampler": url}.items()}
        with pytest.raises(ValueError, match=r"No vLLM server answers at .* \(timed out\)"):
            check(get_profile("small", settings))
