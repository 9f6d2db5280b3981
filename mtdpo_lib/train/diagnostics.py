"""What a preference step did, beyond its loss: log-probabilities by turn and by role, and the distance to the reference.

Preference losses can raise the margin while the chosen answers become less likely; these numbers show where that happens:
in which turn, and in whose tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtdpo_lib.chat import Role

ROLE_NAMES = {role: role.name.lower() for role in (Role.ASSISTANT, Role.TOOL, Role.TEMPLATE)}


def turns(roles: Tensor) -> Tensor:
    """Number of the assistant turn each token belongs to, from 1; 0 for tokens of others. [N, T].

    >>> turns(torch.tensor([[Role.PROMPT, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT, Role.ASSISTANT]]))
    tensor([[0, 1, 0, 2, 2]])
    """
    own = roles == Role.ASSISTANT
    begins = own & ~torch.nn.functional.pad(own[:, :-1], (1, 0))
    return begins.cumsum(1) * own


def mean_sum(values: Tensor, chosen: Tensor) -> float | None:
    """Sum of `values` over the `chosen` tokens of each row, averaged over rows that have one; None without."""
    rows = chosen.any(1)
    return (values * chosen).sum(1)[rows].mean().item() if rows.any() else None


def tool_gradient_share(log_probabilities: Tensor, roles: Tensor) -> float | None:
    """Share of the gradient that tool tokens would have if the loss scored them, as single-turn DPO does.

    Every token of a trajectory enters eq. (14) with the same factor, and moves the logits by a vector whose absolute entries
    sum to 2 (1 - p). The share is that of tool tokens in the sum over tool and assistant tokens: cheap, and exact for the
    gradient at the logits; what reaches the weights also depends on how the tokens' gradients add up.

    Args:
        log_probabilities: of assistant and tool tokens, [N, T].
        roles: [N, T].

    >>> roles = torch.tensor([[Role.ASSISTANT, Role.TOOL]])
    >>> round(tool_gradient_share(torch.tensor([[0.75, 0.25]]).log(), roles), 4)  # (1 - 0.25) of (1 - 0.75) + (1 - 0.25)
    0.75
    """
    pull = 1 - log_probabilities.exp()
    tool, own = (pull[roles == role].sum().item() for role in (Role.TOOL, Role.ASSISTANT))
    return tool / (tool + own) if tool + own > 0 else None


def step_diagnostics(
    policy: Tensor, reference: Tensor | None, scored: Tensor, roles: Tensor | None, right: Tensor
) -> dict[str, float]:
    """Numbers of one batch, for the log.

    Args:
        policy: log-probabilities of scored and watched tokens, [N, T - 1].
        reference: of scored tokens, [N, T - 1]; None when unknown.
        scored: what the loss looks at, [N, T - 1].
        roles: [N, T - 1]; None leaves out turns and roles.
        right: rows of chosen (desirable) trajectories, [N].

    Returns:
        Means over trajectories, in nats: ``logps/<side>/turn_<h>``, ``logps/<side>/<role>``; ``ratio/<side>``, the log-ratio
        to the reference; ``reference_kl``, an estimate of KL(pi_ref || pi) that is exact in expectation for trajectories
        sampled from the reference; ``tool_gradient_share``.

    >>> logps = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]])
    >>> right, scored = torch.tensor([True, False]), torch.ones(2, 2)
    >>> found = step_diagnostics(logps, torch.zeros(2, 2), scored, None, right)
    >>> found["ratio/chosen"], found["ratio/rejected"]
    (-3.0, -4.0)
    """
    found: dict[str, float | None] = {}
    if roles is not None:
        number = turns(roles)
        for side, rows in (("chosen", right), ("rejected", ~right)):
            for turn in range(1, int(number.max()) + 1):
                found[f"logps/{side}/turn_{turn}"] = mean_sum(policy[rows], number[rows] == turn)
            for role, name in ROLE_NAMES.items():
                found[f"logps/{side}/{name}"] = mean_sum(policy[rows], roles[rows] == role)
        found["tool_gradient_share"] = tool_gradient_share(policy, roles)
    if reference is not None:
        ratio = (policy - reference) * scored
        for side, rows in (("chosen", right), ("rejected", ~right)):
            found[f"ratio/{side}"] = ratio[rows].sum(1).mean().item() if rows.any() else None
        found["reference_kl"] = (ratio.clamp(max=20).exp() - 1 - ratio).sum(1).mean().item()
    return {name: value for name, value in found.items() if value is not None}
