"""The losses of the paper as small functions of sequence log-probabilities.

TRL's trainers compute the same numbers (the tests hold the two equal); these are the formulas to read, to check by hand and
to use in a loop of your own. All log-probabilities are in nats, summed over the scored tokens of one trajectory.

**Paper:** eq. (14) and (15), sec. 2.3; NLL term and RAFT, sec. 3.

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mtdpo_lib.chat.roles import Role, loss_mask

# What each method trains on and which tokens it scores. "pairs": a right and a wrong trajectory of one prompt; "labels": the
# same trajectories one by one, each with its verdict; "right": right trajectories only.
METHODS: dict[str, tuple[str, bool]] = {
    # name: (data, only the policy's own tokens are scored)
    "mdpo": ("pairs", True),
    "mkto": ("labels", True),
    "dpo": ("pairs", False),
    "kto": ("labels", False),
    "raft": ("right", True),
}


def scored_tokens(roles: Sequence[int], method: str = "mdpo") -> list[int]:
    """1 where `method` scores a token, else 0; length T.

    Multi-turn losses sum over the policy's tokens only. The single-turn baselines (sec. 3.1) take everything after the first
    prompt for one answer, tool output and template included.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"The method is one of {', '.join(METHODS)}; got {method!r}.")
    own_tokens_only = METHODS[method][1]
    return loss_mask(roles) if own_tokens_only else [int(role != Role.PROMPT) for role in roles]


def sequence_log_probability(token_log_probabilities: Tensor, scored: Tensor) -> Tensor:
    """Log-probability of each trajectory: sum over its scored tokens.

    Args:
        token_log_probabilities: [N, T]; entry t is of token t, given those before it.
        scored: [N, T], 1 or 0.

    Returns:
        [N].
    """
    return (token_log_probabilities * scored).sum(-1)


def mdpo_loss(
    chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, eta: float
) -> Tensor:
    """Eq. (14) for each pair; single-turn DPO when the log-probabilities include the tool's tokens.

    Args:
        chosen, rejected: log pi, [B].
        chosen_reference, rejected_reference: log pi_ref, [B].
        eta: KL coefficient (TRL's ``beta``).

    Returns:
        [B].
    """
    margin = (chosen - chosen_reference) - (rejected - rejected_reference)
    return -logsigmoid(eta * margin)


def kl_term(policy: Tensor, reference: Tensor) -> Tensor:
    """z_0 of eq. (15), estimated on answers to *other* prompts: mean log-ratio, at least zero, without gradient.

    Args:
        policy, reference: log-probabilities of mismatched trajectories (`different_prompts`), scored tokens only, [N].

    Returns:
        Scalar.
    """
    return (policy - reference).mean().clamp(min=0).detach()


def mkto_loss(
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    z0: Tensor,
    eta: float,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Eq. (15) for each trajectory: lambda - v(x, y).

    The paper prints eta twice, in u and around it; its code, TRL and we use it once.

    Args:
        policy, reference: log-probabilities, [N].
        desirable: True for right trajectories, [N].
        z0: `kl_term`.
        eta: KL coefficient.
        weights: lambda_+ and lambda_-; 1 in the paper.

    Returns:
        [N].
    """
    sign = torch.where(desirable.bool(), 1.0, -1.0).to(policy)
    weight = torch.where(desirable.bool(), weights[0], weights[1]).to(policy)
    return weight * (1 - torch.sigmoid(eta * sign * (policy - reference - z0)))


def nll_loss(log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood a token: the NLL term of M-DPO on chosen trajectories, and RAFT's whole loss.

    One mean over all tokens of the batch, so a long trajectory weighs more than a short one.

    Args:
        log_probabilities: [N].
        tokens: scored tokens of each, [N].

    Returns:
        Scalar.
    """
    return -log_probabilities.sum() / tokens.sum()


def different_prompts(prompts: Sequence[Hashable]) -> list[int]:
    """For each trajectory of a batch another one, of a different prompt; every one is used exactly once.

    The KL term of KTO needs answers that do not belong to their prompt. TRL shifts the batch by one, which in a batch with
    both answers of a prompt pairs a prompt with its own other answer.

    Args:
        prompts: anything that tells prompts apart, length N.

    Returns:
        A permutation of 0..N-1 without a fixed prompt.

    Raises:
        ValueError: a prompt has more than half of the batch, so no such pairing exists.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(place)
    largest = max(map(len, groups.values()), default=0)
    if not prompts or 2 * largest > len(prompts):
        raise ValueError(
            f"KTO's KL term needs answers to different prompts, but {largest} of the {len(prompts)} trajectories in this "
            "batch share one prompt: use a larger batch, or batches with more prompts."
        )
    order = [place for members in groups.values() for place in members]
    partner = [0] * len(prompts)
    for rank, place in enumerate(order):
        partner[place] = order[(rank + largest) % len(order)]
    return partner
