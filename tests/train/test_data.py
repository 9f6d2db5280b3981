"""A user's own conversations: what is read, what is refused with pair and message, and the one limit."""

from functools import cache

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import strategies as st
from support import CHATML, GEMMA, QUESTION, RIGHT, TEXTS, WRONG, fuzzed, with_template

from mtdpo_lib.models import train_tokenizer
from mtdpo_lib.train import pairs_from_messages

PAIR = {"chosen": RIGHT, "rejected": WRONG}


def columns(rows, tokenizer, **options):
    return pairs_from_messages(rows, tokenizer, **options)[0].to_dict()


def test_other_forms_give_the_same_columns(chatml):
    plain = columns([PAIR], chatml)
    speakers = {"user": "human", "assistant": "gpt", "tool": "observation"}
    sharegpt = {
        side: [{"from": speakers[one["role"]], "value": one["content"]} for one in messages]
        for side, messages in PAIR.items()
    }
    behind = {side: messages[1:] for side, messages in PAIR.items()}
    for row in (
        sharegpt,
        behind | {"prompt": [QUESTION]},  # TRL's explicit prompt
        behind | {"prompt": "2 times 3?"},
        PAIR
        | {"prompt": "2 times 3?", "score_chosen": 9.0},  # beside whole conversations it is no more needed
    ):
        assert columns([row], chatml) == plain
    assert columns(Dataset.from_list([PAIR]), chatml) == plain  # its messages have None in columns of others


def test_the_data_set_has_the_one_limit(chatml, build, pairs):
    long = {"chosen": [*RIGHT[:-1], {"role": "assistant", "content": "so " * 60}], "rejected": WRONG}
    dataset, dropped = pairs_from_messages([PAIR, long, PAIR], chatml, max_tokens=60)
    assert (len(dataset), dropped) == (2, {"longer than 60 tokens": 1})
    with pytest.raises(ValueError, match="no preference pair to train on: 1 longer than 20 tokens"):
        pairs_from_messages([PAIR], chatml, max_tokens=20)
    lengths = sorted(max(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs)
    assert len(build("mdpo", pairs, {"max_length": lengths[-1]}).train_dataset) == 3
    for method in ("mdpo", "mkto"):
        with pytest.raises(
            ValueError, match=f"max_length={lengths[1]} is shorter than 1 of 3 pairs, .* max_length=None"
        ):
            build(method, pairs, {"max_length": lengths[1]})


@pytest.mark.parametrize("rows", [None, 5, PAIR, DatasetDict(train=Dataset.from_list([PAIR]))])
def test_what_is_no_list_of_pairs_is_refused(rows, chatml):
    with pytest.raises(ValueError, match=r"^The pairs are a list of {.*}, or one split of a data set; got "):
        pairs_from_messages(rows, chatml)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (None, "Pair 2 has no 'chosen' conversation: a pair is {.*}; got None"),
        ("2 times 3?", r"Pair 2 has no 'chosen' conversation: .*; got '2 times 3\?'"),
        (RIGHT, r"Pair 2 has no 'chosen' conversation: .*; got \["),
        ({"chosen": RIGHT}, "Pair 2 has no 'rejected' conversation: .*; got {'chosen': "),
        (PAIR | {"chosen": None}, "Pair 2, chosen: A conversation is a list of messages, .*; got None"),
        (PAIR | {"rejected": "5"}, "Pair 2, rejected: A conversation is a list of messages, .*; got '5'"),
        (PAIR | {"rejected": WRONG[1]}, "Pair 2, rejected: A conversation is a list .*; got {'content'"),
        (PAIR | {"rejected": [QUESTION]}, "Pair 2, rejected: The conversation has no assistant turn"),
        (PAIR | {"rejected": []}, "Pair 2, rejected: The conversation has no assistant turn"),
        (PAIR | {"rejected": [QUESTION, {"content": "5"}]}, "Pair 2, rejected: Message 2 cannot be read: .*role"),
        (PAIR | {"chosen": [{**QUESTION, "content": "\ud800"}]}, "Pair 2, chosen: Message 1 cannot be read: .*UTF-8"),
        (
            PAIR | {"rejected": [QUESTION, {**WRONG[1], "tool_calls": "print"}]},
            "Pair 2, rejected: Message 2 cannot be read: .*tool calls such as .*; got 'print'",
        ),
        (PAIR | {"chosen": WRONG[1:]}, "Pair 2, chosen: It begins with the assistant: put the question first, or"),
        (PAIR | {"chosen": WRONG[1:], "prompt": 5}, "Pair 2, chosen: A conversation is a list of .*; got 5"),
        (
            PAIR | {"rejected": [{**QUESTION, "content": "Other?"}, WRONG[1]]},
            "Pair 2 answers two different prompts",
        ),
    ],
)  # fmt: skip
def test_a_bad_pair_is_refused_with_its_number_side_and_message(chatml, row, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        pairs_from_messages([PAIR, row], chatml)


def test_no_pair_and_an_unknown_method_are_refused(chatml):
    with pytest.raises(ValueError, match="no preference pair to train on: the list is empty"):
        pairs_from_messages([], chatml)
    with pytest.raises(ValueError, match="The method is one of"):
        pairs_from_messages([PAIR], chatml, method="ppo")


CUTS = CHATML.replace("message['content']", "message['content'][:8]")


def test_a_template_that_cuts_a_turn_is_refused_or_reported(caplog):
    tokenizer = with_template(CUTS, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    row = PAIR | {
        "rejected": [{**QUESTION, "content": "3?"}, {"role": "assistant", "content": "Five and more."}]
    }
    row["chosen"] = [{**QUESTION, "content": "3?"}, {"role": "assistant", "content": "Six."}]
    with pytest.raises(
        ValueError,
        match=r"^Pair 1, rejected: .* it makes 'Five and' of 'Five and more\.' in message 2 \(assistant\)",
    ):
        pairs_from_messages([row], tokenizer)
    kept = pairs_from_messages([row], tokenizer, allow_rewriting=True)[0][0]
    scored = [token for token, one in zip(kept["rejected_ids"], kept["rejected_mask"]) if one]
    assert tokenizer.decode(scored) == "Five and<|im_end|>"
    assert (
        "rewrites the assistant's turns of 1 conversations; in the first, it makes 'Five and' of"
        in caplog.text
    )


# --- Whatever comes ---

NASTY = [
    "",
    " ",
    "\ud800",
    "<|im_end|>",
    "<think>hm</think>So",
    "<think>",
    "Zq0qZ",
    "{{ x }}",
    "\x00",
    "{}",
    "[[",
    "\n",
]
texts = st.sampled_from(NASTY) | st.text(st.characters(), max_size=8)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=3)
junk = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
mappings = st.dictionaries(texts, junk, max_size=2)


def mostly(good, rate=8):
    """What is as it should be, but for one in so many."""
    return st.integers(1, rate).flatmap(lambda number: junk if number == rate else good)


functions = st.fixed_dictionaries({"name": mostly(texts), "arguments": mostly(texts | mappings)})
calls = mostly(st.lists(functions | st.fixed_dictionaries({"function": mostly(functions)}), max_size=2))
contents = mostly(
    texts | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": mostly(texts)}), max_size=2), 20
)
extra = {"tool_calls": calls, "reasoning_content": mostly(texts), "name": mostly(texts)}
openai = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "assistant", "tool"]), "content": contents},
    optional=extra,
)
speakers = st.sampled_from(["system", "human", "gpt", "observation", "function_call"])
sharegpt = st.fixed_dictionaries({"from": speakers, "value": contents})
messages = st.lists(mostly(openai | sharegpt, 30), max_size=5)
asked = st.builds(lambda rest: [QUESTION, *rest, WRONG[1]], messages)
sides = mostly(asked | asked | asked | messages, 20)
given_apart = {"prompt": mostly(asked | texts)}
rows = st.lists(
    mostly(st.fixed_dictionaries({"chosen": sides, "rejected": sides}, optional=given_apart), 20),
    min_size=1,
    max_size=2,
)


@cache
def tokenizers():
    special = ["<|im_start|>", "<|im_end|>"]
    think = "{{ message['content'].split('</think>')[-1].lstrip() if message.role == 'assistant' else message['content'] }}"
    thinks = CHATML.replace("{{ message['content'] }}", think + "{{ message.tool_calls or '' }}")
    return [
        train_tokenizer(TEXTS, 400),
        with_template(CHATML, special, "<|im_end|>"),
        with_template(thinks, special, "<|im_end|>"),
        with_template(GEMMA, ["<bos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
    ]


@fuzzed(mostly(rows, 20), st.integers(0, 3), st.booleans())
def test_whatever_comes_is_read_or_refused_by_pair(rows, template, allow_rewriting):
    try:
        dataset, _ = pairs_from_messages(rows, tokenizers()[template], allow_rewriting=allow_rewriting)
    except ValueError as error:
        assert str(error).startswith(("Pair 1", "Pair 2", "The pairs are", "There is no preference pair"))
    else:
        assert all(map(any, [*dataset["chosen_mask"], *dataset["rejected_mask"]]))
