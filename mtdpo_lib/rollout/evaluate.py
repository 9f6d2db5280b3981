"""Evaluation: greedy accuracy of a policy on problems, with what its tool calls looked like. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtdpo_lib.common.files import read_jsonl, write_jsonl
from mtdpo_lib.common.progress import Progress
from mtdpo_lib.problems import Problem
from mtdpo_lib.profiles.sections import EvaluationSettings, RolloutSettings
from mtdpo_lib.rollout.engine import rollout
from mtdpo_lib.rollout.trajectory import Journal, Trajectory
from mtdpo_lib.sandbox import SandboxPool

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mtdpo_lib.rollout.vllm import TurnSampler


@dataclass(frozen=True)
class Outcome:
    """How one trajectory on one problem went.

    >>> went = Outcome("p", "gsm8k", 0, True, "answer", tool_calls=1, tool_errors=0, tokens=50)
    >>> went.correct, went.stop
    (True, 'answer')
    """

    problem_id: str
    suite: str
    sample: int
    correct: bool
    stop: str
    tool_calls: int
    tool_errors: int
    tokens: int


def outcome(trajectory: Trajectory) -> Outcome:
    """The facts of a trajectory that evaluation keeps."""
    return Outcome(
        trajectory.problem_id, trajectory.suite, trajectory.sample, trajectory.correct, trajectory.stop,
        trajectory.tool_calls, trajectory.tool_errors, len(trajectory.ids),
    )  # fmt: skip


def evaluate(
    model: PreTrainedModel | TurnSampler,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    rollout_settings: RolloutSettings,
    settings: EvaluationSettings,
    pool: SandboxPool,
    *,
    policy: str,
    seed: int,
    samples: int = 0,
    journal: Journal | None = None,
) -> list[Outcome]:
    """Greedy outcomes (`samples` = 0, the paper's zero-shot pass@1), or `samples` sampled ones at temperature 1.

    All arguments as `mtdpo_lib.rollout.rollout`'s.

    Anything that gives turns can be evaluated, here one that knows a single answer:

    >>> from mtdpo_lib.models import train_tokenizer
    >>> from mtdpo_lib.profiles import get_profile
    >>> from mtdpo_lib.rollout.vllm import TurnSampler
    >>> class AlwaysFive(TurnSampler):
    ...     def turns(self, request):
    ...         words = tokenizer("The answer is \\\\boxed{5}.").input_ids
    ...         return [[*words, request.end_of_turn] for _ in request.prompts]
    >>> tokenizer, smoke = train_tokenizer(["2 plus 3?"], 400), get_profile("smoke")
    >>> problems = [Problem(gold, "suite", "family", f"Is it {gold}?", gold) for gold in ("5", "6")]
    >>> with SandboxPool(smoke.sandbox) as pool:
    ...     found = evaluate(
    ...         AlwaysFive(), tokenizer, problems, smoke.rollout, smoke.evaluation, pool, policy="five", seed=0)
    >>> accuracy(found), found[0].tool_calls
    (0.5, 0)
    """
    kind, temperature = ("sampled", 1.0) if samples else ("greedy", 0.0)
    trajectories = rollout(
        model, tokenizer, problems, max(samples, 1), replace(rollout_settings, batch_size=settings.batch_size), pool,
        policy=policy, seed=seed, temperature=temperature,
        progress=Progress(f"evaluate {policy} ({kind})", "trajectories"), journal=journal,
    )  # fmt: skip
    return [outcome(trajectory) for trajectory in trajectories]


def save_outcomes(file: Path, outcomes: Sequence[Outcome]) -> None:
    """One outcome per line of JSON.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "greedy.jsonl"
    >>> save_outcomes(file, [Outcome("p", "gsm8k", 0, True, "answer", 1, 0, 50)])
    >>> file.read_text()[:20]
    '{"problem_id":"p","s'
    """
    write_jsonl(file, map(asdict, outcomes))


def load_outcomes(file: Path) -> list[Outcome]:
    """What `save_outcomes` wrote, equal to what it was.

    >>> import tempfile
    >>> file, went = Path(tempfile.mkdtemp()) / "greedy.jsonl", Outcome("p", "gsm8k", 0, True, "answer", 1, 0, 50)
    >>> save_outcomes(file, [went])
    >>> load_outcomes(file) == [went]
    True
    """
    return [Outcome(**row) for row in read_jsonl(file)]


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Share of right answers, a fraction.

    >>> right, wrong = (Outcome("p", "gsm8k", 0, correct, "answer", 1, 0, 50) for correct in (True, False))
    >>> accuracy([right, wrong, right]), outcome_string([right, wrong, right])
    (0.6666666666666666, '101')
    """
    return sum(one.correct for one in outcomes) / len(outcomes)


def outcome_string(outcomes: Sequence[Outcome]) -> str:
    """One character per question, "1" for right: what comparisons across runs need.

    >>> outcome_string([Outcome("p", "gsm8k", 0, correct, "answer", 1, 0, 50) for correct in (True, True, False)])
    '110'
    """
    return "".join("1" if one.correct else "0" for one in outcomes)
