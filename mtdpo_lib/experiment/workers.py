"""The arms of a study over the cores of this machine: one process for each core, sharing the stages.

A process goes through its own seeds, then helps with the others' from the end. A lock on an arm makes the other process go
on to the next one; a lock on a stage makes it wait for what both need. Each process of the tiny model has a core to itself:
two threads on one core are slower than on two, but two processes then finish about 1.3 times the work of one that has both,
and with the same number of threads the results are the same to the last digit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from mtdpo_lib.profiles.overrides import get_profile
from mtdpo_lib.profiles.sections import Profile


def default_jobs(profile: Profile) -> int:
    """Processes that fill this machine: the tiny model takes a core, a real one everything."""
    return _cores() if profile.model.base == "tiny" else 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(
    profile_name: str,
    settings: Sequence[str],
    seeds: Sequence[int],
    arms: Sequence[str],
    out: Path,
    jobs: int,
) -> bool:
    """All arms of all seeds in `jobs` processes with the environment that computing wants; False when one failed."""
    from mtdpo_lib.lessons.run import computing_variables

    command = [
        sys.executable, "-m", "mtdpo_lib", "study", "--profile", profile_name, "--out", str(out),
        "--seeds", ",".join(map(str, seeds)), "--arms", ",".join(arms),
        *(part for setting in settings for part in ("--set", setting)),
    ]  # fmt: skip
    environment = os.environ | computing_variables(get_profile(profile_name, list(settings)))
    if jobs > 1:
        environment["GOMP_SPINCOUNT"] = "0"  # threads that share a core must not wait by turning
    processes = [
        subprocess.Popen([*command, "--worker", f"{number}/{jobs}"], env=environment)
        for number in range(jobs)
    ]
    try:
        codes = [process.wait() for process in processes]
        return not any(codes)
    finally:
        for process in processes:
            process.terminate()


def take_core(worker: int, workers: int) -> None:
    """Keep this process to a core of its own, where there are several processes and the system can."""
    if workers > 1 and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[worker % len(cores)]})


def in_order(
    seeds: Sequence[int], arms: Sequence[str], worker: int, workers: int
) -> Iterator[tuple[int, str]]:
    """(seed, arm): a worker's own seeds from the first arm, then the others' from the last."""
    own = seeds[worker::workers]
    yield from ((seed, arm) for seed in own for arm in arms)
    yield from ((seed, arm) for seed in seeds if seed not in own for arm in reversed(arms))


def unclaimed(tasks: Iterator[tuple[int, str]], locks: Path) -> Iterator[tuple[int, str]]:
    """Those of `tasks` that no other process is at; each is claimed until the next one is asked for."""
    locks.mkdir(parents=True, exist_ok=True)
    for seed, arm in tasks:
        lock = FileLock(locks / f"{arm}-seed{seed}.lock")
        try:
            with lock.acquire(blocking=False):
                yield seed, arm
        except Timeout:
            continue
