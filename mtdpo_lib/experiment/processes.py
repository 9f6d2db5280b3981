"""One iteration's preference training over several processes, a GPU each: the same step, its batch shared out.

    accelerate launch -m mtdpo_lib.experiment.processes JOB.json

`make_training` writes the job and starts this by itself where there is more than one GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import write_json
from mtdpo_lib.common.seeds import small_stream
from mtdpo_lib.common.stages import Product
from mtdpo_lib.models.policy import Policy, load_for_training, load_tokenizer
from mtdpo_lib.pairs import Pair
from mtdpo_lib.profiles.sections import ModelSettings, PreferenceSettings
from mtdpo_lib.rollout import load_trajectories
from mtdpo_lib.train.preference import train_preference


def write_job(
    folder: Path,
    trajectories: Path,
    pairs: list[dict[str, int]],
    initial: Policy,
    reference: Policy,
    settings: PreferenceSettings,
    model: ModelSettings,
    seed: int,
) -> Path:
    """Everything a process needs to know, as ``folder/job.json``.

    Args:
        folder: where adapters and ``log.json`` go.
        trajectories: the file of an iteration's rollouts.
        pairs: places of the chosen and the rejected one in it.
        initial, reference, settings, model, seed: as for `train_preference`.
    """
    job = {
        "trajectories": str(trajectories), "pairs": pairs, "seed": seed, "settings": asdict(settings),
        "model": asdict(model), "initial": _policy_to_dict(initial), "reference": _policy_to_dict(reference),
    }  # fmt: skip
    return write_json(folder / "job.json", job)


def launch(job: Path, processes: int, cpu: bool = False) -> None:
    """Train in so many processes on this machine.

    Raises:
        RuntimeError: a process failed; what it said stands above.
    """
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", *(["--cpu"] if cpu else ["--multi_gpu"]),
        "-m", "mtdpo_lib.experiment.processes", str(job),
    ]  # fmt: skip
    code = subprocess.run(command, check=False).returncode
    if code:
        raise RuntimeError(
            f"Preference training in {processes} processes failed with exit code {code}; see above."
        )


def train(job: Path) -> None:
    """What every process does; the first one writes ``log.json``."""
    from accelerate import PartialState

    read = json.loads(job.read_text(encoding="utf8"))
    initial, reference = (_policy_from_dict(read[name]) for name in ("initial", "reference"))
    settings, model = PreferenceSettings(**read["settings"]), ModelSettings(**read["model"])
    rows = load_trajectories(Path(read["trajectories"]))
    pairs = [Pair(rows[row["chosen"]], rows[row["rejected"]]) for row in read["pairs"]]
    network = load_for_training(initial, model, small_stream(read["seed"], "adapter"))
    log = train_preference(
        job.parent, network, load_tokenizer(initial), pairs, initial, reference, settings, model,
        small_stream(read["seed"], "preference"),
    )  # fmt: skip
    if PartialState().is_main_process:
        write_json(job.parent / "log.json", log)


def _policy_to_dict(policy: Policy) -> dict[str, Any]:
    product = policy.product
    return {
        "name": policy.name, "product": [product.name, product.key, str(product.path)], "part": policy.part,
        "base": policy.base and _policy_to_dict(policy.base),
    }  # fmt: skip


def _policy_from_dict(row: dict[str, Any]) -> Policy:
    name, key, path = row["product"]
    base = row["base"] and _policy_from_dict(row["base"])
    return Policy(row["name"], Product(name, key, Path(path)), row["part"], base)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
