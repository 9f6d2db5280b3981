"""The losses against float64 formulas written here, finite differences and TRL; unchanged by how a batch is put together."""

import math

import pytest
import torch

from mtdpo_lib.chat.roles import Role
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

ETA = 0.3
CHOSEN, REJECTED = [-3.0, -8.5, -2.0], [-4.0, -6.0, -9.0]  # log pi
CHOSEN_REF, REJECTED_REF = [-3.5, -8.0, -5.0], [-3.0, -6.5, -9.0]  # log pi_ref
LABELS = [True, True, True, False, False, False]


def doubles(*lists):
    return [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in lists]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_hand_mdpo(w, l, w_ref, l_ref):  # noqa: E741 (the paper's letters)
    return -math.log(sigmoid(ETA * ((w - w_ref) - (l - l_ref))))


def by_hand_mkto(policy, reference, right, z0, weights):
    ratio = policy - reference
    value = weights[0] * sigmoid(ETA * (ratio - z0)) if right else weights[1] * sigmoid(ETA * (z0 - ratio))
    return (weights[0] if right else weights[1]) - value


def test_mdpo_is_equation_14():
    losses = mdpo_loss(*doubles(CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF), ETA)
    expected = [by_hand_mdpo(*four) for four in zip(CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12)


def test_mkto_is_equation_15():
    policy, reference = doubles(CHOSEN + REJECTED, CHOSEN_REF + REJECTED_REF)
    weights = (1.0, 0.5)
    losses = mkto_loss(policy, reference, torch.tensor(LABELS), torch.tensor(0.7), ETA, weights)
    expected = [
        by_hand_mkto(p, r, right, 0.7, weights)
        for p, r, right in zip(CHOSEN + REJECTED, CHOSEN_REF + REJECTED_REF, LABELS)
    ]
    assert losses.tolist() == pytest.approx(expected, rel=1e-7)


def test_the_kl_term_is_a_mean_that_is_never_negative_and_has_no_gradient():
    policy, reference = doubles([-1.0, -2.0], [-2.0, -2.5])
    assert kl_term(policy, reference).item() == pytest.approx(0.75)
    assert not kl_term(policy, reference).requires_grad
    assert kl_term(reference, policy).item() == 0


def test_nll_is_one_mean_over_all_tokens():
    assert nll_loss(torch.tensor([-6.0, -1.0]), torch.tensor([6, 1])).item() == pytest.approx(7 / 7)
    assert nll_loss(torch.tensor([-6.0, -2.0]), torch.tensor([6, 1])).item() == pytest.approx(8 / 7)


@pytest.mark.parametrize("name", ["mdpo", "mkto", "nll"])
def test_gradients_agree_with_finite_differences(name):
    inputs = doubles(CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF)
    functions = {
        "mdpo": lambda c, r, cr, rr: mdpo_loss(c, r, cr, rr, ETA).sum(),
        "mkto": lambda c, r, cr, rr: mkto_loss(
            torch.cat([c, r]), torch.cat([cr, rr]), torch.tensor(LABELS), torch.tensor(0.7), ETA
        ).sum(),
        "nll": lambda c, r, cr, rr: nll_loss(c, torch.tensor([3, 4, 5])),
    }
    functions[name](*inputs).backward()
    step = 1e-6
    for which, tensor in enumerate(inputs):
        for place in range(3):
            ends = []
            for sign in (1, -1):
                moved = [one.detach().clone() for one in inputs]
                moved[which][place] += sign * step
                ends.append(functions[name](*moved).item())
            slope = (ends[0] - ends[1]) / (2 * step)
            gradient = 0.0 if tensor.grad is None else tensor.grad[place].item()
            assert gradient == pytest.approx(slope, abs=1e-8)


def test_a_step_does_not_depend_on_how_the_batch_is_put_together():
    whole = mdpo_loss(*doubles(CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF), ETA)
    order = [2, 0, 1]
    mixed = mdpo_loss(
        *doubles(*([one[i] for i in order] for one in (CHOSEN, REJECTED, CHOSEN_REF, REJECTED_REF))), ETA
    )
    assert mixed.tolist() == [whole[i].item() for i in order]


def test_only_scored_tokens_are_summed_and_padding_is_not():
    logs = torch.tensor([[-1.0, -2.0, -4.0, -8.0]])
    assert sequence_logps(logs, torch.tensor([[1, 0, 1, 0]])).tolist() == [-5.0]
    longer = torch.nn.functional.pad(logs, (0, 3), value=-99.0)
    assert sequence_logps(longer, torch.tensor([[1, 0, 1, 0, 0, 0, 0]])).tolist() == [-5.0]


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
