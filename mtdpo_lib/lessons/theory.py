"""The theory on worlds small enough to solve exactly: a tool-using policy as tables, in float64.

A state is the whole history, s_{h+1} = (s_h, a_h, o_h), so the world is a tree and every array unfolds the one before it.
Shape letters: X prompts, H turns, S_h histories at turn h (S_1 = 1, S_{h+1} = S_h A O), A actions, O observations, and
N = S_H A trajectories of a prompt, in the order of the last table flattened. A `Tables` holds one tensor for each turn.
Logarithms are natural; utilities and values share a unit, and so does eta.

**Paper:** sections 1.1 to 2.4 of arXiv 2409.02392v2. See: the notebook on the exact theory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product

import numpy as np
import torch
from scipy import optimize
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

Tables = tuple[Tensor, ...]
Expectation = Callable[[Tensor, Tensor], Tensor]  # from P_h and V_{h+1} to its mean given (s_h, a_h)
Value = Callable[[int, Tensor], Tensor]  # from the index of a turn and its Q_h to V_h
Loss = Callable[[Tables], Tensor]
Margin = Tensor | float  # of each trajectory, [X, N], or the same for all


@dataclass(frozen=True)
class ToolProcess:
    """A finite multi-turn decision process with a tool, eq. (1) and section 1.1.

    Attributes:
        first: d_0, the probability of each prompt, shape [X].
        tool: P_h(o | s, a) for h = 1 .. H-1, each of shape [X, S_h, A, O].
        utility: u(s_H, a_H), shape [X, S_H, A].
    """

    first: Tensor
    tool: Tables
    utility: Tensor

    def __post_init__(self) -> None:
        if any(((table < 0).any() or (table.sum(-1) - 1).abs().max() > 1e-9) for table in self.tool):
            raise ValueError("Each row P_h(. | s, a) of the tool must be a distribution over observations.")
        if abs(self.first.sum() - 1) > 1e-9:
            raise ValueError(f"Prompt probabilities must add up to 1, got {float(self.first.sum())}.")
        states = [*(table.shape[1] for table in self.tool), self.utility.shape[1]]
        if states != [(self.actions * self.observations) ** h for h in range(self.horizon)]:
            raise ValueError(
                f"States are histories, so turn h needs (A O)^(h-1) of them; got {states} over the turns."
            )

    @property
    def horizon(self) -> int:
        return len(self.tool) + 1

    @property
    def actions(self) -> int:
        return self.utility.shape[2]

    @property
    def observations(self) -> int:
        return self.tool[0].shape[3] if self.tool else 1

    @property
    def trajectories(self) -> int:
        """N, the trajectories of one prompt."""
        return self.utility.shape[1] * self.actions


def random_process(
    seed: int,
    randomness: float = 1.0,
    horizon: int = 3,
    actions: int = 3,
    observations: int = 2,
    prompts: int = 2,
    scale: float = 1.0,
) -> ToolProcess:
    """A process with utilities uniform on [0, scale] and a tool between deterministic and noisy.

    Args:
        seed: of everything drawn. The same seed gives the same utilities and answers at every `randomness`.
        randomness: epsilon in P = (1 - epsilon) [one answer] + epsilon [a distribution drawn uniformly]; 0 is an
            interpreter, whose answer is fixed by the history.
        horizon, actions, observations, prompts: H, A, O, X.
        scale: B, the largest utility.
    """
    rng = np.random.default_rng(seed)
    first = rng.dirichlet(np.full(prompts, 5.0))
    tool = []
    for h in range(horizon - 1):
        shape = (prompts, (actions * observations) ** h, actions)
        answer = np.eye(observations)[rng.integers(0, observations, shape)]
        noise = rng.dirichlet(np.ones(observations), shape)
        tool.append(torch.tensor((1 - randomness) * answer + randomness * noise))
    utility = rng.uniform(0, scale, (prompts, (actions * observations) ** (horizon - 1), actions))
    return ToolProcess(torch.tensor(first), tuple(tool), torch.tensor(utility))


def gamble_process(jackpot: float, mean: float = 0.5, sure: float = 0.5) -> ToolProcess:
    """One decision: a sure utility (action 0), or a tool that pays `jackpot` so rarely that its mean is `mean` (action 1).

    H = 2, A = 2, O = 2 and one prompt; observation 0 is "paid". The last action changes nothing.

    Args:
        jackpot: the prize, at least `mean`.
        mean: expected utility of the gamble.
        sure: utility of the other action.
    """
    paid = mean / jackpot
    tool = torch.tensor([[[[1.0, 0.0], [paid, 1 - paid]]]], dtype=torch.float64)
    by_state = torch.tensor([sure, sure, jackpot, 0.0], dtype=torch.float64)
    utility = by_state[None, :, None].expand(1, 4, 2).clone()
    return ToolProcess(torch.ones(1, dtype=torch.float64), (tool,), utility)


def rare_jumps_process(horizon: int = 3, rare: float = 0.0624, growth: float = 100.0) -> ToolProcess:
    """A world in which |C| > 4 (sum sigma_h^2)^{1/2} happens with probability 1 - (1 - rare)^{H-1}.

    Each turn the tool answers "up", "down" (probability `rare` / 2 each) or "nothing". The first answer that is not
    "nothing" fixes the utility, up or down by an amount that grows `growth`-fold every turn, and ends all chance. Up to
    then every turn is a new draw whose own standard deviation is less than a quarter of its jump. A = 1: no choice at all.
    """
    tool, changes, live = [], torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.bool)
    for h in range(horizon - 1):
        chance = torch.tensor([rare / 2, rare / 2, 1 - rare], dtype=torch.float64)
        settled = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        tool.append(torch.where(live[:, None], chance, settled)[None, :, None, :])
        jump = growth ** (h + 2.0 - horizon) * torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
        changes = (changes[:, None] + live[:, None] * jump).flatten()
        live = (live[:, None] & torch.tensor([False, False, True])).flatten()
    return ToolProcess(torch.ones(1, dtype=torch.float64), tuple(tool), (1 + changes)[None, :, None])


def random_policy(process: ToolProcess, seed: int, spread: float = 1.0) -> Tables:
    """Log-probabilities log pi_h(a | s), each of shape [X, S_h, A]: softmax of normal logits with deviation `spread`."""
    rng = np.random.default_rng(seed)
    shapes = [*(table.shape[:3] for table in process.tool), process.utility.shape]
    return tuple(torch.tensor(spread * rng.standard_normal(shape)).log_softmax(-1) for shape in shapes)


# --- the optimum -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Optimum:
    """Q_h [X, S_h, A], V_h [X, S_h] and log pi_h [X, S_h, A] for h = 1 .. H, eq. (6) to (9)."""

    q: Tables
    v: Tables
    policy: Tables


def optimum(process: ToolProcess, reference: Tables, eta: float) -> Optimum:
    """The KL-regularised optimum by H backward steps.

    **Paper:** Proposition 1, eq. (6) to (9): Q_H = u, Q_h = E_o V_{h+1}, V_h = eta log E_{a ~ pi_ref} exp(Q_h / eta) and
    pi_h = pi_ref,h exp((Q_h - V_h) / eta).

    Args:
        process: the world.
        reference: log pi_ref, one [X, S_h, A] per turn.
        eta: KL coefficient, in the unit of the utility.
    """
    return _gibbs(process.utility, process.tool, reference, eta, expected_next)


def _gibbs(utility: Tensor, tool: Tables, reference: Tables, eta: float, expect: Expectation) -> Optimum:
    def v_of(h: int, q: Tensor) -> Tensor:
        return eta * (reference[h] + q / eta).logsumexp(-1)  # (8)

    q, v = _backward(utility, tool, v_of, expect)
    policy = (old + (value - top[..., None]) / eta for old, value, top in zip(reference, q, v))  # (6), (9)
    return Optimum(q, v, tuple(policy))


def expected_next(tool: Tensor, next_value: Tensor) -> Tensor:
    """E_{o ~ P_h(. | s, a)} V_{h+1}(s, a, o): from [X, S_h, A, O] and [X, S_{h+1}] to [X, S_h, A]."""
    return (tool * next_value.reshape(tool.shape)).sum(-1)


def _backward(utility: Tensor, tool: Tables, value: Value, expect: Expectation) -> tuple[Tables, Tables]:
    """Q_h and V_h of all turns from the last one back: Q_H = u, V_h = value(h, Q_h), Q_h = expect(P_h, V_{h+1})."""
    q, v = [utility], [value(len(tool), utility)]
    for h in reversed(range(len(tool))):
        q.insert(0, expect(tool[h], v[0]))
        v.insert(0, value(h, q[0]))
    return tuple(q), tuple(v)


def objective(process: ToolProcess, policy: Tables, reference: Tables | None = None, eta: float = 0) -> float:
    """J(pi; M, pi_ref) of eq. (5), exactly; without a reference the plain expected utility E[u]."""

    def value(h: int, q: Tensor) -> Tensor:
        price = 0.0 if reference is None else eta * (policy[h] - reference[h])
        return (policy[h].exp() * (q - price)).sum(-1)

    _, v = _backward(process.utility, process.tool, value, expected_next)
    return float((process.first * v[0][:, 0]).sum())


# --- trajectories ------------------------------------------------------------------------------------------------------


def over_turns(process: ToolProcess, tables: Sequence[Tensor]) -> Tensor:
    """Sum of f_h along each trajectory, [X, N]: f_h(s_h, a_h) from [X, S_h, A], or with o_h too, from [X, S_h, A, O]."""
    total = torch.zeros_like(process.utility.flatten(1))
    for table in tables:
        flat = table.flatten(1)[..., None]
        total = total + flat.expand(-1, -1, process.trajectories // flat.shape[1]).flatten(1)
    return total


def trajectory_probability(process: ToolProcess, policy: Tables) -> Tensor:
    """P(tau | x) under `policy` and the tool, [X, N]; each row adds up to 1."""
    return (over_turns(process, policy) + over_turns(process, [table.log() for table in process.tool])).exp()


def total_variation(process: ToolProcess, policy: Tables, other: Tables) -> float:
    """Total variation between the trajectories of two policies, mean over prompts: 0 the same, 1 disjoint."""
    difference = trajectory_probability(process, policy) - trajectory_probability(process, other)
    return float((process.first * difference.abs().sum(-1)).sum() / 2)


def trajectory_kl(process: ToolProcess, policy: Tables, reference: Tables) -> Tensor:
    """E sum_h KL(pi_h || pi_ref,h) in nats; a scalar that can be differentiated."""
    ratio = implicit_utility(process, policy, reference, eta=1.0)
    return (process.first[:, None] * trajectory_probability(process, policy) * ratio).sum()


# --- the identity (13) -------------------------------------------------------------------------------------------------


def implicit_utility(process: ToolProcess, policy: Tables, reference: Tables, eta: float) -> Tensor:
    """Term A of eq. (13) for any policy: eta sum_h log pi_h / pi_ref,h (a_h | s_h), [X, N].

    The paper prints (11) and (12) without the factor eta in front of the logarithm; (13) has it and the algebra needs it.
    """
    return eta * over_turns(process, [own - other for own, other in zip(policy, reference)])


def term_c(process: ToolProcess, v: Sequence[Tensor], tool: Tables = ()) -> Tensor:
    """Term C of eq. (13): sum_{h<H} V_{h+1}(s_{h+1}) - E_{o_h} V_{h+1}(s_{h+1}), [X, N].

    Args:
        process: the world.
        v: V_h [X, S_h] of all turns, exact or estimated; the first is not used.
        tool: the distribution to take the mean under; the true one when missing.
    """
    return over_turns(process, [_surprise(*pair) for pair in zip(tool or process.tool, v[1:])])


def _surprise(tool: Tensor, next_value: Tensor) -> Tensor:
    """V_{h+1}(s_{h+1}) minus its mean over o_h, [X, S_h, A, O]."""
    value = next_value.reshape(tool.shape)
    return value - (tool * value).sum(-1, keepdim=True)


def identity_terms(process: ToolProcess, reference: Tables, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """A, B and C of eq. (13) at the optimum, each [X, N]; their sum is u."""
    best = optimum(process, reference, eta)
    a = implicit_utility(process, best.policy, reference, eta)
    return a, best.v[0].expand_as(a), term_c(process, best.v)


def conditional_variance(process: ToolProcess, v: Sequence[Tensor]) -> Tensor:
    """sum_{h<H} sigma_h^2 along each trajectory, sigma_h^2 the variance of V_{h+1} given (s_h, a_h), [X, N].

    **Paper:** the bound |C| <= 4 (sum_h sigma_h^2)^{1/2} after eq. (13).
    """
    variances = (
        (table * _surprise(table, value) ** 2).sum(-1, keepdim=True).expand(table.shape)
        for table, value in zip(process.tool, v[1:])
    )
    return over_turns(process, tuple(variances))


# --- preferences -------------------------------------------------------------------------------------------------------


def preferences(process: ToolProcess, first: Tables, second: Tables) -> Tensor:
    """Exact Bradley-Terry preferences of pairs with one trajectory from each of two policies.

    **Paper:** eq. (1), and the two agents of Algorithm 1.

    Returns:
        W[x, i, j], the probability that prompt x comes up, trajectories i and j of it are compared, and i wins; [X, N, N],
        adding up to 1.
    """
    ours, theirs = (trajectory_probability(process, policy) for policy in (first, second))
    utility = process.utility.flatten(1)
    wins = (utility[:, :, None] - utility[:, None, :]).sigmoid()  # (1)
    compared = ours[:, :, None] * theirs[:, None, :] + theirs[:, :, None] * ours[:, None, :]
    return process.first[:, None, None] * compared * wins


def sampled(weights: Tensor, n: int, seed: int) -> Tensor:
    """The same with n pairs drawn: frequencies in place of probabilities."""
    return _frequencies(weights.flatten(), n, seed).reshape(weights.shape)


def _frequencies(probability: Tensor, draws: int, seed: int | np.random.Generator) -> Tensor:
    """How often each entry of the last axis comes up in `draws` draws."""
    rows = probability.numpy()
    counts = np.random.default_rng(seed).multinomial(draws, rows / rows.sum(-1, keepdims=True))
    return torch.tensor(counts / draws)


def preference_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """-sum_{i,j} W_ij log sigma(score_i - score_j), a scalar.

    With `implicit_utility` as the score this is M-DPO, eq. (14). Adding `term_c` gives M-DPO with an adaptive margin; adding
    eta log P_theta / P_ref of the observations gives the single-turn loss.

    Args:
        scores: of each trajectory, [X, N].
        weights: how often i is preferred to j, [X, N, N], from `preferences` or `sampled`.
    """
    return -(weights * logsigmoid(scores[:, :, None] - scores[:, None, :])).sum()


def kto_loss(scores: Tensor, weights: Tensor, baseline: Tensor | float, printed_eta: float = 1.0) -> Tensor:
    """M-KTO with lambda_+ = lambda_- = 1: winners are desirable and losers undesirable, half each.

    **Paper:** eq. (15). As printed, eta multiplies a score that already holds it; the authors' code applies it once, and
    so do we (`printed_eta` = 1).

    Args:
        scores: implicit utilities, [X, N].
        weights: of the pairs whose two sides are taken apart, [X, N, N].
        baseline: z_0, in the unit of the scores; it gets no gradient.
        printed_eta: the outer eta of the printed formula.
    """
    centred = printed_eta * (scores - torch.as_tensor(baseline).detach())
    desirable, undesirable = weights.sum(2) / 2, weights.sum(1) / 2
    return (desirable * (1 - centred.sigmoid()) + undesirable * (1 - (-centred).sigmoid())).sum()


def minimise(loss: Loss, start: Sequence[Tensor], tolerance: float = 1e-9) -> tuple[Tables, float]:
    """L-BFGS on tables that `loss` takes in the shapes of `start`, until no gradient entry is above `tolerance`.

    Returns:
        The tables where it ended, and the largest entry of the gradient there.
    """
    shapes = [table.shape for table in start]
    sizes = [table.numel() for table in start]

    def unpack(vector: Tensor) -> Tables:
        return tuple(part.reshape(shape) for part, shape in zip(vector.split(sizes), shapes))

    def value_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(vector, requires_grad=True)
        value = loss(unpack(parameters))
        (gradient,) = torch.autograd.grad(value, parameters)
        return float(value.detach()), gradient.numpy()

    found = optimize.minimize(
        value_and_gradient,
        torch.cat([table.flatten() for table in start]).numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 3000, "maxfun": 6000, "ftol": 0.0, "gtol": tolerance, "maxcor": 50},
    )
    return unpack(torch.tensor(found.x)), float(np.abs(found.jac).max())


def descend(loss: Loss, start: Tables, steps: int, keep: Sequence[int], rate: float = 0.02) -> list[Tables]:
    """Adam on logits, for losses that change as one moves (a detached baseline) and for looking at the way.

    Args:
        loss: of the logits.
        start: logits to begin with.
        steps: how many.
        keep: after which steps to keep log pi, ascending; 0 is the start.
        rate: learning rate.
    """
    logits = [table.clone().requires_grad_() for table in start]
    optimiser = torch.optim.Adam(logits, lr=rate)
    kept = []
    for step in range(steps + 1):
        if step in keep:
            kept.append(log_policy([table.detach() for table in logits]))
        optimiser.zero_grad()
        loss(tuple(logits)).backward()
        optimiser.step()
    return kept


def log_policy(logits: Sequence[Tensor]) -> Tables:
    """Softmax tables: logits [X, S_h, A] to log pi_h."""
    return tuple(table.log_softmax(-1) for table in logits)


def fit_mdpo(
    process: ToolProcess, weights: Tensor, reference: Tables, eta: float, margin: Margin = 0, **how: float
) -> Tables:
    """The policy that minimises M-DPO, eq. (14), from the reference on.

    Args:
        process: only its shape is used.
        weights: preferences [X, N, N], exact or sampled.
        reference: log pi_ref.
        eta: KL coefficient.
        margin: the adaptive margin, added to each trajectory's score: `term_c` with an exact or estimated V; 0 is plain
            M-DPO.
        how: `ridge`, the weight (default 0) of the squared distance of logits from the reference's: it keeps samples that
            order a few trajectories perfectly from pushing logits to infinity; and `tolerance` of `minimise` (default
            1e-9): samples need less than exact preferences.
    """
    return _fit(process, weights, reference, eta, (), lambda _: margin, **how)[0]


def _fit(
    process: ToolProcess,
    weights: Tensor,
    reference: Tables,
    eta: float,
    others: Sequence[Tensor],
    margin: Callable[[Tables], Margin],
    ridge: float = 0.0,
    tolerance: float = 1e-9,
) -> tuple[Tables, Tables]:
    """log pi_theta, and what becomes of `others`: tables that are learned along with it and give its score the `margin`."""
    start, turns = [*reference, *others], len(reference)

    def loss(tables: Tables) -> Tensor:
        score = implicit_utility(process, log_policy(tables[:turns]), reference, eta) + margin(tables[turns:])
        pull = sum(((table - home) ** 2).sum() for table, home in zip(tables, start)) if ridge else 0.0
        return preference_loss(score, weights) + ridge * pull

    found, _ = minimise(loss, start, tolerance)
    return log_policy(found[:turns]), found[turns:]


# --- the remedy: V estimated -------------------------------------------------------------------------------------------


def fit_with_learned_v(
    process: ToolProcess, weights: Tensor, reference: Tables, eta: float, tool: Tables = (), **how: float
) -> tuple[Tables, Tables]:
    """M-DPO whose margin holds a V that is learned along with the policy, from the same preferences.

    The score is A_theta + C_phi, with C_phi built by `term_c` from free tables V_phi. Taking the mean over o_h of both sides
    of (13), turn by turn from the last, shows that only pi_theta = pi* and C_phi = C reproduce u up to a constant: nothing
    but the tool's distribution must be known besides. No value of the optimum enters.

    Args:
        tool: the distribution that C_phi has mean zero under, exact or from `estimate_tool`; the true one when missing.
        process, weights, reference, eta, how: as in `fit_mdpo`; the ridge pulls V_phi to 0.

    Returns:
        log pi_theta, and V_phi [X, S_h] of each turn (that of turn 1 stays 0; each is defined up to a constant per (s, a)).
    """
    values = [torch.zeros(table.shape[:2], dtype=torch.float64) for table in reference]
    return _fit(process, weights, reference, eta, values, lambda v: term_c(process, v, tool), **how)


def estimate_tool(process: ToolProcess, counts: Tensor) -> Tables:
    """P_h(o | s, a) from how often each trajectory was seen, [X, N]; uniform where (s, a) never was."""
    estimates = []
    for table in process.tool:
        seen = counts.reshape(*table.shape, -1).sum(-1)
        total = seen.sum(-1, keepdim=True)
        uniform = torch.full_like(seen, 1 / process.observations)
        estimates.append(torch.where(total > 0, seen / total.clamp(min=1e-300), uniform))
    return tuple(estimates)


def asked_tool(process: ToolProcess, samples: int, seed: int | np.random.Generator) -> Tables:
    """P_h(o | s, a) from asking the tool K = `samples` times at each (s, a), [X, S_h, A, O]."""
    rng = np.random.default_rng(seed)
    return tuple(_frequencies(table, samples, rng) for table in process.tool)


def sampled_term_c(process: ToolProcess, reference: Tables, eta: float, samples: int, seed: int) -> Tensor:
    """Term C from an outside estimate of V: (7) to (9) with K draws in place of each expectation, [X, N].

    Every state gets K actions of the reference and every (s, a) K answers of the tool, and the backward recursion runs on
    their frequencies; utilities are seen without noise, as with a checker of the final answer. V is biased low by a term
    of order 1 / K (the logarithm of a mean), and the error of C falls as K^{-1/2}.

    Args:
        samples: K; the cost is K tool calls for each (s, a).
    """
    rng = np.random.default_rng(seed)
    empirical = replace(process, tool=asked_tool(process, samples, rng))
    policy = tuple(_frequencies(table.exp(), samples, rng).log() for table in reference)
    return term_c(empirical, optimum(empirical, policy, eta).v)


# --- scoring the observations: single-turn DPO -------------------------------------------------------------------------


def predicted_tool(process: ToolProcess, blur: float) -> Tables:
    """log P_ref(o | s, a): the tool's distribution mixed with a uniform one, as a reference model might predict it."""
    return tuple(((1 - blur) * table + blur / process.observations).log() for table in process.tool)


def fit_single_turn(
    process: ToolProcess, weights: Tensor, reference: Tables, predicted: Tables, eta: float, **how: float
) -> tuple[Tables, Tables]:
    """DPO that takes everything after the prompt for the policy's own, observations too: the single-turn baseline.

    Args:
        predicted: log P_ref(o | s, a) of the reference model, [X, S_h, A, O]; an answer it holds impossible stays so.
        process, weights, reference, eta, how: as in `fit_mdpo`.

    Returns:
        log pi_theta and log P_theta(o | s, a).
    """
    expected = tuple(table.clamp(min=-700.0) for table in predicted)

    def margin(observations: Tables) -> Tensor:
        return implicit_utility(process, log_policy(observations), expected, eta)

    own, observations = _fit(process, weights, reference, eta, expected, margin, **how)
    return own, log_policy(observations)


def wishful_optimum(process: ToolProcess, reference: Tables, predicted: Tables, eta: float) -> Optimum:
    """What single-turn DPO converges to on exact preferences: observations taken for actions of the policy.

    (7) becomes Q_h = eta log E_{o ~ P_ref} exp(V_{h+1} / eta). Where P_ref = P that is never less than the true mean, by
    about Var(V_{h+1}) / (2 eta): a wish in place of an expectation. With a deterministic tool that is predicted perfectly
    both are equal. (Observations that never happen leave the minimiser open: then this is one of many.)
    """

    def wish(table: Tensor, next_value: Tensor) -> Tensor:
        return eta * (table + next_value.reshape(table.shape) / eta).logsumexp(-1)

    return _gibbs(process.utility, predicted, reference, eta, wish)


# --- iterations --------------------------------------------------------------------------------------------------------


def mirror_descent(
    process: ToolProcess, start: Tables, eta: float, iterations: int, updated: bool
) -> list[Tables]:
    """Policies pi_0 .. pi_T of exact steps towards (16), reference kept at pi_0, or (17), reference moved to pi_{t-1}."""
    policies = [start]
    for _ in range(iterations):
        policies.append(optimum(process, policies[-1] if updated else start, eta).policy)
    return policies


def best_utility(process: ToolProcess) -> float:
    """max_pi E[u], without any regularisation."""
    return objective(process, best_policy(process))


def best_policy(process: ToolProcess) -> Tables:
    """The deterministic policy that attains `best_utility`, as log-probabilities (0 and -inf)."""
    q, _ = _backward(process.utility, process.tool, lambda _, q: q.amax(-1), expected_next)
    return tuple(one_hot(table.argmax(-1), process.actions).double().log() for table in q)


def mixture_preferences(process: ToolProcess, policies: Sequence[Tables], shares: Sequence[float]) -> Tensor:
    """Exact preferences of pairs whose sides come independently from a mixture of policies, [X, N, N]."""
    mixture = [*zip(shares, policies)]
    pairs = [p * q * preferences(process, one, two) for (p, one), (q, two) in product(mixture, repeat=2)]
    return torch.stack(pairs).sum(0)


def coverage_cost(
    process: ToolProcess, target: Tables, policies: Sequence[Tables], shares: Sequence[float]
) -> float:
    """E_{target}[ P_target(tau) / P_data(tau) ], 1 when the data come from the target, larger where they miss it.

    Args:
        target: the policy one wants to learn about, log pi.
        policies, shares: the mixture that gives the data.
    """
    wanted = trajectory_probability(process, target)
    parts = (share * trajectory_probability(process, policy) for policy, share in zip(policies, shares))
    data = reduce(torch.add, parts)
    ratio = torch.where(wanted > 0, wanted**2 / data.clamp(min=1e-300), torch.zeros_like(wanted))
    return float((process.first * ratio.sum(-1)).sum())
