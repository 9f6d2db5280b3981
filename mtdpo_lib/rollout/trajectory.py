"""A trajectory: the one thing that travels from sampling to pairs, training and evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtdpo_lib.chat import Role, RoleTokens
from mtdpo_lib.common.files import read_jsonl, write_jsonl
from mtdpo_lib.common.stages import KEEP_EVERY


@dataclass(frozen=True)
class Turn:
    """One round: what the policy wrote (a_h) and what the tool answered (o_h), if it was called.

    >>> called, last = Turn("Add.", "print(2+3)", "5"), Turn("The answer is 5.")
    >>> called.output, last.output
    ('5', None)
    """

    text: str
    code: str | None = None
    output: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Trajectory:
    """tau = (x, a_1, o_1, ..., a_H), as sampled.

    Attributes:
        problem_id, suite, question, gold: the problem.
        policy: name of the policy that sampled it.
        sample: number of the sample for this problem and policy.
        ids: token ids as sampled, prompt included, length T; nothing downstream tokenises again.
        roles: a `Role` for each id.
        turns: the same as text.
        answer: the last boxed answer, None without one.
        correct: verdict on the final answer.
        stop: why it ended: "answer", "no_action" (neither answer nor code), "rounds" (H used up) or "length".
        nats: -log pi of what the policy wrote, at temperature 1; None where the sampler does not tell. No part of what two
            trajectories are compared by: its last digits depend on the batch.

    >>> turns = [Turn("print(2+3)", "print(2+3)", "5"), Turn("The answer is \\\\boxed{5}.")]
    >>> ids, roles = [1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 3, 1]
    >>> one = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 0, ids, roles, turns, "5", True, "answer")
    >>> one.prompt_length, one.tool_calls, one.last_tool_failed
    (2, 1, False)
    """

    problem_id: str
    suite: str
    question: str
    gold: str
    policy: str
    sample: int
    ids: list[int]
    roles: list[int]
    turns: list[Turn]
    answer: str | None
    correct: bool
    stop: str
    nats: float | None = field(default=None, compare=False)

    @property
    def tokens(self) -> RoleTokens:
        """Ids with their roles."""
        return RoleTokens(self.ids, self.roles)

    @property
    def prompt_length(self) -> int:
        """Number of prompt tokens; the two answers of a pair share them."""
        return next((index for index, role in enumerate(self.roles) if role != Role.PROMPT), len(self.roles))

    @property
    def tool_calls(self) -> int:
        """How often the tool has answered."""
        return sum(turn.code is not None and turn.output is not None for turn in self.turns)

    @property
    def tool_errors(self) -> int:
        """How many of its answers were errors."""
        return sum(turn.error is not None for turn in self.turns)

    @property
    def last_tool_failed(self) -> bool:
        """The last tool output is an error (the paper drops such winners)."""
        called = [turn for turn in self.turns if turn.output is not None]
        return bool(called) and called[-1].error is not None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Trajectory:
        """Rebuild a trajectory from its fields as JSON keeps them."""
        fields: dict[str, Any] = {**record, "turns": [Turn(**turn) for turn in record["turns"]]}
        return cls(**fields)


def save_trajectories(file: Path, trajectories: Iterable[Trajectory]) -> None:
    """One trajectory per line of JSON.

    >>> import tempfile
    >>> one = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 0, [7, 8], [0, 1], [Turn("5")], None, False, "no_action")
    >>> file = Path(tempfile.mkdtemp()) / "trajectories.jsonl"
    >>> save_trajectories(file, [one, one])
    >>> len(file.read_text().splitlines())
    2
    """
    write_jsonl(file, map(asdict, trajectories))


def load_trajectories(file: Path) -> list[Trajectory]:
    """What `save_trajectories` wrote, equal to what it was.

    >>> import tempfile
    >>> one = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 0, [7, 8], [0, 1], [Turn("5")], None, False, "no_action")
    >>> file = Path(tempfile.mkdtemp()) / "trajectories.jsonl"
    >>> save_trajectories(file, [one])
    >>> load_trajectories(file) == [one]
    True
    """
    return [Trajectory.from_dict(row) for row in read_jsonl(file)]


class Journal:
    """Trajectories of a sampling that may be stopped: those that have ended are written down every few minutes.

    Args:
        folder: of the files; made when there is something to write.
        name: what is sampled; another journal in the same folder has another.
        every: seconds between two files.

    Attributes:
        found: what an earlier process wrote, by problem and sample.

    >>> import tempfile
    >>> one = Trajectory("p", "gsm8k", "2 plus 3?", "5", "sft", 0, [7, 8], [0, 1], [Turn("5")], None, False, "no_action")
    >>> folder = Path(tempfile.mkdtemp())
    >>> Journal(folder, "greedy", every=0).add([one])
    >>> Journal(folder, "greedy").found == {("p", 0): one}, Journal(folder, "sampled").found
    (True, {})
    """

    def __init__(self, folder: Path, name: str, every: float = KEEP_EVERY):
        self.folder, self.name, self.every = folder, name, every
        files = sorted(folder.glob(f"{name}-*.jsonl"))
        self.found = {(row.problem_id, row.sample): row for file in files for row in load_trajectories(file)}
        self._files, self._waiting, self._written = len(files), list[Trajectory](), time.monotonic()

    def add(self, ended: Iterable[Trajectory]) -> None:
        """Take down what has ended; written when it is time."""
        self._waiting += ended
        if self._waiting and time.monotonic() - self._written >= self.every:
            self.folder.mkdir(exist_ok=True)
            save_trajectories(self.folder / f"{self.name}-{self._files}.jsonl", self._waiting)
            self._files, self._waiting, self._written = self._files + 1, [], time.monotonic()
