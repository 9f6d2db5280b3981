"""What the trajectory explorer shows, from a finished run: ``python notebooks/site/explorer.py RUN``.

Some prompts of every iteration with all their samples, and the greedy answers of all policies to some test problems. Stages
are read and never made; the answers, of which a run keeps the verdicts only, are given again by the kept policies.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtdpo_lib.chat import Role, loss_mask
from mtdpo_lib.chat.encoder import decode
from mtdpo_lib.common.files import REFERENCE_RUNS, whole
from mtdpo_lib.experiment.algorithm1 import Experiment, Iteration
from mtdpo_lib.lessons.run import Run
from mtdpo_lib.models.policy import Policy, load_tokenizer
from mtdpo_lib.pairs import drop_reason
from mtdpo_lib.profiles.sections import PairSettings
from mtdpo_lib.results.report import kept_name, read_run
from mtdpo_lib.rollout import Trajectory

FILE = "explorer.json.gz"
LIMIT = 1_000_000  # bytes of the compressed file: it is kept in the repository
CHOSEN, REJECTED, UNPAIRED = "chosen", "rejected", "in no pair"

Row = dict[str, Any]


def segments(trajectory: Trajectory, tokenizer: Any) -> list[tuple[str, int, str]]:
    """A trajectory as runs of tokens of one writer: who, how many, their text."""
    found, start = [], 0
    for role, run in itertools.groupby(trajectory.roles):
        end = start + len(list(run))
        found.append((Role(role).name.lower(), end - start, decode(tokenizer, trajectory.ids[start:end])))
        start = end
    return found


def shown(trajectory: Trajectory, tokenizer: Any, iteration: int, **more: Any) -> Row:
    """A trajectory as the page reads it; `more` is what became of it."""
    names = ("problem_id", "policy", "sample", "correct", "answer", "stop", "tool_calls", "tool_errors")
    row = {name: getattr(trajectory, name) for name in names} | {"iteration": iteration}
    return row | more | {"segments": segments(trajectory, tokenizer)}


def fates(
    trajectories: Sequence[Trajectory], pairs: Iterable[tuple[Trajectory, Trajectory]], settings: PairSettings
) -> dict[tuple[str, str, int], str]:
    """What became of every trajectory: a side of a pair, the reason why it was dropped, or neither."""
    found = {key(one): drop_reason(one, settings) or UNPAIRED for one in trajectories}
    for chosen, rejected in pairs:
        found |= {key(chosen): CHOSEN, key(rejected): REJECTED}
    return found


def key(trajectory: Trajectory) -> tuple[str, str, int]:
    """What a trajectory is known by within one iteration."""
    return trajectory.problem_id, trajectory.policy, trajectory.sample


def some_prompts(
    trajectories: Sequence[Trajectory], fate: dict[tuple[str, str, int], str], count: int
) -> list[str]:
    """`count` prompts, as many as can be from each kind: dropped samples, a pair, all right, all wrong."""
    fates_of, verdicts = defaultdict[str, set[str]](set), defaultdict[str, set[bool]](set)
    for one in trajectories:
        fates_of[one.problem_id].add(fate[key(one)])
        verdicts[one.problem_id].add(one.correct)
    kinds = defaultdict[tuple[Any, ...], list[str]](list)
    for problem, known in fates_of.items():
        kinds[tuple(sorted(known - {UNPAIRED})), len(verdicts[problem])].append(problem)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds.values()))
    return [problem for problem in in_turn if problem][:count]


def of_iteration(made: Iteration, settings: PairSettings, tokenizer: Any, prompts: int) -> list[Row]:
    """The samples of some prompts of an iteration."""
    trajectories = made.rollouts.trajectories()
    pairs = [(pair.chosen, pair.rejected) for pair in made.pairs.pairs()]
    fate, raft = fates(trajectories, pairs, settings), set(map(key, made.pairs.right()))
    wanted = set(some_prompts(trajectories, fate, prompts))
    return [
        shown(one, tokenizer, made.number, fate=fate[key(one)], raft=key(one) in raft)
        for one in trajectories
        if one.problem_id in wanted
    ]


def greedy_answers(experiment: Experiment, policies: Sequence[Policy], count: int) -> list[Row]:
    """What every policy answers to `count` test problems, first those on which their verdicts differ."""
    verdicts = defaultdict[str, set[bool]](set)
    for policy in policies:
        for outcome in experiment.outcomes(policy)["greedy"]:
            verdicts[outcome.problem_id].add(outcome.correct)
    problems = sorted(experiment.test_problems(), key=lambda problem: -len(verdicts[problem.id]))[:count]
    from mtdpo_lib.experiment.steps import Sampling

    profile = experiment.profile
    rollout = replace(profile.rollout, batch_size=profile.evaluation.batch_size)
    sampling, rows = Sampling(profile.model, rollout, profile.sandbox, experiment.seed), []
    for number, policy in enumerate(policies):
        given = (
            sampling.sample(policy, problems, 1, "answers", experiment.seed, temperature=0.0)
            if problems
            else []
        )
        rows += [shown(one, load_tokenizer(policy), number) for one in given]
    return rows


def extract(folder: Path, prompts: int = 24, problems: int = 24) -> Row:
    """The explorer's data from a finished run.

    Args:
        folder: of the run.
        prompts: whose samples are shown, for each iteration.
        problems: test problems whose answers are shown; 0 samples nothing.

    Raises:
        MissingProduct: the run is not complete, or was made by other code.
    """
    state = read_run(folder)
    run = Run.of(state["profile"], state["seed"], folder, state["settings"])
    experiment = Experiment(run.profile, run.seed, run.out, notebook="explorer")  # makes nothing
    iterations = experiment.run()
    policies = [experiment.sft_policy(), *(made.policy for made in iterations)]
    tokenizer = load_tokenizer(policies[0])
    trajectories = [
        row for made in iterations for row in of_iteration(made, run.profile.pairs, tokenizer, prompts)
    ]
    answers = greedy_answers(experiment, policies, problems)
    asked = {row["problem_id"] for row in [*trajectories, *answers]}
    known = [
        *experiment.test_problems(),
        *(one for made in iterations for one in experiment.prompts(made.number)),
    ]
    return {
        "profile": run.profile.name, "seed": run.seed, "settings": run.settings,
        "scored": [role.name.lower() for role in Role if loss_mask([role]) == [1]],
        "reports": {made.number: made.pairs.report for made in iterations},
        "policies": [policy.name for policy in policies],
        "problems": {one.id: [one.question, one.answer, one.suite] for one in known if one.id in asked},
        "trajectories": trajectories, "answers": answers,
    }  # fmt: skip


def save(data: Row, file: Path) -> int:
    """Write the data, the same bytes for the same data; gives their number.

    Raises:
        ValueError: it is larger than the repository wants to keep.
    """
    packed = gzip.compress(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(), mtime=0)
    if len(packed) > LIMIT:
        raise ValueError(
            f"{len(packed):,} bytes are more than {LIMIT:,}: take fewer with --prompts or --problems."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as draft:
        draft.write_bytes(packed)
    return len(packed)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--prompts", type=int, default=24, help="prompts of each iteration (default 24)")
    parser.add_argument(
        "--problems", type=int, default=24, help="test problems with answers (default 24; 0: none)"
    )
    parser.add_argument("--out", type=Path, help=f"file (default data/reference_runs/PROFILE/{FILE})")
    options = parser.parse_args()
    state = read_run(options.run)
    file = options.out or REFERENCE_RUNS / kept_name(state["profile"], state["settings"]) / FILE
    data = extract(options.run, options.prompts, options.problems)
    size = save(data, file)
    print(f"{len(data['trajectories'])} trajectories, {len(data['answers'])} answers, {size:,} bytes: {file}")


if __name__ == "__main__":
    main()
