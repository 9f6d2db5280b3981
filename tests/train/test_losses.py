"""The losses against float64 formulas written here, finite differences, the notebook's own and TRL's trainers."""

import ast
import json
import math
import textwrap
from pathlib import Path

import pytest
import torch
from support import ETA, move, step, whole_batch

from mtdpo_lib.chat import Role
from mtdpo_lib.common.files import NOTEBOOKS
from mtdpo_lib.train import losses
from mtdpo_lib.train.losses import (
    METHODS,
    different_prompts,
    kl_term,
    mdpo_loss,
    mkto_loss,
    nll_loss,
    scored_tokens,
    sequence_logps,
)

CHOSEN, REJECTED = [-3.0, -8.5, -2.0], [-4.0, -6.0, -9.0]  # log pi
CHOSEN_REF, REJECTED_REF = [-3.5, -8.0, -5.0], [-3.0, -6.5, -9.0]  # log pi_ref


def doubles(*lists):
    return [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in lists]


def both():
    """Policy and reference, chosen rows first, [2B] each."""
    return doubles(CHOSEN + REJECTED, CHOSEN_REF + REJECTED_REF)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mean(values):
    return sum(values) / len(values)


def test_mdpo_is_equation_14():
    expected = [
        -math.log(sigmoid(ETA * ((w - w_ref) - (r - r_ref))))
        for w, r, w_ref, r_ref in zip(CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF)
    ]
    assert mdpo_loss(*both(), ETA).item() == pytest.approx(mean(expected), rel=1e-12)


def test_mkto_is_equation_15():
    right = [1 - sigmoid(ETA * (p - r - 0.7)) for p, r in zip(CHOSEN, CHOSEN_REF)]
    wrong = [1 - sigmoid(ETA * (0.7 - (p - r))) for p, r in zip(REJECTED, REJECTED_REF)]
    z0 = torch.tensor(0.7, dtype=torch.float64)
    assert mkto_loss(*both(), z0, ETA).item() == pytest.approx(mean(right + wrong), rel=1e-12)


def test_the_kl_term_is_a_mean_that_is_never_negative_and_has_no_gradient():
    policy, reference = doubles([-1.0, -2.0], [-2.0, -2.5])
    assert kl_term(policy, reference).item() == pytest.approx(0.75)
    assert not kl_term(policy, reference).requires_grad
    assert kl_term(reference, policy).item() == 0


def test_nll_is_one_mean_over_all_tokens():
    assert nll_loss(torch.tensor([-6.0, -1.0]), torch.tensor([6, 1])).item() == pytest.approx(7 / 7)
    assert nll_loss(torch.tensor([-6.0, -2.0]), torch.tensor([6, 1])).item() == pytest.approx(8 / 7)


@pytest.mark.parametrize(
    "loss",
    [
        lambda policy, reference: mdpo_loss(policy, reference, ETA),
        lambda policy, reference: mkto_loss(policy, reference, torch.tensor(0.7), ETA),
        lambda policy, _: nll_loss(policy, torch.tensor([3, 4, 5, 6, 7, 8])),
    ],
    ids=["mdpo", "mkto", "nll"],
)
def test_gradients_agree_with_finite_differences(loss):
    inputs = both()
    loss(*inputs).backward()
    size = 1e-6
    for which, tensor in enumerate(inputs):
        for row in range(len(tensor)):
            ends = []
            for sign in (1, -1):
                moved = [each.detach().clone() for each in inputs]
                moved[which][row] += sign * size
                ends.append(loss(*moved).item())
            slope = (ends[0] - ends[1]) / (2 * size)
            gradient = 0.0 if tensor.grad is None else tensor.grad[row].item()
            assert gradient == pytest.approx(slope, abs=1e-8)


def test_a_loss_does_not_depend_on_the_order_of_the_pairs():
    order = [2, 0, 1, 5, 3, 4]
    policy, reference = both()
    z0 = torch.tensor(0.7)
    mixed = (policy[order], reference[order])
    assert mdpo_loss(*mixed, ETA).item() == pytest.approx(mdpo_loss(policy, reference, ETA).item(), rel=1e-14)
    assert mkto_loss(*mixed, z0, ETA).item() == pytest.approx(mkto_loss(*both(), z0, ETA).item(), rel=1e-14)


def test_only_scored_tokens_are_summed_and_padding_is_not(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.tensor([[0, 1, 0, 1]])
    with torch.no_grad():
        logs = model(ids).logits[0].double().log_softmax(-1)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
        alone = sequence_logps(model, batch)
        longer = {name: torch.nn.functional.pad(value, (0, 3)) for name, value in batch.items()}
        assert alone.item() == pytest.approx((logs[0, 6] + logs[2, 8]).item(), rel=1e-6)
        assert sequence_logps(model, longer).item() == pytest.approx(alone.item(), rel=1e-6)


# --- What the notebook builds by hand is what the library exports ---


class Bare(ast.NodeTransformer):
    """Functions without docstrings and types."""

    def visit_FunctionDef(self, node):
        node.returns = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.annotation = None
        return node


def functions(source: str) -> dict[str, str]:
    """Name to syntax of the functions that a source defines at its top level."""
    tree = Bare().visit(ast.parse(source))
    return {node.name: ast.dump(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


def cells(notebook: str) -> list[str]:
    content = json.loads((NOTEBOOKS / notebook).read_text(encoding="utf8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", ["sequence_logps", "mdpo_loss", "kl_term", "mkto_loss", "nll_loss"])
def test_the_notebook_writes_the_functions_of_the_library(name):
    by_hand = [
        functions(source)[name] for source in cells("06_multi_turn_dpo.ipynb") if f"def {name}(" in source
    ]
    assert by_hand == [functions(Path(losses.__file__).read_text(encoding="utf8"))[name]]


def test_another_body_would_be_noticed():
    source = "def f(x: int) -> int:\n    '''Doc.'''\n    return x + 1\n"
    assert functions(source) == functions("def f(x):\n    return x + 1\n")
    assert functions(source) != functions("def f(x):\n    return x + 2\n")
    assert functions(source) != functions("def f(y):\n    return y + 1\n")


@pytest.mark.parametrize("notebook", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_every_other_notebook_imports_them(notebook):
    written = {name for source in cells(notebook) for name in functions(textwrap.dedent(source))}
    assert notebook.startswith("06") or not written & {name for name in vars(losses) if name.islower()}


# --- TRL's trainers give the same numbers ---


def logps(trainer, batch):
    """Of policy and reference ("base": the adapter switched off)."""
    policy = sequence_logps(trainer.model, batch)
    with trainer.model.disable_adapter():
        return policy, sequence_logps(trainer.model, batch)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("nll", [0.0, 0.7])
@pytest.mark.parametrize("method", ["mdpo", "dpo"])
def test_the_dpo_trainer_gives_the_librarys_losses(build, pairs, method, nll, fast):
    arguments = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, nll]} if nll else {}
    trainer = build(method, pairs, arguments, fast=fast, reference="base")
    move(trainer, size=0.2)
    batch = whole_batch(trainer)
    loss, _ = step(trainer, batch)
    with torch.no_grad():
        policy, reference = logps(trainer, batch)
    tokens = batch["completion_mask"][:, 1:].sum(-1)
    chosen = slice(len(pairs))
    expected = mdpo_loss(policy, reference, ETA) + nll * nll_loss(policy[chosen], tokens[chosen])
    assert abs(expected.item() - math.log(2)) > 1e-2  # away from the start
    assert loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("method", ["mkto", "kto"])
def test_the_kto_trainer_gives_the_librarys_losses(build, pairs, method, fast):
    trainer = build(method, pairs, fast=fast, reference="base")
    move(trainer, size=0.2)
    batch = whole_batch(trainer)
    loss, _ = step(trainer, batch)
    mismatched = {name.removeprefix("KL_"): value for name, value in batch.items() if "KL_" in name}
    with torch.no_grad():
        z0 = kl_term(*logps(trainer, mismatched))
        expected = mkto_loss(*logps(trainer, batch), z0, ETA).item()
    assert trainer._metrics["train"]["kl"] == [pytest.approx(z0.item(), rel=1e-4, abs=1e-5)]
    assert loss == pytest.approx(expected, rel=1e-5)


# --- Masks and mismatched prompts ---

ROLES = [Role.PROMPT, Role.PROMPT, Role.ASSISTANT, Role.TEMPLATE, Role.TOOL, Role.TEMPLATE, Role.ASSISTANT]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("mdpo", [0, 0, 1, 0, 0, 0, 1]),
        ("mkto", [0, 0, 1, 0, 0, 0, 1]),
        ("raft", [0, 0, 1, 0, 0, 0, 1]),
        ("dpo", [0, 0, 1, 1, 1, 1, 1]),  # single-turn: everything after the prompt, the tool's output too
        ("kto", [0, 0, 1, 1, 1, 1, 1]),
    ],
)
def test_what_each_method_scores(method, expected):
    assert scored_tokens(ROLES, method) == expected


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="one of mdpo, mkto, dpo, kto, raft; got 'ppo'"):
        scored_tokens(ROLES, "ppo")
    assert set(METHODS) == {"mdpo", "mkto", "dpo", "kto", "raft"}


@pytest.mark.parametrize(
    "prompts", [list("abcabc"), list("aabb"), list("aaabbc"), list("abcd"), list("abba")]
)
def test_kl_pairs_have_different_prompts_and_use_each_answer_once(prompts):
    partner = different_prompts(prompts)
    assert sorted(partner) == list(range(len(prompts)))
    assert all(prompts[place] != prompts[other] for place, other in enumerate(partner))


@pytest.mark.parametrize("prompts", [[], ["a"], ["a", "a"], list("aab")])
def test_a_batch_without_different_prompts_is_refused(prompts):
    with pytest.raises(ValueError, match=r"KTO's KL term needs answers to different prompts, but \d of the"):
        different_prompts(prompts)
