"""First steps of RAFT and M-DPO on tables: against brute force, and against the derivation."""

import pytest
import torch

from mtdpo_lib.lessons.first_step import first_steps, scores
from mtdpo_lib.lessons.theory import (
    log_policy,
    over_turns,
    random_policy,
    random_process,
    trajectory_probability,
)

ETA = 0.3


def world(seed):
    process = random_process(seed, prompts=1)
    logits = [table.clone() for table in random_policy(process, seed)]
    right = torch.rand(process.trajectories, generator=torch.Generator().manual_seed(seed)) < 0.4
    return process, logits, right


@pytest.mark.parametrize("seed", range(4))
def test_both_go_the_same_way_on_the_policys_own_samples(seed):
    process, logits, right = world(seed)
    raft, mdpo, p = first_steps(process, logits, right, ETA)
    torch.testing.assert_close(mdpo.mean, ETA / 2 / (1 - p) * raft.mean)


@pytest.mark.parametrize("seed", range(4))
def test_rafts_step_is_the_gradient_of_log_p(seed):
    process, logits, right = world(seed)
    leaves = [table.clone().requires_grad_() for table in logits]
    trajectory_probability(process, log_policy(leaves))[0][right].sum().log().backward()
    raft, _, _ = first_steps(process, logits, right, ETA)
    torch.testing.assert_close(raft.mean, torch.cat([leaf.grad.flatten() for leaf in leaves]))


@pytest.mark.parametrize("seed", range(4))
def test_mdpos_step_is_that_of_eq_14_over_all_pairs(seed):
    process, logits, right = world(seed)
    leaves = [table.clone().requires_grad_() for table in logits]
    log_pi = over_turns(process, log_policy(leaves))[0]
    probability, reference = log_pi.detach().exp(), log_pi.detach()
    probability = trajectory_probability(process, log_policy(logits))[0]
    winners, losers = probability[right], probability[~right]
    weight = winners[:, None] / winners.sum() * losers[None] / losers.sum()
    ratio = ETA * (log_pi - reference)
    loss = -(weight * torch.nn.functional.logsigmoid(ratio[right][:, None] - ratio[~right][None])).sum()
    loss.backward()
    _, mdpo, _ = first_steps(process, logits, right, ETA)
    torch.testing.assert_close(mdpo.mean, -torch.cat([leaf.grad.flatten() for leaf in leaves]))


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_the_variance_of_samples(seed):
    process, logits, right = world(seed)
    raft, mdpo, _ = first_steps(process, logits, right, ETA)
    probability, score = trajectory_probability(process, log_policy(logits))[0], scores(process, logits)
    generator = torch.Generator().manual_seed(seed)
    won, lost = (
        score[side][torch.multinomial(probability[side], 40_000, True, generator=generator)]
        for side in (right, ~right)
    )
    assert won.var(0).sum() == pytest.approx(raft.noise, rel=0.05)
    assert (ETA / 2 * (won - lost)).var(0).sum() == pytest.approx(mdpo.noise, rel=0.05)


def test_signal_to_noise_gains_from_wrong_samples_as_predicted_when_both_sides_are_equally_noisy():
    process, logits, right = world(1)
    raft, mdpo, p = first_steps(process, logits, right, ETA)
    wrong_noise = mdpo.noise / (ETA / 2) ** 2 - raft.noise
    predicted = raft.noise / (raft.noise + wrong_noise) / (1 - p) ** 2
    assert mdpo.signal_to_noise / raft.signal_to_noise == pytest.approx(predicted)
