"""One iteration's preference training: in this process, or shared by several with a GPU each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

from mtdpo_lib.common.seeds import stream31
from mtdpo_lib.models import Policy, load_for_training, load_tokenizer
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles import ModelSettings, PreferenceSettings

if TYPE_CHECKING:
    from mtdpo_lib.train.preference import MarginFeatures

Log = list[dict[str, float]]


@dataclass(frozen=True)
class PreferenceJob:
    """Everything that a process needs to know.

    Attributes:
        folder: where adapters go.
        pairs: at least one.
        initial: the policy to start from.
        reference: pi_ref.
        settings, model: as for `mtdpo_lib.train.train_preference`.
        seed: the run's.
    """

    folder: Path
    pairs: list[Pair]
    initial: Policy
    reference: Policy
    settings: PreferenceSettings
    model: ModelSettings
    seed: int

    def run(self, adaptive_margin: MarginFeatures | None = None) -> Log:
        """Train; `adaptive_margin` gives its features, as for `mtdpo_lib.train.train_preference`."""
        from mtdpo_lib.train import train_preference  # TRL takes seconds to import

        network = load_for_training(self.initial, self.model, stream31(self.seed, "adapter"))
        return train_preference(
            self.folder, network, load_tokenizer(self.initial), self.pairs, self.initial, self.reference,
            self.settings, self.model, stream31(self.seed, "preference"), adaptive_margin=adaptive_margin,
        )  # fmt: skip


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
    PartialState(cpu=not torch.cuda.is_available())  # without a GPU, processes join only when told so
    return job.run()
