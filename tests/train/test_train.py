"""Masks reach TRL's losses, eq. (14) by an independent formula, references as adapters, SFT on assistant tokens."""

import copy
import math
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from peft import PeftModel
from support import as_trajectory, log_probability, multiplication, shake, trajectory
from transformers import GPT2Config, GPT2LMHeadModel
from trl import DPOConfig, KTOConfig, SFTConfig

from mtdpo_lib.chat.roles import RoleTokens, loss_mask
from mtdpo_lib.common.stages import UNFINISHED, Product
from mtdpo_lib.models.policy import Policy, load_for_sampling, load_for_training, load_tokenizer
from mtdpo_lib.models.tiny import tiny_model
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.sections import PreferenceSettings
from mtdpo_lib.rollout import Trajectory
from mtdpo_lib.train import (
    PreferenceJob,
    TrajectoryDPOTrainer,
    TrajectoryPairCollator,
    loop,
    preference_dataset,
    sft_dataset,
    train_preference,
    training_arguments,
)
from mtdpo_lib.train.loop import ProgressCallback
from mtdpo_lib.train.preference import set_reference
from mtdpo_lib.train.sft import ShortFirst, fast_forward, train_sft


def trainer_for(policy, pairs, tmp_path, smoke, eta=0.3, loss_type=("sigmoid",), weights=None):
    model = load_for_training(policy, smoke.model, 0)
    arguments = DPOConfig(
        **training_arguments(tmp_path / "trainer", smoke.model, 0),
        beta=eta, loss_type=list(loss_type), loss_weights=weights, remove_unused_columns=False, max_length=None,
    )  # fmt: skip
    collator = TrajectoryPairCollator(load_tokenizer(policy).pad_token_id)
    return TrajectoryDPOTrainer(
        model=model, args=arguments, data_collator=collator, train_dataset=preference_dataset(pairs),
        processing_class=load_tokenizer(policy),
    )  # fmt: skip


@pytest.mark.parametrize("config", [DPOConfig, KTOConfig, SFTConfig])
def test_no_argument_of_ours_is_deprecated(config, smoke, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert config(**training_arguments(tmp_path, smoke.model, 0)).gradient_checkpointing is False


def test_the_collator_writes_the_masks_row_by_row():
    rows = [
        {
            "chosen_ids": [5, 6, 7, 8],
            "chosen_mask": [0, 1, 0, 1],
            "rejected_ids": [5, 9],
            "rejected_mask": [0, 1],
        },
        {"chosen_ids": [4, 3], "chosen_mask": [0, 1], "rejected_ids": [4, 2, 1], "rejected_mask": [0, 0, 1]},
    ]
    batch = TrajectoryPairCollator(pad_token_id=0)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [4, 3, 0, 0], [5, 9, 0, 0], [4, 2, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert batch["completion_mask"].tolist() == [
        [0, 1, 0, 1],  # chosen 1: the tool's token at place 2 is out
        [0, 1, 0, 0],  # chosen 2
        [0, 1, 0, 0],  # rejected 1
        [0, 0, 1, 0],  # rejected 2
    ]


@pytest.mark.parametrize("nll", [0.0, 0.7])
def test_the_loss_is_equation_14(policy, pairs, tmp_path, smoke, nll):
    eta = 0.3
    kinds, weights = (("sigmoid", "sft"), [1.0, nll]) if nll else (("sigmoid",), None)
    trainer = trainer_for(policy, pairs, tmp_path, smoke, eta, kinds, weights)
    shake(trainer.model)
    trainer.model.eval()
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch).item()
    reference = load_for_sampling(policy, smoke.model)
    losses, chosen_total, chosen_tokens = [], 0.0, 0
    for pair in pairs:
        ratio = {}
        for side in ("chosen", "rejected"):
            one = getattr(pair, side)
            mask = loss_mask(one.roles)
            ratio[side] = log_probability(trainer.model, one, mask) - log_probability(reference, one, mask)
        losses.append(math.log1p(math.exp(-eta * (ratio["chosen"] - ratio["rejected"]))))
        mask = loss_mask(pair.chosen.roles)
        chosen_total, chosen_tokens = (
            chosen_total + log_probability(trainer.model, pair.chosen, mask),
            chosen_tokens + sum(mask),
        )
    assert loss == pytest.approx(sum(losses) / len(losses) - nll * chosen_total / chosen_tokens, rel=1e-4)


def test_scoring_the_tool_gives_another_loss(policy, pairs, tmp_path, smoke):
    trainer = trainer_for(policy, pairs, tmp_path, smoke)
    shake(trainer.model)
    trainer.model.eval()
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        masked = trainer.compute_loss(trainer.model, dict(batch)).item()
        batch["completion_mask"] = batch["attention_mask"]
        unmasked = trainer.compute_loss(trainer.model, batch).item()
    assert abs(masked - unmasked) > 1e-3


def test_policy_and_reference_agree_before_the_first_step(policy, pairs, tmp_path, smoke):
    trainer = trainer_for(policy, pairs, tmp_path, smoke)
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(math.log(2), abs=1e-5)


def test_training_raises_the_margin_and_keeps_checkpoints_that_load(policy, pairs, tmp_path, smoke, loaded):
    settings = PreferenceSettings(
        eta=0.1, learning_rate=3e-3, batch_size=3, epochs=6, checkpoints=2, warmup_fraction=0.0
    )
    out = tmp_path / "out"
    log = train_preference(PreferenceJob(out, pairs, policy, policy, settings, smoke.model, seed=0))
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1]["margin"] > log[0]["margin"] + 0.1
    assert sorted(path.name for path in out.iterdir()) == ["step-3", "step-6"]
    last = load_for_sampling(Policy("m", Product("t", "k", out), "step-6", policy), smoke.model)
    mask = loss_mask(pairs[0].chosen.roles)
    assert log_probability(last, pairs[0].chosen, mask) == pytest.approx(
        log_probability(loaded[0].eval(), pairs[0].chosen, mask), rel=1e-4
    )


def test_raft_takes_its_rivals_steps_on_right_trajectories_of_its_own(policy, pairs, tmp_path, smoke, loaded):
    """Three pairs; five right trajectories, two of them of prompts that have no wrong one."""
    more = [
        as_trajectory(pair.chosen.tokens, f"all right {number}", True)
        for number, pair in enumerate(pairs[:2])
    ]
    right = [*(pair.chosen for pair in pairs), *more]
    logs = {}
    for name, changes in (
        ("mdpo", {}),
        ("raft", {"method": "raft"}),
        ("two rows", {"method": "raft", "raft_rows": 2}),
    ):
        settings = PreferenceSettings(learning_rate=3e-3, batch_size=1, epochs=2, checkpoints=1, **changes)
        job = PreferenceJob(
            tmp_path / name, pairs, policy, policy, settings, smoke.model, seed=0, right=right
        )
        logs[name] = train_preference(job)
    assert [log[-1]["step"] for log in logs.values()] == [6, 6, 6]
    sizes, five = [len(row.ids) for row in right], sum(len(row.ids) for row in right)
    both = sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs)
    assert logs["mdpo"][-1]["tokens"] == 2 * both
    passed = logs["raft"][-1]["tokens"]  # all five once, then one of them again
    assert passed - five in sizes and logs["two rows"][-1]["tokens"] >= 2 * five
    for pair in pairs:  # the loss does not see what was rejected
        scored = loss_mask(pair.chosen.roles)
        start = log_probability(load_for_sampling(policy, smoke.model), pair.chosen, scored)
        assert log_probability(loaded[1].eval(), pair.chosen, scored) > start


def test_the_nll_term_pulls_as_hard_as_the_dpo_term_at_the_first_step(policy, pairs, tmp_path, smoke):
    eta, coefficient = 0.3, 2.0
    settings = PreferenceSettings(eta=eta, nll_coefficient=coefficient, batch_size=3, checkpoints=1)
    job = PreferenceJob(tmp_path / "out", pairs, policy, policy, settings, smoke.model, seed=0)
    (first,) = train_preference(job)
    network = load_for_sampling(policy, smoke.model)
    logps = [log_probability(network, pair.chosen, loss_mask(pair.chosen.roles)) for pair in pairs]
    # -log sigmoid(0), and per pair eta / 2 for each nat: the slope of -log sigmoid(eta x) at 0.
    assert first["loss"] == pytest.approx(
        math.log(2) - coefficient * eta / 2 * sum(logps) / len(pairs), rel=1e-4
    )


def test_sft_keeps_every_epoch_and_an_underfit_policy_of_one_run(tokenizer, smoke, tmp_path):
    dataset = sft_dataset([multiplication(a, 7) for a in range(2, 18)], tokenizer, 200)
    settings = replace(smoke.sft, batch_size=4, epochs=2, underfit_epochs=0.5, step="plain")
    model = tiny_model(smoke.model, tokenizer, 200, seed=1)
    train_sft(tmp_path, model, tokenizer, dataset, settings, smoke.model, 1)
    parts = ["epoch-0.5", "epoch-1", "epoch-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == parts
    row = as_trajectory(RoleTokens(dataset[0]["input_ids"], [0] * len(dataset[0]["input_ids"])), "a", True)
    scored = [int(label != -100) for label in dataset[0]["labels"]]
    learnt = [
        log_probability(
            load_for_sampling(Policy("p", Product("sft", "key", tmp_path), part), smoke.model), row, scored
        )
        for part in parts
    ]
    assert learnt == sorted(learnt) and len(set(learnt)) == 3


class Killed(BaseException):
    """Stands for what ends a process at once."""


@pytest.fixture
def killed_after(monkeypatch):
    """Lets the next training die after so many steps, its state kept after each."""
    monkeypatch.setattr(loop, "KEEP_EVERY", 0.0)

    def prepare(steps):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == steps:
                raise Killed

        monkeypatch.setattr(ProgressCallback, "on_step_end", on_step_end)

    return prepare


def files_of(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.safetensors")}


@pytest.mark.parametrize("method", ["mdpo", "mkto", "raft", "fixed reference"])
def test_preference_training_that_was_killed_ends_as_if_it_was_not(
    policy, pairs, tmp_path, smoke, killed_after, capsys, method
):
    reference = policy
    if method == "fixed reference":  # a policy of its own that is an adapter, against the base
        once = PreferenceSettings(learning_rate=3e-3, batch_size=3, checkpoints=1)
        train_preference(PreferenceJob(tmp_path / "own", pairs, policy, policy, once, smoke.model, seed=3))
        policy, method = Policy("own", Product("t", "k", tmp_path / "own"), "step-1", policy), "mdpo"
    settings = PreferenceSettings(
        learning_rate=3e-3, batch_size=3 if method == "mkto" else 1, epochs=6 if method == "mkto" else 2,
        checkpoints=2, method=method,
    )  # fmt: skip
    right = [pair.chosen for pair in pairs]
    logs = {}
    for name, deaths in (("whole", ()), ("killed", (2, 3, 5))):
        job = PreferenceJob(
            tmp_path / name, pairs, policy, reference, settings, smoke.model, seed=0, right=right
        )
        for steps in deaths:
            killed_after(steps)
            with pytest.raises(Killed):
                train_preference(job)
        killed_after(-1)
        logs[name] = train_preference(job)
    assert logs["killed"] == logs["whole"] and [row["step"] for row in logs["whole"]] == [1, 2, 3, 4, 5, 6]
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["step-3", "step-6"]
    said = capsys.readouterr().out
    assert all(f"{kept} steps are kept, training goes on from there." in said for kept in (1, 2, 4))


def test_sft_that_was_killed_ends_as_if_it_was_not(tokenizer, smoke, tmp_path, killed_after):
    dataset = sft_dataset([multiplication(a, 7) for a in range(2, 18)], tokenizer, 200)
    settings = replace(smoke.sft, batch_size=4, epochs=2, early_epochs=1, underfit_epochs=0.5)
    logs = {}
    for name, deaths in (("whole", ()), ("killed", (3, 7))):
        for steps in (*deaths, -1):
            killed_after(steps)
            model = tiny_model(smoke.model, tokenizer, 200, seed=1)
            try:
                logs[name] = train_sft(tmp_path / name, model, tokenizer, dataset, settings, smoke.model, 1)
            except Killed:
                continue
    assert logs["killed"] == logs["whole"] and len(logs["whole"]) == 8
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_training_of_minutes_writes_no_state(policy, pairs, tmp_path, smoke, monkeypatch):
    monkeypatch.setattr(loop, "forget_states", lambda trainer, but=None: None)
    monkeypatch.setattr("mtdpo_lib.train.preference._keep_policies", lambda *_: None)
    settings = PreferenceSettings(learning_rate=3e-3, batch_size=1, epochs=2, checkpoints=1)
    train_preference(PreferenceJob(tmp_path, pairs, policy, policy, settings, smoke.model, seed=0))
    assert [path.name for path in (tmp_path / UNFINISHED / "trainer").glob("checkpoint-*")] == [
        "checkpoint-6"
    ]


def test_a_fixed_reference_stays_the_first_policy(policy, pairs, tmp_path, smoke):
    """Train once, go on from the adapter: the fixed reference is the base, the updated one the adapter."""
    settings = PreferenceSettings(
        eta=0.1, learning_rate=3e-3, batch_size=3, epochs=3, checkpoints=1, warmup_fraction=0.0
    )
    first = PreferenceJob(tmp_path / "one", pairs, policy, policy, settings, smoke.model, seed=0)
    train_preference(first)
    second = Policy("m", Product("t", "k", tmp_path / "one"), "step-3", policy)
    logs = {}
    for name, reference in (("updated", second), ("fixed", policy)):
        job = replace(first, folder=tmp_path / name, initial=second, reference=reference)
        logs[name] = train_preference(job)
    assert logs["updated"][0]["margin"] == pytest.approx(0, abs=1e-4)
    base, moved = load_for_sampling(policy, smoke.model), load_for_sampling(second, smoke.model)
    margins = []
    for pair in pairs:
        ratio = [
            log_probability(moved, one, loss_mask(one.roles))
            - log_probability(base, one, loss_mask(one.roles))
            for one in (pair.chosen, pair.rejected)
        ]
        margins.append(settings.eta * (ratio[0] - ratio[1]))
    assert logs["fixed"][0]["margin"] == pytest.approx(sum(margins) / len(margins), rel=1e-3)


def test_a_reference_can_be_another_adapter(policy, pairs, tmp_path, smoke):
    trainer = trainer_for(policy, pairs, tmp_path, smoke)
    shake(trainer.model, seed=1)
    trainer.model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"])
    other = Policy("other", Product("t", "k", tmp_path), "adapter", policy)
    assert isinstance(trainer.model, PeftModel)
    set_reference(trainer.model, other)
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(math.log(2), abs=1e-4)


def test_no_pairs_and_nothing_scored_are_refused():
    with pytest.raises(ValueError, match="no preference pair to train on: sample more"):
        preference_dataset([])
    silent = trajectory("a", False)
    silent = Trajectory(**{**silent.__dict__, "roles": [0] * len(silent.ids)})
    with pytest.raises(ValueError, match="without any assistant token"):
        preference_dataset([Pair(trajectory("a", True), silent)])


def test_the_fast_sft_step_is_trl_s(tokenizer, smoke, tmp_path):
    rows = [multiplication(a, 7, " Show your work." * (a % 4)) for a in range(2, 26)]
    dataset = sft_dataset(rows, tokenizer, 200)
    logs, weights = {}, {}
    for step in ("plain", "fast"):
        settings = replace(smoke.sft, step=step, batch_size=4, epochs=2, early_epochs=1)
        model = tiny_model(smoke.model, tokenizer, 200, seed=1)
        logs[step] = train_sft(tmp_path / step, model, tokenizer, dataset, settings, smoke.model, 1)
        weights[step] = model.state_dict()
        again = load_for_sampling(Policy("p", Product("sft", "key", tmp_path / step), "epoch-2"), smoke.model)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in weights[step].items())
    losses = {step: [row["loss"] for row in log] for step, log in logs.items()}
    assert len(losses["fast"]) == 12 and losses["fast"][-1] < losses["fast"][0] - 0.5
    assert losses["fast"] == pytest.approx(losses["plain"], abs=2e-5)
    # Adam turns a last digit of a gradient near zero into a step, so the weights agree to a thousandth of what they moved.
    moved = [
        (weights["plain"][name] - weights["fast"][name]).abs().max() / value.abs().max()
        for name, value in weights["plain"].items()
    ]
    assert max(moved) < 1e-2


def test_short_rows_come_first_once(tokenizer, smoke, tmp_path, monkeypatch):
    lengths = [10 * (number + 1) for number in range(200)]
    order = ShortFirst(lengths, seed=3)
    passes = []
    for epoch in range(3):
        order.set_epoch(epoch)
        passes.append(list(order))
    first, second, third = passes
    assert sorted(first) == sorted(second) == sorted(third) == list(range(200))
    assert max(first[:20]) < 60 and min(first[-20:]) > 100  # roughly sorted
    assert first != sorted(first) and second != third and min(second[-20:]) < 100
    assert list(ShortFirst(lengths, seed=3)) == first != list(ShortFirst(lengths, seed=4))
    assert list(order) == third, "an epoch's order does not depend on the passes before"

    rows = [multiplication(a, 7, " Show your work." * (a % 8)) for a in range(2, 26)]
    dataset = sft_dataset(rows, tokenizer, 200)
    seen, passes = [], ShortFirst.__iter__
    monkeypatch.setattr(
        ShortFirst, "__iter__", lambda self: iter(seen.append(list(passes(self))) or seen[-1])
    )
    settings = replace(smoke.sft, batch_size=4, epochs=2, early_epochs=1, short_first=True)
    train_sft(
        tmp_path, tiny_model(smoke.model, tokenizer, 200, 1), tokenizer, dataset, settings, smoke.model, 1
    )
    assert [sorted(one) for one in seen] == [list(range(24))] * 2
    assert seen[0] != seen[1]


def test_a_model_that_the_fast_sft_step_does_not_know_is_refused():
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=4, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match=r"'gpt2'.*set sft.step=plain"):
        fast_forward(gpt)


def test_sft_labels_are_the_assistants_tokens(tokenizer):
    demonstration = multiplication(3, 4)
    row = sft_dataset([demonstration], tokenizer, 100)[0]
    seen = tokenizer.decode([label for label in row["labels"] if label != -100])
    assert seen == "print(3*4)<|end|>\\boxed{12}<|end|>"
    with pytest.raises(ValueError, match=r"raise rollout.max_tokens"):
        sft_dataset([demonstration], tokenizer, 5)


@pytest.mark.parametrize("method", ["mdpo", "mkto", "raft"])
def test_all_weights_can_be_trained_and_a_whole_policy_can_stay_the_reference(
    policy, pairs, smoke, tmp_path, method
):
    everything = replace(smoke.model, adapter="none")
    settings = replace(smoke.preference, method=method, batch_size=3, checkpoints=1, learning_rate=1e-3)
    right = [pair.chosen for pair in pairs]

    def trained(name, initial):
        job = PreferenceJob(
            tmp_path / name, pairs, initial, policy, settings, everything, seed=0, right=right
        )
        (row,) = train_preference(job)
        return row, Policy(name, Product("training", name, job.folder), "step-1")

    first, one = trained("one", policy)
    before, after = (load_for_sampling(each, everything) for each in (policy, one))
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(moved), "no adapter: embeddings and norms move too"
    assert load_tokenizer(one).get_vocab() == load_tokenizer(policy).get_vocab()
    second, _ = trained("two", one)
    if method == "raft":
        assert second["loss"] < first["loss"]
        return
    for side in ("chosen", "rejected"):
        rows = [getattr(pair, side) for pair in pairs]
        ratios = [
            log_probability(after, row, loss_mask(row.roles))
            - log_probability(before, row, loss_mask(row.roles))
            for row in rows
        ]
        assert first[f"{side}_ratio"] == pytest.approx(0, abs=1e-4)
        assert second[f"{side}_ratio"] == pytest.approx(sum(ratios) / 3, abs=1e-3) and abs(sum(ratios)) > 0.01


def test_a_whole_model_that_several_gpus_train_is_shared_out(monkeypatch, smoke, tmp_path):
    everything = replace(smoke.model, adapter="none")
    assert "fsdp" not in training_arguments(tmp_path, everything, 0)
    monkeypatch.setattr(loop, "PartialState", lambda: SimpleNamespace(num_processes=8))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "fsdp" not in training_arguments(tmp_path, smoke.model, 0), (
        "an adapter's base is whole on every card"
    )
    shared = training_arguments(tmp_path, everything, 0)
    monkeypatch.undo()
    told = {name: shared[name] for name in ("fsdp", "fsdp_config", loop.CHECKPOINTING)}
    for config in (DPOConfig, KTOConfig, SFTConfig):
        arguments = config(output_dir=str(tmp_path), use_cpu=True, bf16=False, **copy.deepcopy(told))
        plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
        assert plugin.fsdp_version == 2 and plugin.activation_checkpointing and plugin.reshard_after_forward
        assert (
            plugin.state_dict_type.name == "FULL_STATE_DICT"
        )  # each step is kept as a model that anyone can load
