"""A user's own pairs from the command line: the page of masks, and the adapter; every form of input, every refusal."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import trl
from peft import PeftModel
from support import CHATML, QUESTION, RIGHT, WRONG, with_template
from transformers import AutoModelForCausalLM

from mtdpo_lib.__main__ import PARSER, main
from mtdpo_lib.chat import MessageFormat, Role
from mtdpo_lib.lessons import own_data
from mtdpo_lib.models.tiny import tiny_model
from mtdpo_lib.results.readme import README

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CALLS = (
    "{% for call in message.tool_calls or [] %}<call>{{ call.function.arguments.code }}</call>{% endfor %}"
)
TEMPLATE = CHATML.replace("{{ message['content'] }}", "{{ message['content'] }}" + CALLS)
PAIR = {"chosen": RIGHT, "rejected": WRONG}
EVIL = "<script>alert(1)</script></pre>\n\u202e<ins>&"
NASTY = {"chosen": RIGHT, "rejected": [QUESTION, {"role": "assistant", "content": EVIL}]}
CODE = {"name": "python", "arguments": {"code": "print(2*3)"}}
OPENAI = [
    QUESTION,
    {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CODE}]},
    {"role": "tool", "content": "6"},
    {"role": "assistant", "content": "six"},
]
SHAREGPT = [
    {"from": "human", "value": "2 times 3?"},
    {"from": "function_call", "value": json.dumps({"function": CODE})},
    {"from": "observation", "value": "6"},
    {"from": "gpt", "value": "six"},
]
BESIDE = {"prompt": [QUESTION], "chosen": OPENAI[1:], "rejected": WRONG[1:]}  # TRL's explicit prompt


@pytest.fixture
def folder(tmp_path, smoke):
    """A chat model's folder as the hub has them."""
    tokenizer = with_template(TEMPLATE, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    tokenizer.pad_token = None
    for part in (tiny_model(smoke.model, tokenizer, 320, seed=0), tokenizer):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    return tmp_path


def written(folder, *rows):
    """A file of pairs; a text is a line as it is."""
    file = folder / "pairs.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def seen(folder, *rows, model=True, more=()):
    """Exit code, page and text of `masks`."""
    of = ["--model", folder / "model"] if model else ["--template", folder / "template.jinja"]
    code = main(["masks", *map(str, [written(folder, *rows), *of, "--out", folder / "seen", *more])])
    return code, *((folder / f"seen{ending}").read_text(encoding="utf8") for ending in (".html", ".txt"))


def scored_texts(page):
    """What is underlined, without any tag or style."""
    plain = re.sub(r' style="[^"]*"', "", page.partition("<h2>Conversations</h2>")[2].partition("</p>")[2])
    return re.findall(r"<b>\[(\w+) \d+\]</b> <ins>(.*?)</ins>", plain, re.DOTALL)


def test_the_page_says_who_wrote_what_and_what_the_loss_sees(folder):
    code, page, text = seen(folder, PAIR, NASTY)
    assert code == 0
    right = [("assistant", "print(2*3)&lt;|im_end|&gt;"), ("assistant", "\\boxed{6}&lt;|im_end|&gt;")]
    evil = (
        r"&lt;script&gt;alert(1)&lt;/script&gt;&lt;/pre&gt;\n"
        + "\n"
        + r"\u202e&lt;ins&gt;&amp;&lt;|im_end|&gt;"
    )
    wrong = ("assistant", "\\boxed{5}&lt;|im_end|&gt;")
    assert scored_texts(page) == [*right, wrong, *right, ("assistant", evil)]
    assert "<script" not in page and page.count("</pre>") == 4
    assert [line[2:11].strip() for line in text.splitlines() if line.startswith("* ")] == ["assistant"] * 6
    rows = re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    runs = re.findall(r"^([* ]) (\w+) +(\d+)  '", text, re.MULTILINE)
    for role, *counts in rows:
        mine = [(mark, int(count)) for mark, name, count in runs if role in (name, "all")]
        assert sum(map(int, counts[::2])) == sum(count for _, count in mine)
        assert sum(map(int, counts[1::2])) == sum(count for mark, count in mine if mark == "*")
    assert [role for role, *_ in rows] == ["prompt", "assistant", "tool", "template", "all"]
    for row in re.findall(r"^<tr><td>(.*)</td></tr>$", page, re.MULTILINE):
        assert tuple(row.split("</td><td>")) in rows


def test_what_a_method_does_not_see_is_not_underlined(folder):
    assert {role for role, _ in scored_texts(seen(folder, PAIR, more=["--method", "dpo"])[1])} == {
        "assistant", "tool", "template",
    }  # fmt: skip
    raft = scored_texts(seen(folder, PAIR, more=["--method", "raft"])[1])
    assert [text for _, text in raft] == ["print(2*3)&lt;|im_end|&gt;", "\\boxed{6}&lt;|im_end|&gt;"]


def test_all_three_forms_look_alike(folder):
    rows = [{"chosen": OPENAI, "rejected": WRONG}, {"chosen": SHAREGPT, "rejected": WRONG}, BESIDE]
    pages = [scored_texts(seen(folder, row)[1]) for row in rows]
    assert pages[0] == pages[1] == pages[2]
    assert pages[0][0] == ("assistant", "&lt;call&gt;print(2*3)&lt;/call&gt;&lt;|im_end|&gt;")


def test_a_template_alone_tells_the_roles_alike(folder):
    with_model, alone = (seen(folder, PAIR, NASTY, model=model) for model in (True, False))
    assert scored_texts(alone[1]) == scored_texts(with_model[1])
    long = PAIR | {"rejected": [QUESTION, {"role": "assistant", "content": "so " * 999}]}
    assert (
        "left out" not in seen(folder, long, model=False)[2].lower()
    )  # a limit of tokens says nothing of bytes
    assert f"<b>{folder / 'template.jinja'}</b>. Tokens: bytes" in alone[1]
    assert f"{folder / 'model'}. Tokens: the model's own" in with_model[2]


@pytest.mark.parametrize("name", ["qwen3", "llama3", "gemma3", "deepseekv3", "phi3", "lfm2_2_5"])
def test_templates_that_are_in_use_are_read_alone(name):
    tokenizer = own_data.chat_tokenizer("", TEMPLATES / f"{name}.jinja")
    tokens = MessageFormat(tokenizer).encode([QUESTION, {"role": "assistant", "content": "Six it is."}])
    scored = tokenizer.decode([one for one, role in zip(tokens.ids, tokens.roles) if role == Role.ASSISTANT])
    assert re.fullmatch(r"(<think>\s*</think>\s*)?Six it is\.\s*<\S+>", scored)


def test_lines_are_refused_by_number_and_the_others_are_shown(folder, capsys):
    file = written(
        folder, PAIR, "", "{oops", {"chosen": RIGHT}, PAIR | {"rejected": [{"role": "<i>", "content": ""}]}
    )
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b'"\xe9"')
    arguments = ["masks", str(file), "--model", str(folder / "model"), "--out", str(folder / "seen")]
    assert main(arguments) == 2
    assert "1 pairs, 4 refused" in capsys.readouterr().out
    text, page = (folder / "seen.txt").read_text(), (folder / "seen.html").read_text()
    refused = [
        "Line 3 is not JSON in UTF-8 (JSONDecodeError)",
        "Line 4 has no 'rejected' conversation",
        "Line 5, rejected: Message 1 cannot be read",
        "Line 6 is not JSON in UTF-8 (UnicodeDecodeError)",
    ]
    for words in refused:
        assert f"\n{words}" in text
        assert f"<li>{words}".replace("'", "&#39;") in page
    assert "<i>" in text and "<i>" not in page
    assert "Line 1, chosen" in text and "Refused: 4 lines" in text


def test_long_pairs_are_counted_and_only_some_are_shown(folder, capsys):
    long = PAIR | {"rejected": [QUESTION, {"role": "assistant", "content": "so " * 99}]}
    code, page, text = seen(folder, PAIR, long, PAIR, PAIR, more=["--max-tokens", "80", "--show", "2"])
    assert code == 0 and "3 pairs, 1 longer than 80 tokens" in capsys.readouterr().out
    assert "The first 2 of 3 pairs." in text and "longer than the limit, 1 pairs: line 2." in page
    assert re.findall(r"<h3>Line (\d)</h3>", page) == ["1", "3"]


def test_a_template_that_rewrites_is_refused_or_reported(folder):
    (folder / "template.jinja").write_text(CHATML.replace("message['content']", "message['content'][:9]"))
    row = {
        "chosen": [QUESTION, WRONG[1]],
        "rejected": [QUESTION, {"role": "assistant", "content": "Five and more."}],
    }
    row |= {side: [{**QUESTION, "content": "3?"}, *row[side][1:]] for side in row}
    code, _, text = seen(folder, row, model=False)
    assert code == 2 and "Line 1, rejected: The chat template of" in text and "it makes 'Five and'" in text
    code, page, text = seen(folder, row, model=False, more=["--allow-rewriting"])
    assert code == 0 and "rewrites the assistant's turns of 1 conversations" in text
    assert "it\nmakes &#39;Five and" in page


# --- Training ---


def learn(folder, *rows, method="mdpo", **more):
    options = {
        "model": folder / "model",
        "out": folder / "adapter",
        "learning-rate": 0.01,
        "dtype": "float32",
    } | more
    given = [
        part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))
    ]
    return main(["train", str(written(folder, *rows)), "--method", method, *given])


@pytest.mark.parametrize("method", ["mdpo", "mkto", "dpo", "raft"])
def test_the_adapter_has_learnt(folder, method, capsys):
    rows = [
        {side: [{**QUESTION, "content": asked}, *PAIR[side][1:]] for side in PAIR}
        for asked in (QUESTION["content"], "3 plus 3?", "1 times 6?")
    ]
    assert learn(folder, *rows, method=method, epochs=6, **{"batch-size": 2}) == 0
    said = capsys.readouterr().out
    assert "A pass has 1 steps of 2 pairs: 1 fill no batch (see --batch-size)." in said
    kept = json.loads((folder / "adapter" / "training.json").read_text())
    assert (
        kept["settings"]["preference.method"] == method
        and kept["settings"]["preference.learning_rate"] == 0.01
    )
    assert len(kept["log"]) == 6
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    form = MessageFormat(own_data.chat_tokenizer(str(folder / "model"), None))

    def preference(network):
        sums = []
        for side in (RIGHT, WRONG):
            tokens = form.encode(side)
            ids = torch.tensor([tokens.ids])
            with torch.no_grad():
                logs = network(ids).logits[0].log_softmax(-1)
            own = [place for place, role in enumerate(tokens.roles) if role == Role.ASSISTANT]
            sums.append(sum(logs[place - 1, tokens.ids[place]].item() for place in own))
        return sums[0] - (0 if method == "raft" else sums[1])

    before = preference(model)
    assert preference(PeftModel.from_pretrained(model, folder / "adapter").eval()) > before + 0.5
    assert not list(folder.glob(".adapter*"))


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([PAIR, "{oops"], {}, r"pairs\.jsonl: Line 2 is not JSON .* `masks` shows all such lines: 1\."),
        ([PAIR, {"chosen": 5, "rejected": WRONG}], {}, r"Line 2, chosen: A conversation is a list"),
        ([], {}, "holds no pair: write"),
        ([PAIR], {"max-tokens": 20}, "all pairs are longer than 20 tokens: raise --max-tokens"),
        ([PAIR], {"eta": "-1"}, "Setting preference.eta wants a number above zero"),
        ([PAIR], {"method": "ppo"}, "Setting preference.method wants one of mdpo, mkto, dpo, kto, raft"),
        ([PAIR], {"model": None}, "Give --model the folder"),
        ([PAIR], {"model": "nobody/nothing"}, "nobody/nothing cannot be read .*: give --model the folder of a chat model"),
        ([PAIR], {"template": "nowhere.jinja"}, "nowhere.jinja cannot be read .*--template a text file"),
        ([PAIR], {"method": "mkto"}, "give it at least 2 pairs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(folder, rows, more, words, capsys):
    more = {"method": "mdpo"} | more
    assert learn(folder, *rows, **more) == 2
    error = capsys.readouterr().err
    assert re.search(f"error: .*{words}", error) and error.count("error:") == 1
    assert not (folder / "adapter").exists() and not list(folder.glob(".adapter*"))


def test_a_folder_that_is_there_and_a_file_that_is_not_are_refused(folder, capsys):
    (folder / "adapter").mkdir()
    assert learn(folder, PAIR) == 2
    assert "adapter is there already: give --out a new folder, or remove it." in capsys.readouterr().err
    assert main(["masks", "no.jsonl", "--model", str(folder / "model")]) == 2
    assert "no.jsonl cannot be read (No such file or directory): write {" in capsys.readouterr().err
    assert main(["masks", str(folder / "pairs.jsonl")]) == 2
    assert "Give --model the folder of a chat model, or --template" in capsys.readouterr().err


def test_the_readme_shows_both_commands_as_they_are():
    section = README.read_text(encoding="utf8").partition("## Your own data")[2].partition("\n## ")[0]
    lines = re.findall(r"^python -m mtdpo_lib (.*?)(?:  #.*)?$", section, re.MULTILINE)
    assert [PARSER.parse_args(shlex.split(line)).command for line in lines] == ["masks", "train"]
