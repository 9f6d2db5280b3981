"""What part of sampling is spent on the tool: ``python tests/benchmarks/tool_share.py RUN``.

Samples the trajectories of each iteration of a finished `cpu` run once more, with the run's own policies and one pool for
both, as the iteration does. Three answers, because waiting is not the only cost where the tool and the sampler share two
cores: how long the sampling threads waited for the tool, what part of the processor's time its workers took, and how much
sooner the same samples are there when every result is known beforehand. Writes ``data/records/tool_share_cpu.json``; the
last line is the same.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from finished import policy_of, rollouts

from mtdpo_lib.common.files import DATA, write_json
from mtdpo_lib.models import load_for_sampling, load_tokenizer
from mtdpo_lib.problems import load_problems
from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.presets import TINY_THREADS
from mtdpo_lib.rollout import rollout
from mtdpo_lib.sandbox import SandboxPool


def processor_seconds(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)


def measure(inputs: dict[str, Any], stages: Path) -> dict[str, Any]:
    """Sample one iteration's trajectories with the tool, and again with every result known."""
    profile = get_profile("cpu")
    seed, count = inputs["seed"], profile.problems.prompts_per_iteration
    prompts = load_problems(profile.problems, "preference", inputs["first"] + count, seed)[inputs["first"] :]
    sources = []
    for row, samples in inputs["sources"]:
        policy = policy_of(row, stages)
        sources.append((policy, load_for_sampling(policy, profile.model), load_tokenizer(policy), samples))

    def sample(pool: SandboxPool) -> tuple[dict[str, float], list]:
        start, waited = time.perf_counter(), pool.waited_seconds
        own, workers = time.process_time(), processor_seconds(pool.pids())
        found = []
        for policy, network, tokenizer, samples in sources:
            found += rollout(
                network, tokenizer, prompts, samples, profile.rollout, pool, policy=policy.name, seed=seed
            )
        return {
            "seconds": time.perf_counter() - start,
            "waited": pool.waited_seconds - waited,
            "own": time.process_time() - own,
            "workers": processor_seconds(pool.pids()) - workers,
        }, found

    with SandboxPool(profile.sandbox) as pool:
        sample(pool)  # the process asks the system for its memory once, and that is slow
    with SandboxPool(profile.sandbox) as pool:
        first, trajectories = sample(pool)
        different = len(pool.known)
        free, again = sample(pool)
    assert [one.ids for one in again] == [one.ids for one in trajectories]
    return {
        "trajectories": len(trajectories),
        "calls": sum(turn.output is not None for one in trajectories for turn in one.turns),
        "different_histories": different,
        "sampling_seconds": round(first["seconds"], 1),
        "waiting_share": round(first["waited"] / TINY_THREADS / first["seconds"], 3),
        "processor_share": round(first["workers"] / (first["own"] + first["workers"]), 3),
        "sampling_seconds_with_all_results_known": round(free["seconds"], 1),
    }


def main(run: str) -> None:
    torch.set_num_threads(TINY_THREADS)
    stages = Path(run) / "stages"
    record = {"profile": "cpu", "iterations": {}}
    for number, inputs in rollouts(stages, sources=2).items():
        record["iterations"][str(number)] = measure(inputs, stages)
        print(number, json.dumps(record["iterations"][str(number)]), flush=True)
    record["machine"] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
    }
    file = DATA / "records" / "tool_share_cpu.json"
    file.parent.mkdir(exist_ok=True)
    write_json(file, record)
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
