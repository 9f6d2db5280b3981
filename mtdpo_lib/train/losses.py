"""The losses of the paper as small functions of sequence log-probabilities.

These are the functions that notebook 06 writes by hand; the tests hold the two equal, and both equal to what TRL's trainers
compute. All log-probabilities are in nats, summed over the scored tokens of one trajectory. A batch of B pairs has 2B rows:
chosen trajectories first, then rejected ones in the same order, as `TrajectoryPairCollator` puts them.

**Paper:** eq. (14) and (15), sec. 2.3; NLL term and RAFT, sec. 3.

See: notebook 06_multi_turn_dpo.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mtdpo_lib.chat import Role, loss_mask

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

    >>> roles = [Role.PROMPT, Role.ASSISTANT, Role.TOOL, Role.TEMPLATE, Role.ASSISTANT]
    >>> scored_tokens(roles, "mdpo")
    [0, 1, 0, 0, 1]
    >>> scored_tokens(roles, "dpo")
    [0, 1, 1, 1, 1]
    """
    if method not in METHODS:
        raise ValueError(f"The method is one of {', '.join(METHODS)}; got {method!r}.")
    own_tokens_only = METHODS[method][1]
    return loss_mask(roles) if own_tokens_only else [int(role != Role.PROMPT) for role in roles]


def sequence_logps(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """log pi(a_1, ..., a_H | x, o) of each row in nats, summed over scored tokens.

    A token is predicted from those before it, so logits and tokens are shifted by one.

    Args:
        model: a causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``completion_mask`` (1 where the loss looks), each [N, T].

    Returns:
        [N].

    >>> from mtdpo_lib.models.tiny import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles.overrides import get_profile
    >>> tokenizer = train_tokenizer(["print(6 * 7)"], 300)
    >>> model = tiny_model(get_profile("smoke").model, tokenizer, 64, seed=0).eval()
    >>> ids = torch.tensor([[7, 8, 9, 10]])
    >>> batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    >>> parts = [torch.tensor([mask]) for mask in ([0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1])]
    >>> whole, first, rest = (sequence_logps(model, {**batch, "completion_mask": mask}) for mask in parts)
    >>> bool(whole < 0) and torch.allclose(whole, first + rest)
    True
    """
    logits = (
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
    )
    logps = logits.log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    return (logps * batch["completion_mask"][:, 1:]).sum(-1)


def mdpo_loss(policy_logps: Tensor, reference_logps: Tensor, eta: float) -> Tensor:
    """Eq. (14), mean over B pairs; single-turn DPO when the log-probabilities include the tool's tokens.

    Args:
        policy_logps, reference_logps: log pi and log pi_ref of chosen, then of rejected trajectories, [2B].
        eta: KL coefficient (TRL's ``beta``).

    Returns:
        Scalar.

    >>> reference = torch.tensor([-3.0, -4.0])
    >>> f"{mdpo_loss(reference, reference, eta=0.5):.4f}"  # log 2, whatever the pair
    '0.6931'
    >>> f"{mdpo_loss(torch.tensor([-2.0, -6.0]), reference, eta=0.5):.4f}"  # -log sigmoid(0.5 * (1 - (-2)))
    '0.2014'
    """
    chosen, rejected = (policy_logps - reference_logps).chunk(2)
    return -F.logsigmoid(eta * (chosen - rejected)).mean()


def kl_term(policy_logps: Tensor, reference_logps: Tensor) -> Tensor:
    """z_0 of eq. (15), estimated on answers to *other* prompts: mean log-ratio, at least zero, without gradient.

    Args:
        policy_logps, reference_logps: of mismatched trajectories (`different_prompts`), [N].

    Returns:
        Scalar.

    >>> kl_term(torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -2.5]))
    tensor(0.7500)
    >>> kl_term(torch.tensor([-3.0]), torch.tensor([-2.0]))
    tensor(0.)
    """
    return (policy_logps - reference_logps).mean().clamp(min=0).detach()


def mkto_loss(policy_logps: Tensor, reference_logps: Tensor, z0: Tensor, eta: float) -> Tensor:
    """Eq. (15) with lambda = 1 for both verdicts, mean over 2B trajectories.

    The paper prints eta twice, in u and around it; its code, TRL and we use it once.

    Args:
        policy_logps, reference_logps: log pi and log pi_ref of right, then of wrong trajectories, [2B].
        z0: `kl_term`.
        eta: KL coefficient (TRL's ``beta``).

    Returns:
        Scalar.

    >>> reference = torch.tensor([-3.0, -4.0])
    >>> mkto_loss(reference, reference, kl_term(reference, reference), eta=0.5)
    tensor(0.5000)
    """
    right, wrong = (policy_logps - reference_logps).chunk(2)
    return 1 - torch.sigmoid(eta * torch.cat([right - z0, z0 - wrong])).mean()


def nll_loss(policy_logps: Tensor, tokens: Tensor) -> Tensor:
    """Negative log-likelihood per token: the NLL term of M-DPO on chosen trajectories, and RAFT's whole loss.

    One mean over all tokens of the batch, so a long trajectory weighs more than a short one.

    Args:
        policy_logps: log pi, [N].
        tokens: number of scored tokens of each trajectory, [N].

    Returns:
        Scalar.

    >>> nll_loss(torch.tensor([-6.0, -2.0]), torch.tensor([6, 1]))  # 8 nats over 7 tokens
    tensor(1.1429)
    """
    return -policy_logps.sum() / tokens.sum()


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

    >>> different_prompts(["a", "b", "a", "b"])  # the answers to "a" are given to "b", and the other way round
    [1, 0, 3, 2]
    """
    groups: dict[Hashable, list[int]] = {}
    for position, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(position)
    largest = max(map(len, groups.values()), default=0)
    if not prompts or 2 * largest > len(prompts):
        raise ValueError(
            f"KTO's KL term needs answers to different prompts, but {largest} of the {len(prompts)} trajectories in this "
            "batch share one prompt: use a larger batch, or batches with more prompts."
        )
    order = [position for members in groups.values() for position in members]
    partner = [0] * len(prompts)
    for rank, position in enumerate(order):
        partner[position] = order[(rank + largest) % len(order)]
    return partner
