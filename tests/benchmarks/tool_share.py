"""What part of sampling is spent on the tool: ``python tests/benchmarks/tool_share.py RUN``.

Samples iteration 1's trajectories once more (profile `cpu`), with the two SFT policies of a finished run and one pool for
both, as the iteration does, and notes how long the sampling threads waited for the sandbox; then the same with all results
already known, and with every call really run. Writes ``data/records/tool_share_cpu.json``; the last line is the same.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from mtdpo_lib.models import Policy, load_for_sampling, load_tokenizer
from mtdpo_lib.problems import load_problems
from mtdpo_lib.profiles import TINY_THREADS, get_profile
from mtdpo_lib.rollout import rollout
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.stages import Product

ROOT = Path(__file__).parents[2]
SEED = 0


def main(run: str) -> None:
    torch.set_num_threads(TINY_THREADS)
    profile = get_profile("cpu")
    (folder,) = (Path(run) / "stages").glob("sft-*")
    sources = []
    for name, part, samples in (
        ("sft", "late", profile.rollout.samples_current),
        ("sft-early", "early", profile.rollout.samples_previous),
    ):
        policy = Policy(name, Product("sft", "", folder), part)
        sources.append((name, load_for_sampling(policy, profile.model), load_tokenizer(policy), samples))
    prompts = load_problems(profile.problems, "preference", profile.problems.prompts_per_iteration, SEED)

    def sample(pool: SandboxPool) -> tuple[float, float, list]:
        waited, start = pool.waited_seconds, time.perf_counter()
        found = []
        for name, network, tokenizer, samples in sources:
            found += rollout(
                network, tokenizer, prompts, samples, profile.rollout, pool, policy=name, seed=SEED
            )
        return time.perf_counter() - start, pool.waited_seconds - waited, found

    with SandboxPool(profile.sandbox) as pool:
        _, network, tokenizer, _ = sources[0]
        rollout(network, tokenizer, prompts[:8], 1, profile.rollout, pool, policy="warm", seed=SEED)
        seconds, waited, trajectories = sample(pool)
        different = len(pool.known)
        free_seconds, _, again = sample(pool)
    with SandboxPool(replace(profile.sandbox, remember=False)) as pool:
        every_seconds, every_waited, once_more = sample(pool)
    assert [one.ids for one in again] == [one.ids for one in trajectories] == [one.ids for one in once_more]
    record = {
        "profile": "cpu",
        "trajectories": len(trajectories),
        "calls": sum(turn.output is not None for one in trajectories for turn in one.turns),
        "different_histories": different,
        "sampling_seconds": round(seconds, 1),
        "tool_share_of_sampling": round(waited / TINY_THREADS / seconds, 3),
        "sampling_seconds_with_all_results_known": round(free_seconds, 1),
        "sampling_seconds_running_every_call": round(every_seconds, 1),
        "tool_share_running_every_call": round(every_waited / TINY_THREADS / every_seconds, 3),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.system(),
        },
    }
    file = ROOT / "data" / "records" / "tool_share_cpu.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
