"""Sizes and memory by arithmetic, against the models themselves and against what a step really keeps."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma2Config, GemmaConfig, LlamaConfig, MistralConfig

from mtdpo_lib.__main__ import main
from mtdpo_lib.lessons import gpu_memory
from mtdpo_lib.lessons.gpu_memory import CARDS, GIB, Card, fit, hours, plan, sampling_bytes, training_bytes
from mtdpo_lib.models.sizes import SHAPES, Shape, shape_of
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.train.fast import shared_prompt

# transformers' own defaults are Gemma-7B and Mistral-7B-v0.1; the rest is set as published.
CONFIGS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, tie_word_embeddings=True,
    ),
    "google/gemma-1.1-7b-it": GemmaConfig(),
    "mistralai/Mistral-7B-v0.3": MistralConfig(vocab_size=32768),
    "google/gemma-2-9b-it": Gemma2Config(
        hidden_size=3584, num_hidden_layers=42, num_attention_heads=16, num_key_value_heads=8, head_dim=256,
        intermediate_size=14336,
    ),
}  # fmt: skip
BILLIONS = {  # as the models' cards say
    "google/gemma-1.1-7b-it": 8.54,
    "mistralai/Mistral-7B-v0.3": 7.25,
    "google/gemma-2-9b-it": 9.24,
}


def adapted(config, rank=32):
    """The model itself with a LoRA adapter, without memory for its weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        return get_peft_model(
            model,
            LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"),
            low_cpu_mem_usage=True,
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shape_counts_the_weights_of_the_model_itself(name):
    shape, model = Shape.of(CONFIGS[name]), adapted(CONFIGS[name])
    assert SHAPES[name] == shape
    learnt = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert shape.adapter(32) == learnt
    whole = sum(one.numel() for one in model.parameters()) - learnt
    assert shape.weights == pytest.approx(whole, rel=1e-3)  # all but the norms
    if name in BILLIONS:
        assert shape.weights / 1e9 == pytest.approx(BILLIONS[name], abs=0.006)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(
            vocab_size=512, hidden_size=256, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
            intermediate_size=512, tie_word_embeddings=True,
        ),
        LlamaConfig(
            vocab_size=512, hidden_size=192, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3,
            intermediate_size=1024, tie_word_embeddings=True,
        ),
    ],
)  # fmt: skip
def test_activations_are_what_a_step_keeps(config):
    """Every tensor that autograd keeps for the gradient is counted, under the autocast of training."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    for one in model.parameters():
        if one.requires_grad:
            one.data = one.data.float()
    ids, kept = torch.randint(0, config.vocab_size, (1, 600)), {}
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that its address stays its own
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        model.get_base_model().model(input_ids=ids)
    measured = sum(size for size, _ in kept.values()) / ids.shape[1] / config.num_hidden_layers
    assert Shape.of(config).block_activations() == pytest.approx(measured, rel=0.1)


def test_the_head_is_counted_as_the_step_computes_it():
    assert gpu_memory.HEAD_ROWS == shared_prompt.HEAD_ROWS


def test_the_reference_costs_an_adapter_and_not_a_model():
    needs = training_bytes(get_profile("paper"))
    assert needs["reference"] == needs["adapter"] / 4  # no gradient, no optimiser
    assert needs["reference"] < 0.1 * needs["base"]


def test_four_bits_are_a_little_over_half_a_byte():
    half = get_profile("paper", "model.quantization=none")
    shape = shape_of(half.model)
    saved = training_bytes(half)["base"] - training_bytes(get_profile("paper"))["base"]
    assert saved == pytest.approx((2 - 0.516) * shape.linear, rel=1e-3)


def test_what_is_said_to_fit_fits_and_one_more_does_not():
    profile = get_profile("paper")
    for card in CARDS[1:]:
        pairs, rows = fit(profile, card)
        room = (card.gib - 1.5) * GIB
        assert sum(training_bytes(profile, pairs).values()) <= room
        assert sum(sampling_bytes(profile, rows).values()) <= room
        if pairs < profile.preference.batch_size:
            assert sum(training_bytes(profile, pairs + 1).values()) > room
        if rows < profile.rollout.batch_size:
            assert sum(sampling_bytes(profile, rows + 1).values()) > room
    assert [fit(profile, card)[0] for card in CARDS] == sorted(fit(profile, card)[0] for card in CARDS)
    assert fit(profile, Card("a watch", 2, 1e9, 1e9)) == (0, 0)


def test_time_grows_with_the_work_and_falls_with_the_card():
    profile, card = get_profile("paper"), CARDS[-1]
    once = hours(profile, card, 32)
    thrice = hours(replace(profile, iterations=9), card, 32)
    assert thrice["learning"] == pytest.approx(3 * once["learning"])
    assert thrice["SFT"] == once["SFT"]
    assert sum(hours(profile, CARDS[1], 32).values()) > sum(once.values())
    assert hours(profile, card, 1)["sampling"] > 5 * once["sampling"]  # weights are read once for all rows


def test_the_plan_as_a_command(capsys):
    assert main(["memory", "paper"]) == 0
    shown = capsys.readouterr().out
    assert all(card.name in shown for card in CARDS) and plan(get_profile("paper"))[0][1] in shown
    assert main(["memory", "paper", "--set", "model.base=nowhere/at-all"]) == 2
    assert "The shape of 'nowhere/at-all' is not known" in capsys.readouterr().err
    assert any("does not fit" in row for row in plan(get_profile("paper"), [Card("a watch", 2, 1e9, 1e9)])[1])


def test_cards_that_share_the_work_need_less_time_and_as_much_memory(capsys):
    profile, card = get_profile("paper"), CARDS[-1]
    alone, shared = hours(profile, card, 32), hours(profile, card, 32, gpus=16)
    assert all(alone[part] == pytest.approx(16 * 0.9 * shared[part]) for part in alone)
    (one,), (many,) = (plan(profile, [card], gpus)[1] for gpus in (1, 16))
    assert one[:3] == many[:3] and one[3:] != many[3:]
    _, rows = fit(profile, card)
    needs = (sum(sampling_bytes(profile, rows).values()) + gpu_memory.RESERVE) / GIB
    assert one[2] == f"{rows} ({needs:.1f})" and needs <= card.gib
    assert main(["memory", "paper", "--gpus", "8", "--machines", "2"]) == 0
    said = capsys.readouterr().out
    assert "Hours on 16 such cards" in said and "8 A100 of 80 GB learn" in said and many[-1] in said


def test_weights_that_are_all_trained_are_shared_out_over_the_cards():
    full, lora = get_profile("paper", "budget=full"), get_profile("paper", "model.quantization=none")
    alone, shared = training_bytes(full), training_bytes(full, gpus=8)
    assert (
        alone["base"] == 8 * shared["base"] == 16 * shape_of(full.model).weights
    )  # weight, gradient, two means
    assert alone["reference"] == 8 * shared["reference"] and "adapter" not in alone
    card = CARDS[-1]
    assert fit(full, card)[0] == 0 and fit(full, card, gpus=8)[0] > 0
    (one,), (two,) = (plan(full, [card], 8, machines)[1] for machines in (1, 2))
    assert one[1:3] == two[1:3] and one[3:] != two[3:], "training stays on a machine"
    assert sampling_bytes(full, 3)["base"] == sampling_bytes(lora, 3)["base"]
    ours, theirs = hours(full, card, 32), hours(lora, card, 32)
    assert ours["SFT"] == pytest.approx(4 / 3 * theirs["SFT"]) and ours["sampling"] == theirs["sampling"]


def test_a_shape_is_read_from_a_folder_too(tmp_path):
    CONFIGS["mistralai/Mistral-7B-v0.3"].save_pretrained(tmp_path)
    settings = replace(get_profile("paper").model, base=str(tmp_path))
    assert shape_of(settings) == SHAPES["mistralai/Mistral-7B-v0.3"]
