"""The first step from a policy that trains on its own samples: where RAFT and M-DPO go, and how sure each is of the way.

On the policy's own samples E[grad log pi] = 0, so p E[grad log pi | right] + (1 - p) E[grad log pi | wrong] = 0, where p is
the probability of a right trajectory. Hence the expected step of RAFT on a prompt is grad log p, and that of M-DPO, whose
pairs weigh all alike at the reference, is (eta / 2) / (1 - p) times the same. What differs is the noise of a sample.

**Paper:** eq. (14) at pi = pi_ref, and RAFT, sec. 3; the comparison is ours. See: notebook 01_theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtdpo_lib.lessons.theory import ToolProcess, log_policy, over_turns, trajectory_probability


@dataclass(frozen=True)
class FirstStep:
    """What one sample (of RAFT: a right trajectory; of M-DPO: a pair) says of the way to go.

    Attributes:
        mean: the expected step, one number for each of the policy's parameters, [P].
        noise: the variance of a sample around it, summed over parameters.
    """

    mean: Tensor
    noise: float

    @property
    def signal_to_noise(self) -> float:
        """Squared length of the expected step over the noise."""
        return float(self.mean @ self.mean) / self.noise


def scores(process: ToolProcess, logits: Sequence[Tensor]) -> Tensor:
    """grad log pi of every trajectory of a process with one prompt, [N, P]; P counts the logits of all turns."""
    shapes = [table.shape for table in logits]

    def log_pi(flat: Tensor) -> Tensor:
        pieces = flat.split([shape.numel() for shape in shapes])
        tables = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return over_turns(process, log_policy(tables))[0]

    jacobian = torch.autograd.functional.jacobian(log_pi, torch.cat([table.flatten() for table in logits]))
    assert isinstance(jacobian, Tensor)
    return jacobian


def first_steps(
    process: ToolProcess, logits: Sequence[Tensor], right: Tensor, eta: float
) -> tuple[FirstStep, FirstStep, float]:
    """Exact first steps from a tabular policy on a process with one prompt.

    Args:
        process: the process; its utilities are not read.
        logits: of the policy, which is the reference too.
        right: which trajectories are right, [N].
        eta: KL coefficient.

    Returns:
        RAFT's step, M-DPO's step, and p.
    """
    probability = trajectory_probability(process, log_policy(logits))[0]
    score, p = scores(process, logits), float(probability[right].sum())
    means, noises = [], []
    for side, share in ((right, p), (~right, 1 - p)):
        weights = probability[side] / share
        mean = weights @ score[side]
        means.append(mean)
        noises.append(float(weights @ (score[side] - mean).pow(2).sum(1)))
    half = eta / 2
    return (
        FirstStep(means[0], noises[0]),
        FirstStep(half * (means[0] - means[1]), half**2 * (noises[0] + noises[1])),
        p,
    )
