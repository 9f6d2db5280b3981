"""The exact theory: every statement of the notebook on 20 random processes or more, and each with an error that breaks it.

Oracles are independent of the library's tables: trajectories are walked one by one in plain Python, derivatives are
finite differences, optima are compared with what an optimiser finds that knows nothing of Proposition 1.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtdpo_lib.lessons import theory
from mtdpo_lib.results.stats import mean_interval

WORLDS = range(20)
ETA = 0.5
THREE_TURNS = {"horizon": 3, "actions": 3, "observations": 2}
SMALL = {"horizon": 2, "actions": 3, "observations": 2}


def world(number, randomness=1.0, shape=SMALL):
    process = theory.random_process(number, randomness, scale=2.0, **shape)
    return process, theory.random_policy(process, 1000 + number)


def walk(process, policy, prompt):
    """(trajectory number, probability, visited (h, s, a, o)) of every trajectory, one step at a time."""

    def onwards(h, state, probability, visited):
        for action in range(process.actions):
            chosen = probability * math.exp(policy[h][prompt, state, action])
            if h == process.horizon - 1:
                yield state * process.actions + action, chosen, [*visited, (h, state, action, None)]
                continue
            for answer in range(process.observations):
                there = (state * process.actions + action) * process.observations + answer
                told = chosen * float(process.tool[h][prompt, state, action, answer])
                yield from onwards(h + 1, there, told, [*visited, (h, state, action, answer)])

    return list(onwards(0, 0, 1.0, []))


def utility_of(process, prompt, number):
    return float(process.utility[prompt].flatten()[number])


# --- the tables mean what they say -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [SMALL, THREE_TURNS, {"horizon": 1}, {"horizon": 4, "actions": 2}])
def test_trajectories_sums_and_objective_equal_a_walk_through_the_tree(shape):
    process, reference = world(3, shape=shape)
    policy = theory.random_policy(process, 5)
    ratio = [new - old for new, old in zip(policy, reference)]
    probability = theory.trajectory_probability(process, policy)
    summed, objective = theory.over_turns(process, ratio), 0.0
    for prompt in range(2):
        for number, chance, visited in walk(process, policy, prompt):
            along = sum(float(ratio[h][prompt, s, a]) for h, s, a, _ in visited)
            assert float(probability[prompt, number]) == pytest.approx(chance, abs=1e-14)
            assert float(summed[prompt, number]) == pytest.approx(along, abs=1e-12)
            objective += (
                float(process.first[prompt]) * chance * (utility_of(process, prompt, number) - ETA * along)
            )
    assert theory.objective(process, policy, reference, ETA) == pytest.approx(objective, abs=1e-12)
    assert probability.sum(-1).tolist() == pytest.approx([1, 1])


def test_preferences_and_losses_equal_plain_loops_over_pairs():
    process, reference = world(4)
    first, second, policy = (theory.random_policy(process, seed) for seed in (1, 2, 3))
    weights = theory.preferences(process, first, second)
    assert float(weights.sum()) == pytest.approx(1)
    scores = theory.implicit_utility(process, policy, reference, ETA)
    dpo = kto = 0.0
    for prompt in range(2):
        ours = {number: chance for number, chance, _ in walk(process, first, prompt)}
        for other, chance, _ in walk(process, second, prompt):
            for own, own_chance in ours.items():
                compared = float(process.first[prompt]) * own_chance * chance
                for winner, loser in ((own, other), (other, own)):
                    gap = utility_of(process, prompt, winner) - utility_of(process, prompt, loser)
                    wins = compared / (1 + math.exp(-gap))
                    margin = float(scores[prompt, winner] - scores[prompt, loser])
                    dpo += wins * math.log1p(math.exp(-margin))
                    kto += wins / 2 * (1 - 1 / (1 + math.exp(0.3 - float(scores[prompt, winner]))))
                    kto += wins / 2 * (1 - 1 / (1 + math.exp(float(scores[prompt, loser]) - 0.3)))
    assert float(theory.preference_loss(scores, weights)) == pytest.approx(dpo, abs=1e-10)
    assert float(theory.kto_loss(scores, weights, 0.3)) == pytest.approx(kto, abs=1e-10)
    printed = theory.kto_loss(scores, weights, 0.3, printed_eta=ETA)
    assert abs(float(printed) - kto) > 1e-5, "the misprint of (15), eta twice, is another loss"


@pytest.mark.parametrize("name", ["mdpo", "mkto"])
def test_gradients_equal_finite_differences(name):
    process, reference = world(6)
    weights = theory.preferences(process, reference, reference)
    fixed_baseline = 0.1  # z_0 gets no gradient

    def loss(logits):
        scores = theory.implicit_utility(process, theory.log_policy(logits), reference, ETA)
        if name == "mdpo":
            return theory.preference_loss(scores, weights)
        return theory.kto_loss(scores, weights, fixed_baseline)

    logits = [table.clone().requires_grad_() for table in theory.random_policy(process, 8)]
    gradients = torch.autograd.grad(loss(logits), logits)
    for turn, place in ((0, (0, 0, 1)), (1, (1, 4, 2)), (1, (0, 0, 0))):
        ends = []
        for push in (1e-5, -1e-5):
            moved = [table.detach().clone() for table in logits]
            moved[turn][place] += push
            ends.append(float(loss(moved)))
        assert float(gradients[turn][place]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-9)


def test_the_baseline_of_m_kto_gets_no_gradient():
    process, reference = world(6)
    baseline = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    scores = theory.implicit_utility(process, reference, reference, ETA).requires_grad_()
    theory.kto_loss(scores, theory.preferences(process, reference, reference), baseline).backward()
    assert scores.grad is not None and baseline.grad is None


def test_a_process_refuses_what_is_none():
    process, _ = world(0)
    with pytest.raises(ValueError, match="distribution over observations"):
        replace(process, tool=(process.tool[0] * 2,))
    with pytest.raises(ValueError, match="add up to 1"):
        replace(process, first=process.first * 2)
    with pytest.raises(ValueError, match="States are histories"):
        replace(process, utility=process.utility[:, :3])


def test_sampled_preferences_and_the_estimated_tool_approach_the_exact_ones():
    process, reference = world(2)
    exact = theory.preferences(process, reference, reference)
    drawn = theory.sampled(exact, 1_000_000, 0)
    assert float(drawn.sum()) == pytest.approx(1)
    assert float((drawn - exact).abs().sum()) < 0.03
    assert torch.equal(drawn, theory.sampled(exact, 1_000_000, 0))
    (estimate,) = theory.estimate_tool(process, drawn.sum(1) + drawn.sum(2))
    assert float((estimate - process.tool[0]).abs().max()) < 0.01
    nothing = theory.estimate_tool(process, torch.zeros(2, process.trajectories, dtype=torch.float64))
    assert (nothing[0] == 0.5).all()


# --- Proposition 1 -----------------------------------------------------------------------------------------------------


def recursion(process, reference, eta, error=""):
    """Proposition 1 once more, state by state in Python; `error` plants a mistake."""
    policies = [torch.empty_like(table) for table in reference]
    first_values = []
    for prompt in range(len(process.first)):
        later = None
        for h in reversed(range(process.horizon)):
            values = []
            for state in range(reference[h].shape[1]):
                q = []
                for action in range(process.actions):
                    if later is None:
                        q.append(float(process.utility[prompt, state, action]))
                        continue
                    begin = (state * process.actions + action) * process.observations
                    branch = later[begin : begin + process.observations]
                    chance = process.tool[h][prompt, state, action].tolist()
                    if error == "tool ignored":
                        chance = [1 / len(branch)] * len(branch)
                    if error == "best answer":
                        q.append(max(branch))
                    else:
                        q.append(sum(p * v for p, v in zip(chance, branch)))
                own = reference[h][prompt, state].exp().tolist()
                z = sum(p * math.exp(value / eta) for p, value in zip(own, q))
                value = sum(p * each for p, each in zip(own, q)) if error == "mean" else eta * math.log(z)
                values.append(value)
                scale = 1.0 if error == "no eta" else eta
                gibbs = torch.tensor(
                    [p * math.exp(each / scale) for p, each in zip(own, q)], dtype=torch.float64
                )
                policies[h][prompt, state] = (gibbs / gibbs.sum()).log()
            later = values
        first_values.append(later[0])
    return tuple(policies), float((process.first * torch.tensor(first_values, dtype=torch.float64)).sum())


@pytest.mark.parametrize("number", WORLDS)
def test_proposition_1_the_recursion_attains_the_value_it_promises(number):
    process, reference = world(number, shape=THREE_TURNS)
    best = theory.optimum(process, reference, ETA)
    policy, value = recursion(process, reference, ETA)
    assert max(float((a - b).abs().max()) for a, b in zip(policy, best.policy)) < 1e-10
    assert theory.objective(process, best.policy, reference, ETA) == pytest.approx(value, abs=1e-10)
    assert all(float((table.logsumexp(-1)).abs().max()) < 1e-12 for table in best.policy)


@pytest.mark.parametrize("error", ["tool ignored", "best answer", "mean", "no eta"])
def test_proposition_1_fails_with_a_planted_error(error):
    broken = 0
    for number in WORLDS:
        process, reference = world(number, shape=THREE_TURNS)
        top = theory.objective(process, theory.optimum(process, reference, ETA).policy, reference, ETA)
        policy, value = recursion(process, reference, ETA, error)
        attained = theory.objective(process, policy, reference, ETA)
        assert attained < top - 1e-9
        broken += abs(attained - value) > 1e-6
    assert broken == len(WORLDS)


def test_no_policy_is_better_than_the_optimum_and_blind_ascent_finds_it():
    for number in WORLDS:
        process, reference = world(number)
        best = theory.optimum(process, reference, ETA).policy
        top = theory.objective(process, best, reference, ETA)

        def downhill(logits, process=process, reference=reference):
            policy = theory.log_policy(logits)
            gained = (theory.trajectory_probability(process, policy) * process.utility.flatten(1)).sum(-1)
            return ETA * theory.trajectory_kl(process, policy, reference) - (process.first * gained).sum()

        found = theory.log_policy(theory.minimise(downhill, reference)[0])
        assert theory.total_variation(process, found, best) < 1e-6
        for seed in range(5):
            other = theory.random_policy(process, seed)
            assert theory.objective(process, other, reference, ETA) < top
    assert theory.total_variation(process, reference, best) > 0.01, "the distance can see a difference"


def test_eta_trades_utility_for_divergence():
    for number in WORLDS:
        process, reference = world(number, shape=THREE_TURNS)
        optima = [theory.optimum(process, reference, eta).policy for eta in (0.01, 0.1, 1.0, 10.0, 1000.0)]
        assert (np.diff([theory.objective(process, policy) for policy in optima]) < 0).all()
        assert (
            np.diff([float(theory.trajectory_kl(process, policy, reference)) for policy in optima]) < 0
        ).all()
        assert theory.objective(process, optima[0]) > theory.best_utility(process) - 0.1
        assert theory.total_variation(process, optima[-1], reference) < 0.01


# --- the identity (13) -------------------------------------------------------------------------------------------------


def left_over(process, reference, error=""):
    """Largest |u - A - B - C|, with a planted error."""
    a, b, c = theory.identity_terms(process, reference, ETA)
    if error == "eta missing, as printed in (11)":
        a = a / ETA
    if error == "C left out":
        c = torch.zeros_like(c)
    if error == "B of the other prompt":
        b = b.flip(0)
    if error == "C under a wrong tool":
        even = tuple(torch.full_like(table, 1 / process.observations) for table in process.tool)
        c = theory.term_c(process, theory.optimum(process, reference, ETA).v, even)
    if error == "V of another history":
        best = theory.optimum(process, reference, ETA)
        c = theory.term_c(process, (best.v[0], best.v[1], best.v[2].roll(1, dims=1)))
    return float((process.utility.flatten(1) - a - b - c).abs().max())


@pytest.mark.parametrize("number", WORLDS)
def test_the_identity_holds_on_every_trajectory(number):
    for randomness in (0.0, 0.3, 1.0):
        assert left_over(*world(number, randomness, THREE_TURNS)) < 1e-10


@pytest.mark.parametrize(
    "error",
    [
        "eta missing, as printed in (11)",
        "C left out",
        "B of the other prompt",
        "C under a wrong tool",
        "V of another history",
    ],
)
def test_the_identity_fails_with_a_planted_error(error):
    assert min(left_over(*world(number, 1.0, THREE_TURNS), error) for number in WORLDS) > 1e-4


def test_term_c_is_zero_with_a_deterministic_tool_and_has_mean_zero_with_any():
    for number in WORLDS:
        for randomness in (0.0, 1.0):
            process, reference = world(number, randomness, THREE_TURNS)
            c = theory.term_c(process, theory.optimum(process, reference, ETA).v)
            drawn = theory.trajectory_probability(process, theory.random_policy(process, number))
            assert float((drawn * c).sum(-1).abs().max()) < 1e-12
            assert (float(c[drawn > 0].abs().max()) < 1e-12) == (randomness == 0.0)


def test_term_c_can_be_zero_with_a_random_tool():
    for number in WORLDS:
        process, reference = world(number)
        ignore = [
            table.reshape(2, 3, 2, 3)[:, :, :1].expand(2, 3, 2, 3).reshape(table.shape)
            for table in (process.utility, reference[1])
        ]
        idle = replace(process, utility=ignore[0])
        assert float(theory.identity_terms(idle, (reference[0], ignore[1]), ETA)[2].abs().max()) < 1e-12
        assert float(theory.identity_terms(process, reference, ETA)[2].abs().max()) > 1e-2


def share_within(process, variance_of_history=True):
    reference = theory.random_policy(process, 0)
    best = theory.optimum(process, reference, ETA)
    c, variance = theory.term_c(process, best.v), theory.conditional_variance(process, best.v)
    drawn = process.first[:, None] * theory.trajectory_probability(process, best.policy)
    assert float((drawn * c**2).sum()) == pytest.approx(float((drawn * variance).sum()), rel=1e-9)
    bound = 4 * (variance if variance_of_history else (drawn * variance).sum()).sqrt()
    return float(drawn[(c.abs() <= bound + 1e-12)].sum())


def test_the_papers_bound_on_term_c_holds_in_random_worlds_and_by_chebyshev_with_two_turns():
    assert min(share_within(world(number, 1.0, THREE_TURNS)[0]) for number in WORLDS) >= 0.9
    for rare in np.linspace(0.01, 0.9, 30):
        assert share_within(theory.rare_jumps_process(2, float(rare))) >= 15 / 16


def test_the_papers_bound_on_term_c_can_fail_from_three_turns_on_but_not_with_mean_variances():
    for horizon in (3, 4, 6):
        process = theory.rare_jumps_process(horizon)
        assert share_within(process) == pytest.approx((1 - 0.0624) ** (horizon - 1))
        assert share_within(process) < 0.9
        assert share_within(process, variance_of_history=False) >= 15 / 16


# --- M-DPO -------------------------------------------------------------------------------------------------------------


def mdpo_distance(process, reference, error=""):
    """Total variation between the minimum of M-DPO and the optimum, with a planted error."""
    weights = theory.preferences(process, reference, reference)
    eta = ETA
    if error == "winner and loser swapped":
        weights = weights.transpose(1, 2)
    if error == "eta doubled":
        eta = 2 * ETA
    if error == "labels flipped at 5 %":
        weights = 0.95 * weights + 0.05 * weights.transpose(1, 2)
    if error == "last turn not scored":

        def loss(logits):
            ratio = [new - old for new, old in zip(theory.log_policy(logits), reference)]
            ratio[-1] = torch.zeros_like(ratio[-1])
            return theory.preference_loss(eta * theory.over_turns(process, ratio), weights)

        fitted = theory.log_policy(theory.minimise(loss, reference)[0])
    elif error == "other reference":
        fitted = theory.fit_mdpo(process, weights, theory.random_policy(process, 77), eta)
    else:
        fitted = theory.fit_mdpo(process, weights, reference, eta)
    return theory.total_variation(process, fitted, theory.optimum(process, reference, ETA).policy)


@pytest.mark.parametrize("number", WORLDS)
def test_with_a_deterministic_tool_m_dpo_recovers_the_optimum(number):
    assert mdpo_distance(*world(number, 0.0)) < 1e-6
    assert mdpo_distance(*world(number, 0.0, {"horizon": 3, "actions": 2})) < 1e-6


@pytest.mark.parametrize(
    "error",
    [
        "winner and loser swapped",
        "eta doubled",
        "labels flipped at 5 %",
        "last turn not scored",
        "other reference",
    ],
)
def test_m_dpo_misses_the_optimum_with_a_planted_error(error):
    assert min(mdpo_distance(*world(number, 0.0), error) for number in WORLDS) > 1e-3


def test_pairs_of_different_prompts_do_not_cancel_b():
    """The planted error is in the data: any trajectory is compared with any other, whichever prompt it answers."""
    for number in WORLDS:
        process, reference = world(number, 0.0)
        target = theory.optimum(process, reference, ETA).policy
        utility = process.utility.flatten()
        drawn = (process.first[:, None] * theory.trajectory_probability(process, reference)).flatten()
        crossing = drawn[:, None] * drawn[None, :] * (utility[:, None] - utility[None, :]).sigmoid()

        def loss(logits, process=process, reference=reference, crossing=crossing):
            scores = theory.implicit_utility(process, theory.log_policy(logits), reference, ETA).flatten()
            return -(crossing * torch.nn.functional.logsigmoid(scores[:, None] - scores[None, :])).sum()

        fitted = theory.log_policy(theory.minimise(loss, reference)[0])
        assert theory.total_variation(process, fitted, target) > 1e-5


SIZES = (10_000, 100_000, 1_000_000)


def slope(randomness):
    """Slope of log error on log n with its interval, over the processes."""
    found = []
    for number in WORLDS:
        process, reference = world(number, randomness)
        exact = theory.preferences(process, reference, reference)
        target = theory.optimum(process, reference, ETA).policy
        errors = []
        for n in SIZES:
            pairs = theory.sampled(exact, n, number)
            fitted = theory.fit_mdpo(process, pairs, reference, ETA, ridge=0.01 / n, tolerance=1e-7)
            errors.append(theory.total_variation(process, fitted, target))
        found.append(np.polyfit(np.log(SIZES), np.log(errors), 1)[0])
    return mean_interval(found)


def test_with_samples_the_error_falls_as_one_over_root_n_and_with_a_random_tool_it_does_not():
    value, low, high = slope(0.0)
    assert abs(value + 0.5) < 0.05 and high - low < 0.2
    assert slope(1.0)[1] > -0.4, "the planted error: a bias that more samples do not remove"
    assert value < -0.4


# --- the random tool and its remedy ------------------------------------------------------------------------------------


def margin_distance(process, reference, kind):
    best = theory.optimum(process, reference, ETA)
    weights = theory.preferences(process, reference, reference)
    even = tuple(torch.full_like(table, 1 / process.observations) for table in process.tool)
    c = theory.term_c(process, best.v)
    margins = {
        "none": 0.0,
        "exact": c,
        "sign turned": -c,
        "doubled": 2 * c,
        "V without its mean": theory.over_turns(
            process, [v.reshape(t.shape) for v, t in zip(best.v[1:], process.tool)]
        ),
        "mean under a wrong tool": theory.term_c(process, best.v, even),
    }
    if kind == "learned":
        fitted, _ = theory.fit_with_learned_v(process, weights, reference, ETA)
    elif kind == "learned with a wrong tool":
        fitted, _ = theory.fit_with_learned_v(process, weights, reference, ETA, even)
    else:
        fitted = theory.fit_mdpo(process, weights, reference, ETA, margins[kind])
    return theory.total_variation(process, fitted, best.policy)


@pytest.mark.parametrize("number", WORLDS)
def test_a_random_tool_biases_m_dpo_and_the_margin_removes_it(number):
    process, reference = world(number)
    assert margin_distance(process, reference, "none") > 1e-4
    assert margin_distance(process, reference, "exact") < 1e-6
    assert margin_distance(process, reference, "learned") < 1e-6


def test_the_learned_margin_works_turn_by_turn_and_learns_the_true_term_c():
    for number in range(5):
        process, reference = world(number, 1.0, {"horizon": 3, "actions": 2})
        best = theory.optimum(process, reference, ETA)
        weights = theory.preferences(process, reference, reference)
        fitted, v = theory.fit_with_learned_v(process, weights, reference, ETA)
        assert theory.total_variation(process, fitted, best.policy) < 1e-6
        assert float((theory.term_c(process, v) - theory.term_c(process, best.v)).abs().max()) < 1e-2


@pytest.mark.parametrize(
    "error",
    ["sign turned", "doubled", "V without its mean", "mean under a wrong tool", "learned with a wrong tool"],
)
def test_a_wrong_margin_leaves_a_bias(error):
    distances = [margin_distance(*world(number), error) for number in WORLDS]
    assert min(distances) > 1e-4


def test_bias_grows_with_a_little_randomness_of_the_tool_and_stays_with_more():
    rows = [
        [mdpo_distance(*world(number, randomness)) for randomness in (0.0, 0.1, 0.5, 1.0)]
        for number in WORLDS
    ]
    none, little, half, full = np.mean(rows, axis=0)
    assert none < little < half and full > 0.9 * half  # these worlds' means at 0.5 and 1 are alike
    assert max(row[0] for row in rows) < 1e-6 < min(min(row[1:]) for row in rows)


def test_v_from_draws_approaches_the_exact_term_c_at_the_root_of_the_draws():
    errors = []
    for number in WORLDS:
        process, reference = world(number)
        c = theory.term_c(process, theory.optimum(process, reference, ETA).v)
        drawn = process.first[:, None] * theory.trajectory_probability(process, reference)
        errors.append(
            [
                float((drawn * (theory.sampled_term_c(process, reference, ETA, k, number) - c) ** 2).sum())
                ** 0.5
                for k in (16, 256, 4096)
            ]
        )
    low, middle, high = np.mean(errors, axis=0)
    assert low / middle == pytest.approx(4, rel=0.3) and middle / high == pytest.approx(4, rel=0.3)


def test_in_a_gamble_of_equal_means_only_the_margin_is_indifferent():
    process = theory.gamble_process(4.0)
    even = theory.random_policy(process, 0, spread=0.0)
    weights = theory.preferences(process, even, even)
    assert theory.best_utility(process) == pytest.approx(0.5)

    def gambles(policy):
        return float(policy[0].exp()[0, 0, 1])

    assert gambles(theory.optimum(process, even, 0.25).policy) == pytest.approx(0.5)
    assert gambles(theory.fit_with_learned_v(process, weights, even, 0.25)[0]) == pytest.approx(0.5, abs=1e-6)
    assert gambles(theory.fit_mdpo(process, weights, even, 0.25)) < 0.4
    scored, _ = theory.fit_single_turn(process, weights, even, theory.predicted_tool(process, 0.0), 0.25)
    assert gambles(scored) > 0.9


# --- scoring the observations ------------------------------------------------------------------------------------------


def test_single_turn_dpo_converges_to_the_wishful_optimum():
    for number in WORLDS:
        process, reference = world(number)
        weights = theory.preferences(process, reference, reference)
        predicted = theory.predicted_tool(process, 0.5 * (number % 2))
        fitted, told = theory.fit_single_turn(process, weights, reference, predicted, ETA)
        wish = theory.wishful_optimum(process, reference, predicted, ETA)
        target = theory.optimum(process, reference, ETA)
        assert theory.total_variation(process, fitted, wish.policy) < 1e-6
        assert theory.total_variation(process, fitted, target.policy) > 1e-4, "which is not the optimum"
        assert float((told[0].exp().sum(-1) - 1).abs().max()) < 1e-12
        if not number % 2:
            assert float((wish.q[0] - target.q[0]).min()) > 0, "a wish is never below the expectation"


def test_with_an_interpreter_scoring_is_harmless_only_when_its_answers_are_foreseen():
    for number in WORLDS:
        process, reference = world(number, 0.0)
        weights = theory.preferences(process, reference, reference)
        target = theory.optimum(process, reference, ETA).policy
        distances = [
            theory.total_variation(
                process,
                theory.fit_single_turn(
                    process, weights, reference, theory.predicted_tool(process, blur), ETA
                )[0],
                target,
            )
            for blur in (0.0, 0.5)
        ]
        assert distances[0] < 1e-6 and distances[1] > 1e-4


# --- M-KTO -------------------------------------------------------------------------------------------------------------


def test_m_kto_does_not_end_at_the_optimum_where_m_dpo_does():
    for number in range(3):
        process, reference = world(number, 0.0)
        target = theory.optimum(process, reference, ETA).policy
        weights = theory.preferences(process, reference, reference)
        ends = {}
        for name in ("mdpo", "mkto"):

            def loss(logits, name=name, process=process, reference=reference, weights=weights):
                policy = theory.log_policy(logits)
                scores = theory.implicit_utility(process, policy, reference, ETA)
                if name == "mdpo":
                    return theory.preference_loss(scores, weights)
                return theory.kto_loss(
                    scores, weights, ETA * theory.trajectory_kl(process, policy, reference)
                )

            start, end = theory.descend(loss, reference, 400, (0, 400), rate=0.05)
            assert theory.total_variation(process, start, reference) < 1e-12
            ends[name] = theory.total_variation(process, end, target)
        assert ends["mdpo"] < 1e-3 and ends["mkto"] > 0.03


# --- iterations and coverage -------------------------------------------------------------------------------------------


def test_t_steps_with_an_updated_reference_are_one_step_with_eta_over_t_also_with_a_random_tool():
    for number in WORLDS:
        process, start = world(number, 1.0, THREE_TURNS)
        updated = theory.mirror_descent(process, start, ETA, 4, updated=True)
        fixed = theory.mirror_descent(process, start, ETA, 4, updated=False)
        for t in (1, 2, 4):
            once = theory.optimum(process, start, ETA / t).policy
            assert max(float((a - b).abs().max()) for a, b in zip(updated[t], once)) < 1e-10
        assert theory.total_variation(process, fixed[4], fixed[1]) == 0
        assert theory.total_variation(process, fixed[4], updated[4]) > 1e-3, "the planted error: no update"
        wrong = theory.optimum(process, start, ETA * 4).policy
        assert theory.total_variation(process, wrong, updated[4]) > 1e-3, "nor is it eta times t"


def test_the_updated_reference_approaches_the_best_utility_within_the_mirror_descent_bound():
    for number in WORLDS:
        process, start = world(number, 1.0, THREE_TURNS)
        greedy = tuple(table.clamp(min=-1e3) for table in theory.best_policy(process))
        top = theory.best_utility(process)
        assert theory.objective(process, greedy) == pytest.approx(top)
        nats = float(theory.trajectory_kl(process, greedy, start))
        policies = theory.mirror_descent(process, start, ETA, 6, updated=True)
        missing = [top - theory.objective(process, policy) for policy in policies]
        assert (np.diff(missing) < 0).all()
        assert all(gap <= ETA * nats / t for t, gap in enumerate(missing) if t)
        stuck = top - theory.objective(process, theory.mirror_descent(process, start, ETA, 60, False)[-1])
        assert stuck > ETA * nats / 60, "the planted error: a fixed reference breaks the bound in the end"


def test_mixture_preferences_equal_those_of_the_mixed_trajectories():
    process, reference = world(1)
    other = theory.random_policy(process, 9)
    mixed = 0.25 * theory.trajectory_probability(process, other) + 0.75 * theory.trajectory_probability(
        process, reference
    )
    utility = process.utility.flatten(1)
    wins = (utility[:, :, None] - utility[:, None, :]).sigmoid()
    expected = 2 * process.first[:, None, None] * mixed[:, :, None] * mixed[:, None, :] * wins
    found = theory.mixture_preferences(process, [other, reference], [0.25, 0.75])
    assert torch.allclose(found, expected, atol=1e-14)


def test_coverage_costs_one_at_home_more_elsewhere_and_drives_the_sampling_error():
    gained = []
    for number in WORLDS:
        process, start = world(number, 0.0)
        target = theory.optimum(process, start, ETA).policy
        peaked = theory.mirror_descent(process, start, ETA, 4, updated=True)[-1]
        assert theory.coverage_cost(process, target, [target], [1.0]) == pytest.approx(1)
        costs, errors = [], []
        for share in (0.0, 0.1, 1 / 3):
            mix = ([peaked, start], [1 - share, share])
            costs.append(theory.coverage_cost(process, target, *mix))
            pairs = theory.sampled(theory.mixture_preferences(process, *mix), 3000, number)
            fitted = theory.fit_mdpo(process, pairs, start, ETA, ridge=0.01 / 3000, tolerance=1e-7)
            errors.append(theory.total_variation(process, fitted, target))
        assert costs[0] > max(costs[1:]) >= 1
        gained.append(errors[0] - errors[2])
    assert mean_interval(gained)[1] > 0


def test_exact_preferences_of_any_full_data_give_the_same_minimum_and_with_a_random_tool_they_do_not():
    for number in WORLDS:
        for randomness, same in ((0.0, True), (1.0, False)):
            process, reference = world(number, randomness)
            minima = [
                theory.fit_mdpo(process, theory.preferences(process, data, data), reference, ETA)
                for data in (reference, theory.random_policy(process, 7))
            ]
            assert (theory.total_variation(process, *minima) < 1e-6) == same
