"""Rollouts through vLLM's two interfaces give what the torch engine gives; a small model stands in for vLLM."""

import json
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from mtdpo_lib.common.stages import Product
from mtdpo_lib.models import MissingModel, Policy
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import SettingError
from mtdpo_lib.rollout import rollout
from mtdpo_lib.rollout.vllm import Engine, NoAnswer, Server, Servers, check_sampler


@torch.no_grad()
def greedy_turn(model, prompt, room, stop):
    """(ids, finish reason), one token at a time; like vLLM, the stop token is part of the ids."""
    ids = list(prompt)
    while len(ids) - len(prompt) < room:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in stop:
            return ids[len(prompt) :], "stop"
    return ids[len(prompt) :], "length"


@pytest.fixture
def server(overfit):
    """A server with vLLM's three paths."""
    with serving(overfit[0]) as state:
        yield state


@pytest.fixture
def other(overfit):
    """A second one."""
    with serving(overfit[0]) as state:
        yield state


@contextmanager
def serving(model):
    """A server; `asked` keeps what it was asked, `drop` leaves keys out of its answers."""
    lock = threading.Lock()
    state = SimpleNamespace(asked=[], adapters=[], drop=(), models=None, base="base", turns=0)
    state.dies = state.says_so = None  # after so many turns it hangs up, or says so

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code, body):
            text = json.dumps(body).encode() if isinstance(body, dict) else body.encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self):
            models = {"data": [{"id": name} for name in (state.base, *state.adapters)]}
            self.answer(
                200 if self.path == "/v1/models" else 404, models if state.models is None else state.models
            )

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.asked.append((self.path, body))
                if self.path == "/v1/load_lora_adapter":
                    if not Path(body["lora_path"]).is_dir():
                        return self.answer(404, {"message": "no such adapter"})
                    state.adapters.append(body["lora_name"])
                    return self.answer(200, f"Success: {body['lora_name']} added.")
                state.turns += 1
                if state.dies is not None and state.turns > state.dies:
                    return self.answer(500, {"message": "EngineDeadError"}) if state.says_so else None
                ids, reason = greedy_turn(model, body["prompt"], body["max_tokens"], body["stop_token_ids"])
                choice = {"token_ids": ids, "finish_reason": reason, "text": ""}
                choice = {key: value for key, value in choice.items() if key not in state.drop}
                return self.answer(200, {"choices": [choice]})

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture
def adapter(tmp_path):
    base = Policy("base", Product("base", "b0", tmp_path / "base"))
    (tmp_path / "selection-1f" / "adapter").mkdir(parents=True)
    return Policy("mdpo-1", Product("selection", "1f", tmp_path / "selection-1f"), "adapter", base)


def run(sampler, overfit, pool, settings, **more):
    _, tokenizer, problems, _ = overfit
    return rollout(
        sampler, tokenizer, problems, 2, settings, pool, policy="p", seed=0, temperature=0.0, **more
    )


@pytest.mark.parametrize("change", [{}, {"max_new_tokens": 9}, {"max_tokens": 90}, {"max_rounds": 1}])
def test_the_server_gives_the_trajectories_of_the_torch_engine(overfit, pool, smoke, server, adapter, change):
    settings = replace(smoke.rollout, **change)
    theirs = run(Servers(server.url, adapter), overfit, pool, settings)
    assert theirs == run(overfit[0], overfit, pool, settings)
    path, loaded = server.asked[0]
    assert path == "/v1/load_lora_adapter" and loaded["lora_path"] == str(adapter.folder.resolve())
    requests = [body for path, body in server.asked if path == "/v1/completions"]
    assert {body["model"] for body in requests} == {loaded["lora_name"]} == {"mdpo-1-selection-1f-adapter"}
    first = [body["seed"] for body in requests[: len(theirs)]]
    assert len(set(first)) == len(first)  # every sample has a seed of its own


def test_an_adapter_is_loaded_once_and_the_next_iteration_brings_its_own(server, adapter, tmp_path):
    Server(server.url, adapter)
    assert Server(server.url, adapter).name == "mdpo-1-selection-1f-adapter"
    later = replace(adapter, name="mdpo-2", product=Product("selection", "2a", tmp_path / "selection-1f"))
    Server(server.url, later)
    assert len(server.asked) == len(server.adapters) == 2
    (adapter.product.path / "epoch-1").mkdir()
    assert Server(server.url, replace(adapter, part="epoch-1")).name == "mdpo-1-selection-1f-epoch-1"
    assert len(server.adapters) == 3  # another part of the same product is another policy
    assert Server(server.url, adapter.base).name == "base"


def test_what_goes_wrong_is_one_sentence(server, adapter, overfit, pool, smoke, tmp_path):
    with pytest.raises(
        MissingModel, match=r"No vLLM server answers at http://127.0.0.1:9 .*rollout.sampler=torch"
    ):
        Server("http://127.0.0.1:9", adapter)
    gone = replace(adapter, part="nowhere")
    with pytest.raises(MissingModel, match=r"refuses /v1/load_lora_adapter \(404\).*no such adapter"):
        Server(server.url, gone)
    server.drop = ("token_ids",)
    with pytest.raises(MissingModel, match=r"returns no token ids: vLLM 0.10.2"):
        run(Servers(server.url, adapter), overfit, pool, smoke.rollout)


def completions(server):
    return [tuple(body["prompt"]) for path, body in server.asked if path == "/v1/completions"]


def test_records_do_not_depend_on_how_many_servers_there_are(overfit, pool, smoke, server, other, adapter):
    expected = run(overfit[0], overfit, pool, smoke.rollout)
    assert run(Servers(f"{server.url},{other.url}", adapter), overfit, pool, smoke.rollout) == expected
    first = [{tuple(one.ids[: one.prompt_length]) for one in half} for half in (expected[:4], expected[4:])]
    for one, mine, others in ((server, *first), (other, *reversed(first))):
        asked = set(
            completions(one)
        )  # both samples of a question at the server that has its beginning in the cache
        assert mine <= asked and not others & asked
    assert server.adapters == other.adapters == ["mdpo-1-selection-1f-adapter"]


@pytest.mark.parametrize("says_so", [False, True])
@pytest.mark.parametrize("dies", [0, 1, 5])
def test_a_server_that_dies_hands_its_work_to_the_others(
    overfit, pool, smoke, server, other, adapter, caplog, dies, says_so
):
    server.dies, server.says_so = dies, says_so
    expected = run(overfit[0], overfit, pool, smoke.rollout)
    assert run(Servers(f"{server.url},{other.url}", adapter), overfit, pool, smoke.rollout) == expected
    assert len(completions(other)) + dies == sum(len(one.turns) for one in expected)
    said = [record.getMessage() for record in caplog.records if "Its work goes to" in record.getMessage()]
    assert len(said) == 1 and server.url in said[0]
    other.dies = 0
    with pytest.raises(NoAnswer, match=other.url):
        run(Servers(f"http://127.0.0.1:9,{other.url}", adapter), overfit, pool, smoke.rollout)


def test_a_server_that_is_not_there_is_done_without_and_one_that_refuses_is_not(
    server, other, adapter, caplog
):
    assert [one.url for one in Servers(f"http://127.0.0.1:9,{server.url}", adapter).alive] == [server.url]
    assert "No vLLM server answers at http://127.0.0.1:9" in caplog.text
    with pytest.raises(MissingModel, match=r"refuses /v1/load_lora_adapter \(404\)"):
        Servers(f"{server.url},{other.url}", replace(adapter, part="nowhere"))
    with pytest.raises(
        MissingModel, match=r"answers at http://127.0.0.1:9 "
    ):  # before long work all must be there
        check_sampler(f"{server.url},http://127.0.0.1:9")
    other.base = "another"
    with pytest.raises(MissingModel, match="servers have different bases, another and base: serve one"):
        check_sampler(f"{server.url},{other.url}")
    other.base = "base"
    check_sampler(f"{server.url},{other.url}/")


def test_a_server_is_greeted_before_long_work_starts(server, monkeypatch):
    check_sampler("torch")
    check_sampler(server.url + "/")
    monkeypatch.setattr("mtdpo_lib.rollout.vllm.GREETING_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls and never answers
        mute = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for url in (mute, "http://127.0.0.1:9", "http://[::1", "http://host:port", "http://no such host"):
            with pytest.raises(
                MissingModel, match=r"No vLLM server answers at .*: start it, or set rollout\.sampler=torch"
            ):
                check_sampler(url)
    with pytest.raises(MissingModel, match=r"/page refuses /v1/models \(404\)"):
        check_sampler(server.url + "/page")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingModel, match=r"mtdpo\[vllm\]"):
        check_sampler("vllm")


@pytest.mark.parametrize(
    "answer", ["<html>", "", "[]", "{}", '{"data": 3}', '{"data": [3]}', '{"data": null}']
)
def test_what_is_no_vllm_server_is_told(server, answer):
    server.models = answer
    with pytest.raises(MissingModel, match="is no vLLM server: correct the URL"):
        check_sampler(server.url)


def test_settings_name_the_sampler():
    assert get_profile("small", "rollout.sampler=http://gpu:8000").rollout.sampler == "http://gpu:8000"
    with pytest.raises(SettingError, match="wants torch, vllm or the URLs"):
        get_profile("small", "rollout.sampler=tgi")
    with pytest.raises(SettingError, match="vLLM is for real models"):
        get_profile("cpu", "rollout.sampler=vllm")


def test_without_vllm_the_remedy_is_named(monkeypatch, adapter):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingModel, match=r"mtdpo\[vllm\]"):
        Engine(adapter, get_profile("small").model)


def test_the_engine_in_this_process_gives_the_trajectories_of_the_torch_engine(
    monkeypatch, overfit, pool, smoke, adapter
):
    made = {}

    class LLM:
        def __init__(self, **settings):
            made["engine"] = settings

        def generate(self, prompts, limits, lora_request, use_tqdm):
            made["adapter"] = lora_request
            answers = []
            for prompt, limit in zip(prompts, limits, strict=True):
                ids, reason = greedy_turn(
                    overfit[0], prompt["prompt_token_ids"], limit.max_tokens, limit.stop_token_ids
                )
                answers.append(
                    SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids), finish_reason=reason)])
                )
            return answers

    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    vllm.LLM, vllm.SamplingParams = LLM, SimpleNamespace
    request.LoRARequest = lambda *arguments: arguments
    for name, module in (("vllm", vllm), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    engine = Engine(adapter, replace(smoke.model, quantization="nf4", lora_rank=32))
    assert run(engine, overfit, pool, smoke.rollout) == run(overfit[0], overfit, pool, smoke.rollout)
    assert made["engine"]["enable_lora"] and made["engine"]["max_lora_rank"] == 32
    assert made["engine"]["quantization"] == "bitsandbytes"
    assert made["adapter"] == ("mdpo-1", 1, str(adapter.folder))
