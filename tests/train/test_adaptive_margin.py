"""The adaptive margin: exact where V is known, off where the tool is sure, learned and kept where it is not."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import ETA, agree, as_trajectory, log_probability, move, step

from mtdpo_lib.chat.encoder import ChatFormat
from mtdpo_lib.chat.roles import loss_mask
from mtdpo_lib.lessons import theory
from mtdpo_lib.models.policy import load_for_sampling, load_tokenizer
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import PreferenceSettings, SettingError
from mtdpo_lib.rollout import Turn
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.train import PreferenceJob, ask_again, margin_features, preference_dataset, train_preference

# --- c(tau) ---


class Table:
    """A model whose last hidden state is a known V of the tokens so far."""

    config = SimpleNamespace(hidden_size=1)
    device = torch.device("cpu")

    def __init__(self, values):
        self.values = values

    def eval(self):
        return self

    def base_model(self, input_ids, attention_mask, use_cache):
        hidden = torch.zeros(*input_ids.shape, 1)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            length = int(mask.sum())
            hidden[row, length - 1, 0] = self.values[tuple(ids[:length].tolist())]
        return SimpleNamespace(last_hidden_state=hidden)


@pytest.mark.parametrize("seed", range(5))
def test_with_v_known_it_is_term_c_of_the_table(seed, tokenizer):
    chat, draws, actions, answers = ChatFormat(tokenizer), 5, 2, 2
    process = theory.random_process(seed, 1.0, horizon=3, actions=actions, observations=answers, prompts=1)
    v = theory.optimum(process, theory.random_policy(process, seed + 50), 0.5).v
    rng = np.random.default_rng(seed)
    asked = [rng.integers(0, answers, (*table.shape[:3], draws)) for table in process.tool]  # K answers each
    frequencies = tuple(
        torch.tensor(np.stack([(each == o).mean(-1) for o in range(answers)], -1)) for each in asked
    )
    values, trajectories, texts = {}, [], []
    for a1, o1, a2, o2, a3 in itertools.product(
        range(actions), range(answers), range(actions), range(answers), range(actions)
    ):
        first = chat.prompt("q") + chat.assistant(str(a1))
        again = [[str(o) for o in asked[0][0, 0, a1]]]
        for o in range(answers):
            values[tuple((first + chat.tool(str(o))).ids)] = float(v[1][0, a1 * answers + o])
        state = a1 * answers + o1
        second = first + chat.tool(str(o1)) + chat.assistant(str(a2))
        again.append([str(o) for o in asked[1][0, state, a2]])
        for o in range(answers):
            values[tuple((second + chat.tool(str(o))).ids)] = float(
                v[2][0, (state * actions + a2) * answers + o]
            )
        trajectories.append(as_trajectory(second + chat.tool(str(o2)) + chat.assistant(str(a3)), "p", True))
        texts.append(again)
    found = margin_features(Table(values), tokenizer, trajectories, texts, rows_at_once=3)[:, 0]
    exact = theory.term_c(process, v, frequencies)[0].float()
    assert exact.abs().max() > 0.05
    assert torch.allclose(found, exact, atol=1e-6)


@pytest.fixture
def noisy_pairs(overfit):
    """Two pairs whose observations a calculator gave that is sometimes one off."""
    chat = ChatFormat(overfit[1])

    def side(question, code, output, answer, correct):
        turn = f"```python\n{code}\n```"
        tokens = chat.prompt(question) + chat.assistant(turn) + chat.tool(output) + chat.assistant(answer)
        turns = [Turn(turn, code, output), Turn(answer)]
        return replace(as_trajectory(tokens, question, correct), turns=turns)

    return [
        Pair(
            side("q?", "print(3*4)", "12", "\\boxed{12}", True), side("q?", "print(3*4)", "13", "13", False)
        ),
        Pair(side("Half?", "print(8/2)", "4.0", "\\boxed{4}", True), side("Half?", "8/3", "2.7", "3", False)),
    ]


def test_a_tool_that_always_answers_alike_has_no_margin(noisy_pairs, policy, smoke):
    sides = [noisy_pairs[0].chosen, noisy_pairs[1].chosen]
    model, own = load_for_sampling(policy, smoke.model), load_tokenizer(policy)
    with SandboxPool(smoke.sandbox) as pool:
        sure = ask_again(sides, pool, 3, 0.0, 0)
        noisy = ask_again(sides, pool, 24, 0.6, 0)
    assert sure == [[["12"] * 3], [["4.0"] * 3]]
    assert torch.equal(margin_features(model, own, sides, sure), torch.zeros(2, smoke.model.hidden))
    assert set(noisy[0][0]) == {"11", "12", "13"}
    assert (margin_features(model, own, sides, noisy).norm(dim=1) > 0.1).all()


# --- The loss ---


def with_features(rows, seed=0, size=6):
    torch.manual_seed(seed)
    dataset = preference_dataset(rows)
    for side in ("chosen", "rejected"):
        dataset = dataset.add_column(f"{side}_margin_features", torch.randn(len(rows), size).tolist())
    return dataset


@pytest.mark.parametrize("fast", [False, True])
def test_the_loss_has_the_third_term(build, pairs, fast):
    dataset = with_features(pairs)
    trainer = build("margin", dataset, fast=fast)
    move(trainer)
    trainer.value_head.data = torch.randn(6)
    w = trainer.value_head.detach().double()
    c = {side: torch.tensor(dataset[f"{side}_margin_features"]).double() for side in ("chosen", "rejected")}
    terms = []
    for row, pair in enumerate(pairs):
        ratio = 0.0
        for sign, side in ((1, pair.chosen), (-1, pair.rejected)):
            scored = loss_mask(side.roles)
            own = log_probability(trainer.model, side, scored)
            with trainer.model.disable_adapter():
                ratio += sign * (own - log_probability(trainer.model, side, scored))
        terms.append(ETA * ratio + float(w @ (c["chosen"][row] - c["rejected"][row])))
    score = torch.tensor(terms, dtype=torch.float64)
    loss, _ = step(trainer)
    assert loss == pytest.approx(float(-torch.nn.functional.logsigmoid(score).mean()), rel=1e-5)
    pull = -((1 - score.sigmoid())[:, None] * (c["chosen"] - c["rejected"])).mean(0)
    assert torch.allclose(trainer.value_head.grad.double(), pull, rtol=1e-4, atol=1e-6)
    # It must matter: without the term the loss is another.
    trainer.value_head.data.zero_()
    assert abs(step(trainer)[0] - loss) > 0.01


def test_a_margin_of_zero_changes_nothing(build, pairs):
    plain = build("mdpo", pairs)
    dataset = preference_dataset(pairs)
    for side in ("chosen", "rejected"):
        dataset = dataset.add_column(f"{side}_margin_features", [[0.0] * 4] * len(pairs))
    zero = build("margin", dataset)
    zero.value_head.data = torch.ones(4)
    for trainer in (plain, zero):
        move(trainer)
    one, other = step(plain), step(zero)
    assert one[0] == other[0] and torch.equal(one[1], other[1][4:])  # the first four are w's
    assert not zero.value_head.grad.any()


def test_parts_of_a_step_share_the_margin(build, pairs):
    whole, parts = (
        build("margin", with_features(pairs)),
        build("margin", with_features(pairs), rows_at_once=1),
    )
    grads = []
    for trainer in (whole, parts):
        move(trainer)
        trainer.value_head.data = torch.linspace(-1, 1, 6)
        trainer.value_head.grad = None
    agree(step(whole), step(parts))
    grads = [trainer.value_head.grad for trainer in (whole, parts)]
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-6)


def test_the_value_head_is_learned_kept_and_resumed(build, pairs, tmp_path):
    arguments = {
        "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "save_only_model": False, "learning_rate": 1e-3,
    }  # fmt: skip
    unbroken = build("margin", with_features(pairs), dict(arguments))
    unbroken.train()
    assert unbroken.value_head.abs().max() > 1e-3
    resumed = build("margin", with_features(pairs), dict(arguments))
    resumed.train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-3"))
    assert torch.allclose(resumed.value_head, unbroken.value_head, atol=1e-6)


def test_the_value_head_has_a_learning_rate_of_its_own(build, pairs):
    """Adam's first step moves every weight by the learning rate, whatever the gradient."""
    arguments = {"max_steps": 1, "learning_rate": 1e-4, "warmup_steps": 0}
    for rate, moved in ((None, 1e-4), (0.03, 0.03)):
        trainer = build("margin", with_features(pairs), dict(arguments), value_learning_rate=rate)
        before = [weight.detach().clone() for weight in trainer.model.parameters()]
        trainer.train()
        assert trainer.value_head.abs().tolist() == pytest.approx([moved] * 6, rel=1e-3)
        others = [
            (new.detach() - old).abs().max()
            for new, old in zip(trainer.model.parameters(), before, strict=True)
            if new is not trainer.value_head
        ]
        assert float(max(others)) == pytest.approx(1e-4, rel=1e-2)


def test_other_losses_are_refused(build, pairs):
    with pytest.raises(ValueError, match="loss_type=sigmoid alone"):
        build("margin", with_features(pairs), {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1]})


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(SettingError, match=r"set preference\.method=mdpo"):
        get_profile("smoke", "preference.method=mkto preference.stochastic_tool_correction=4")
    with pytest.raises(SettingError, match="between 0 and 1"):
        get_profile("smoke", "rollout.tool_noise=1.5")
    assert get_profile("cpu").preference.stochastic_tool_correction == 0  # off by default
    assert get_profile("cpu").rollout.tool_noise == 0


def test_training_with_the_correction(noisy_pairs, policy, smoke, tmp_path):
    """From pairs of a noisy calculator to adapters, with the tool asked again in the sandbox."""
    logs = {}
    for draws in (0, 8):
        settings = PreferenceSettings(eta=ETA, learning_rate=1e-3, batch_size=2, epochs=6, checkpoints=1)

        def features(model, tokenizer, sides, draws=draws):
            with SandboxPool(smoke.sandbox) as pool:
                return margin_features(model, tokenizer, sides, ask_again(sides, pool, draws, 0.5, 1))

        folder = tmp_path / str(draws)
        job = PreferenceJob(folder, noisy_pairs, policy, policy, settings, smoke.model, seed=0)
        logs[draws] = train_preference(job, features if draws else None)
        assert (folder / "step-6" / "adapter_model.safetensors").exists()
    assert logs[0][0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert logs[8][0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # w starts at zero
    assert logs[8][0]["luck"] == 0 and logs[8][-1]["luck"] > 0.01 and "luck" not in logs[0][-1]
    assert logs[8][-1]["loss"] < logs[0][-1]["loss"] - 1e-3  # one more way to tell right from wrong
