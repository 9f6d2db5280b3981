"""Batched multi-turn rollouts: sample, run the tool, go on, until every trajectory has ended.

A wave of rows decodes in step. A row whose turn has just called the tool is *fed* the tool's turn, one token a step, while
the others go on sampling: its key-value cache lives on and no row waits for a turn of another to end. The tool runs while
the header of its turn is fed, which does not depend on what it says.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from mtdpo_lib.answers import extract_boxed, is_correct
from mtdpo_lib.chat import ChatFormat, Role
from mtdpo_lib.problems.base import Problem
from mtdpo_lib.profiles import RolloutSettings
from mtdpo_lib.rollout.trajectory import Trajectory, Turn
from mtdpo_lib.sandbox import Calls, SandboxPool, Session, ToolResult
from mtdpo_lib.seeds import small_stream, stream
from mtdpo_lib.tool_effects import below_log, disturb

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mtdpo_lib.rollout.served import TurnSampler

_BLOCK = re.compile(r"```python\n(.*?)(?:```|\Z)", re.DOTALL)
COMPACT_SHARE = 0.25  # drop finished rows from the cache once they are this share of it


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
        settings: rounds, lengths, temperature, rows in a wave.
        pool: the tool.
        policy: name written into the trajectories.
        seed: the sampling seed of a trajectory is hashed from this, the problem and the sample number.
        temperature: instead of the settings'; 0 is greedy.
        progress: called with (trajectories done, all) after each wave.

    Returns:
        Trajectories by problem, then by sample.

    See: notebook 04_rollouts_and_answers.
    """
    chat = ChatFormat(tokenizer)
    temperature = settings.temperature if temperature is None else temperature
    prompts = [chat.prompt(problem.question).ids for problem in problems]
    jobs = [(place, sample) for place in range(len(problems)) for sample in range(samples)]
    by_length = sorted(
        range(len(jobs)), key=lambda job: len(prompts[jobs[job][0]])
    )  # waves with little padding

    def run(wave: Sequence[int]) -> list[_Row]:
        rows = []
        for job in wave:
            place, sample = jobs[job]
            problem, prompt = problems[place], prompts[place]
            row_seed = stream(seed, problem.id, sample)
            roles = [int(Role.PROMPT)] * len(prompt)
            rows.append(_Row(problem, sample, row_seed, list(prompt), roles, pool.session(), len(prompt)))
        (_run_turns if served else _run_wave)(model, chat, rows, settings, pool, temperature)
        return rows

    served = hasattr(model, "turns")
    threads = 1 if served or model.device.type == "cuda" else torch.get_num_threads()
    size = max(min(settings.batch_size, -(-len(jobs) // threads)), 1)
    waves = [by_length[start : start + size] for start in range(0, len(jobs), size)]
    done: dict[int, Trajectory] = {}
    for wave, rows in zip(waves, _side_by_side(run, waves, threads), strict=True):
        done.update((job, _trajectory(row, policy)) for job, row in zip(wave, rows, strict=True))
        if progress:
            progress(len(done), len(jobs))
    return [done[job] for job in range(len(jobs))]


def _side_by_side(run: Callable, waves: Sequence, threads: int) -> Iterator:
    """Results of `run` over `waves`: one CPU thread a wave, because a step of a small model is too short to be shared."""
    if threads == 1:
        yield from map(run, waves)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            yield from executor.map(run, waves)
    finally:
        torch.set_num_threads(threads)  # the matrix library's own setting is the whole process's


@torch.inference_mode()
def _run_wave(
    model: PreTrainedModel,
    chat: ChatFormat,
    rows: list[_Row],
    settings: RolloutSettings,
    pool: SandboxPool,
    temperature: float,
) -> None:
    """Decode all `rows` to their ends, in place."""
    from transformers import DynamicCache

    place = model.device
    pad = chat.tokenizer.pad_token_id
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row.ids)) + row.ids for row in rows], device=place)
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows], device=place)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    seeds = torch.tensor([row.seed for row in rows], device=place)
    cache = DynamicCache(config=model.config)
    live, asked = list(rows), deque[_Asked]()
    while True:
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        positions = positions[:, -1:] + 1
        sampled = choose(output.logits[:, -1], temperature, seeds, positions[:, 0]).tolist()
        while asked and not asked[0].rows[0].fed:  # all headers are equally long
            _observe(asked.popleft(), chat, settings)
        ended = [
            row
            for row, token in zip(live, sampled, strict=True)
            if row.stop is None and _advance(row, token, chat.end_of_turn, settings)
        ]
        if ended:
            asked.extend(_end_turns(ended, chat, settings, pool))
        running = [number for number, row in enumerate(live) if row.stop is None]
        if not running:
            return
        if len(live) - len(running) >= COMPACT_SHARE * len(live):
            kept = torch.tensor(running, device=place)
            cache.batch_select_indices(kept)
            mask, positions, seeds = mask[kept], positions[kept], seeds[kept]
            live = [live[number] for number in running]
        ids = torch.tensor([[row.ids[-1]] for row in live], device=place)
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)


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
