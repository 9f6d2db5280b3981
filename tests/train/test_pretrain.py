"""The tiny base: its recipe on a small scale, and the kept one, which that recipe made."""

import json

import pytest
import torch

from mtdpo_lib.chat import ChatFormat, say
from mtdpo_lib.common.files import DATA, checksum
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models import Policy, load_base, load_tokenizer
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.profiles.sections import ModelSettings
from mtdpo_lib.train.pretrain import Recipe, make_base, means

KEPT = DATA / "base"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A base from a small recipe."""
    folder = tmp_path_factory.mktemp("base")
    shape = get_profile("smoke").model
    make_base(
        folder, Recipe(problems=80, decisions=20, epochs=2, learning_rate=1e-2, max_tokens=200, model=shape)
    )
    return folder


def loss(folder, text):
    """Nats per token of a text that the base reads."""
    policy = Policy("base", Product("base", "key", folder))
    model, tokenizer = load_base(policy, get_profile("cpu").model), load_tokenizer(policy)
    ids = torch.tensor([ChatFormat(tokenizer).encode(text).ids])
    return model(input_ids=ids, labels=ids).loss.item()


def test_the_recipe_makes_a_model_that_has_learnt_from_every_kind_of_token(small):
    log, made = (json.loads((small / name).read_text()) for name in ("log.json", "recipe.json"))
    assert 0 < log[-1]["loss"] < 6
    assert made["sha256"] == checksum(small / "model.safetensors")
    turns = [
        say("user", "a is 3 plus 4."),
        say("assistant", "```python\na = 3 + 4\nprint(a)\n```"),
        say("tool", "7"),
    ]
    assert loss(small, turns) < 4


def test_a_log_is_kept_as_means():
    rows = [{"step": step, "loss": float(step)} for step in range(1, 121)]
    assert means(rows) == [
        {"step": 50, "loss": 25.5},
        {"step": 100, "loss": 75.5},
        {"step": 120, "loss": 110.5},
    ]


def test_the_kept_base_is_what_the_recipe_says():
    made = json.loads((KEPT / "recipe.json").read_text())
    recipe = made["recipe"] | {"model": ModelSettings(**made["recipe"]["model"])}
    assert Recipe(**recipe) == Recipe()  # settings younger than the base have their defaults
    assert made["sha256"] == checksum(KEPT / "model.safetensors")
    assert sum(file.stat().st_size for file in KEPT.iterdir()) < 4 * 2**20


def test_the_kept_base_knows_its_world():
    told = [
        say(
            "user",
            "Ana has 14 shells. Ben has 9 more than Ana. How many shells do Ana and Ben have together?",
        )
    ]
    code = "```python\n# now Ana\nana = 14\n# now Ben\nben = ana + 9\nprint({asked})\n```"
    right, wrong = (
        loss(KEPT, [*told, say("assistant", "Let us use Python.\n" + code.format(asked=asked))])
        for asked in ("ana + ben", "ana * ben")
    )
    assert right < wrong < 3
