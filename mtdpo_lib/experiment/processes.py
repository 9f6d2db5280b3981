"""One iteration's preference training: in this process, or shared by several with a GPU each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

from mtdpo_lib.common.seeds import small_stream
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles import ModelSettings, PreferenceSettings
from mtdpo_lib.rollout import Trajectory

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    Luck = Callable[[PeftModel, PreTrainedTokenizerBase, Sequence[Trajectory]], Tensor]

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

    def run(self, luck: Luck | None = None) -> Log:
        """Train; `luck` gives the features of the adaptive margin."""
        from mtdpo_lib.train import train_preference  # TRL takes seconds to import

        network = load_for_training(self.initial, self.model, small_stream(self.seed, "adapter"))
        return train_preference(
            self.folder, network, load_tokenizer(self.initial), self.pairs, self.initial, self.reference,
            self.settings, self.model, small_stream(self.seed, "preference"), luck=luck,
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
    on_processors = not torch.cuda.is_available()  # without a GPU, processes join only when told so
    PartialState(cpu=on_processors)
    return job.run()
