"""Rollouts through vLLM: servers by URL, or an engine in this process. The same turns, tool and stop rules as `engine`.

vLLM batches requests and keeps the cache of shared beginnings itself, so trajectories go turn by turn here: all that are
alive get their next turn, all calls of the tool run at once, and so on. Seeds are given with every request; tokens are still
not those of the torch engine, because vLLM draws them in its own way (greedy turns agree to rounding).

Needs the extra ``pip install "mtdpo[vllm]"`` and a GPU for the engine in this process; servers may be anywhere that can
read the adapters' folders:

    VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-lora-rank 32
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import util
from typing import TYPE_CHECKING, Any

from mtdpo_lib.models import MissingModel, Policy, load_for_sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mtdpo_lib.profiles.sections import ModelSettings

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 600.0  # for one turn, its wait in the server's queue included
GREETING_SECONDS = 5.0  # for the first question, before long work starts
NO_VLLM = 'rollout.sampler=vllm needs vLLM: run `pip install "mtdpo[vllm]"`, or set rollout.sampler=torch.'
AT_ONCE = 256  # requests in flight at each server; vLLM's own default of sequences in a batch
HANDED_OVER = "%s Its work goes to the other servers."


@dataclass(frozen=True)
class TurnRequest:
    """The next turns to sample.

    Attributes:
        prompts: token ids of N conversations so far.
        room: most tokens of each turn.
        seeds: of each turn.
        temperature: of all of them; 0 is greedy.
        end_of_turn: the token that ends a turn.
    """

    prompts: Sequence[list[int]]
    room: Sequence[int]
    seeds: Sequence[int]
    temperature: float
    end_of_turn: int

    def closed(self, ids: Sequence[int], finish_reason: str) -> list[int]:
        """A sampled turn with the end of turn at its end, where that is why it ended.

        >>> request = TurnRequest([[1, 2]], [8], [0], temperature=1.0, end_of_turn=9)
        >>> request.closed([5, 6], "stop"), request.closed([5, 6], "length")
        ([5, 6, 9], [5, 6])
        """
        cut = finish_reason == "stop" and list(ids[-1:]) != [self.end_of_turn]
        return [*ids, self.end_of_turn] if cut else [*ids]


class TurnSampler(ABC):
    """What samples turns."""

    @abstractmethod
    def turns(self, request: TurnRequest) -> list[list[int]]:
        """The next turn of each conversation: token ids, the end of turn included where it was reached."""


class NoAnswer(MissingModel):
    """A server that is not there, or not any more; another one may be."""


class Server:
    """A policy behind a server that speaks vLLM's HTTP interface; its adapter is loaded there by name.

    Args:
        url: of the server, ``http://host:port``.
        policy: a base, or an adapter in a folder that the server can read.

    Raises:
        MissingModel: nobody answers, or the adapter cannot be loaded; the sentence says what to do.
    """

    def __init__(self, url: str, policy: Policy):
        self.url = url.rstrip("/")
        models = served_models(self.url, REQUEST_SECONDS)
        # Of the adapter's content, so never another's: SFT keeps one for each epoch, all of one product
        own = "-".join(filter(None, (policy.name, policy.product.path.name, policy.part)))
        self.name = models[0] if policy.base is None else own
        if self.name not in models:
            adapter = {"lora_name": self.name, "lora_path": str(policy.folder.resolve())}
            _ask(self.url, "/v1/load_lora_adapter", adapter)

    def turn(self, request: TurnRequest, number: int) -> list[int]:
        """The next turn of one of the request's conversations, counted from 0."""
        body = {
            "model": self.name, "prompt": request.prompts[number], "max_tokens": request.room[number],
            "seed": request.seeds[number], "temperature": request.temperature, "top_p": 1.0, "top_k": 0,
            "stop_token_ids": [request.end_of_turn], "return_token_ids": True, "add_special_tokens": False,
        }  # fmt: skip
        choice = _ask(self.url, "/v1/completions", body)["choices"][0]
        if choice.get("token_ids") is None:
            raise MissingModel(f"The server at {self.url} returns no token ids: vLLM 0.10.2 or newer does.")
        return request.closed(choice["token_ids"], choice["finish_reason"])


class Servers(TurnSampler):
    """A policy behind one server or several. Neighbouring prompts, which begin alike, go to the same one.

    A server that does not answer any more hands its work to the others. Every turn has its own seed, so what is sampled does
    not depend on who samples it.

    Args:
        urls: separated by commas.
        policy: see `Server`.

    Raises:
        MissingModel: no server answers, or one refuses; the sentence says what to do.
    """

    def __init__(self, urls: str, policy: Policy):
        self.alive: list[Server] = []
        self._lock = threading.Lock()
        silent: list[NoAnswer] = []
        for url in urls.split(","):
            try:
                self.alive.append(Server(url, policy))
            except NoAnswer as error:
                silent.append(error)
        if not self.alive:
            raise silent[0]
        for error in silent:
            logger.warning(HANDED_OVER, error)

    def _hand_over(self, server: Server, error: NoAnswer) -> None:
        """Do without a server; without the last one nothing can be done."""
        with self._lock:
            others = [one for one in self.alive if one is not server]
            if not others:
                raise error
            if len(others) < len(self.alive):
                logger.warning(HANDED_OVER, error)
            self.alive = others

    def turns(self, request: TurnRequest) -> list[list[int]]:
        """See `TurnSampler`."""
        count = len(request.prompts)

        def turn(number: int) -> list[int]:
            while True:
                alive = self.alive
                server = alive[number * len(alive) // count]
                try:
                    return server.turn(request, number)
                except NoAnswer as error:
                    self._hand_over(server, error)

        with ThreadPoolExecutor(AT_ONCE * len(self.alive)) as executor:
            return list(executor.map(turn, range(count)))


def _ask(
    url: str, path: str, body: dict[str, Any] | None = None, seconds: float = REQUEST_SECONDS
) -> dict[str, Any]:
    """What a server answers; {} for an answer that is no JSON object."""
    try:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith("{") else {}
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        kind = NoAnswer if error.code >= 500 else MissingModel  # 5..: it is broken, whatever it is asked
        raise kind(f"The server at {url} refuses {path} ({error.code}): {said}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswer(
            f"No vLLM server answers at {url} ({error}): start it, or set rollout.sampler=torch."
        ) from error


def served_models(url: str, seconds: float) -> list[str]:
    """Names of the models and adapters that a server has, the base first.

    Raises:
        MissingModel: nobody answers within so many seconds, or something else than vLLM does.
    """
    try:
        return [model["id"] for model in _ask(url, "/v1/models", seconds=seconds)["data"]]
    except (KeyError, TypeError) as error:
        raise MissingModel(
            f"What answers at {url} is no vLLM server: correct the URL, or set rollout.sampler=torch."
        ) from error


def check_sampler(sampler: str) -> None:
    """Refuse, before long work starts, a sampler that is not there: a vLLM server that does not answer, no vLLM here.

    Of several servers all must answer, and have the same base.

    Raises:
        MissingModel: the sentence says what to do.
    """
    if sampler == "vllm" and util.find_spec("vllm") is None:
        raise MissingModel(NO_VLLM)
    if sampler not in ("torch", "vllm"):
        bases = {served_models(url.rstrip("/"), GREETING_SECONDS)[0] for url in sampler.split(",")}
        if len(bases) > 1:
            raise MissingModel(
                f"The vLLM servers have different bases, {' and '.join(sorted(bases))}: serve one."
            )


class Engine(TurnSampler):
    """A policy in a vLLM engine of this process, which has the GPU's memory as long as this object lives.

    Raises:
        MissingModel: vLLM is not installed.
    """

    def __init__(self, policy: Policy, settings: ModelSettings):
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError:
            raise MissingModel(NO_VLLM) from None
        self.engine = LLM(
            model=policy.weights, tokenizer=str((policy.base or policy).folder), dtype=settings.dtype,
            enable_lora=policy.base is not None, max_lora_rank=settings.lora_rank, enable_prefix_caching=True,
            quantization="bitsandbytes" if settings.quantization == "nf4" else None,
        )  # fmt: skip
        self.adapter = LoRARequest(policy.name, 1, str(policy.folder)) if policy.base is not None else None

    def turns(self, request: TurnRequest) -> list[list[int]]:
        """See `TurnSampler`."""
        from vllm import SamplingParams

        shared = {"temperature": request.temperature, "stop_token_ids": [request.end_of_turn]}
        limits = [
            SamplingParams(max_tokens=tokens, seed=seed, **shared)
            for tokens, seed in zip(request.room, request.seeds, strict=True)
        ]
        asked = [{"prompt_token_ids": list(prompt)} for prompt in request.prompts]
        answers = self.engine.generate(asked, limits, lora_request=self.adapter, use_tqdm=False)
        first = [answer.outputs[0] for answer in answers]
        return [request.closed(turn.token_ids, turn.finish_reason) for turn in first]


def load_sampler(policy: Policy, model: ModelSettings, sampler: str) -> PreTrainedModel | TurnSampler:
    """The policy ready to sample with what `rollout.sampler` names: "torch", "vllm" or the URLs of servers.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from mtdpo_lib.common.stages import Product
    >>> from mtdpo_lib.models import tiny_model, train_tokenizer
    >>> from mtdpo_lib.profiles import ModelSettings
    >>> folder, tokenizer = Path(tempfile.mkdtemp()), train_tokenizer(["2*3?"], 300)
    >>> for part in (tiny_model(ModelSettings(layers=1), tokenizer, 64, seed=0), tokenizer):
    ...     _ = part.save_pretrained(folder)
    >>> sampler = load_sampler(Policy("sft", Product("sft", "key", folder)), ModelSettings(), "torch")
    >>> sampler.training, sampler.config.num_hidden_layers
    (False, 1)
    """
    if sampler == "torch":
        return load_for_sampling(policy, model)
    return Engine(policy, model) if sampler == "vllm" else Servers(sampler, policy)
