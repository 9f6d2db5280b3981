"""Multi-turn rollouts, in tokens per second: ``python tests/benchmarks/rollouts.py RUN [RUN ...]``.

Samples preference prompts with the SFT policy of finished runs (a `cpu` run for the tiny size, a `small` one for the 135M
size) in two ways, interleaved round by round, with the same prompts, batch size and seeds:

* ``engine``: `mtdpo_lib.rollout`, as the notebooks use it;
* ``generate``: transformers' `generate`, called once a turn for the whole batch with everything encoded again; tools run
  between two calls. ``generate, side by side``: the same with a batch for each core.

* ``engine, refilling otherwise``: where the engine refills places it does not, and the other way round. It matters with
  fewer places than trajectories: ``--places``.
* ``engine, in one part``: by one thread, as a tiny model would sample if `engine.PARTS` were 1.
* ``engine, transformers' step``: without the step that is written out for a tiny Llama (`rollout.lean`).
* ``vllm``: a real vLLM server on loopback (`make vllm`), turn by turn as ``rollout.sampler=http://...`` drives it. It serves
  the merged policy, which costs it least, with as many threads and sequences at a time. For real models only.

All but vLLM draw a token by the same rule (`LogitsProcessor` below), so they must make the same trajectories. Another shape
of the batch rounds otherwise, though, and with a vocabulary of tens of thousands a draw now and then falls on the other side
of a boundary: where two trajectories part, the draw must lie within `ROUNDING` of the boundary between their two tokens, or
no figure counts; how many part is told. With ``--dtype bfloat16``, where rounding is felt everywhere, none are compared. A
fresh tool pool each time, which remembers no result of another's. ``--busy 1`` takes one core away by a loop. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import finished
import torch
from transformers import LogitsProcessor, PreTrainedModel

from mtdpo_lib.chat import ChatFormat, Role
from mtdpo_lib.common.seeds import stream
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models import Policy, load_for_sampling, load_tokenizer, quiet_libraries
from mtdpo_lib.problems import Problem, extract_boxed, load_problems
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import RolloutSettings
from mtdpo_lib.rollout import choose, engine, extract_code, rollout, uniform
from mtdpo_lib.rollout.vllm import Servers, TurnSampler
from mtdpo_lib.sandbox import SandboxPool, Session

sys.path.insert(0, str(Path(__file__).parent.parent))

import vllm_serving

SEED = 0
ROUNDING = 1e-5  # of a cumulative probability in float32


class _Choice(LogitsProcessor):
    """The engine's rule as scores: the token it chooses has the only finite one."""

    def __init__(self, seeds: torch.Tensor, padding: torch.Tensor, temperature: float):
        self.seeds, self.padding, self.temperature = seeds, padding, temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = choose(scores, self.temperature, self.seeds, input_ids.shape[1] - self.padding)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


@dataclass
class _Row:
    ids: list[int]
    seed: int
    session: Session
    sampled: int = 0
    ended: bool = False


def by_generate(
    network: PreTrainedModel, chat: ChatFormat, rows: Sequence[_Row], settings: RolloutSettings, pool: SandboxPool
) -> None:  # fmt: skip
    """All rows to their ends, one `generate` a turn, in place."""
    for number in range(settings.max_rounds):
        live = [row for row in rows if not row.ended]
        if not live:
            return
        width = max(len(row.ids) for row in live)
        padding = torch.tensor([width - len(row.ids) for row in live])
        pad = chat.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row.ids)) + row.ids for row in live])
        mask = (torch.arange(width)[None] >= padding[:, None]).long()
        choice = _Choice(torch.tensor([row.seed for row in live]), padding, settings.temperature)
        with torch.inference_mode():
            output = network.generate(
                ids, attention_mask=mask, max_new_tokens=settings.max_new_tokens, do_sample=False,
                eos_token_id=chat.end_of_turn, pad_token_id=pad, logits_processor=[choice],
            )  # fmt: skip
        calls = []
        for row, new in zip(live, output[:, width:].tolist(), strict=True):
            if chat.end_of_turn in new:
                new = new[: new.index(chat.end_of_turn) + 1]
            new = new[: settings.max_tokens - len(row.ids)]
            row.ids += new
            row.sampled += len(new)
            text = chat.tokenizer.decode(new, skip_special_tokens=True)
            code = extract_code(text)
            row.ended = (
                new[-1] != chat.end_of_turn or extract_boxed(text) is not None or code is None
                or number + 1 >= settings.max_rounds
            )  # fmt: skip
            if not row.ended:
                calls.append((row, code))
        results = pool.run_many([(row.session, code) for row, code in calls])
        for (row, _), result in zip(calls, results, strict=True):
            observation = chat.tool(result.text).ids
            row.ended = len(row.ids) + len(observation) >= settings.max_tokens
            if not row.ended:
                row.ids += observation


@torch.inference_mode()
def rounding_decides(network: PreTrainedModel, one: list[int], other: list[int], seed: int) -> bool:
    """Whether the first tokens in which two trajectories differ lie on the two sides of a draw, as near as rounding."""
    place = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    if place is None:  # one is only longer
        return False
    low, high = sorted((one[place], other[place]))
    cumulative = network(torch.tensor([one[:place]])).logits[0, -1].double().softmax(-1).cumsum(-1)
    draw = uniform(torch.tensor([seed]), torch.tensor([place])) * cumulative[-1]
    return all(abs(cumulative[token] - draw) < ROUNDING for token in (low, high - 1))


class Sampled(NamedTuple):
    """One measurement: sampled tokens (the policy's own) and the trajectories' ids."""

    seconds: float
    tokens: int
    ids: list[list[int]]


@dataclass
class Work:
    """What both ways are given."""

    network: PreTrainedModel
    chat: ChatFormat
    problems: list[Problem]
    samples: int
    settings: RolloutSettings
    pool: Callable[[], SandboxPool]
    server: TurnSampler | None = None

    def by_vllm(self) -> Sampled:
        """By `rollout` through the server."""
        return self._rollout(self.server)

    def in_one_part(self) -> Sampled:
        """By `rollout` in one thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with patch.object(engine, "PARTS", 1):
            found = self.engine()
        torch.set_num_threads(threads)
        return found

    def by_transformers(self) -> Sampled:
        """By `rollout` with transformers' own step."""
        with patch.object(engine, "is_lean", lambda _: False):
            return self.engine()

    def engine(self, otherwise: bool = False) -> Sampled:
        """By `rollout`; `otherwise` refills places if the engine would not, and the other way round."""
        limit = engine.REFILL_WEIGHTS
        refills = (self.network.num_parameters() >= limit) != otherwise
        with patch.object(engine, "REFILL_WEIGHTS", 0 if refills else math.inf):
            return self._rollout(self.network)

    def _rollout(self, sampler: Any) -> Sampled:
        with self.pool() as pool:
            start = time.perf_counter()
            found = rollout(
                sampler, self.chat.tokenizer, self.problems, self.samples, self.settings, pool, policy="sft", seed=SEED,
            )  # fmt: skip
            seconds = time.perf_counter() - start
        tokens = sum(role == Role.ASSISTANT for one in found for role in one.roles)
        return Sampled(seconds, tokens, [one.ids for one in found])

    def generate(self, side_by_side: bool) -> Sampled:
        """The same by `generate`, the longest prompts last."""
        with self.pool() as pool:
            start = time.perf_counter()
            rows = [
                _Row(list(self.chat.prompt(problem.question).ids), stream(SEED, problem.id, sample), pool.session())
                for problem in self.problems
                for sample in range(self.samples)
            ]  # fmt: skip
            ordered = sorted(rows, key=lambda row: len(row.ids))
            workers = (os.cpu_count() or 1) if side_by_side else 1
            size = min(self.settings.batch_size, -(-len(rows) // workers))
            waves = [ordered[first : first + size] for first in range(0, len(rows), size)]
            threads = torch.get_num_threads()
            with ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
            ) as executor:
                list(
                    executor.map(
                        lambda wave: by_generate(self.network, self.chat, wave, self.settings, pool), waves
                    )
                )
            torch.set_num_threads(threads)
            seconds = time.perf_counter() - start
        return Sampled(seconds, sum(row.sampled for row in rows), [row.ids for row in rows])


@contextmanager
def served(work: Work, dtype: str) -> Iterator[TurnSampler]:
    """A server of the merged policy, with as many sequences at a time as the engine has places."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work.network.save_pretrained(folder / "merged")
        work.chat.tokenizer.save_pretrained(folder / "merged")
        options = {
            "dtype": dtype,
            "max_model_len": work.settings.max_tokens,
            "max_num_seqs": work.settings.batch_size,
            "max_num_batched_tokens": 32768,  # on a CPU a seeded prompt that is read in parts ends vLLM 0.32
        }
        with vllm_serving.serving(folder / "merged", folder, **options) as (_, url):
            yield Servers(url, Policy("merged", Product("merged", "key", folder), "merged"))


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many other processes that want a core each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


def measure(run: Path, given: argparse.Namespace, stack: ExitStack) -> dict[str, object]:
    """The ratios at the size of one run."""
    prompts, samples, rounds = given.prompts, given.samples, given.rounds
    made = json.loads((run / "run.json").read_text(encoding="utf8"))
    profile = get_profile(made["profile"], made["settings"].split())
    inputs = finished.rollouts(run / "stages", sources=2)[1]
    policy = finished.policy_of(inputs["sources"][0][0], run / "stages")
    network = load_for_sampling(policy, replace(profile.model, dtype=given.dtype, quantization="none"))
    chat = ChatFormat(load_tokenizer(policy))
    problems = load_problems(profile.problems, "preference", prompts, SEED)
    settings = replace(profile.rollout, batch_size=given.places or profile.rollout.batch_size)
    if given.turns:
        settings = replace(settings, max_rounds=given.turns)
    work = Work(network, chat, problems, samples, settings, lambda: SandboxPool(profile.sandbox))
    size = sum(weight.numel() for weight in network.parameters())
    arms: dict[str, Callable[[], Sampled]] = {
        "engine": work.engine,
        "engine, refilling otherwise": lambda: work.engine(otherwise=True),
        "engine, in one part": work.in_one_part,
        "engine, transformers' step": work.by_transformers,
        "generate": lambda: work.generate(side_by_side=False),
        "generate, side by side": lambda: work.generate(side_by_side=True),
        "vllm": work.by_vllm,
    }
    without = {"vllm"} if profile.model.is_tiny or not vllm_serving.PYTHON.exists() else set()
    wanted = {"engine", *(given.against or arms)} - without
    arms = {name: arm for name, arm in arms.items() if name in wanted}
    if "vllm" in arms:
        work.server = stack.enter_context(served(work, given.dtype))
    stack.enter_context(busy(given.busy))
    print(
        f"{size / 1e6:.1f}M parameters, {len(problems)} prompts x {samples}, {rounds} rounds after one to warm"
    )
    rates: dict[str, list[float]] = {name: [] for name in arms}
    seeds = [stream(SEED, problem.id, sample) for problem in problems for sample in range(samples)]
    parted = 0
    for number in range(rounds + 1):
        found = {name: arm() for name, arm in arms.items()}
        ours = found["engine"]
        for name, other in found.items():
            if name == "vllm" or given.dtype != "float32":
                continue
            rows = [row for row in zip(ours.ids, other.ids, seeds, strict=True) if row[0] != row[1]]
            if not all(rounding_decides(network, *row) for row in rows):
                raise SystemExit("Trajectories differ by more than rounding: no figure counts.")
            parted = max(parted, len(rows))
        times = ", ".join(f"{name} {result.seconds:.1f} s" for name, result in found.items())
        print(f"  {f'round {number}' if number else 'to warm'}: {times}", flush=True)
        if number:
            for name, result in found.items():
                rates[name].append(result.tokens / result.seconds)
    for name, values in rates.items():
        print(
            f"{name:<28} {statistics.median(values):9.0f} sampled tokens per second ({min(values):.0f} to {max(values):.0f})"
        )
    summary: dict[str, object] = {
        "parameters": size, "places": settings.batch_size, "trajectories": len(ours.ids), "tokens": ours.tokens,
        "parted_by_rounding": parted, "dtype": given.dtype, "busy_loops": given.busy,
        "rates": {name: round(statistics.median(values)) for name, values in rates.items()},
    }  # fmt: skip
    for name in list(arms)[1:]:
        ratios = [quick / slow for slow, quick in zip(rates[name], rates["engine"], strict=True)]
        summary[f"engine_over_{name.replace(', ', '_').replace(' ', '_').replace("'", '')}"] = {
            "median": round(statistics.median(ratios), 2),
            "low": round(min(ratios), 2),
            "high": round(max(ratios), 2),
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--places", type=int, default=0, help="trajectories at a time (default the run's own)"
    )
    parser.add_argument("--against", nargs="+", metavar="ARM", help="only these beside the engine")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--turns", type=int, default=0, help="at most (default the run's own)")
    parser.add_argument("--busy", type=int, default=0, help="loops that take a core each")
    given = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(os.cpu_count() or 1)
    found = {}
    for run in given.runs:
        with ExitStack() as stack:
            found[run.name] = measure(run, given, stack)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
