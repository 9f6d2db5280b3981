"""Shared by the tests: small tokenizers and models made on the spot, nothing downloaded."""

from __future__ import annotations

import os
import subprocess

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from support import (
    CHATML,
    CONVERSATIONS,
    ETA,
    GEMMA,
    TEXTS,
    TRAINERS,
    as_trajectory,
    conversation_problems,
    encoded_conversations,
    learn_by_heart,
    with_template,
)  # fmt: skip
from transformers import PreTrainedTokenizerFast

from mtdpo_lib.chat import ChatFormat
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models import quiet_libraries
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer
from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.train import preference_dataset
from mtdpo_lib.train.loop import training_arguments

# Programs to be run in the sandbox or by hand, not modules with worked examples.
collect_ignore_glob = ["sandbox/attacks/*", "benchmarks/*", "course/wrong/*"]

# Files that take minutes begin first, so that no process is left alone with one of them at the end.
LONGEST = ("test_notebooks.py", "test_run.py", "test_attacks.py", "test_sandbox.py", "test_theory.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the order is otherwise kept."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def one_thread():
    """Small tests on shared cores are fastest, and repeatable, with one thread, whatever ran before."""
    quiet_libraries()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerFast:
    return with_template(CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")


@pytest.fixture(scope="session")
def gemma() -> PreTrainedTokenizerFast:
    return with_template(GEMMA, ["<bos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>")


@pytest.fixture(scope="session")
def smoke():
    """The smallest profile, with a model whose weights are made on the spot."""
    shape = "model.base=tiny model.vocabulary=512 model.hidden=96 model.layers=3 model.heads=4 model.intermediate=256"
    return get_profile("smoke", shape)


@pytest.fixture
def model(tokenizer, smoke):
    return tiny_model(smoke.model, tokenizer, 320, seed=0).eval()


@pytest.fixture(scope="session")
def pool(smoke):
    with SandboxPool(smoke.sandbox) as pool:
        yield pool


@pytest.fixture(scope="session")
def overfit(smoke, pool):
    """A tiny model that has learnt `CONVERSATIONS` by heart, with its tokenizer and problems."""
    tokenizer = train_tokenizer(
        [text for question, turns, _ in CONVERSATIONS for text in (question, *turns)] + TEXTS, 400
    )
    sequences = encoded_conversations(ChatFormat(tokenizer), pool)
    model = tiny_model(smoke.model, tokenizer, 320, seed=0)
    learn_by_heart(model, sequences, 3e-3, 120)
    return model.eval(), tokenizer, conversation_problems(), sequences


@pytest.fixture
def pairs(overfit):
    """Three pairs of multi-turn trajectories with different lengths and tool outputs."""
    chat = ChatFormat(overfit[1])

    def tokens(question, *turns):
        made = chat.prompt(question)
        for place, turn in enumerate(turns):
            made += chat.assistant(turn) if place % 2 == 0 else chat.tool(turn)
        return made

    sides = [
        (
            ("q?", "print(1)", "12", "\\boxed{7}"),
            ("q?", "Multiply first.", "NameError: name 'math' is not defined", "\\boxed{5}"),
        ),
        (("Half?", "x", "1", "yy", "3", "\\boxed{1}"), ("Half?", "\\boxed{2}")),
        (
            ("2 times?", "\\boxed{6}"),
            ("2 times?", "Add. print(x+3)", "a much longer tool output 123456789", "no"),
        ),
    ]
    return [
        Pair(as_trajectory(tokens(*good), str(place), True), as_trajectory(tokens(*bad), str(place), False))
        for place, (good, bad) in enumerate(sides)
    ]


@pytest.fixture
def policy(overfit, tmp_path):
    """The overfit model as a policy on disk."""
    model, tokenizer, _, _ = overfit
    folder = tmp_path / "base"
    model.save_pretrained(folder / "late")
    tokenizer.save_pretrained(folder / "late")
    return Policy("sft", Product("sft", "key", folder), "late")


@pytest.fixture
def loaded(monkeypatch):
    """The networks that `train_preference` has loaded, in order, as it leaves them."""
    networks = []

    def load(*arguments):
        networks.append(load_for_training(*arguments))
        return networks[-1]

    monkeypatch.setattr("mtdpo_lib.train.preference.load_for_training", load)
    return networks


@pytest.fixture
def build(policy, smoke, tmp_path):
    """A trainer for a method on pairs, from the overfit policy; `options` go to the trainer, `arguments` to its config."""

    def make(method, rows, arguments=None, **options):
        trainer, config = TRAINERS[method]
        settings = {
            **training_arguments(tmp_path / "trainer", smoke.model, 0),
            "beta": ETA,
            "max_length": None,
        }
        settings |= {"per_device_train_batch_size": len(rows), **(arguments or {})}
        dataset = rows if hasattr(rows, "column_names") else preference_dataset(rows, method)
        model = options.pop("model", None) or load_for_training(policy, smoke.model, 0)
        return trainer(
            model=model, args=config(**settings), train_dataset=dataset,
            processing_class=load_tokenizer(policy), **options,
        )  # fmt: skip

    return make


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one MiB, and a way to give it another size."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("only root can make a small disk")
    yield place, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True)
    subprocess.run(["umount", place], check=True)
