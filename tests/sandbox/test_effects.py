"""A tool made random, and a tool that talks: at the stated rate, in the stated length, the same for the same names."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mtdpo_lib.chat.encoder import ChatFormat
from mtdpo_lib.rollout import rollout
from mtdpo_lib.sandbox.effects import below_log, disturb


def test_noise_is_one_off_at_the_stated_rate_and_the_same_for_the_same_names():
    seen = [disturb("x = 7, y = 40.", 0.3, seed) for seed in range(4000)]
    assert set(seen) == {"x = 7, y = 40.", "x = 7, y = 39.", "x = 7, y = 41."}
    changed = np.mean([text != "x = 7, y = 40." for text in seen])
    assert changed == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 4000))
    assert seen == [disturb("x = 7, y = 40.", 0.3, seed) for seed in range(4000)]
    assert disturb("no number", 1.0, 0) == "no number"
    assert disturb("12", 0.0, 0) == "12" and disturb("12", 1.0, 0) != "12"


def test_a_log_stands_above_the_result_and_a_longer_one_goes_on():
    long = below_log("a\n7", 6, "one")
    assert long.splitlines()[6:] == ["a", "7"]
    assert below_log("a\n7", 2, "one").splitlines() == [*long.splitlines()[:2], "a", "7"]
    assert below_log("a\n7", 0, "one") == "a\n7"
    assert below_log("a\n7", 6, "two") != long == below_log("a\n7", 6, "one")
    kinds = {
        "".join(c for c in line if not c.isdigit())
        for k in range(40)
        for line in below_log("", 2, k).splitlines()
    }
    assert len(kinds) == 4


def test_the_policy_reads_what_the_effects_make_of_the_answer(overfit, pool, smoke):
    model, tokenizer, problems, _ = overfit
    plain, below, wrong = (
        rollout(model, tokenizer, problems, 1, settings, pool, policy="p", seed=0, temperature=0.0)[0]
        for settings in (
            smoke.rollout,
            replace(smoke.rollout, log_lines=2),
            replace(smoke.rollout, tool_noise=1.0),
        )
    )
    answer = plain.turns[0].output
    assert below.turns[0].output.splitlines()[2:] == answer.splitlines()
    assert wrong.turns[0].output != answer
    chat = ChatFormat(tokenizer)
    first = len(chat.prompt(plain.question).ids)
    for one in (below, wrong):
        call = plain.ids[: plain.roles.index(2, first)]  # up to the tool's own words
        assert one.ids[: len(call)] == call
        assert tokenizer.decode(one.ids).count(one.turns[0].output) >= 1
