"""The backends by name: what each needs, how its worker is started, what it promises.

What runs in the worker is in ``worker/``, one file a backend; all follow the same cell rules (``worker/guest.py``).
A backend that cannot start says why; none is replaced by another.

Tested on Linux (x86-64), as root and as another user. What macOS and Windows need (for wasm and monty) is written and can
be imported, but nobody has run it there yet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from mtdpo_lib.sandbox.results import SandboxUnavailable
from mtdpo_lib.sandbox.snapshot import find_libraries, find_snapshot


@dataclass(frozen=True)
class Backend:
    """One way to run model-written code.

    Attributes:
        name: as in ``sandbox.backend``; also the module in ``worker/``.
        protections: what stands between a program and this machine, for people and records.
        prepare: checks what it needs, and returns settings for its worker. Raises SandboxUnavailable.
        advice: what to do when its worker refuses to start.
    """

    name: str
    protections: str
    prepare: Callable[[], dict[str, Any]]
    advice: str


def _need(package: str, install: str) -> None:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise SandboxUnavailable(
            f"This sandbox backend needs the package {package} (Python 3.12 or newer): run `pip install {install}`."
        ) from error


def _prepare_wasm() -> dict[str, Any]:
    _need("pyeryx", "pyeryx==0.11.0")
    libraries = find_libraries()
    return {"snapshot": str(find_snapshot(libraries)), "libraries": str(libraries)}


def _prepare_zygote() -> dict[str, Any]:
    if sys.platform != "linux":
        raise SandboxUnavailable(
            f"The sandbox backend zygote needs Linux (seccomp), this is {sys.platform}: set sandbox.backend=wasm."
        )
    _need("pyseccomp", "pyseccomp==0.1.2")
    return {}


def _prepare_monty() -> dict[str, Any]:
    _need("pydantic-monty", "pydantic-monty==1.4.0")
    return {}


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            "wasm",
            "CPython in WebAssembly, in separate processes with an empty environment: "
            "no host files, no network, no further processes",
            _prepare_wasm,
            "reinstall pyeryx==0.11.0, or on Linux set sandbox.backend=zygote",
        ),
        Backend(
            "zygote",
            "CPython in a process of its own for each session, with an empty environment: system calls limited to "
            "computing, no file opened, no network, no further processes",
            _prepare_zygote,
            "install libseccomp (Debian: libseccomp2), or set sandbox.backend=wasm",
        ),
        Backend(
            "monty",
            "a small Python interpreter in Rust, in separate processes with an empty environment: arithmetic only, "
            "no files, no network, no further processes",
            _prepare_monty,
            "reinstall pydantic-monty==1.4.0, or set sandbox.backend=wasm",
        ),
    )
}


def get_backend(name: str) -> Backend:
    """The backend called `name`.

    Raises:
        SandboxUnavailable: there is none of that name.
    """
    if name not in BACKENDS:
        raise SandboxUnavailable(f"sandbox.backend is one of {', '.join(BACKENDS)}; got {name!r}.")
    return BACKENDS[name]
