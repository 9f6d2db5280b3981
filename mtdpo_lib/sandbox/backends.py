"""The backends by name: what each needs, how its worker is started, what it promises.

What runs in the worker is in ``worker/``, one file per backend; both follow the same cell rules (``worker/guest.py``).
A backend that cannot start says why; none is replaced by another.

Tested on Linux (x86-64), as root and as another user. What macOS and Windows need for wasm is written and can be imported,
but nobody has run it there yet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from mtdpo_lib.sandbox.results import SandboxUnavailable
from mtdpo_lib.sandbox.snapshot import find_libraries, find_snapshot


def _wasm_settings() -> dict[str, str]:
    libraries = find_libraries()
    return {"snapshot": str(find_snapshot(libraries)), "libraries": str(libraries)}


@dataclass(frozen=True)
class Backend:
    """One way to run model-written code.

    Attributes:
        name: as in ``sandbox.backend``; also the module in ``worker/``.
        package: that it needs, in the tested version.
        protections: what stands between a program and this machine, for people and records.
        advice: what to do when its worker refuses to start.
        settings: for its worker. Raises SandboxUnavailable.
        linux_only: it needs seccomp.
    """

    name: str
    package: str
    protections: str
    advice: str
    settings: Callable[[], dict[str, str]] = dict
    linux_only: bool = False

    def prepare(self) -> dict[str, str]:
        """Check what it needs; returns settings for its worker.

        Raises:
            SandboxUnavailable: something that it needs is missing.
        """
        if self.linux_only and sys.platform != "linux":
            raise SandboxUnavailable(
                f"The sandbox backend {self.name} needs Linux (seccomp), this is {sys.platform}: set sandbox.backend=wasm."
            )
        name = self.package.partition("==")[0]
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise SandboxUnavailable(
                f"The sandbox backend {self.name} needs the package {name} (Python 3.12 or newer): "
                f"run `pip install {self.package}`."
            ) from error
        try:
            return self.settings()
        except OSError as error:
            raise SandboxUnavailable(
                f"The sandbox cannot keep what it needs on the disk ({error}): make room, or choose another private folder "
                "with MTDPO_CACHE."
            ) from error


WASM = Backend(
    "wasm",
    "pyeryx==0.11.0",
    "CPython in WebAssembly, in separate processes with an empty environment: no host files, no network, "
    "no further processes",
    "reinstall pyeryx==0.11.0, or on Linux set sandbox.backend=zygote",
    _wasm_settings,
)
ZYGOTE = Backend(
    "zygote",
    "pyseccomp==0.1.2",
    "CPython in a process of its own for each session, with an empty environment: system calls limited to computing, "
    "no file opened, no network, no further processes",
    "install libseccomp (Debian: libseccomp2), or set sandbox.backend=wasm",
    linux_only=True,
)
BACKENDS = {backend.name: backend for backend in (WASM, ZYGOTE)}
