"""What several test files use: texts, templates, trajectories made by hand, and a trainer's step."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, KTOConfig

from mtdpo_lib.chat.roles import RoleTokens, loss_mask
from mtdpo_lib.common.files import ROOT, read_jsonl, write_jsonl
from mtdpo_lib.models.tiny import train_tokenizer
from mtdpo_lib.problems import Demonstration, Problem
from mtdpo_lib.rollout import Trajectory, Turn
from mtdpo_lib.train import AdaptiveMarginTrainer, TrajectoryDPOTrainer, TrajectoryKTOTrainer

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


# A user's own pair: one question, a right and a wrong conversation.
QUESTION = {"role": "user", "content": "2 times 3?"}
RIGHT = [
    QUESTION,
    {"role": "assistant", "content": "print(2*3)"},
    {"role": "tool", "content": "6"},
    {"role": "assistant", "content": "\\boxed{6}"},
]
WRONG = [QUESTION, {"role": "assistant", "content": "\\boxed{5}"}]
TEXTS = [
    "How many apples are left? Tom has 12 apples and eats 5.",
    "Multiply first.\n```python\nprint(3*4)\n```",
    "The answer is \\boxed{12}.",
    "NameError: name 'math' is not defined",
]


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


def encoded_conversations(chat, pool):
    """`CONVERSATIONS` as tokens, the tool's answers as it gives them."""
    sequences = []
    for question, turns, _ in CONVERSATIONS:
        tokens = chat.prompt(question)
        with pool.session() as session:
            for turn in turns:
                tokens += chat.assistant(turn)
                if "```python" in turn:
                    tokens += chat.tool(session.run(turn.split("```python\n")[1].split("\n```")[0]).text)
        sequences.append(tokens)
    return sequences


def conversation_problems():
    """What `CONVERSATIONS` ask."""
    return [
        Problem(f"test/{place}", "suite", "family", question, gold)
        for place, (question, _, gold) in enumerate(CONVERSATIONS)
    ]


def learn_by_heart(model, sequences, rate, rounds):
    """Teach a model, or its adapter, the assistant's tokens of `sequences`."""
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], rate)
    for _ in range(rounds):
        for tokens in sequences:
            ids = torch.tensor([tokens.ids])
            labels = ids.masked_fill(torch.tensor([loss_mask(tokens.roles)]) == 0, -100)
            model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


ETA = 0.3


TRAINERS = {"mdpo": (TrajectoryDPOTrainer, DPOConfig), "mkto": (TrajectoryKTOTrainer, KTOConfig)}
TRAINERS |= {"dpo": TRAINERS["mdpo"], "kto": TRAINERS["mkto"], "margin": (AdaptiveMarginTrainer, DPOConfig)}


def fuzzed(*inputs: SearchStrategy) -> Callable:
    """A test over made-up inputs, always the same ones: a few of them, and 2,000 when slow tests run.

    None may take 10 seconds.
    """

    def decorate(check: Callable) -> Callable:
        few, many = pytest.param(25, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)

        @pytest.mark.parametrize("cases", [few, many])
        def test(cases):
            limits = settings(max_examples=cases, deadline=10_000, derandomize=True, database=None)
            limits(given(*inputs)(check))()

        return test

    return decorate


def results_in(out: Path) -> dict[str, dict]:
    """The records of a run and of a study's arms by name, without what differs between two runs of one seed."""
    files = (file for folder in ("records", "arms") for file in (out / folder).glob("[!.]*.json"))
    found = {file.stem: json.loads(file.read_text()) for file in files}
    own = ("provenance", "seconds", "versions")
    return {name: {key: part for key, part in one.items() if key not in own} for name, one in found.items()}


def undo_notebook(out: Path, name: str) -> None:
    """Forget what a notebook of a finished run made: its record, its executed copy, and the stages no earlier one made."""
    finished = json.loads((out / "finished.json").read_text())
    names = list(finished)
    before = finished[names[names.index(name) - 1]]["products"] if name != names[0] else []
    for product in set(finished[name]["products"]) - set(before):
        folder = (out / product).parent
        shutil.rmtree(folder) if folder.parent.name == "stages" else (out / product).unlink()


def with_template(template: str, special: list[str], end: str) -> PreTrainedTokenizerFast:
    """A copy of the tiny tokenizer that speaks another chat template."""
    other = train_tokenizer(TEXTS, 400)
    other.add_special_tokens({"additional_special_tokens": special})
    other.eos_token = end
    other.chat_template = template
    return other


def trajectory(problem, correct, sample=0, length=5, error=None):
    turns = [Turn("call", "x", "out", error), Turn("done")]
    ids = [sample] * length
    return Trajectory(
        problem,
        "s",
        "q",
        "1",
        "p",
        sample,
        ids,
        [0, 0, 1, 1, 1][:length] + [1] * (length - 5),
        turns,
        "1",
        correct,
        "answer",
    )


def as_trajectory(tokens: RoleTokens, problem: str, correct: bool) -> Trajectory:
    return Trajectory(
        problem,
        "s",
        "q",
        "1",
        "p",
        0,
        tokens.ids,
        list(map(int, tokens.roles)),
        [Turn("x")],
        "1",
        correct,
        "answer",
    )


def judged(rollouts, verdict):
    """Give the samples of kept rollouts other verdicts: an untrained policy is never right.

    Args:
        rollouts: a product.
        verdict: says of a problem's and a sample's number, counted as they come, whether it is right.
    """
    file = rollouts.path / "trajectories.jsonl"
    rows = read_jsonl(file)
    problems = {name: number for number, name in enumerate(dict.fromkeys(row["problem_id"] for row in rows))}
    seen = dict.fromkeys(problems, 0)
    for row in rows:
        row["correct"] = verdict(problems[row["problem_id"]], seen[row["problem_id"]])
        seen[row["problem_id"]] += 1
    write_jsonl(file, rows)
    manifest = rollouts.path / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(facts))


def shake(model, seed=0, size=0.05):
    """Move the trainable adapter away from its start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".default." in name:
                parameter.add_(size * torch.randn_like(parameter))


def log_probability(model, trajectory, scored):
    """Sum of log pi over scored tokens, in float64, one sequence at a time and without padding: nothing shared with TRL."""
    with torch.no_grad():
        logits = model(torch.tensor([trajectory.ids])).logits[0].double()
    logs = logits.log_softmax(-1)
    return sum(
        logs[place - 1, trajectory.ids[place]].item()
        for place in range(1, len(trajectory.ids))
        if scored[place]
    )


def move(trainer, **how):
    """As after some steps: the policy has left its reference."""
    shake(trainer.model, **how)
    trainer.state.global_step = 1


def whole_batch(trainer):
    return trainer.data_collator(list(trainer.train_dataset))


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def step(trainer, batch=None):
    """Loss and gradient of one step."""
    trainer.model.zero_grad(set_to_none=True)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.training_step(trainer.model, dict(batch or whole_batch(trainer)))
    return loss.item(), gradient(trainer.model)


def agree(one, other, loss=1e-5):
    """Equal losses and the gate on gradients."""
    assert one[0] == pytest.approx(other[0], rel=loss)
    assert torch.cosine_similarity(one[1], other[1], dim=0).item() >= 0.9999
    assert one[1].norm().item() == pytest.approx(other[1].norm().item(), rel=1e-3)


def multiplication(first: int, second: int, more: str = "") -> Demonstration:
    """A demonstration of one product; `more` makes its question longer."""
    question, product = f"{first}*{second}?{more}", str(first * second)
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"print({first}*{second})"},
        {"role": "tool", "content": product},
        {"role": "assistant", "content": f"\\boxed{{{product}}}"},
    ]
    return Demonstration(Problem("a", "s", "f", question, product), "x", messages, True)


def copy_repository(place: Path) -> Path:
    """What lessons need of the repository, in the folder `place`: what they write then stays there."""
    for name in ("mtdpo_lib", "notebooks", "data"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place
