"""LoRA layers that multiply their factors first give PEFT's numbers and gradients, or leave the layer to PEFT."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from mtdpo_lib.train.fast import merged_lora


class Net(nn.Module):
    def __init__(self, bias: bool = False):
        super().__init__()
        self.proj = nn.Linear(6, 4, bias=bias)

    def forward(self, x):
        return self.proj(x)


def network(bias: bool = False, **options):
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["proj"], init_lora_weights=False, **options)
    model = get_peft_model(Net(bias), config)
    model.add_adapter("ref", config)
    return model


def outcome(model, x, adapter="default"):
    """The output, and the gradients of the input and of the adapter's factors."""
    model.set_adapter(adapter)
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().sum().backward()
    factors = [weight.grad for name, weight in model.named_parameters() if f".{adapter}." in name]
    assert len(factors) == 2
    return output.detach(), x.grad, *factors


@pytest.fixture
def called(monkeypatch):
    """How often PEFT's own forward ran."""
    calls, own = [], Linear.forward

    def counted(layer, x, *args, **kwargs):
        calls.append(layer)
        return own(layer, x, *args, **kwargs)

    monkeypatch.setattr(Linear, "forward", counted)
    return calls


@pytest.mark.parametrize("adapter", ["default", "ref"])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_are_pefts(adapter, bias, called):
    x = torch.randn(3, 5, 6)
    expected = outcome(network(bias), x, adapter)
    assert len(called) == 1
    model = network(bias)
    merged_lora.merge_factors(model)
    found = outcome(model, x, adapter)
    assert len(called) == 1  # not used once more
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_without_adapters_the_base_answers(called):
    model, x = network(), torch.randn(2, 6)
    merged_lora.merge_factors(model)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), x @ model.base_model.model.proj.base_layer.weight.T)
    assert len(called) == 1


def test_under_autocast_the_base_weight_is_not_added_to(called):
    model = network()
    merged_lora.merge_factors(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 6))
    assert len(called) == 1


def test_a_large_layer_is_left_to_peft(called, monkeypatch):
    model = network()
    merged_lora.merge_factors(model)
    monkeypatch.setattr(merged_lora, "MOST_WEIGHTS", 23)  # of 24
    model(torch.randn(2, 6))
    assert len(called) == 1


def test_an_argument_beside_the_input_is_left_to_peft(called):
    model = network()
    merged_lora.merge_factors(model)
    model.base_model.model.proj(torch.randn(2, 6), adapter_names=["default", "ref"])
    assert len(called) == 1


@pytest.mark.parametrize(
    ("options", "dtype"),
    [({"lora_dropout": 0.5}, None), ({"use_dora": True}, None), ({"lora_bias": True}, None), ({}, "bf16")],
)
def test_what_it_would_change_is_left_to_peft(options, dtype, called):
    model, x = network(bias=True, **options), torch.randn(2, 6)
    if dtype:
        model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
    merged_lora.merge_factors(model)
    model(x)
    assert len(called) == 1


def test_an_adapter_that_is_added_later_counts_too(called):
    model = network()
    merged_lora.merge_factors(model)
    model.add_adapter("late", LoraConfig(r=2, target_modules=["proj"], lora_dropout=0.5))
    model(torch.randn(2, 6))
    assert len(called) == 1
