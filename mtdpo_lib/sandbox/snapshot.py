"""The snapshot every session starts from: CPython in WebAssembly, sympy and cell rules loaded, compiled for this machine.

It is native machine code, so it is trusted like an installed package: built here, kept in a private folder with its
checksum, never downloaded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from mtdpo_lib.common.provenance import processor
from mtdpo_lib.sandbox.results import SandboxUnavailable

WORKER = Path(__file__).with_name("worker")
GUEST = ("preload.py", "guest.py", "shared_cells.py")
SETUP = "\n".join([*(WORKER.joinpath(name).read_text("utf8") for name in GUEST), "_mtdpo_begin()"])
PACKAGES = ("sympy", "mpmath")  # what programs may import beside the standard library
LEFT_OUT = ("tests", "__pycache__")  # of them
BUILD_SECONDS = 40.0  # about
BUILD_NEEDS = "1 GiB of memory and 200 MiB of disk"

BUILD = """
import sys, eryx
eryx.SandboxFactory(site_packages=sys.argv[1], setup_code=sys.argv[3]).save(sys.argv[2])
"""


def private_folder() -> Path:
    """The folder for snapshots, made if need be: ``MTDPO_CACHE``, else ``mtdpo`` under the user's cache folder.

    Raises:
        SandboxUnavailable: others can write it, or nobody can.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(os.environ.get("MTDPO_CACHE") or Path(base) / "mtdpo")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SandboxUnavailable(
            f"The sandbox keeps machine code in {folder}, which cannot be made ({error.strerror}): "
            "choose a private folder with MTDPO_CACHE."
        ) from error
    if hasattr(os, "getuid") and (folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o022):
        raise SandboxUnavailable(
            f"The sandbox keeps machine code in {folder}, which others can write: "
            "remove their access (chmod 700) or choose a private folder with MTDPO_CACHE."
        )
    return folder


def find_libraries() -> Path:
    """A folder with copies of the packages that programs may import, and nothing else: the guest can read all of it.

    Raises:
        SandboxUnavailable: one of them is not installed.
    """
    try:
        versions = "-".join(name + metadata.version(name) for name in PACKAGES)
    except metadata.PackageNotFoundError as error:
        raise SandboxUnavailable(
            f"The sandbox offers {' and '.join(PACKAGES)}: run `pip install sympy==1.14.0`."
        ) from error
    folder = private_folder() / f"libraries-{versions}"
    installed = {name: Path(str(metadata.distribution(name).locate_file(name))) for name in PACKAGES}
    if any(_sizes(source) != _sizes(folder / name) for name, source in installed.items()):
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        draft = folder.with_suffix(f".{os.getpid()}.tmp")
        for name, source in installed.items():
            shutil.copytree(source, draft / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
        try:
            draft.replace(folder)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    return folder


def _sizes(package: Path) -> dict[str, int]:
    """The files of a package that are copied, with their sizes in bytes."""
    sizes = {}
    for folder, inside, names in os.walk(package):
        inside[:] = set(inside) - set(LEFT_OUT)
        for name in names:
            file = f"{folder}/{name}"
            sizes[file.removeprefix(str(package))] = os.stat(file).st_size
    return sizes


def find_snapshot(libraries: Path) -> Path:
    """The snapshot for this machine, built on first use (about 40 s).

    Args:
        libraries: what `find_libraries` found.

    Raises:
        SandboxUnavailable: the build failed, or the cache folder is not private.
    """
    # Compiled code may not run on a processor with other instruction sets
    system = [platform.platform(), processor("flags", "Features")]
    identity = [metadata.version("pyeryx"), libraries.name, *system, SETUP]
    key = hashlib.sha256("|".join(identity).encode()).hexdigest()[:16]
    snapshot = private_folder() / f"sandbox-{key}.bin"
    checksum = snapshot.with_suffix(".sha256")
    if checksum.exists() and snapshot.exists() and checksum.read_text() == _sha256(snapshot):
        return snapshot
    _build(libraries, snapshot, checksum)
    return snapshot


def environment() -> dict[str, str]:
    """All that the build and the workers learn of this process's environment: nothing of use."""
    fixed = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC0"}
    python = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    # Background warm-up of the WebAssembly runtime fights for the core, and its pooling allocator keeps the memory of
    # every session that ever lived (measured: 30 MiB each).
    eryx = {"ERYX_WARM_INSTANCES": "0", "ERYX_ALLOCATOR": "on-demand"}
    windows = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return {**fixed, **python, **eryx, **windows}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _build(libraries: Path, snapshot: Path, checksum: Path) -> None:
    draft = snapshot.with_suffix(f".{os.getpid()}.tmp")
    command = [sys.executable, "-s", "-P", "-c", BUILD, str(libraries), str(draft), SETUP]
    say = functools.partial(print, file=sys.stderr, flush=True)
    say(f"Building the sandbox snapshot (once per machine, about {BUILD_SECONDS:.0f} s)")
    start, errors = time.perf_counter(), None
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    ) as build:
        while errors is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = build.communicate(timeout=BUILD_SECONDS / 5)
            say(f"Sandbox snapshot: {time.perf_counter() - start:.0f} s")
    if build.returncode != 0 or not draft.exists():
        why = (errors.strip().splitlines() or [f"exit code {build.returncode}"])[-1]
        raise SandboxUnavailable(
            f"The sandbox snapshot could not be built in {snapshot.parent} ({why}). It needs {BUILD_NEEDS}; if both are "
            "there, reinstall pyeryx==0.11.0 and sympy==1.14.0."
        )
    draft.chmod(0o600)
    draft.replace(snapshot)
    checksum.write_text(_sha256(snapshot))
    say("Sandbox snapshot: done")
