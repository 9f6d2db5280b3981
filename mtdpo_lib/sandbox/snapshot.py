"""The snapshot every session starts from: CPython in WebAssembly with `guest.py` loaded, compiled for this machine.

It is native machine code, so it is trusted like an installed package: built here, kept in a private folder with its
checksum, never downloaded.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

GUEST = Path(__file__).with_name("guest.py")

BUILD = """
import sys, eryx
eryx.SandboxFactory(setup_code=open(sys.argv[1], encoding="utf8").read()).save(sys.argv[2])
"""


class SandboxUnavailable(RuntimeError):
    """The sandbox cannot start on this machine; there is no weaker one to fall back to."""


def cache_folder() -> Path:
    """Private folder for snapshots: ``MTDPO_CACHE``, else ``mtdpo`` under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MTDPO_CACHE") or Path(base) / "mtdpo")


def find_snapshot() -> Path:
    """The snapshot for this machine, built on first use (about 15 s).

    Raises:
        SandboxUnavailable: pyeryx is missing, the build failed, or the cache folder is not private.
    """
    try:
        version = metadata.version("pyeryx")
    except metadata.PackageNotFoundError as error:
        raise SandboxUnavailable(
            "The tool sandbox needs the package pyeryx (Python 3.12 or newer): run `pip install pyeryx==0.11.0`."
        ) from error
    identity = "|".join(
        [version, platform.platform(), platform.machine(), _processor(), GUEST.read_text("utf8")]
    )
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = cache_folder()
    snapshot = folder / f"sandbox-{key}.bin"
    checksum = snapshot.with_suffix(".sha256")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
        raise SandboxUnavailable(
            f"The sandbox keeps machine code in {folder}, which others can write: "
            "remove their access (chmod 700) or choose a private folder with MTDPO_CACHE."
        )
    if checksum.exists() and snapshot.exists() and checksum.read_text() == _sha256(snapshot):
        return snapshot
    _build(snapshot, checksum)
    return snapshot


def _processor() -> str:
    """Instruction sets of this processor: compiled code from another one may not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _build(snapshot: Path, checksum: Path) -> None:
    print("Building the sandbox snapshot (once per machine, about 15 s) ...", file=sys.stderr, flush=True)
    draft = snapshot.with_suffix(f".{os.getpid()}.tmp")
    command = [sys.executable, "-I", "-c", BUILD, str(GUEST), str(draft)]
    built = subprocess.run(
        command, capture_output=True, text=True, env={"ERYX_WARM_INSTANCES": "0"}, timeout=600
    )
    if built.returncode != 0 or not draft.exists():
        last = (built.stderr.strip().splitlines() or ["no message"])[-1]
        raise SandboxUnavailable(
            f"The sandbox snapshot could not be built ({last}): reinstall pyeryx==0.11.0."
        )
    draft.chmod(0o600)
    draft.replace(snapshot)
    checksum.write_text(_sha256(snapshot))
