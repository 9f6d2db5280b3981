"""The seeds of a study on the machines of an existing Ray cluster.

A node runs a seed as this machine would, in a process of its own and from this machine's copy of the library, and sends
back the arms' records. Stages stay on the node, under the same path: with a file system that all nodes share, a second start
finds them wherever the first one ran.

Needs the extra: ``pip install "mtdpo[ray]"``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mtdpo_lib import study
from mtdpo_lib.profiles import TINY_THREADS, SettingError

Records = dict[str, str]  # file name to content


def run_seed_on_node(
    profile_name: str, settings: Sequence[str], seed: int, arms: Sequence[str], out: str
) -> tuple[int, Records]:
    """What a node does: the exit code and the records that are there."""
    code = study.run_seed_in_process(profile_name, settings, seed, arms, Path(out))
    files = sorted((Path(out) / "arms").glob(f"*-seed{seed}.json"))
    return code, {file.name: file.read_text(encoding="utf8") for file in files}


def connect(address: str) -> Callable[..., int]:
    """The cluster's `study.run_seed_in_process`: same arguments, same result; records are written here.

    Args:
        address: of the cluster's head, ``host:port``, ``ray://host:port`` or ``auto``.

    Raises:
        SettingError: Ray is not installed, or nobody answers.
    """
    try:
        import ray
    except ImportError:
        raise SettingError('--ray needs Ray: run `pip install "mtdpo[ray]"`.') from None
    package = Path(study.__file__).parent
    try:
        ray.init(address=address, runtime_env={"py_modules": [str(package)]}, log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"No Ray cluster answers at {address} ({reason}): start one with `ray start --head`."
        ) from None
    node = ray.remote(num_cpus=TINY_THREADS, max_retries=0)(run_seed_on_node)

    def run(profile_name: str, settings: Sequence[str], seed: int, arms: Sequence[str], out: Path) -> int:
        code, records = ray.get(node.remote(profile_name, list(settings), seed, list(arms), str(out)))
        (out / "arms").mkdir(parents=True, exist_ok=True)
        for name, text in records.items():
            (out / "arms" / name).write_text(text, encoding="utf8")
        return code

    return run
