"""Records: every result as one JSON file that says what it came from.

A record has a part that the same seed and settings reproduce exactly (`results`) and a part that differs from run to run
(`provenance`: seconds, memory, machine). Reports, figures and prose read records; no number is typed by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mtdpo_lib.profiles import Profile

VERSIONED = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "pyeryx",
    "numpy",
)


@dataclass(frozen=True)
class Metric:
    """One figure of a report: ``accuracy/test/mdpo-3`` with its 95% interval and what it rests on."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = "fraction"
    seeds: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seeds": list(self.seeds)}


def settings_hash(profile: Profile, seed: int) -> str:
    """Short hash of all settings and the seed. Where data lie on this machine is not part of it."""
    settings = profile.to_dict()
    settings["problems"].pop("gsm8k_dir")
    text = json.dumps({"profile": settings, "seed": seed}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Installed versions of what decides a result."""
    return {"python": platform.python_version(), **{package: _version(package) for package in VERSIONED}}


def commit() -> str:
    """The checkout's commit, with "+" when files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).parent.parent
    try:
        call = {"cwd": root, "capture_output": True, "text": True, "timeout": 10, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **call).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--", "mtdpo_lib"], **call).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """What computed: processor, cores, threads, GPU."""
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2


def write_json(file: Path, value: Any) -> Path:
    """Write `value` so that a reader never meets half a file."""
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    draft.replace(file)
    return file


def write_record(
    folder: Path, name: str, profile: Profile, seed: int, results: dict[str, Any], measured: dict[str, Any]
) -> Path:
    """Write ``folder/name.json``.

    Args:
        folder: the run's ``records`` folder.
        name: the notebook's name, e.g. ``06_multi_turn_dpo``.
        profile: all settings of the run.
        seed: the run's seed.
        results: what the same seed reproduces: ``metrics`` (list of `Metric` dictionaries), ``outcomes`` (policy name to a
            string of 0 and 1, one a test problem), ``passports`` (one an iteration), ``logs``, ``tables``; all optional.
        measured: what differs between runs, e.g. seconds.

    Returns:
        The file.
    """
    settings = profile.to_dict()
    settings["problems"].pop("gsm8k_dir")
    record = {
        "record": name,
        "profile": profile.name,
        "claims": profile.claims,
        "seed": seed,
        "settings": settings,
        "settings_hash": settings_hash(profile, seed),
        "results": results,
        "provenance": {
            **measured,
            "versions": versions(),
            "machine": machine(),
            "commit": commit(),
            "peak_memory_mib": round(peak_memory_mib(), 1),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / f"{name}.json", record)


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """All records of a run, by name, in notebook order.

    Raises:
        ValueError: a file that is not JSON; the sentence names it.
    """
    records = {}
    for file in sorted(folder.glob("*.json")):
        try:
            records[file.stem] = json.loads(file.read_text(encoding="utf8"))
        except ValueError as error:
            raise ValueError(
                f"The record {file} is not readable JSON: delete it and run its notebook again."
            ) from error
    return records
