"""Batched multi-turn rollouts: sample, run the tool, go on, until every trajectory has ended.

Rows decode in step. A row whose turn has just called the tool is *fed* the tool's turn, one token per step, while the others
go on sampling: its key-value cache lives on and no row waits for a turn of another to end. The tool runs while the header
of its turn is fed, which does not depend on what it says. The samples of a prompt share one pass over it. Places of finished
rows go at once to rows that wait, but for a tiny model (`REFILL_WEIGHTS`).
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import torch

from mtdpo_lib.chat import ChatFormat, Role, RoleTokens, require_padding
from mtdpo_lib.common.progress import OnProgress, say
from mtdpo_lib.common.seeds import stream, stream31
from mtdpo_lib.problems import Problem, extract_boxed, is_correct
from mtdpo_lib.profiles.sections import RolloutSettings
from mtdpo_lib.rollout.lean import LeanStep, is_lean
from mtdpo_lib.rollout.trajectory import Journal, Trajectory, Turn
from mtdpo_lib.rollout.vllm import TurnRequest, TurnSampler
from mtdpo_lib.sandbox import Calls, SandboxPool, Session, ToolResult
from mtdpo_lib.sandbox.effects import below_log, disturb

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


_BLOCK = re.compile(r"```python\n(.*?)(?:```|\Z)", re.DOTALL)
# Finished rows leave the cache, and waiting ones come in, once they are this share of it.
LEAVE_SHARE = 0.1
# From so many weights on, a step's time is reading them, and full steps are worth it. A tiny model's time is its cache,
# which grows as wide for a new row as for the oldest (measured by tests/benchmarks/rollouts.py --places).
REFILL_WEIGHTS = 10_000_000
# Parts that rows are decoded in on a CPU, at the least: also with one thread for matrices, as a tiny model has, so that two
# cores sample. Fewer on one core would be other batches, and other last digits.
PARTS = 2
# Of a vocabulary of tens of thousands, sums of blocks come first: a fifth of the time. A small one is summed in double
# precision throughout, as the kept records were drawn.
MOST_SUMMED, BLOCK = 4096, 256


def extract_code(text: str) -> str | None:
    """All python blocks of a turn as one program; an unclosed last block counts. None without any.

    >>> extract_code("Add.\\n```python\\nprint(2+3)\\n```")
    'print(2+3)'
    """
    blocks = _BLOCK.findall(text)
    return "\n".join(block.rstrip() for block in blocks) if blocks else None


def uniform(seeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """One number in (0, 1) for each row: a hash of the row's seed and the position it samples for.

    Args:
        seeds, positions: int64 [N].

    Returns:
        float64 [N]; the same for the same pair in any batch, order or restart (splitmix64).

    >>> uniform(torch.tensor([7, 8]), torch.tensor([0, 0]))
    tensor([0.3898, 0.6185], dtype=torch.float64)
    >>> uniform(torch.tensor([8]), torch.tensor([0]))  # alone in its batch
    tensor([0.6185], dtype=torch.float64)
    """
    x = seeds + (positions + 1) * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    x = x ^ ((x >> 31) & ((1 << 33) - 1))
    return (((x >> 11) & ((1 << 53) - 1)).double() + 0.5) / (1 << 53)


def choose(
    logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Next tokens [N] from logits [N, V]: greedy at temperature 0, else by inverting the distribution at `uniform`.

    >>> logits, seeds = torch.tensor([[0.0, 1.0, 2.0]]).repeat(6, 1), torch.arange(6)
    >>> choose(logits, 0.0, seeds, torch.zeros_like(seeds)).tolist()
    [2, 2, 2, 2, 2, 2]
    >>> choose(logits, 1.0, seeds, torch.zeros_like(seeds)).tolist()
    [2, 2, 2, 1, 2, 2]
    """
    if temperature == 0:
        return logits.argmax(-1)
    draws = uniform(seeds, positions)[:, None]
    if logits.shape[-1] > MOST_SUMMED:
        return _choose_by_blocks((logits.float() / temperature).softmax(-1), draws)
    cumulative = (logits.float() / temperature).softmax(-1, dtype=torch.double).cumsum(-1)
    drawn = torch.searchsorted(cumulative, draws * cumulative[:, -1:])
    return drawn[:, 0].clamp(max=logits.shape[-1] - 1)


def _choose_by_blocks(shares: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The same for probabilities [N, V] and draws [N, 1], by a sum over blocks of the vocabulary and one inside a block."""
    blocks = torch.nn.functional.pad(shares, (0, -shares.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    upto = blocks.sum(-1).double().cumsum(-1)
    wanted = draws * upto[:, -1:]
    block = torch.searchsorted(upto, wanted).clamp(max=upto.shape[-1] - 1)
    before = torch.nn.functional.pad(upto, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    place = torch.searchsorted(inside, wanted - before).clamp(max=BLOCK - 1)
    return (block * BLOCK + place)[:, 0].clamp(max=shares.shape[-1] - 1)


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
    stop: str = ""  # why it ended; "" while it goes on
    nats: float | None = None  # -log pi of what was sampled; None where the sampler does not tell

    def write(self, ids: Sequence[int]) -> None:
        """Append what the policy sampled."""
        self.ids.extend(ids)
        self.roles.extend([int(Role.ASSISTANT)] * len(ids))

    def feed(self, tokens: RoleTokens) -> None:
        """Put tokens of the tool's turn in line; their roles are written at once."""
        self.fed.extend(tokens.ids)
        self.roles.extend(tokens.roles)

    def take_fed(self, count: int) -> None:
        """Append so many of the tokens in line; the policy's next turn starts behind the last."""
        self.ids.extend(self.fed.popleft() for _ in range(count))
        if not self.fed:
            self.turn_start = len(self.ids)

    def end(self, stop: str) -> None:
        """Nothing follows."""
        self.stop = stop
        self.session.close()

    def trajectory(self, policy: str) -> Trajectory:
        """What the row has become."""
        answer = extract_boxed(self.turns[-1].text) if self.stop == "answer" else None
        problem = self.problem
        return Trajectory(
            problem.id, problem.suite, problem.question, problem.answer, policy, self.sample, self.ids, self.roles,
            self.turns, answer, is_correct(answer, problem.answer), self.stop,
            None if self.nats is None else round(self.nats, 4),
        )  # fmt: skip


@dataclass
class _Asked:
    """Rows that called the tool in the same step, and their calls."""

    rows: list[_Row]
    calls: Calls


@dataclass
class _Rollout:
    """What all rows of one `rollout` share, and the rules of a turn."""

    chat: ChatFormat
    settings: RolloutSettings
    pool: SandboxPool
    temperature: float
    policy: str
    rows: list[_Row]
    progress: OnProgress | None
    journal: Journal | None
    made: dict[tuple[str, int], Trajectory]  # by problem and sample; at first what the journal has
    ended: deque[_Row] = field(default_factory=deque)  # and not yet made trajectories of
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.done = len(self.made)
        self.total = self.done + len(self.rows)

    def finish(self, rows: list[_Row]) -> None:
        """These rows have ended; called by any thread."""
        self.ended.extend(rows)
        if threading.current_thread() is threading.main_thread():
            self.judge()
        with self.lock:
            self.done += len(rows)
            if self.progress and rows:
                self.progress(self.done, self.total)

    def judge(self) -> None:
        """Make trajectories of the rows that have ended; by the main thread, where symbolic answers can be checked."""
        rows = [self.ended.popleft() for _ in range(len(self.ended))]
        new = {(row.problem.id, row.sample): row.trajectory(self.policy) for row in rows}
        self.made |= new
        if self.journal:
            self.journal.add(new.values())

    def advance(self, row: _Row, token: int, nats: float) -> bool:
        """Give `row` its next token: a fed one if any waits, else the sampled one, worth `nats`. True at its turn's end."""
        if row.fed:
            row.take_fed(1)
            return False
        row.write([token])
        row.nats = (row.nats or 0.0) + nats
        turn_full = len(row.ids) - row.turn_start >= self.settings.max_new_tokens
        return token == self.chat.end_of_turn or turn_full or len(row.ids) >= self.settings.max_tokens

    def end_turns(self, rows: list[_Row]) -> list[_Asked]:
        """Decide what follows each ended turn; begin the calls of the tool, all at once."""
        callers, cells = [], []
        for row in rows:
            text = self.chat.text(row.ids[row.turn_start :])
            code = extract_code(text)
            row.turns.append(Turn(text, code))
            stop = self._stop(row, text, code)
            if stop or code is None:
                row.end(stop)
                continue
            row.feed(self.chat.tool_header)
            callers.append(row)
            cells.append((row.session, code))
        return [_Asked(callers, self.pool.start_many(cells))] if callers else []

    def _stop(self, row: _Row, text: str, code: str | None) -> str:
        """Why the row ends with this turn; "" where the tool is called."""
        if row.ids[-1] != self.chat.end_of_turn:
            return "length"
        if extract_boxed(text) is not None:
            return "answer"
        if code is None:
            return "no_action"
        if len(row.turns) >= self.settings.max_rounds:
            return "rounds"
        return "length" if len(row.ids) + len(self.chat.tool("")) >= self.settings.max_tokens else ""

    def observe(self, asked: _Asked) -> None:
        """Give each row what the tool has answered, to be fed."""
        for row, result in zip(asked.rows, asked.calls.results(), strict=True):
            called = row.turns.pop()
            output = self._seen(row, result)
            row.turns.append(replace(called, output=output, error=result.error))
            answer = self.chat.tool_answer(output)
            if len(row.ids) + len(answer) < self.settings.max_tokens:
                row.feed(answer)
                continue
            before_header = len(row.ids) - len(self.chat.tool_header)
            del row.ids[before_header:], row.roles[before_header:]
            row.end("length")

    def _seen(self, row: _Row, result: ToolResult) -> str:
        """What the policy reads: the tool's text, made difficult where the settings want that."""
        text, turn = result.text, len(row.turns)
        if self.settings.tool_noise and result.error is None:
            text = disturb(text, self.settings.tool_noise, row.seed, turn)
        return below_log(text, self.settings.log_lines, row.seed, turn)


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
    progress: OnProgress | None = None,
    journal: Journal | None = None,
) -> list[Trajectory]:
    """Sample `samples` trajectories per problem (sec. 3.1: at most H rounds, T = 1, no top-k or top-p).

    Args:
        model: ready to sample, on its device; or a `TurnSampler`, which samples through vLLM.
        tokenizer: the model's own.
        problems: what to solve.
        samples: trajectories per problem.
        settings: rounds, lengths, temperature, rows at a time.
        pool: the tool.
        policy: name written into the trajectories.
        seed: the sampling seed of a trajectory is hashed from this, the problem and the sample number.
        temperature: instead of the settings'; 0 is greedy.
        progress: called with (trajectories done, all), from any thread, one call at a time.
        journal: keeps what has ended, and has what an earlier process sampled, which is not sampled again.

    Returns:
        Trajectories by problem, then by sample.

    Here a script stands in for the model; the tool is real:

    >>> from mtdpo_lib.models import train_tokenizer
    >>> from mtdpo_lib.profiles import get_profile
    >>> class Script(TurnSampler):
    ...     texts = iter(["```python\\nprint(2+3)\\n```", "The answer is \\\\boxed{5}."])
    ...     def turns(self, request):
    ...         return [[*tokenizer(next(self.texts)).input_ids, request.end_of_turn]]
    >>> tokenizer, smoke = train_tokenizer(["2 plus 3?"], 400), get_profile("smoke")
    >>> problems = [Problem("p", "suite", "family", "2 plus 3?", "5")]
    >>> with SandboxPool(smoke.sandbox) as pool:
    ...     (found,) = rollout(Script(), tokenizer, problems, 1, smoke.rollout, pool, policy="script", seed=0)
    >>> found.turns[0].output, found.answer, found.correct, found.stop
    ('5', '5', True, 'answer')

    See: notebook 04_rollouts_and_answers.
    """
    chat, made = ChatFormat(tokenizer), {} if journal is None else dict(journal.found)
    prompts = [chat.prompt(problem.question) for problem in problems]
    rows = [
        _Row(
            problem, sample, stream(seed, problem.id, sample), [*prompt.ids], [*prompt.roles], pool.session(), len(prompt),
        )
        for problem, prompt in zip(problems, prompts, strict=True)
        for sample in range(samples)
        if (problem.id, sample) not in made
    ]  # fmt: skip
    temperature = settings.temperature if temperature is None else temperature
    work = _Rollout(chat, settings, pool, temperature, policy, rows, progress, journal, made)
    if made:
        say(
            f"{len(made):,} of {work.total:,} trajectories of {policy} are kept: sampling goes on from there."
        )
    if isinstance(model, TurnSampler):
        for start in range(0, len(rows), settings.batch_size):
            _sample_turns(model, work, rows[start : start + settings.batch_size])
    elif rows:
        _decode_all(model, work)
    work.judge()
    return [work.made[problem.id, sample] for problem in problems for sample in range(samples)]


def _sample_turns(sampler: TurnSampler, work: _Rollout, rows: list[_Row]) -> None:
    """Bring the rows to their ends, in place, turn by turn."""
    live, settings = rows, work.settings
    while live:
        room = [min(settings.max_new_tokens, settings.max_tokens - len(row.ids)) for row in live]
        request = TurnRequest(
            [row.ids for row in live], [max(tokens, 1) for tokens in room],
            [stream31(row.seed, "turn", len(row.turns)) for row in live], work.temperature, work.chat.end_of_turn,
        )  # fmt: skip
        turns = sampler.turns(request)
        for row, ids in zip(live, turns, strict=True):
            row.write(ids)
        for asked in work.end_turns(live):
            for row in asked.rows:
                row.take_fed(len(row.fed))
            work.observe(asked)
            for row in asked.rows:
                row.take_fed(len(row.fed))
        live = [row for row in live if not row.stop]
    work.finish(rows)


def _decode_all(model: PreTrainedModel, work: _Rollout) -> None:
    """Decode all rows to their ends, in place: short prompts first, for little padding.

    On a CPU threads decode parts of their own, because a step of a small model is too short to be shared.
    """
    prompts = [list(mine) for _, mine in itertools.groupby(work.rows, lambda row: row.problem.id)]
    prompts.sort(key=lambda mine: len(mine[0].ids))
    wanted = 1 if model.device.type == "cuda" else max(torch.get_num_threads(), PARTS)
    threads = min(wanted, len(prompts))
    parts = [deque(row for mine in prompts[number::threads] for row in mine) for number in range(threads)]
    places = max(min(work.settings.batch_size, -(-len(work.rows) // threads)), 1)
    stopped = threading.Event()
    if threads == 1:
        _decode(model, work, parts[0], places, stopped)
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            running = [executor.submit(_decode, model, work, part, places, stopped) for part in parts]
            try:
                while wait(running, timeout=1.0, return_when=FIRST_EXCEPTION).not_done:
                    work.judge()
                    if any(future.done() and future.exception() for future in running):
                        break
            finally:
                stopped.set()  # Ctrl-C, or an error in one thread: the others stop too
            for future in running:
                future.result()
    finally:
        torch.set_num_threads(before)  # the matrix library's own setting is the whole process's


class _Batch:
    """Rows that decode in step. The cache holds all but each row's last token, every row ending in the last column."""

    _cache: Cache  # these are there once rows are
    _mask: Tensor
    _seeds: Tensor

    def __init__(self, model: PreTrainedModel, next_logits: _Logits, pad: int):
        self.rows: list[_Row] = []
        self._model, self._next, self._pad = model, next_logits, pad

    def step(self, temperature: float) -> Iterable[tuple[int, float]]:
        """Feed every row's last token; the token that each row would sample next, and its -log pi in nats."""
        device = self._model.device
        lengths = torch.tensor([len(row.ids) for row in self.rows], device=device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        last = torch.tensor([[row.ids[-1]] for row in self.rows], device=device)
        logits = self._next(last, self._mask, lengths[:, None] - 1, self._cache)
        tokens = choose(logits, temperature, self._seeds, lengths)
        nats = torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")
        return zip(tokens.tolist(), nats.tolist(), strict=True)

    def keep(self, indices: list[int]) -> None:
        """Let all other rows go, and the columns that only they used; the last rows move to the places left free."""
        count = len(indices)
        free, moved = sorted({*range(count)} - {*indices}), [index for index in indices if index >= count]
        for states in (self._mask, self._seeds):
            states[free] = states[moved]
        for place, index in zip(free, moved, strict=True):
            self.rows[place] = self.rows[index]
        self.rows, self._seeds = self.rows[:count], self._seeds[:count]
        unused = int(self._mask[:count].any(0).int().argmax())
        self._mask = self._mask[:count, unused:]
        for layer in _layers(self._cache):
            layer.keep(free, moved, count, unused)

    def admit(self, rows: list[_Row]) -> None:
        """Take in rows that are still at their prompts; a prompt that several share goes through the model once."""
        from mtdpo_lib.rollout import cache as caches  # transformers takes seconds to import

        device = self._model.device
        prompts = list(dict.fromkeys(tuple(row.ids[:-1]) for row in rows))
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        padded = [[self._pad] * free + list(prompt) for free, prompt in zip(padding, prompts, strict=True)]
        ids = torch.tensor(padded, device=device)
        mask = torch.tensor([[0] * free + [1] * (width - free) for free in padding], device=device)
        kind = caches.LeanLayer if isinstance(self._next, LeanStep) else caches.RoomyLayer
        cache = caches.roomy_cache(kind)
        _forward(self._model, ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
        index = {prompt: index for index, prompt in enumerate(prompts)}
        owner = torch.tensor([index[tuple(row.ids[:-1])] for row in rows], device=device)
        cache.batch_select_indices(owner)
        mask, seeds = mask[owner], torch.tensor([row.seed for row in rows], device=device)
        if self.rows:
            columns = max(width, self._mask.shape[1])
            mask = torch.cat([_widen(self._mask, columns, 1), _widen(mask, columns, 1)])
            seeds = torch.cat([self._seeds, seeds])
            for new, old in zip(_layers(cache), _layers(self._cache), strict=True):
                new.keys = torch.cat([_widen(old.keys, columns, 2), _widen(new.keys, columns, 2)])
                new.values = torch.cat([_widen(old.values, columns, 2), _widen(new.values, columns, 2)])
        self.rows, self._cache, self._mask, self._seeds = [*self.rows, *rows], cache, mask, seeds


class _Layer(Protocol):
    """Keys and values [rows, heads, columns, D] of one layer of a cache that has been filled."""

    keys: Tensor
    values: Tensor
    keep: Callable[[list[int], list[int], int, int], None]


_Logits = Callable[["Tensor", "Tensor", "Tensor", "Cache"], "Tensor"]


def _forward(model: PreTrainedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
    """Logits [N, V] behind the last of new tokens [N, T], which join the cache."""
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    )  # fmt: skip
    return output.logits[:, -1]


def _layers(cache: Cache) -> list[_Layer]:
    return cast("list[_Layer]", cache.layers)


def _widen(states: Tensor, columns: int, dimension: int) -> Tensor:
    """Zeros before what is there, up to so many columns: the mask hides them."""
    missing = list(states.shape)
    missing[dimension] = columns - states.shape[dimension]
    return torch.cat([states.new_zeros(missing), states], dim=dimension) if missing[dimension] else states


@torch.inference_mode()
def _decode(
    model: PreTrainedModel, work: _Rollout, waiting: deque[_Row], places: int, stopped: threading.Event
) -> None:
    """Decode the rows to their ends, in place, at most `places` of them at a time."""
    pad = require_padding(work.chat.tokenizer)
    refills = model.num_parameters() >= REFILL_WEIGHTS
    next_logits = partial(_forward, model) if refills or not is_lean(model) else LeanStep(model)
    batch, asked, finished = _Batch(model, next_logits, pad), deque[_Asked](), places
    while not stopped.is_set():
        if finished >= LEAVE_SHARE * (len(batch.rows) or 1):
            running = [index for index, row in enumerate(batch.rows) if not row.stop]
            work.finish([row for row in batch.rows if row.stop])
            if not running:
                batch = _Batch(model, next_logits, pad)
            elif len(running) < len(batch.rows):
                batch.keep(running)
            free = min(places - len(batch.rows), len(waiting))
            if free and (refills or not batch.rows):
                batch.admit([waiting.popleft() for _ in range(free)])
            if not batch.rows:
                return
        sampled = batch.step(work.temperature)
        while asked and not asked[0].rows[0].fed:  # all headers are equally long
            work.observe(asked.popleft())
        moved = zip(batch.rows, sampled, strict=True)
        ended = [row for row, (token, nats) in moved if not row.stop and work.advance(row, token, nats)]
        if ended:
            asked.extend(work.end_turns(ended))
        finished = sum(bool(row.stop) for row in batch.rows)
