"""A trajectory: the one thing that travels from sampling to pairs, training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mtdpo_lib.chat.roles import Role, RoleTokens
from mtdpo_lib.common.files import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Turn:
    """One round: what the policy wrote (a_h) and what the tool answered (o_h), if it was called."""

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

    @property
    def tokens(self) -> RoleTokens:
        return RoleTokens(self.ids, self.roles)

    @property
    def prompt_length(self) -> int:
        """Number of prompt tokens; the two answers of a pair share them."""
        return next((place for place, role in enumerate(self.roles) if role != Role.PROMPT), len(self.roles))

    @property
    def tool_calls(self) -> int:
        return sum(turn.code is not None and turn.output is not None for turn in self.turns)

    @property
    def tool_errors(self) -> int:
        return sum(turn.error is not None for turn in self.turns)

    @property
    def last_tool_failed(self) -> bool:
        """The last tool output is an error (the paper drops such winners)."""
        called = [turn for turn in self.turns if turn.output is not None]
        return bool(called) and called[-1].error is not None


def save_trajectories(file: Path, trajectories: Iterable[Trajectory]) -> None:
    write_jsonl(file, (asdict(trajectory) for trajectory in trajectories))


def load_trajectories(file: Path) -> list[Trajectory]:
    return [
        Trajectory(**{**row, "turns": [Turn(**turn) for turn in row["turns"]]}) for row in read_jsonl(file)
    ]
