"""Batched multi-turn rollouts: sample, run the tool, go on, until every trajectory has ended.

Rows decode in step. A row whose turn has just called the tool is *fed* the tool's turn, one token a step, while the others
go on sampling: its key-value cache lives on and no row waits for a turn of another to end. The tool runs while the header
of its turn is fed, which does not depend on what it says. The samples of a prompt share one pass over it. Places of finished
rows go at once to rows that wait, but for a tiny model (`REFILL_WEIGHTS`).
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from mtdpo_lib.chat.encoder import ChatFormat
from mtdpo_lib.chat.roles import Role
from mtdpo_lib.common.seeds import small_stream, stream
from mtdpo_lib.problems.answers import extract_boxed, is_correct
from mtdpo_lib.problems.base import Problem
from mtdpo_lib.profiles.sections import RolloutSettings
from mtdpo_lib.rollout.trajectory import Trajectory, Turn
from mtdpo_lib.sandbox import Calls, SandboxPool, Session, ToolResult
from mtdpo_lib.sandbox.effects import below_log, disturb

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

    from mtdpo_lib.rollout.vllm import TurnSampler


_BLOCK = re.compile(r"```python\n(.*?)(?:```|\Z)", re.DOTALL)
# Finished rows leave the cache, and waiting ones come in, once they are this share of it: each time copies the cache.
LEAVE_SHARE = 0.1
# From so many weights on, a step's time is reading them, and full steps are worth it. A tiny model's time is its cache,
# which grows as wide for a new row as for the oldest (measured by tests/benchmarks/rollouts.py --places).
REFILL_WEIGHTS = 10_000_000


def extract_code(text: str) -> str | None:
    """All python blocks of a turn as one program; an unclosed last block counts. None without any."""
    blocks = _BLOCK.findall(text)
    return "\n".join(block.rstrip() for block in blocks) if blocks else None


def uniform(seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One number in (0, 1) for each row: a hash of the row's seed and the position it samples for.

    Args:
        seeds, positions: int64 [N].

    Returns:
        float64 [N]; the same for the same pair in any batch, order or restart (splitmix64).
    """
    x = seeds + (positions + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    x = x ^ ((x >> 31) & ((1 << 33) - 1))
    return (((x >> 11) & ((1 << 53) - 1)).double() + 0.5) / (1 << 53)


def choose(
    logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Next tokens [N] from logits [N, V]: greedy at temperature 0, else by inverting the distribution at `uniform`."""
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    below = cumulative < uniform(seeds, positions)[:, None] * cumulative[:, -1:]
    return below.sum(-1).clamp(max=logits.shape[-1] - 1)


@dataclass
class _Row:
    """A trajectory in the making."""

    problem: Problem
    sample: int
    seed: int
    ids: list[int]
    roles: list[int]
    session: Session
    turn_start: int
    fed: deque[int] = field(default_factory=deque)
    turns: list[Turn] = field(default_factory=list)
    stop: str | None = None


@dataclass
class _Asked:
    """Rows that called the tool in the same step, and their calls."""

    rows: list[_Row]
    calls: Calls


def rollout(
    model: PreTrainedModel | TurnSampler,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    samples: int,
    settings: RolloutSettings,
    pool: SandboxPool,
    *,
    policy: str,
    seed: int,
    temperature: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """Sample `samples` trajectories for each problem (sec. 3.1: at most H rounds, T = 1, no top-k or top-p).

    Args:
        model: ready to sample, on its device; or a `served.TurnSampler`.
        tokenizer: the model's own.
        problems: what to solve.
        samples: trajectories a problem.
        settings: rounds, lengths, temperature, rows at a time.
        pool: the tool.
        policy: name written into the trajectories.
        seed: the sampling seed of a trajectory is hashed from this, the problem and the sample number.
        temperature: instead of the settings'; 0 is greedy.
        progress: called with (trajectories done, all), from any thread, one call at a time.

    Returns:
        Trajectories by problem, then by sample.

    See: notebook 04_rollouts_and_answers.
    """
    chat = ChatFormat(tokenizer)
    temperature = settings.temperature if temperature is None else temperature
    prompts = [chat.prompt(problem.question).ids for problem in problems]
    rows = [
        _Row(
            problem, sample, stream(seed, problem.id, sample), list(prompt),
            [int(Role.PROMPT)] * len(prompt), pool.session(), len(prompt),
        )
        for problem, prompt in zip(problems, prompts, strict=True)
        for sample in range(samples)
    ]  # fmt: skip
    tell = _Count(len(rows), progress)
    if hasattr(model, "turns"):
        for start in range(0, len(rows), settings.batch_size):
            part = rows[start : start + settings.batch_size]
            _run_turns(model, chat, part, settings, pool, temperature)
            tell(len(part))
    else:
        _run_rows(model, chat, rows, max(samples, 1), settings, pool, temperature, tell)
    return [_trajectory(row, policy) for row in rows]


class _Count:
    """Rows done so far, told by any thread."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None):
        self._done, self._total, self._progress, self._lock = 0, total, progress, threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress and count:
                self._progress(self._done, self._total)


def _run_rows(
    model: PreTrainedModel,
    chat: ChatFormat,
    rows: list[_Row],
    samples: int,
    settings: RolloutSettings,
    pool: SandboxPool,
    temperature: float,
    tell: _Count,
) -> None:
    """Decode all `rows`, of `samples` a prompt, to their ends, in place: short prompts first, for little padding.

    On a CPU each thread decodes a part of its own, because a step of a small model is too short to be shared.
    """
    prompts = [rows[start : start + samples] for start in range(0, len(rows), samples)]
    prompts.sort(key=lambda mine: len(mine[0].ids))
    threads = 1 if model.device.type == "cuda" else min(torch.get_num_threads(), max(len(prompts), 1))
    parts = [[row for mine in prompts[number::threads] for row in mine] for number in range(threads)]
    places = max(min(settings.batch_size, -(-len(rows) // threads)), 1)
    stopped = threading.Event()

    def run(part: list[_Row]) -> None:
        _decode(model, chat, deque(part), places, settings, pool, temperature, tell, stopped)

    if threads == 1:
        run(parts[0])
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            running = [executor.submit(run, part) for part in parts]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                stopped.set()  # Ctrl-C, or an error in one thread: the others stop too
            for one in running:
                one.result()
    finally:
        torch.set_num_threads(before)  # the matrix library's own setting is the whole process's


class _Batch:
    """Rows that decode in step. The cache holds all but each row's last token, every row ending in the last column."""

    def __init__(self, model: PreTrainedModel, pad: int):
        self.rows: list[_Row] = []
        self._model, self._pad = model, pad
        self._cache = self._mask = self._seeds = None

    def step(self, temperature: float) -> list[int]:
        """Feed every row's last token; the token that each row would sample next."""
        place = self._model.device
        lengths = torch.tensor([len(row.ids) for row in self.rows], device=place)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        logits = self._forward(
            torch.tensor([[row.ids[-1]] for row in self.rows], device=place),
            self._mask,
            lengths[:, None] - 1,
            self._cache,
        )
        return choose(logits, temperature, self._seeds, lengths).tolist()

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def keep(self, numbers: list[int]) -> None:
        """Let all other rows go, and the columns that only they used."""
        kept = torch.tensor(numbers, device=self._model.device)
        self._mask, self._seeds = self._mask[kept], self._seeds[kept]
        unused = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, unused:]
        self._replace(self._cache, lambda states: states[kept, :, unused:])
        self.rows = [self.rows[number] for number in numbers]

    def admit(self, rows: list[_Row]) -> None:
        """Take in rows that are still at their prompts; a prompt that several share goes through the model once."""
        from transformers import DynamicCache

        place = self._model.device
        known = {tuple(row.ids[:-1]): None for row in rows}
        prompts = [list(prompt) for prompt in known]
        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(one)) + one for one in prompts], device=place)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=place)
        cache = DynamicCache()
        self._forward(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
        number = {prompt: number for number, prompt in enumerate(known)}
        owner = torch.tensor([number[tuple(row.ids[:-1])] for row in rows], device=place)
        cache.batch_select_indices(owner)
        mask, seeds = mask[owner], torch.tensor([row.seed for row in rows], device=place)
        if self.rows:
            columns = max(width, self._mask.shape[1])
            mask = torch.cat([_widen(self._mask, columns, 1), _widen(mask, columns, 1)])
            seeds = torch.cat([self._seeds, seeds])
            states = iter([states for layer in self._cache.layers for states in (layer.keys, layer.values)])
            self._replace(
                cache, lambda new: torch.cat([_widen(next(states), columns, 2), _widen(new, columns, 2)])
            )
        self.rows, self._cache, self._mask, self._seeds = [*self.rows, *rows], cache, mask, seeds

    @staticmethod
    def _replace(cache: DynamicCache, change: Callable[[Tensor], Tensor]) -> None:
        """Change keys and values [rows, heads, columns, D] of every layer."""
        for layer in cache.layers:
            layer.keys, layer.values = change(layer.keys), change(layer.values)


def _widen(states: Tensor, columns: int, dimension: int) -> Tensor:
    """Zeros before what is there, up to so many columns: the mask hides them."""
    missing = list(states.shape)
    missing[dimension] = columns - states.shape[dimension]
    return torch.cat([states.new_zeros(missing), states], dim=dimension) if missing[dimension] else states


@torch.inference_mode()
def _decode(
    model: PreTrainedModel,
    chat: ChatFormat,
    waiting: deque[_Row],
    places: int,
    settings: RolloutSettings,
    pool: SandboxPool,
    temperature: float,
    tell: _Count,
    stopped: threading.Event,
) -> None:
    """Decode the rows to their ends, in place, at most `places` of them at a time."""
    batch, asked, finished = _Batch(model, chat.tokenizer.pad_token_id), deque[_Asked](), places
    refills = model.num_parameters() >= REFILL_WEIGHTS
    while not stopped.is_set():
        if finished >= LEAVE_SHARE * (len(batch.rows) or 1):
            running = [number for number, row in enumerate(batch.rows) if row.stop is None]
            tell(len(batch.rows) - len(running))
            if len(running) < len(batch.rows) and running:
                batch.keep(running)
            elif not running:
                batch = _Batch(model, chat.tokenizer.pad_token_id)
            free = min(places - len(batch.rows), len(waiting))
            if free and (refills or not batch.rows):
                batch.admit([waiting.popleft() for _ in range(free)])
            if not batch.rows:
                return
        sampled = batch.step(temperature)
        while asked and not asked[0].rows[0].fed:  # all headers are equally long
            _observe(asked.popleft(), chat, settings)
        ended = [
            row
            for row, token in zip(batch.rows, sampled, strict=True)
            if row.stop is None and _advance(row, token, chat.end_of_turn, settings)
        ]
        if ended:
            asked.extend(_end_turns(ended, chat, settings, pool))
        finished = sum(row.stop is not None for row in batch.rows)


def _run_turns(
    sampler: TurnSampler,
    chat: ChatFormat,
    rows: list[_Row],
    settings: RolloutSettings,
    pool: SandboxPool,
    temperature: float,
) -> None:
    """Bring all `rows` to their ends, in place, a turn at a time."""
    live = rows
    while live:
        turns = sampler.turns(
            [row.ids for row in live],
            [max(min(settings.max_new_tokens, settings.max_tokens - len(row.ids)), 1) for row in live],
            [small_stream(row.seed, "turn", len(row.turns)) for row in live],
            temperature,
            chat.end_of_turn,
        )
        for row, ids in zip(live, turns, strict=True):
            row.ids.extend(ids)
            row.roles.extend([int(Role.ASSISTANT)] * len(ids))
        for asked in _end_turns(live, chat, settings, pool):
            _take_fed(asked.rows)
            _observe(asked, chat, settings)
            _take_fed(asked.rows)
        live = [row for row in live if row.stop is None]


def _take_fed(rows: Sequence[_Row]) -> None:
    for row in rows:
        row.ids.extend(row.fed)
        row.fed.clear()
        row.turn_start = len(row.ids)


def _advance(row: _Row, token: int, end_of_turn: int, settings: RolloutSettings) -> bool:
    """Give `row` its next token: a fed one if any waits, else the sampled one. True when its turn has ended."""
    if row.fed:
        row.ids.append(row.fed.popleft())  # its role was written when the observation came
        if not row.fed:
            row.turn_start = len(row.ids)
        return False
    row.ids.append(token)
    row.roles.append(int(Role.ASSISTANT))
    turn_full = len(row.ids) - row.turn_start >= settings.max_new_tokens
    return token == end_of_turn or turn_full or len(row.ids) >= settings.max_tokens


def _end_turns(
    rows: list[_Row], chat: ChatFormat, settings: RolloutSettings, pool: SandboxPool
) -> list[_Asked]:
    """Decide what follows each ended turn; begin the calls of the tool, all at once."""
    header, least = chat.tool_header, len(chat.tool(""))
    callers, cells = [], []
    for row in rows:
        finished = row.ids[-1] == chat.end_of_turn
        text = chat.tokenizer.decode(row.ids[row.turn_start :], skip_special_tokens=True)
        code = extract_code(text)
        row.turns.append(Turn(text, code))
        if not finished:
            row.stop = "length"
        elif extract_boxed(text) is not None:
            row.stop = "answer"
        elif code is None:
            row.stop = "no_action"
        elif len(row.turns) >= settings.max_rounds:
            row.stop = "rounds"
        elif len(row.ids) + least >= settings.max_tokens:
            row.stop = "length"
        else:
            row.fed.extend(header.ids)
            row.roles.extend(header.roles)
            callers.append(row)
            cells.append((row.session, code))
            continue
        row.session.close()
    return [_Asked(callers, pool.start_many(cells))] if callers else []


def _observe(asked: _Asked, chat: ChatFormat, settings: RolloutSettings) -> None:
    """Give each row what the tool has answered, to be fed."""
    for row, result in zip(asked.rows, asked.calls.results(), strict=True):
        called = row.turns.pop()
        output = _seen(row, result, settings)
        row.turns.append(replace(called, output=output, error=result.error))
        answer = chat.tool_answer(output)
        if len(row.ids) + len(answer) < settings.max_tokens:
            row.fed.extend(answer.ids)
            row.roles.extend(answer.roles)
            continue
        row.stop = "length"
        before_header = len(row.ids) - len(chat.tool_header)
        del row.ids[before_header:], row.roles[before_header:]
        row.session.close()


def _seen(row: _Row, result: ToolResult, settings: RolloutSettings) -> str:
    """What the policy reads: the tool's text, made difficult where the settings want that."""
    text, turn = result.text, len(row.turns)
    if settings.tool_noise and result.error is None:
        text = disturb(text, settings.tool_noise, row.seed, turn)
    return below_log(text, settings.log_lines, row.seed, turn)


def _trajectory(row: _Row, policy: str) -> Trajectory:
    answer = extract_boxed(row.turns[-1].text) if row.stop == "answer" else None
    problem = row.problem
    return Trajectory(
        problem.id,
        problem.suite,
        problem.question,
        problem.answer,
        policy,
        row.sample,
        row.ids,
        row.roles,
        row.turns,
        answer,
        is_correct(answer, problem.answer),
        row.stop,
    )
