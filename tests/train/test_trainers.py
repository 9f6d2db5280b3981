"""The trainers: eq. (15) and the baselines inside TRL, steps in parts, references, diagnostics, bad input, README."""

import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel
from support import (
    CHATML,
    ETA,
    QUESTION,
    RIGHT,
    WRONG,
    agree,
    as_trajectory,
    gradient,
    log_probability,
    move,
    step,
    whole_batch,
    with_template,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from mtdpo_lib.chat.roles import Role, RoleTokens
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models.policy import Policy, load_for_sampling, load_for_training, load_tokenizer
from mtdpo_lib.models.tiny import tiny_model
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import PreferenceSettings
from mtdpo_lib.results.readme import README
from mtdpo_lib.train import (
    PreferenceJob,
    TrajectoryDPOTrainer,
    pairs_from_messages,
    preference_dataset,
    scored_tokens,
    train_preference,
)
from mtdpo_lib.train.data import prompt_of
from mtdpo_lib.train.loop import CHECKPOINTING, training_arguments
from mtdpo_lib.train.losses import different_prompts
from mtdpo_lib.train.preference import set_reference
from mtdpo_lib.train.reference import answers_as_reference

# --- The losses inside the trainers ---


@pytest.mark.parametrize("method", ["mkto", "kto"])
@pytest.mark.parametrize("fast", [False, True])
def test_the_kto_loss_is_equation_15(build, pairs, policy, smoke, method, fast):
    trainer = build(method, pairs, fast=fast, reference="base")
    move(trainer, size=0.2)
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, whole_batch(trainer)).item()
    reference = load_for_sampling(policy, smoke.model)
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    prompts = [one.ids[: one.prompt_length] for one in rows]

    def ratio(tokens):
        trajectory, mask = as_trajectory(tokens, "x", True), scored_tokens(tokens.roles, method)
        return log_probability(trainer.model, trajectory, mask) - log_probability(reference, trajectory, mask)

    kl = []
    for prompt, other in zip(prompts, different_prompts([tuple(prompt) for prompt in prompts])):
        start = rows[other].prompt_length
        mixed = RoleTokens(
            prompt + rows[other].ids[start:], [0] * len(prompt) + list(rows[other].roles[start:])
        )
        kl.append(ratio(mixed))
    z0 = max(sum(kl) / len(kl), 0)
    expected = []
    for place, row in enumerate(rows):
        sign = 1 if place < len(pairs) else -1
        expected.append(1 - 1 / (1 + math.exp(-ETA * sign * (ratio(row.tokens) - z0))))
    assert loss == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def unmasked_rows(dataset):
    """The same pairs as stock TRL holds them: a prompt and all that follows."""
    rows = []
    for row in dataset:
        start = len(prompt_of(row["chosen_ids"], row["chosen_roles"]))
        rows.append({"prompt_ids": row["chosen_ids"][:start]})
        rows[-1] |= {f"{side}_ids": row[f"{side}_ids"][start:] for side in ("chosen", "rejected")}
    return rows


@pytest.mark.parametrize("fast", [False, True])
def test_single_turn_dpo_is_stock_trl(build, pairs, fast):
    trainer = build("dpo", pairs, fast=fast)
    move(trainer)
    ours = step(trainer)
    pad = trainer.processing_class.pad_token_id
    batch = DataCollatorForPreference(pad_token_id=pad)(unmasked_rows(trainer.train_dataset))
    trainer.model.zero_grad(set_to_none=True)
    loss = DPOTrainer.compute_loss(trainer, trainer.model, batch)
    loss.backward()
    agree(ours, (loss.item(), gradient(trainer.model)))


def test_single_turn_kto_is_stock_trl_given_the_same_kl_pairs(build, pairs):
    trainer = build("kto", pairs)
    move(trainer)
    ours = step(trainer)
    rows = unmasked_rows(trainer.train_dataset)
    examples = [
        {"prompt_ids": row["prompt_ids"], "completion_ids": row[f"{side}_ids"], "label": side == "chosen"}
        for side in ("chosen", "rejected")
        for row in rows
    ]
    for example, other in zip(examples, different_prompts([tuple(e["prompt_ids"]) for e in examples])):
        example["KL_completion_ids"] = examples[other]["completion_ids"]
    pad = trainer.processing_class.pad_token_id
    batch = DataCollatorForUnpairedPreference(pad_token_id=pad)(examples)
    trainer.model.zero_grad(set_to_none=True)
    loss = KTOTrainer.compute_loss(trainer, trainer.model, batch)
    loss.backward()
    agree(ours, (loss.item(), gradient(trainer.model)))


# --- A step does not depend on how it is cut ---


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("method", ["mdpo", "mkto"])
def test_padding_and_parts_change_nothing(build, pairs, method, fast):
    nll = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]} if method == "mdpo" else {}
    trainer = build(method, pairs, nll, fast=fast)
    move(trainer)
    batch = whole_batch(trainer)
    whole = step(trainer, batch)
    wider = {}
    for name, value in batch.items():
        fill = -1 if name == "roles" else 0
        wider[name] = torch.nn.functional.pad(value, (0, 7), value=fill) if value.dim() == 2 else value
    agree(step(trainer, wider), whole)
    for rows in (1, 2):
        trainer._rows_at_once = rows
        agree(step(trainer, batch), whole)


def test_accumulation_gives_the_step_of_one_batch(build, pairs, tmp_path):
    """With the NLL term too, whose mean TRL takes for each micro-batch alone."""
    adapters = []
    for size, accumulated in ((3, 1), (1, 3)):
        arguments = {
            "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_steps": 1,
            "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 1e9,
            "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7], "save_strategy": "no",
        }  # fmt: skip
        trainer = build("mdpo", pairs, arguments)
        trainer.train()
        adapters.append(
            torch.cat([p.detach().flatten() for n, p in trainer.model.named_parameters() if ".default." in n])
        )
    assert torch.allclose(*adapters, atol=1e-6)
    assert adapters[0].abs().max() > 1e-3


# --- The fast step in a trainer ---


def test_the_fast_step_is_trl_s_with_the_right_mask(build, pairs):
    steps, logs = [], []
    for fast in (False, True):
        trainer = build("mdpo", pairs, fast=fast)
        assert trainer.fast == fast
        move(trainer)
        steps.append(step(trainer))
        logs.append({name: values[0] for name, values in trainer._metrics["train"].items()})
    agree(*steps)
    assert logs[1].keys() == logs[0].keys()
    for name, value in logs[0].items():
        assert logs[1][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_the_fast_step_under_gradient_checkpointing(build, pairs):
    plain = build("mdpo", pairs)
    move(plain)
    checkpointed = build("mdpo", pairs, {CHECKPOINTING: True}, fast=True)
    move(checkpointed)
    getattr(checkpointed.model, f"{CHECKPOINTING}_enable")()
    agree(step(plain), step(checkpointed))


def test_a_model_the_fast_step_does_not_know_takes_trl_s_path(build, pairs, caplog):
    from transformers import OPTConfig

    small = OPTConfig(
        vocab_size=500, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=16, max_position_embeddings=400, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(small)
    trainer = build("mdpo", pairs, model=model, peft_config=LoraConfig(task_type="CAUSAL_LM"), fast=True)
    assert not trainer.fast
    assert "its type is 'opt', not one of llama" in caplog.text
    assert step(trainer)[0] == pytest.approx(math.log(2), abs=1e-5)


# --- References ---


@pytest.fixture
def adapter(build, pairs, tmp_path):
    """A saved adapter that is not the policy's."""
    trainer = build("mdpo", pairs)
    move(trainer, seed=3)
    trainer.model.save_pretrained(tmp_path / "other", selected_adapters=["default"])
    return tmp_path / "other"


def test_step_0_is_checked_and_said(build, pairs, caplog, policy, adapter):
    caplog.set_level("INFO", logger="mtdpo_lib")
    trainer = build("mdpo", pairs)
    step(trainer)
    assert trainer.agreement < 1e-4
    assert "Step 0: policy and reference agree on 6 trajectories" in caplog.text
    wrong = build("mdpo", pairs)
    set_reference(wrong.model, Policy("other", Product("t", "k", adapter), "", policy))
    with pytest.raises(RuntimeError, match=r"should agree, but their log-probabilities differ by \d"):
        step(wrong)


def test_a_reference_is_named_by_the_folder_of_its_adapter(build, pairs, adapter):
    losses = {name: step(build("mdpo", pairs, reference=name))[0] for name in ("initial", "base", adapter)}
    assert losses["initial"] == pytest.approx(math.log(2), abs=1e-5)
    assert losses["base"] == pytest.approx(math.log(2), abs=1e-5)  # a new adapter changes nothing yet
    assert abs(losses[adapter] - math.log(2)) > 1e-3


def test_an_adapter_of_another_base_is_refused(build, pairs, adapter, smoke, tokenizer, tmp_path):
    other = tiny_model(get_profile("cpu").model, tokenizer, 320, seed=0)
    foreign = build("mdpo", pairs, model=other, peft_config=LoraConfig(r=4, target_modules="all-linear"))
    foreign.model.save_pretrained(tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"does not fit this policy's base at model.layers.0"):
        build("mdpo", pairs, reference=tmp_path / "foreign")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "a/b"}))
    with pytest.raises(ValueError, match="was made for the base a/b"):
        build("mdpo", pairs, reference=adapter)
    with pytest.raises(ValueError, match="holds no adapter"):
        build("mdpo", pairs, reference=tmp_path)


def test_the_reference_is_computed_once_for_tokens_mask_adapter_and_precision(build, pairs, tmp_path):
    folder = tmp_path / "cache"
    plain = build("mdpo", pairs)
    move(plain)
    expected = step(plain)

    def cached(method="mdpo", **options):
        trainer = build(method, pairs, reference_cache=folder, **options)
        move(trainer)
        loss = step(trainer)
        trainer._forward.cache.save()
        return loss, trainer._forward.cache

    first, cache = cached()
    assert (cache.hits, cache.misses) == (0, 6)
    again, cache = cached()
    assert (cache.hits, cache.misses) == (6, 0)
    agree(first, expected)
    agree(again, expected)
    _, other_mask = cached(
        "dpo"
    )  # the same tokens, more of them scored but in the two answers of a single turn
    assert (other_mask.hits, other_mask.misses) == (2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        _, other_precision = cached()
    assert (other_precision.hits, other_precision.misses) == (0, 6)
    model = load_adapter_policy(pairs, build, tmp_path)
    _, other_adapter = cached(model=model)
    assert (other_adapter.hits, other_adapter.misses) == (0, 6)


@pytest.mark.parametrize("method", ["mdpo", "mkto"])
@pytest.mark.parametrize(
    "options", [{}, {"fast": True}, {"fast": True, "rows_at_once": 2}, {"reference": "base"}]
)
def test_the_reference_comes_before_the_activations_of_the_policy(build, pairs, method, options):
    """Its own would add to the peak; and it is not computed again when TRL asks for it."""
    trainer = build(method, pairs, **options)
    move(trainer)
    network, calls = trainer.model.get_base_model(), []
    network.model.register_forward_pre_hook(
        lambda *_: calls.append((answers_as_reference(network), torch.is_grad_enabled()))
    )
    step(trainer)
    learns, compares = (False, True), (True, False)
    assert calls[calls.index(learns) - 1] == compares
    mismatched = 0 if method == "mdpo" else 1  # rows for z_0, of policy and reference, without gradient
    parts = 2 if "rows_at_once" in options else 1
    assert calls.count(learns) == parts
    assert calls.count(compares) == parts * (1 + mismatched)


def load_adapter_policy(rows, build, tmp_path):
    trainer = build("mdpo", rows)
    move(trainer, seed=5)
    trainer.model.save_pretrained(tmp_path / "trained", selected_adapters=["default"])
    base = trainer.model.unload()
    return PeftModel.from_pretrained(base, tmp_path / "trained", is_trainable=True)


# --- Diagnostics ---


def test_diagnostics_add_up(build, pairs, policy, smoke):
    trainer = build("mdpo", pairs)
    move(trainer)
    step(trainer)
    found = {name: values[0] for name, values in trainer._metrics["train"].items()}
    model = trainer.model.eval()
    logs = {"chosen": [], "rejected": []}
    pull = {Role.ASSISTANT: 0.0, Role.TOOL: 0.0}
    for pair in pairs:
        for side in logs:
            one, turn, previous = getattr(pair, side), 0, None
            sums = {}
            for place in range(1, len(one.ids)):
                alone = [int(place == other) for other in range(len(one.ids))]
                value = log_probability(model, one, alone)
                role = Role(one.roles[place])
                turn += role == Role.ASSISTANT and previous != Role.ASSISTANT
                previous = role
                if role == Role.ASSISTANT:
                    sums[f"turn_{turn}"] = sums.get(f"turn_{turn}", 0) + value
                sums[role.name.lower()] = sums.get(role.name.lower(), 0) + value
                if role in pull:
                    pull[role] += 1 - math.exp(value)
            logs[side].append(sums)
    for side, rows in logs.items():
        for name in {name for row in rows for name in row} - {"prompt"}:
            expected = [row[name] for row in rows if name in row]
            assert found[f"logps/{side}/{name}"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
        assert found[f"logps/{side}/assistant"] == pytest.approx(found[f"logps/{side}"], rel=1e-4)
    share = pull[Role.TOOL] / (pull[Role.TOOL] + pull[Role.ASSISTANT])
    assert found["tool_gradient_share"] == pytest.approx(share, rel=1e-4)
    assert 0.05 < share < 0.95
    assert found["ratio/chosen"] - found["ratio/rejected"] == pytest.approx(
        found["rewards/margins"] / ETA, rel=1e-3
    )
    assert found["reference_kl"] > 0


def test_watching_tool_tokens_changes_neither_loss_nor_gradient(build, pairs):
    steps = []
    for diagnostics in (False, True):
        trainer = build("mdpo", pairs, diagnostics=diagnostics)
        move(trainer)
        steps.append(step(trainer))
    assert steps[0][0] == steps[1][0]
    assert torch.equal(steps[0][1], steps[1][1])  # bit for bit


# --- TRL's surface ---


def test_a_resumed_run_ends_where_an_unbroken_one_does(build, pairs, tmp_path):
    ends = []
    for name, stop in (("whole", None), ("broken", 2)):
        arguments = {
            "output_dir": str(tmp_path / name), "per_device_train_batch_size": 1, "max_steps": 4, "save_steps": 2,
            "learning_rate": 1e-3, "save_only_model": False, "eval_strategy": "steps", "eval_steps": 2,
        }  # fmt: skip
        options = {"fast": True, "eval_dataset": preference_dataset(pairs[:2])}
        trainer = build("mdpo", pairs, arguments, **options)
        if stop:
            trainer.add_callback(StopAt(stop))
            trainer.train()
            trainer = build("mdpo", pairs, arguments, **options)
            trainer.train(resume_from_checkpoint=str(tmp_path / name / f"checkpoint-{stop}"))
        else:
            trainer.train()
        assert any("eval_rewards/margins" in row for row in trainer.state.log_history)
        assert any("logps/chosen/turn_1" in row for row in trainer.state.log_history)
        ends.append({n: p.detach() for n, p in trainer.model.named_parameters() if ".default." in n})
    for name, value in ends[0].items():
        assert torch.allclose(value, ends[1][name], atol=1e-6), name


class StopAt(TrainerCallback):
    """A run that is stopped from outside."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize("method", ["mdpo", "mkto", "dpo", "kto", "raft"])
@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_every_method_of_the_profiles_trains(policy, pairs, tmp_path, smoke, method, kind):
    if (method, kind) == ("raft", "fast"):
        pytest.skip("RAFT has no pairs to share a prompt")
    changes = (
        f"preference.method={method} preference.step={kind} preference.learning_rate=0.003 preference.eta=0.1"
    )
    changes += (
        " preference.batch_size=3 preference.epochs=5 preference.checkpoints=1 preference.warmup_fraction=0"
    )
    settings = get_profile("smoke", changes).preference
    right = [pair.chosen for pair in pairs]
    log = train_preference(
        PreferenceJob(tmp_path / "out", pairs, policy, policy, settings, smoke.model, seed=0, right=right)
    )
    assert len(log) == 5
    assert log[-1]["loss"] < log[0]["loss"]
    assert (tmp_path / "out" / "step-5" / "adapter_model.safetensors").is_file()
    if method != "raft":
        assert log[-1]["margin"] > 0.01
        assert 0 < log[0]["tool_gradient_share"] < 1


# --- A user's own data, and bad input ---


@pytest.fixture
def foreign_folder(tmp_path, smoke):
    """A model folder as the hub has them: its own template (ChatML), no pad token, no generation markers."""
    tokenizer = with_template(CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    tokenizer.pad_token = None
    model = tiny_model(smoke.model, tokenizer, 320, seed=0)
    folder = tmp_path / "someone" / "tiny-chat"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_ten_lines_on_your_own_data(foreign_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, my_pairs = str(foreign_folder), [{"chosen": RIGHT, "rejected": WRONG}] * 4
    code = readme_lines()
    assert code.count("\n") <= 16
    space = {"folder": folder, "my_pairs": my_pairs}
    exec(code, space)
    trainer = space["trainer"]
    assert trainer.agreement == pytest.approx(0, abs=1e-4)
    assert trainer.state.global_step > 0
    row = space["dataset"][0]
    scored = [token for token, mask in zip(row["chosen_ids"], row["chosen_mask"]) if mask]
    assert trainer.processing_class.decode(scored) == "print(2*3)<|im_end|>\\boxed{6}<|im_end|>"


def test_the_ten_lines_train_on_every_pair_that_they_do_not_report(foreign_folder, tmp_path, monkeypatch):
    """TRL's own limit is shorter than the data set's: a pair between the two was once left out without a word."""
    monkeypatch.chdir(tmp_path)
    rows = [{"chosen": RIGHT, "rejected": WRONG}]
    for words in (700, 1_100):  # of two tokens each: one pair between the limits, one over both
        rows.append({"chosen": [QUESTION, {"role": "assistant", "content": " 1" * words}], "rejected": WRONG})
    space = {"folder": str(foreign_folder), "my_pairs": rows}
    exec(readme_lines().removesuffix("trainer.train()\n"), space)
    lengths = [len(ids) for ids in space["trainer"].train_dataset["chosen_ids"]]
    assert len(lengths) == 2 and DPOConfig.max_length < max(lengths) < 2048
    assert space["dropped"] == {"longer than 2048 tokens": 1}
    assert space["trainer"].state.global_step == 0


def readme_lines() -> str:
    """The first Python block of the README's section on a user's own data."""
    section = README.read_text(encoding="utf8").partition("## Your own data")[2]
    return section.partition("```python\n")[2].partition("```")[0]


def test_full_fine_tuning_with_a_second_model_as_reference(foreign_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(foreign_folder)
    dataset, _ = pairs_from_messages([{"chosen": RIGHT, "rejected": WRONG}] * 4, tokenizer)
    losses = []
    for fast in (False, True):
        model = AutoModelForCausalLM.from_pretrained(foreign_folder)
        settings = {
            "max_steps": 3,
            "learning_rate": 1e-3,
            "bf16": False,
            "logging_steps": 1,
            CHECKPOINTING: True,
        }
        arguments = DPOConfig(str(tmp_path / "full"), use_cpu=True, **settings)
        trainer = TrajectoryDPOTrainer(
            model, arguments, train_dataset=dataset, processing_class=tokenizer, fast=fast
        )
        trainer.train()
        assert trainer.agreement < 1e-3
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    trainer.save_model(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="need a policy with an adapter: pass peft_config"):
        TrajectoryDPOTrainer(
            model, arguments, train_dataset=dataset, processing_class=tokenizer, reference="base"
        )


def test_pairs_of_two_prompts_and_empty_sets_are_refused(build, pairs):
    with pytest.raises(ValueError, match="answers two different prompts"):
        preference_dataset([Pair(pairs[0].chosen, pairs[1].rejected)])
    empty = preference_dataset(pairs).select([])
    with pytest.raises(ValueError, match="data set is empty"):
        build("mdpo", empty)


def test_kto_refuses_a_batch_of_one(build, pairs):
    with pytest.raises(ValueError, match="at least 2; got 3 pairs and a batch size of 1"):
        build("mkto", pairs, {"per_device_train_batch_size": 1})
    with pytest.raises(ValueError, match="got 1 pairs"):
        build("mkto", pairs[:1], {"per_device_train_batch_size": 2})
    with pytest.raises(ValueError, match="The last batch of 3 pairs would hold one pair"):
        build("mkto", pairs, {"per_device_train_batch_size": 2})


def test_a_reference_on_another_base_is_refused(policy, pairs, tmp_path, smoke):
    other = Policy("other", Product("sft", "another key", tmp_path), "late")
    job = PreferenceJob(tmp_path / "out", pairs, policy, other, PreferenceSettings(), smoke.model, seed=0)
    with pytest.raises(ValueError, match="The reference other stands on other, but the policy sft on sft"):
        train_preference(job)


def test_a_tokenizer_without_pad_and_end_token_is_refused(build, pairs, policy, smoke, tmp_path):
    tokenizer = load_tokenizer(policy)
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(
        ValueError, match=r"neither a pad token nor an end-of-text token: set tokenizer\.pad_token"
    ):
        TrajectoryDPOTrainer(
            model=load_for_training(policy, smoke.model, 0),
            args=DPOConfig(**training_arguments(tmp_path, smoke.model, 0)),
            train_dataset=preference_dataset(pairs),
            processing_class=tokenizer,
        )
