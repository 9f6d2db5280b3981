"""QLoRA on the CPU: a 4-bit base under adapters, the reference as one of them, training, saving and merging."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from support import shake

from mtdpo_lib.chat.roles import loss_mask
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models.policy import (
    Policy,
    load_base,
    load_for_sampling,
    load_for_training,
    load_tokenizer,
    merge,
)
from mtdpo_lib.problems.base import Demonstration, Problem
from mtdpo_lib.train import PreferenceJob, sft_dataset, train_preference
from mtdpo_lib.train.preference import set_reference
from mtdpo_lib.train.reference import POLICY, REFERENCE
from mtdpo_lib.train.sft import train_sft

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture
def four_bit(smoke):
    return replace(smoke.model, quantization="nf4", dtype="float32")


@torch.no_grad()
def logp(model, trajectory):
    """log pi of the trajectory's scored tokens, summed, in nats."""
    ids = torch.tensor([trajectory.ids])
    logps = model(ids).logits[:, :-1].double().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (logps * torch.tensor([loss_mask(trajectory.roles)])[:, 1:]).sum().item()


def sides(pairs):
    return [side for pair in pairs for side in (pair.chosen, pair.rejected)]


def saved(model, folder, name):
    """The model's adapter as a policy's folder."""
    model.save_pretrained(folder / name, selected_adapters=[POLICY])
    return name


def test_linear_layers_are_four_bit_and_only_the_adapter_trains(policy, four_bit):
    whole, small = (
        load_base(policy, replace(four_bit, quantization=kind)).model.layers for kind in ("none", "nf4")
    )
    sizes = [
        sum(one.numel() * one.element_size() for one in layers.parameters()) for layers in (whole, small)
    ]
    assert sizes[1] < 0.15 * sizes[0]  # 4 of 32 bits, and a little for scales and norms
    model = load_for_training(policy, four_bit, seed=0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_reference_is_an_adapter_and_not_a_second_model(policy, pairs, four_bit, tmp_path, quantization):
    settings = replace(four_bit, quantization=quantization)
    first = load_for_training(policy, settings, seed=0).eval()
    shake(first, seed=1)
    reference = Policy("ref", Product("t", "k", tmp_path), saved(first, tmp_path, "reference"), policy)
    model = load_for_training(policy, settings, seed=0).eval()
    shake(model, seed=2)
    before = [logp(model, side) for side in sides(pairs)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    adapter = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    set_reference(model, reference)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters + adapter
    model.set_adapter(REFERENCE)
    through_adapter = [logp(model, side) for side in sides(pairs)]
    apart = PeftModel.from_pretrained(load_base(policy, settings), reference.folder).eval()
    assert through_adapter == pytest.approx([logp(apart, side) for side in sides(pairs)], rel=1e-5)
    assert through_adapter != pytest.approx(before, rel=1e-2)
    model.set_adapter(POLICY)
    assert [logp(model, side) for side in sides(pairs)] == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("method", ["mdpo", "mkto"])
@pytest.mark.parametrize("step", ["plain", "fast"])
def test_preference_learning_on_a_four_bit_base(
    policy, pairs, four_bit, smoke, tmp_path, loaded, method, step
):
    settings = replace(
        smoke.preference, method=method, step=step, batch_size=3, epochs=4, checkpoints=1, learning_rate=3e-3,
        warmup_fraction=0.0,
    )  # fmt: skip
    untrained = load_for_training(policy, four_bit, seed=0).eval()
    frozen = {name: value for name, value in untrained.named_parameters() if not value.requires_grad}
    start = [logp(untrained, side) for side in sides(pairs)]
    log = train_preference(PreferenceJob(tmp_path / "t", pairs, policy, policy, settings, four_bit, seed=0))
    model = loaded[0]
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}
    assert log[0]["margin"] == pytest.approx(0, abs=1e-4)
    kept = max((tmp_path / "t").glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
    trained = Policy("m", Product("t", "k", tmp_path / "t"), kept.name, policy)
    sampler = load_for_sampling(trained, four_bit)
    end = [logp(sampler, side) for side in sides(pairs)]
    margins = [ours - theirs for ours, theirs in zip(end, start, strict=True)]
    assert sum(margins[::2]) > sum(margins[1::2]) + 1  # chosen over rejected, in nats
    for name, value in model.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name]), name


def test_steps_of_a_small_learning_rate_are_not_rounded_away(
    policy, pairs, four_bit, smoke, tmp_path, loaded
):
    shaken = load_for_training(policy, four_bit, seed=0)
    shake(shaken)
    before = {name: one for name, one in shaken.named_parameters() if one.requires_grad}
    initial = Policy("shaken", Product("s", "k", tmp_path), saved(shaken, tmp_path, "shaken"), policy)
    settings = replace(
        smoke.preference, batch_size=3, epochs=1, checkpoints=1, learning_rate=1e-6, warmup_fraction=0.0
    )
    train_preference(PreferenceJob(tmp_path / "t", pairs, initial, initial, settings, four_bit, seed=0))
    for name, one in loaded[0].named_parameters():
        if name in before:
            assert one.dtype == torch.float32
            moved = (one - before[name]).abs()
            assert 0 < moved.max() < 1e-5, name
            assert (moved > 0).float().mean() > 0.5, name


def test_sft_on_a_four_bit_base_saved_loaded_and_merged(policy, four_bit, smoke, tmp_path):
    problem = Problem("p", "s", "f", "Twice 4?", "8")
    messages = [{"role": "user", "content": "Twice 4?"}, {"role": "assistant", "content": "\\boxed{8}"}]
    rows = [Demonstration(problem, "x", messages, True)] * 8
    tokenizer = load_tokenizer(policy)
    dataset = sft_dataset(rows, tokenizer, 320)
    model = load_for_training(policy, four_bit, seed=0)
    settings = replace(
        smoke.sft, epochs=6, early_epochs=1, batch_size=4, learning_rate=5e-3, short_first=False
    )
    log = train_sft(tmp_path / "sft", model, tokenizer, dataset, settings, four_bit, 0)
    assert log[-1]["loss"] < log[0]["loss"]
    sft = Policy("sft", Product("sft", "k", tmp_path / "sft"), "epoch-6", policy)
    ids = torch.tensor([dataset["input_ids"][0]])
    with torch.no_grad():
        model.eval()
        assert torch.allclose(load_for_sampling(sft, four_bit)(ids).logits, model(ids).logits, atol=1e-4)
    folder = merge(sft, four_bit, tmp_path / "merged")
    whole = load_for_sampling(
        Policy("whole", Product("w", "k", folder)), replace(four_bit, quantization="none")
    )
    unmerged = PeftModel.from_pretrained(
        load_base(policy, replace(four_bit, quantization="none")), sft.folder
    )
    with torch.no_grad():
        assert torch.allclose(whole(ids).logits, unmerged.eval()(ids).logits, atol=1e-4)
    assert load_tokenizer(Policy("whole", Product("w", "k", folder))).get_vocab() == tokenizer.get_vocab()
