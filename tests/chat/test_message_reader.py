"""Message lists as people have them: three forms read alike, and one sentence for each message that cannot be read."""

import pytest

from mtdpo_lib.chat import read_messages

CODE = {"code": "print(2*3)"}
CALL = {"type": "function", "id": "a1", "function": {"name": "python", "arguments": CODE}}
OPENAI = [
    {"role": "system", "content": "Use the tool."},
    {"role": "user", "content": "2 times 3?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "6", "tool_call_id": "a1"},
    {"role": "assistant", "content": "\\boxed{6}"},
]
SHAREGPT = [
    {"from": "system", "value": "Use the tool."},
    {"from": "human", "value": "2 times 3?"},
    {"from": "function_call", "value": '{"name": "python", "arguments": {"code": "print(2*3)"}}'},
    {"from": "observation", "value": "6"},
    {"from": "gpt", "value": "\\boxed{6}", "weight": 1},
]


def test_openai_s_messages_keep_what_templates_read():
    read = read_messages(OPENAI)
    assert read[2] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert read[3]["tool_call_id"] == "a1"
    as_json = {**CALL, "function": {"name": "python", "arguments": '{"code": "print(2*3)"}'}}
    assert read_messages([{**OPENAI[2], "tool_calls": [as_json]}]) == read[2:3]
    parts = {
        "role": "user",
        "content": [{"type": "text", "text": "2 times"}, {"type": "text", "text": " 3?"}],
    }
    assert read_messages([parts]) == read[1:2]
    assert read_messages(read) == read


def test_sharegpt_is_read_as_the_same_conversation():
    plain = [{key: message[key] for key in ("role", "content")} for message in read_messages(OPENAI)]
    read = read_messages(SHAREGPT)
    assert [{key: message[key] for key in ("role", "content")} for message in read] == plain
    assert read[2]["tool_calls"] == [{"name": "python", "arguments": CODE}]
    assert read[4]["weight"] == 1
    two = {"from": "function_call", "value": '[{"name": "a"}, {"name": "b"}]'}
    assert [call["name"] for call in read_messages([two])[0]["tool_calls"]] == ["a", "b"]


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


def called(**call):
    return {"role": "assistant", "tool_calls": [call]}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (None, r'a role and a text, as in {"role": "user", "content": "2\+3\?"}; got None'),
        ("2+3?", r"a role and a text, .*; got '2\+3\?'"),
        ({"content": "5"}, "a role, one of system, user, assistant, tool; got {'content': '5'}"),
        ({"role": "human", "content": "5"}, "a role, .*; got 'human'"),
        ({"role": ["user"], "content": "5"}, r"a role, .*; got \['user'\]"),
        ({"from": "bing", "value": "5"}, "a role, .*; got 'bing'"),
        ({"from": ["gpt"], "value": "5"}, r"a role, .*; got \['gpt'\]"),
        ({"role": "user"}, "a text as content, .*; got {'role': 'user'}"),
        ({"from": "gpt"}, "a text as content, .*; got None"),
        ({"role": "user", "content": 5}, "a text as content, .*; got 5"),
        ({"role": "user", "content": [{"type": "image"}]}, r"a text .*leave out images and sounds\); got \["),
        ({"role": "user", "content": [{"type": "text"}]}, "a text as content"),
        ({"role": "user", "content": ["5"]}, "a text as content"),
        ({"role": "user", "content": b"5"}, "a text as content, .*; got b'5'"),
        (
            {"role": "user", "content": "5\ud800"},
            r"JSON in UTF-8, without lone surrogates .*errors='replace'.*5\\ud800",
        ),
        ({"role": "user", "content": "5", "name": "\ud800"}, "JSON in UTF-8, without lone surrogates"),
        ({"role": "user", "content": "5", "name": DEEP}, "JSON in UTF-8"),
        ({"role": "user", "content": "5", "name": {(1, 2): 3}}, "JSON in UTF-8"),
        ({"role": "assistant", "content": 0, "tool_calls": [CALL]}, "a text as content, .*; got 0"),
        ({"role": "assistant", "tool_calls": []}, "a text as content"),
        ({"role": "assistant", "tool_calls": CALL}, "tool calls such as .*; got {'function': "),
        ({"role": "assistant", "tool_calls": "print(2)"}, r"tool calls such as .*; got 'print\(2\)'"),
        ({"role": "assistant", "content": "5", "tool_calls": False}, "tool calls such as .*; got False"),
        (called(), r"tool calls such as .*; got \[{}\]"),
        (called(function="python"), "tool calls such as"),
        (called(function={"arguments": CODE}), "tool calls such as"),
        (called(name=5), "tool calls such as"),
        (called(name="python", arguments=[1]), "tool calls such as"),
        (called(name="python", arguments={"code": "\ud800"}), "JSON in UTF-8, without lone surrogates"),
        ({"from": "function_call", "value": "print(2)"}, r"tool calls such as .*; got \['print\(2\)'\]"),
        ({"from": "function_call"}, "tool calls such as"),
    ],
)
def test_what_is_no_message_is_refused_in_one_sentence(message, words):
    with pytest.raises(ValueError, match=f"^Message 2 cannot be read: it needs {words}.*[.]$") as error:
        read_messages([OPENAI[1], message])
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("messages", [None, "2+3?", {"role": "user", "content": "5"}, 5, iter([])])
def test_what_is_no_list_is_refused_in_one_sentence(messages):
    with pytest.raises(
        ValueError, match=r"^A conversation is a list of messages, each with a role and a text"
    ):
        read_messages(messages)


def test_arguments_that_are_no_json_stay_as_the_model_wrote_them():
    for text in ("print(2", "[" * 100_000, "9" * 5_000):
        assert read_messages([called(name="python", arguments=text)])[0]["tool_calls"][0]["arguments"] == text
