"""The engine against a plain loop without cache or batch, and every way a trajectory ends."""

import copy
import threading
import time
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import log_probability
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config

from mtdpo_lib.chat import ChatFormat, Role
from mtdpo_lib.common.files import CorruptData
from mtdpo_lib.common.seeds import stream
from mtdpo_lib.problems import extract_boxed, is_correct
from mtdpo_lib.rollout import (
    Journal,
    choose,
    engine,
    extract_code,
    load_trajectories,
    rollout,
    save_trajectories,
    uniform,
)  # fmt: skip
from mtdpo_lib.rollout.cache import LeanLayer, RoomyLayer, roomy_cache
from mtdpo_lib.rollout.lean import LeanStep, is_lean
from mtdpo_lib.sandbox import Calls

SIZE = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True, "initializer_range": 0.3,
}  # fmt: skip


def run(overfit, pool, settings, **kwargs):
    model, tokenizer, problems, _ = overfit
    problems = kwargs.pop("problems", problems)
    samples = kwargs.pop("samples", 1)
    return rollout(model, tokenizer, problems, samples, settings, pool, policy="p", seed=0, **kwargs)


def plain_loop(overfit, pool, problem, sample, settings, temperature):
    """The same trajectory, one token at a time, the whole context encoded anew for each: slow and simple."""
    model, tokenizer, _, _ = overfit
    chat = ChatFormat(tokenizer)
    seed = torch.tensor([stream(0, problem.id, sample)])
    ids = list(chat.prompt(problem.question).ids)
    with pool.session() as session:
        for _ in range(settings.max_rounds):
            start = len(ids)
            while len(ids) - start < settings.max_new_tokens and (
                len(ids) == start or ids[-1] != chat.end_of_turn
            ):
                with torch.no_grad():
                    logits = model(torch.tensor([ids])).logits[:, -1]
                ids.append(int(choose(logits, temperature, seed, torch.tensor([len(ids)]))))
            text = tokenizer.decode(ids[start:], skip_special_tokens=True)
            code = extract_code(text)
            if ids[-1] != chat.end_of_turn or extract_boxed(text) is not None or code is None:
                break
            ids += chat.tool(session.run(code).text).ids
    return ids


def test_greedy_rollout_is_what_the_model_has_learnt(overfit, pool, smoke):
    trajectories = run(overfit, pool, smoke.rollout, temperature=0.0)
    for trajectory, tokens in zip(trajectories, overfit[3], strict=True):
        assert trajectory.ids == tokens.ids
        assert trajectory.roles == [int(role) for role in tokens.roles]
    assert [one.stop for one in trajectories] == ["answer", "answer", "answer", "no_action"]
    assert [one.correct for one in trajectories] == [True, True, False, False]
    assert [one.tool_calls for one in trajectories] == [2, 2, 0, 0]
    assert [one.tool_errors for one in trajectories] == [0, 1, 0, 0]
    assert trajectories[0].turns[1].output == "7"  # the second call used a variable of the first
    assert trajectories[1].turns[0].error == "NameError"
    assert [one.answer for one in trajectories] == ["7", "3", "5", None]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_engine_gives_the_tokens_of_a_plain_loop(overfit, pool, smoke, temperature):
    settings = replace(smoke.rollout, max_new_tokens=40)
    trajectories = run(overfit, pool, settings, samples=2, temperature=temperature)
    for trajectory in trajectories:
        problem = next(one for one in overfit[2] if one.id == trajectory.problem_id)
        assert trajectory.ids == plain_loop(overfit, pool, problem, trajectory.sample, settings, temperature)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_trajectory_knows_what_it_is_worth_to_its_policy(overfit, pool, smoke, temperature):
    """-log pi of what the policy wrote, at temperature 1 however it was sampled; what the tool wrote does not count."""
    for row in run(overfit, pool, smoke.rollout, temperature=temperature):
        scored = [int(role == Role.ASSISTANT) for role in row.roles]
        assert row.nats == pytest.approx(-log_probability(overfit[0], row, scored), rel=1e-3, abs=2e-3)


@pytest.mark.parametrize("refill_weights", [0, engine.REFILL_WEIGHTS])
def test_order_and_batch_size_change_nothing(overfit, pool, smoke, monkeypatch, refill_weights):
    monkeypatch.setattr(engine, "REFILL_WEIGHTS", refill_weights)
    settings = replace(smoke.rollout, temperature=1.5, max_new_tokens=40)
    forward = run(overfit, pool, settings, samples=3)
    backward = run(overfit, pool, replace(settings, batch_size=2), samples=3, problems=overfit[2][::-1])
    key = {(one.problem_id, one.sample): one.ids for one in backward}
    assert all(key[one.problem_id, one.sample] == one.ids for one in forward)
    assert len({tuple(one.ids) for one in forward}) > 4  # samples of one problem differ


def test_sampling_that_was_stopped_goes_on_with_what_is_missing(overfit, pool, smoke, tmp_path, capsys):
    settings = replace(smoke.rollout, temperature=1.5, max_new_tokens=40, batch_size=2)
    whole = run(overfit, pool, settings, samples=3)

    class Stopped(Exception):
        pass

    def stop(done, total):
        if done >= total // 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(overfit, pool, settings, samples=3, progress=stop, journal=Journal(tmp_path, "greedy", every=0))
    kept = Journal(tmp_path, "greedy").found
    assert len(whole) // 2 <= len(kept) < len(whole)
    counted = []
    rest = {"progress": lambda done, total: counted.append((done, total))}
    assert run(overfit, pool, settings, samples=3, journal=Journal(tmp_path, "greedy"), **rest) == whole
    assert counted[0][0] > len(kept) and counted[-1] == (len(whole), len(whole))
    said = f"{len(kept)} of {len(whole)} trajectories of p are kept: sampling goes on from there."
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZE, sliding_window=24),
        Gemma2Config(**SIZE, sliding_window=24, query_pre_attn_scalar=8),
        Qwen3Config(**SIZE),
    ],
    ids=lambda config: config.model_type,
)
def test_rows_of_any_age_share_a_step_in_other_models(overfit, pool, smoke, config, monkeypatch):
    """Windows of attention count a row's own tokens, wherever it stands in the cache."""
    _, tokenizer, problems, _ = overfit
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    other = (network, tokenizer, problems, None)
    monkeypatch.setattr(engine, "REFILL_WEIGHTS", 0)
    settings = replace(smoke.rollout, batch_size=3, max_new_tokens=40, max_tokens=100)
    for one in run(other, pool, settings, samples=3, temperature=2.0):
        problem = next(problem for problem in problems if problem.id == one.problem_id)
        assert one.ids == plain_loop(other, pool, problem, one.sample, settings, 2.0)


@pytest.mark.parametrize("kind", [LeanLayer, RoomyLayer])
@torch.inference_mode()
def test_a_lean_step_gives_the_logits_of_transformers(kind):
    """With a merged adapter, padding, steps beyond the cache's first room, and rows that go in between."""
    torch.manual_seed(0)
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_config(LlamaConfig(**SIZE)), adapter)
    assert not is_lean(adapted.get_base_model())
    model = adapted.merge_and_unload().eval()
    assert is_lean(model)
    step, cache, lengths = LeanStep(model), roomy_cache(kind), [5, 12, 9, 3]
    rows = [torch.randint(400, (length + 80,)) for length in lengths]
    ids = torch.stack([torch.cat([torch.zeros(12 - n), row[:n]]) for n, row in zip(lengths, rows)]).long()
    mask = torch.stack([torch.arange(12) >= 12 - n for n in lengths])
    model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), past_key_values=cache)
    for number in range(80):
        if number == 40:  # the second row goes; only it reached the first three columns
            for layer in cache.layers:
                layer.keep([1], [3], 3, 3)
            rows, lengths, mask = [rows[0], rows[3], rows[2]], [5, 3, 9], mask[[0, 3, 2], 3:]
        last = torch.stack([row[n + number] for n, row in zip(lengths, rows)])[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        found = step(last, mask, torch.tensor(lengths)[:, None] + number, cache)
        for one, n, row in zip(found, lengths, rows):
            torch.testing.assert_close(
                one, model(row[None, : n + number + 1]).logits[0, -1], rtol=1e-4, atol=1e-4
            )


def test_places_are_filled_at_once_and_samples_share_their_prompt(overfit, pool, smoke, monkeypatch):
    model = overfit[0]
    sizes, forward = [], model.forward

    def noted(*arguments, **named):
        sizes.append(tuple(named["input_ids"].shape))
        return forward(*arguments, **named)

    def lean(step, ids, *others):
        sizes.append(tuple(ids.shape))
        return lean_step(step, ids, *others)

    lean_step = LeanStep.__call__
    monkeypatch.setattr(LeanStep, "__call__", lean)
    monkeypatch.setattr(model, "forward", noted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(engine, "PARTS", 1)
    found = {}
    for refill_weights in (0, engine.REFILL_WEIGHTS):
        sizes.clear()
        monkeypatch.setattr(engine, "REFILL_WEIGHTS", refill_weights)
        settings = replace(smoke.rollout, batch_size=3, temperature=1.5, max_new_tokens=40)
        done = run(overfit, pool, settings, samples=3)
        prompts, steps = ([size for size in sizes if (size[1] > 1) == wide] for wide in (True, False))
        found[refill_weights] = ([one.ids for one in done], prompts, steps)
    refilled, waves = found.values()
    assert refilled[0] == waves[0]
    assert [rows for rows, _ in waves[1]] == [1] * 4  # three samples of one prompt at a time: one pass each
    assert max(rows for rows, _ in refilled[2]) == 3
    mean = [sum(rows for rows, _ in steps) / len(steps) for _, _, steps in (refilled, waves)]
    assert mean[0] > mean[1] and len(refilled[2]) < len(waves[2])


def test_an_error_in_one_thread_stops_the_others(overfit, pool, smoke, monkeypatch):
    calls, token = [], overfit[1]("a").input_ids[0]  # no end of a turn

    def broken(batch, temperature):
        calls.append(threading.get_ident())
        if len(set(calls)) == 2:  # the second thread
            raise RuntimeError("no more")
        time.sleep(0.01)
        return [(token, 0.0)] * len(batch.rows)

    monkeypatch.setattr(engine._Batch, "step", broken)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    settings = replace(smoke.rollout, max_new_tokens=10**6, max_tokens=10**6)
    with pytest.raises(RuntimeError, match="no more"):
        run(overfit, pool, settings)
    assert len(calls) < 1000


def test_rows_are_decoded_in_two_threads_also_where_matrices_have_one(overfit, pool, smoke, monkeypatch):
    decode, found = engine._decode, {}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for parts in (1, engine.PARTS):
        met = threading.Barrier(parts, timeout=60)  # nobody passes before so many are there at one time
        monkeypatch.setattr(engine, "_decode", lambda *given, met=met: met.wait() >= 0 and decode(*given))
        monkeypatch.setattr(engine, "PARTS", parts)
        found[parts] = [one.ids for one in run(overfit, pool, smoke.rollout, samples=3)]
    assert found[1] == found[2]


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_are_judged_and_written_down_by_the_main_thread(
    overfit, pool, smoke, monkeypatch, tmp_path, threads
):
    """math-verify's time limits use signals, which other threads cannot set."""
    judges = set()

    def judge(answer, gold):
        judges.add(threading.current_thread())
        return is_correct(answer, gold)

    monkeypatch.setattr(engine, "is_correct", judge)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(engine, "PARTS", threads)
    rows = run(overfit, pool, smoke.rollout, samples=2, journal=Journal(tmp_path, "rows", every=0))
    assert judges == {threading.main_thread()}
    assert list(Journal(tmp_path, "rows").found.values()) and len(rows) == 2 * len(overfit[2])


def test_rounds_are_limited(overfit, pool, smoke):
    first = run(overfit, pool, replace(smoke.rollout, max_rounds=2), temperature=0.0)[0]
    assert (first.stop, len(first.turns), first.tool_calls, first.correct) == ("rounds", 2, 1, False)


@pytest.mark.parametrize("limit", [{"max_new_tokens": 5}, {"max_tokens": 30}])
def test_lengths_are_limited(overfit, pool, smoke, limit):
    settings = replace(smoke.rollout, **limit)
    for one in run(overfit, pool, settings, temperature=0.0)[:2]:
        assert one.stop == "length"
        assert not one.correct
        assert len(one.ids) == len(one.roles) <= settings.max_tokens


@pytest.mark.parametrize("limit", range(40, 100, 3))
def test_a_limit_cuts_a_trajectory_and_leaves_what_comes_before(overfit, pool, smoke, limit):
    whole = run(overfit, pool, smoke.rollout, temperature=0.0)
    cut = run(overfit, pool, replace(smoke.rollout, max_tokens=limit), temperature=0.0)
    end = ChatFormat(overfit[1]).end_of_turn
    for one, all_of_it in zip(cut, whole, strict=True):
        assert one.ids == all_of_it.ids[: len(one.ids)]
        assert one.roles == all_of_it.roles[: len(one.ids)]
        if len(all_of_it.ids) < limit:
            assert one == all_of_it
        elif one.prompt_length < limit:
            assert one.stop == "length" or len(one.ids) == limit
            # It ends with a full cache, or with a call whose answer has no room: never inside the tool's turn.
            assert len(one.ids) == limit or (one.ids[-1] == end and one.roles[-1] == Role.ASSISTANT)


@pytest.mark.parametrize("template", ["own", "longer"])
def test_the_tool_runs_while_the_header_of_its_turn_is_fed(overfit, pool, smoke, template, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(engine, "PARTS", 1)  # steps of several threads could not be told apart
    model, tokenizer, problems, _ = overfit
    if template == "longer":
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = tokenizer.chat_template.replace(
            "{% for message in messages %}",
            "{% for message in messages %}{% if message['role'] == 'tool' %}the tool says {% endif %}",
        )
    header = len(ChatFormat(tokenizer).tool_header)
    steps, started, waited = [0], [], []
    step, start_many, results = engine._Batch.step, pool.start_many, Calls.results

    def counted(*arguments):
        steps[0] += 1
        return step(*arguments)

    def start(calls):
        started.append(steps[0])
        return start_many(calls)

    def collected(calls):
        waited.append(steps[0])
        return results(calls)

    monkeypatch.setattr(engine._Batch, "step", counted)
    monkeypatch.setattr(pool, "start_many", start)
    monkeypatch.setattr(Calls, "results", collected)
    found = rollout(model, tokenizer, problems, 1, smoke.rollout, pool, policy="p", seed=0, temperature=0.0)
    assert any(one.tool_calls for one in found)
    assert (header > 1) == (template == "longer")
    assert [then - now for now, then in zip(started, waited, strict=True)] == [1 + header] * len(started)


def test_every_sampled_token_and_no_other_is_the_assistants(overfit, pool, smoke):
    chat = ChatFormat(overfit[1])
    for one in run(overfit, pool, smoke.rollout, temperature=0.0):
        ends = [place for place, token in enumerate(one.ids) if token == chat.end_of_turn]
        assert one.prompt_length == len(chat.prompt(one.question).ids)
        assert all(one.roles[place] in (Role.PROMPT, Role.ASSISTANT, Role.TEMPLATE) for place in ends)
        assert sum(one.roles[place] == Role.ASSISTANT for place in ends) == len(one.turns)


@pytest.mark.parametrize("size", [4097, 5000, 4096 + 256])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_a_large_vocabulary_is_drawn_from_by_blocks_as_a_small_one_in_one_sum(monkeypatch, size, temperature):
    made = torch.Generator().manual_seed(size)
    logits = 4 * torch.randn(300, size, generator=made)
    logits[:, 7] += 9  # one token has most of it, as in a trained model
    logits[::2, -1] += 12  # and the last one in half of the rows
    seeds, positions = torch.arange(300), torch.full((300,), 5)
    by_blocks = choose(logits, temperature, seeds, positions)
    monkeypatch.setattr(engine, "MOST_SUMMED", size)
    in_one_sum = choose(logits, temperature, seeds, positions)
    assert (by_blocks == in_one_sum).float().mean() > 0.99  # a draw on a boundary may fall on its other side
    assert by_blocks.max() == size - 1 and by_blocks.unique().numel() > 30
    shares = (logits / temperature).softmax(-1).gather(1, by_blocks[:, None])
    assert (shares > 0).all()


def test_uniform_numbers_are_uniform_and_belong_to_seed_and_position():
    seeds = torch.tensor([stream(0, number) for number in range(20_000)])
    values = uniform(seeds, torch.zeros_like(seeds))
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(values.var() - 1 / 12) < 0.002
    assert values.min() > 0 and values.max() < 1
    assert torch.equal(uniform(seeds[:5], torch.arange(5)), uniform(seeds[:9], torch.arange(9))[:5])
    assert abs(torch.corrcoef(torch.stack([values, uniform(seeds, torch.ones_like(seeds))]))[0, 1]) < 0.03


def test_sampling_follows_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(20_000, 1)
    seeds = torch.tensor([stream(1, number) for number in range(20_000)])
    for temperature in (0.5, 1.0):
        tokens = choose(logits, temperature, seeds, torch.zeros_like(seeds))
        shares = torch.bincount(tokens, minlength=4) / len(tokens)
        assert torch.allclose(shares, (logits[0] / temperature).softmax(0), atol=0.015)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a\n```python\nx = 1\n```", "x = 1"),
        ("```python\nx = 1\n```\nthen\n```python\nprint(x)\n```", "x = 1\nprint(x)"),
        ("```python\nprint(1)", "print(1)"),  # unclosed: the authors' parser drops it
        ("no code", None),
        ("```output\n3\n```", None),
    ],
)
def test_code_of_a_turn(text, code):
    assert extract_code(text) == code


def test_trajectories_survive_the_disk(overfit, pool, smoke, tmp_path):
    trajectories = run(overfit, pool, smoke.rollout, temperature=0.0)
    save_trajectories(tmp_path / "t.jsonl", trajectories)
    assert load_trajectories(tmp_path / "t.jsonl") == trajectories


def test_a_corrupt_line_is_named(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"a": 1}\n{"b": \n')
    with pytest.raises(CorruptData, match=r"Line 2 of .*t.jsonl is not a JSON object"):
        load_trajectories(file)
