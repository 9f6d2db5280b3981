"""One training, shared by several processes with a GPU each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import PartialState


def launch[Result](train: Callable[[], Result], processes: int, what: str = "Training") -> Result:
    """Run a training in so many processes on this machine; the first one writes what is kept.

    Args:
        train: the same in every process, to which it goes by pickling.
        processes: how many.
        what: is trained, for the error.

    Raises:
        RuntimeError: a process failed; what it said stands above.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="training", max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="spawn",
    )  # fmt: skip
    try:
        return elastic_launch(config, _take_part)(train)[0]
    except ChildFailedError as error:
        raise RuntimeError(f"{what} in {processes} processes failed; see above.") from error


def _take_part[Result](train: Callable[[], Result]) -> Result:
    on_processors = not torch.cuda.is_available()  # without a GPU, processes join only when told so
    PartialState(cpu=on_processors)
    return train()
