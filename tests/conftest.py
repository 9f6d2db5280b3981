"""Shared by the tests: small tokenizers and models made on the spot, nothing downloaded."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from mtdpo_lib.models.bases import quiet_libraries
from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.sandbox import SandboxPool

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ '<bos>' }}{% for message in messages %}{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('Only user and model roles are supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
TEXTS = [
    "How many apples are left? Tom has 12 apples and eats 5.",
    "Multiply first.\n```python\nprint(3*4)\n```",
    "The answer is \\boxed{12}.",
    "NameError: name 'math' is not defined",
]


# Files that take minutes begin first, so that no process is left alone with one of them at the end.
LONGEST = ("test_notebooks.py", "test_attacks.py", "test_luck.py", "test_sandbox_fidelity.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the order is otherwise kept."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tests on shared cores are fastest, and repeatable, with one thread."""
    quiet_libraries()
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400)


def with_template(template: str, special: list[str], end: str) -> PreTrainedTokenizerFast:
    """A copy of the tiny tokenizer that speaks another chat template."""
    other = train_tokenizer(TEXTS, 400)
    other.add_special_tokens({"additional_special_tokens": special})
    other.eos_token = end
    other.chat_template = template
    return other


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerFast:
    return with_template(CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")


@pytest.fixture(scope="session")
def gemma() -> PreTrainedTokenizerFast:
    return with_template(GEMMA, ["<bos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>")


@pytest.fixture(scope="session")
def smoke():
    return get_profile("smoke")


@pytest.fixture
def model(tokenizer, smoke):
    return tiny_model(smoke.model, tokenizer, 320, seed=0).eval()


@pytest.fixture(scope="session")
def pool(smoke):
    with SandboxPool(smoke.sandbox) as pool:
        yield pool


CONVERSATIONS = [
    # (question, turns, gold): two tool calls with state, one error and its repair, one without the tool
    (
        "Half of 8 plus 3?",
        ["Halve it.\n```python\nx = 8//2\nprint(x)\n```", "Add.\n```python\nprint(x+3)\n```", "\\boxed{7}"],
        "7",
    ),
    (
        "Root of 9?",
        [
            "Use sqrt.\n```python\nprint(math.sqrt(9))\n```",
            "Import.\n```python\nimport math\nprint(math.isqrt(9))\n```",
            "\\boxed{3}",
        ],
        "3",
    ),
    ("2 times 3?", ["That is easy: \\boxed{5}"], "6"),
    ("Say nothing.", ["I do not know."], "1"),
]


@pytest.fixture(scope="session")
def overfit(smoke, pool):
    """A tiny model that has learnt `CONVERSATIONS` by heart, with its tokenizer and problems."""
    from mtdpo_lib.chat.encoder import ChatFormat
    from mtdpo_lib.chat.roles import loss_mask
    from mtdpo_lib.problems.base import Problem

    tokenizer = train_tokenizer(
        [text for question, turns, _ in CONVERSATIONS for text in (question, *turns)] + TEXTS, 400
    )
    chat, sequences = ChatFormat(tokenizer), []
    for question, turns, _ in CONVERSATIONS:
        tokens = chat.prompt(question)
        with pool.session() as session:
            for turn in turns:
                tokens += chat.assistant(turn)
                if "```python" in turn:
                    tokens += chat.tool(session.run(turn.split("```python\n")[1].split("\n```")[0]).text)
        sequences.append(tokens)
    model = tiny_model(smoke.model, tokenizer, 320, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        for tokens in sequences:
            ids = torch.tensor([tokens.ids])
            labels = ids.masked_fill(torch.tensor([loss_mask(tokens.roles)]) == 0, -100)
            model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    problems = [
        Problem(f"test/{place}", "suite", "family", q, gold)
        for place, (q, _, gold) in enumerate(CONVERSATIONS)
    ]
    return model.eval(), tokenizer, problems, sequences
