"""One iteration's preference training, shared by several processes with a GPU each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

if TYPE_CHECKING:
    from mtdpo_lib.train import PreferenceJob

Log = list[dict[str, float]]


def launch(job: PreferenceJob, processes: int) -> Log:
    """Run a job in so many processes on this machine; the first one writes the adapters.

    Raises:
        RuntimeError: a process failed; what it said stands above.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="preference", max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="spawn",
    )  # fmt: skip
    try:
        return elastic_launch(config, _take_part)(job)[0]
    except ChildFailedError as error:
        raise RuntimeError(f"Preference training in {processes} processes failed; see above.") from error


def _take_part(job: PreferenceJob) -> Log:
    from mtdpo_lib.train import train_preference  # TRL takes seconds to import

    on_processors = not torch.cuda.is_available()  # without a GPU, processes join only when told so
    PartialState(cpu=on_processors)
    return train_preference(job)
