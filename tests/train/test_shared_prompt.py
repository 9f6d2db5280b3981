"""The packed step against a plain loop: log-probabilities within 1e-4 relative, gradient cosine at least 0.9999."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from mtdpo_lib.train.fast import shared_prompt
from mtdpo_lib.train.fast.shared_prompt import (
    ATTENTION,
    common_length,
    pack,
    scored_forward,
    supports,
    visible,
)

SIZE = {
    "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "llama": LlamaConfig(**SIZE),
    "mistral": MistralConfig(**SIZE, sliding_window=None),
    "mistral, window": MistralConfig(**SIZE, sliding_window=7),
    "gemma": GemmaConfig(**SIZE),
    "gemma2, softcaps and window": Gemma2Config(**SIZE, sliding_window=6, query_pre_attn_scalar=8),
    "qwen2": Qwen2Config(**SIZE),
    "qwen3": Qwen3Config(**SIZE),
}
# Two pairs: rows 0 and 2 share six tokens, rows 1 and 3 five; row 3 is short and its last token is not scored.
ROWS = [
    ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]),
    ([4, 3, 2, 9, 8, 7, 6, 5], [0, 0, 0, 1, 1, 1, 1, 1]),
    ([5, 6, 7, 8, 9, 10, 22, 23, 24, 25, 26, 27, 28], [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1]),
    ([4, 3, 2, 9, 8, 33], [0, 0, 0, 1, 1, 0]),
]


def tensors(rows=ROWS, width=15):
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    mask = torch.tensor([scored + [0] * (width - len(scored)) for _, scored in rows])
    return ids, ids.masked_fill(mask == 0, -100), mask.bool()


def plain_logps(model, rows=ROWS, width=15):
    """One row at a time, no padding, the model's own attention and whole logits: nothing shared with the fast step."""
    out = []
    for ids, scored in rows:
        logs = model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        found = logs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0] * torch.tensor(scored[1:])
        out.append(torch.nn.functional.pad(found, (0, width - len(ids))))
    return torch.stack(out)


def gradient(model, values):
    weights = torch.linspace(-1, 2, values.numel()).view_as(values)
    model.zero_grad(set_to_none=True)
    (values * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


@pytest.mark.parametrize("frozen_head", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_it_equals_a_plain_loop(name, frozen_head):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS[name])
    assert supports(model) is None
    model.get_output_embeddings().weight.requires_grad_(not frozen_head)
    expected = plain_logps(model)
    slope = gradient(model, expected)
    model.set_attn_implementation(ATTENTION)
    ids, labels, _ = tensors()
    found, _ = scored_forward(model, ids, labels)
    sums = found["log_probs"].double().sum(1)
    assert torch.allclose(sums, expected.sum(1), rtol=1e-4, atol=0)
    assert torch.allclose(found["log_probs"].double(), expected, atol=1e-5)
    ours = gradient(model, found["log_probs"])
    assert torch.cosine_similarity(ours, slope, dim=0).item() >= 0.9999
    assert ours.norm().item() == pytest.approx(slope.norm().item(), rel=1e-4)
    again = plain_logps(model)  # the plain path under our attention, padding and softcap included
    assert torch.allclose(again, expected, atol=1e-6)


def test_the_statistics_are_those_of_the_whole_logits():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS["llama"])
    ids, labels, mask = tensors()
    logits = model(input_ids=ids).logits[:, :-1].double()
    model.set_attn_implementation(ATTENTION)
    found, _ = scored_forward(model, ids, labels)
    scored = mask[:, 1:]
    log_p = logits.log_softmax(-1)
    expected = {
        "entropy": -(log_p.exp() * log_p).sum(-1),
        "mean_logits": logits.mean(-1),
        "is_top1": logits.argmax(-1) == ids[:, 1:],
    }
    for name, value in expected.items():
        assert torch.allclose(found[name].double()[scored], value.double()[scored], atol=1e-5), name


def test_what_a_row_cannot_see_does_not_change_it():
    """Another branch's tokens, other groups and tokens after the last scored one are out of sight."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS["llama"])
    model.set_attn_implementation(ATTENTION)
    ids, labels, _ = tensors()
    before = scored_forward(model, ids, labels)[0]["log_probs"][0]
    changed = ids.clone()
    changed[2, 7:10] = 77
    changed[1, 4:7] = 66
    changed[0, 12:] = 55
    other = torch.where(labels == -100, labels, changed)
    after = scored_forward(model, changed, other)[0]["log_probs"][0]
    assert torch.allclose(before, after, atol=1e-6)
    seen = ids.clone()
    seen[0, 7] = 77  # the tool's answer inside its own row is in sight
    assert not torch.allclose(
        before[8:], scored_forward(model, seen, labels)[0]["log_probs"][0][8:], atol=1e-4
    )


def test_packing_row_by_row():
    ids, labels, _ = tensors()
    packed = pack(ids, labels)
    first = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]  # row 0 up to its last scored token
    third = [22, 23, 24, 25, 26, 27]  # row 2 after the six tokens it shares
    fourth = [4, 3, 2, 9]  # row 3 ends before its last scored token, 8: all of it is row 1's beginning
    assert packed.ids.tolist() == [[*first, *third, *fourth, 8, 7, 6]]
    assert packed.positions.tolist() == [[*range(11), *range(6, 12), 0, 1, 2, 3, 4, 5, 6]]
    assert [(g.shared, g.branches) for g in packed.groups] == [(6, (5, 6)), (4, (3, 0))]
    assert visible(2, 3, ids.device).int().tolist() == [
        [1, 1, 1, 0, 0],  # the beginning and itself
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert visible(2, 3, ids.device, window=2).int().tolist() == [
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    assert common_length([[1, 2, 3], [1, 2], [1, 2, 4]]) == 2
    assert common_length([[1], [2]]) == 0


def test_watched_tokens_are_known_and_have_no_gradient():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS["llama"])
    ids, labels, mask = tensors()
    everything = [(row, [0, 0, 0] + [1] * (len(row) - 3)) for row, _ in ROWS]
    expected = plain_logps(model, everything)
    slope = gradient(model, plain_logps(model))
    model.set_attn_implementation(ATTENTION)
    watched = tensors(everything)[2] & ~mask
    found, noted = scored_forward(model, ids, labels, watched)
    assert torch.allclose(noted.double(), expected, atol=1e-5)
    assert torch.allclose(found["log_probs"].double(), plain_logps(model), atol=1e-5)
    assert torch.cosine_similarity(gradient(model, found["log_probs"]), slope, dim=0).item() >= 0.9999


def test_other_models_are_named():
    from transformers import OPTConfig

    small = OPTConfig(
        vocab_size=50,
        hidden_size=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        word_embed_proj_dim=16,
    )
    assert supports(AutoModelForCausalLM.from_config(small)).startswith("its type is 'opt', not one of llama")


@pytest.mark.parametrize("name", ["llama", "mistral, window", "qwen3"])
def test_attention_by_products_in_bfloat16_is_no_farther_from_the_truth_than_torchs(name, monkeypatch):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS[name]).eval()
    ids, labels, _ = tensors()
    exact = plain_logps(model)
    calls, own = [], shared_prompt._attend_by_products
    monkeypatch.setattr(
        shared_prompt, "_attend_by_products", lambda *given: calls.append(given) or own(*given)
    )
    model.set_attn_implementation(ATTENTION)
    apart, slopes = {}, {}
    for way in ("fused", "products"):
        with monkeypatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
            if way == "fused":
                fused = lambda q, k, v, mask, scale: scaled_dot_product_attention(  # noqa: E731
                    q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale
                )
                patch.setattr(shared_prompt, "_attend_by_products", fused)
            found = scored_forward(model, ids, labels)[0]["log_probs"]
        apart[way] = (found - exact).abs().max().item()
        slopes[way] = gradient(model, found)
    assert calls, "bfloat16 on a processor takes it"
    assert apart["products"] < max(2 * apart["fused"], 0.02)
    assert torch.cosine_similarity(slopes["fused"], slopes["products"], dim=0) > 0.99
