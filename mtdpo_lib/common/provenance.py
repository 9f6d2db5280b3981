"""Provenance: versions, commit, machine and memory, as every record states them."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import ROOT

VERSIONED = (
    "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "pyeryx", "numpy",
)  # fmt: skip

CPUINFO = Path("/proc/cpuinfo")  # of Linux

MISHAPS: Counter[str] = Counter()
"""What this process has come through by repeating work, counted where it happens: sandbox workers that were killed."""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Installed versions of what decides a result."""
    return {"python": platform.python_version(), **{package: _version(package) for package in VERSIONED}}


def _git(*arguments: str) -> str:
    call = ["git", *arguments]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def commit() -> str:
    """The checkout's commit, with "+" when files differ from it; "unknown" outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "mtdpo_lib") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def processor(*fields: str) -> str:
    """What Linux tells of this processor in the first line of one of these fields; elsewhere Python's word for it."""
    lines = CPUINFO.read_text(encoding="utf8").splitlines() if CPUINFO.exists() else []
    told = (line.partition(":")[2].strip() for line in lines if line.startswith(fields))
    return next(told, platform.processor() or platform.machine())


def machine() -> dict[str, Any]:
    """What computed: processor, cores, threads, GPU."""
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(
            "model name"
        ),  # kinds round differently: a run has the same digits on one kind only
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def memory_mib() -> int:
    """Memory of this machine in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / 1024**2
