"""The adaptive margin: term C of eq. (13), which a random tool adds to a trajectory's utility.

    C(tau) = sum_h [V(s_{h+1}) - E_{o ~ P(. | s_h, a_h)} V(s_h, a_h, o)]

is how lucky the policy was with its tool. The paper names it and leaves it out, since it is zero for an interpreter. Here V
is linear, V(s) = w . phi(s): phi(s) is the starting policy's last hidden state where the next turn begins, and the
expectation is a mean over K further answers of the tool. So C(tau) = w . c(tau), with one fixed vector c(tau) a trajectory
(`luck_features`), and w is learned along with the policy, from the same pairs (`TrajectoryDPOTrainer`).

**Paper:** eq. (13) and the remark after it; on tables: `mtdpo_lib.lessons.theory.fit_with_learned_v`.

See: notebook 01_theory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mtdpo_lib.chat.encoder import ChatFormat
from mtdpo_lib.chat.roles import Role
from mtdpo_lib.rollout.trajectory import Trajectory
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.sandbox.effects import disturb

OBSERVED = (Role.TOOL, Role.TEMPLATE)


def observations(trajectory: Trajectory) -> list[tuple[int, int]]:
    """Where each observation stands that a further turn follows: [start, end) with its template tokens."""
    spans, start = [], None
    for place, role in enumerate(trajectory.roles):
        if role in OBSERVED and start is None:
            start = place
        elif role == Role.ASSISTANT and start is not None:
            spans.append((start, place))
            start = None
    return spans


def ask_again(
    trajectories: Sequence[Trajectory], pool: SandboxPool, draws: int, noise: float, seed: int
) -> list[list[list[str]]]:
    """K more answers of the tool for every observation of every trajectory, [N][turns][K].

    Each trajectory's programs are run again in a new session. An answer to the same programs can differ only where the tool
    is random.

    Args:
        trajectories: with the programs they ran.
        pool: the tool.
        draws: K.
        noise: as the trajectories were sampled with (`RolloutSettings.tool_noise`).
        seed: of the noise.
    """
    answers = []
    for number, trajectory in enumerate(trajectories):
        turns = [turn for turn in trajectory.turns if turn.output is not None]
        with pool.session() as session:
            clean = [session.run(turn.code) for turn in turns]
        answers.append(
            [
                [disturb(result.text, noise, seed, "again", number, h, k) for k in range(draws)]
                if result.error is None
                else [result.text] * draws
                for h, result in enumerate(clean)
            ]
        )
    return answers


@torch.no_grad()
def luck_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Sequence[Trajectory],
    answers: Sequence[Sequence[Sequence[str]]],
    rows_at_once: int = 64,
) -> Tensor:
    """c(tau) of each trajectory, [N, D], in units of phi; exactly zero where every further answer is the one it saw.

    Args:
        model: the policy that training starts from; its last hidden states are phi.
        tokenizer: its own.
        trajectories: N of them.
        answers: from `ask_again`.
        rows_at_once: states in memory at a time.
    """
    chat = ChatFormat(tokenizer)
    states: list[list[int]] = []  # token ids up to where the next turn begins
    weights: list[tuple[int, float]] = []  # whose sum they enter, and with what weight
    for number, (trajectory, asked) in enumerate(zip(trajectories, answers, strict=True)):
        for (start, end), texts in zip(observations(trajectory), asked, strict=False):
            seen, head = trajectory.ids[:end], trajectory.ids[:start]
            others = [state for text in texts if (state := head + chat.tool(text).ids) != seen]
            if others:
                states += [seen, *others]
                share = 1 / len(texts)
                weights += [(number, share * len(others)), *[(number, -share)] * len(others)]
    features = _last_states(model.eval(), states, tokenizer.pad_token_id, rows_at_once)
    found = torch.zeros(len(trajectories), model.config.hidden_size)
    for (number, weight), feature in zip(weights, features, strict=True):
        found[number] += weight * feature
    return found


def _last_states(
    model: PreTrainedModel, states: Sequence[Sequence[int]], pad: int, rows_at_once: int
) -> list[Tensor]:
    """The last hidden state at the last token of each row, [D] each; equal rows are computed once."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    different = sorted(set(map(tuple, states)), key=len)
    known: dict[tuple[int, ...], Tensor] = {}
    for first in range(0, len(different), rows_at_once):
        rows = different[first : first + rows_at_once]
        width = len(rows[-1])
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=base.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=base.device)
        hidden = base.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for place, row in enumerate(rows):
            known[row] = hidden[place, len(row) - 1].float().cpu()
    return [known[tuple(state)] for state in states]
