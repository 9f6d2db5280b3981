"""The seeds of a study on the machines of an existing Ray cluster.

A node runs a seed as this machine would, in a process of its own and from this machine's copy of the library, and sends
back the arms' records. Stages stay on the node, under the same path: with a file system that all nodes share, a second start
finds them wherever the first one ran.

Needs the extra: ``pip install "mtdpo[ray]"``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import mtdpo_lib
from mtdpo_lib.experiment.workers import run_here
from mtdpo_lib.profiles.presets import TINY_THREADS
from mtdpo_lib.profiles.sections import SettingError

Records = dict[str, str]  # file name to content


def run_on_node(
    profile_name: str, settings: Sequence[str], seed: int, arms: Sequence[str], out: str
) -> tuple[bool, Records]:
    """What a node does: whether all went well, and the records that are there."""
    well = run_here(profile_name, settings, [seed], arms, Path(out), jobs=1)
    files = sorted((Path(out) / "arms").glob(f"*-seed{seed}.json"))
    return well, {file.name: file.read_text(encoding="utf8") for file in files}


def connect(address: str) -> Callable[..., bool]:
    """The cluster's `workers.run_here`: same arguments, same result; records are written here.

    Args:
        address: of the cluster's head, ``host:port``, ``ray://host:port`` or ``auto``.

    Raises:
        SettingError: Ray is not installed, or nobody answers.
    """
    try:
        import ray
    except ImportError:
        raise SettingError('--ray needs Ray: run `pip install "mtdpo[ray]"`.') from None
    package = Path(mtdpo_lib.__file__).parent
    try:
        ray.init(address=address, runtime_env={"py_modules": [str(package)]}, log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"No Ray cluster answers at {address} ({reason}): start one with `ray start --head`."
        ) from None
    node = ray.remote(num_cpus=TINY_THREADS, max_retries=0)(run_on_node)

    def run(
        profile_name: str,
        settings: Sequence[str],
        seeds: Sequence[int],
        arms: Sequence[str],
        out: Path,
        jobs: int,
    ) -> bool:
        (out / "arms").mkdir(parents=True, exist_ok=True)
        waiting = [node.remote(profile_name, list(settings), seed, list(arms), str(out)) for seed in seeds]
        all_well = True
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            well, records = ray.get(ready)
            all_well = all_well and well
            for name, text in records.items():
                (out / "arms" / name).write_text(text, encoding="utf8")
        return all_well

    return run
