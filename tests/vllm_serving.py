"""A real vLLM server on loopback, for its tests and for the benchmark of rollouts; `make vllm` installs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtdpo_lib.common.files import ROOT
from mtdpo_lib.models import MissingModel
from mtdpo_lib.rollout import vllm

PYTHON = ROOT / ".vllm" / "bin" / "python"
START_SECONDS = 300  # a server's, on a busy machine


@contextmanager
def serving(
    model: Path, logs: Path, flags: tuple[str, ...] = (), **options: object
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server of the model in a folder, with vLLM's own options: its process and its URL; its log goes to `logs`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {"model": model, "host": "127.0.0.1", "port": port, **options}
    own = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    words = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *flags, *words]
    log = logs / f"server-{port}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=os.environ | own, stdout=file, stderr=file, start_new_session=True
        )
    url, started = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while True:
            try:
                vllm.served_models(url, 1.0)
                break
            except MissingModel:
                if time.monotonic() - started > START_SECONDS or process.poll() is not None:
                    raise RuntimeError(f"The server did not start: {log.read_text()[-2000:]}") from None
                time.sleep(1)
        yield process, url
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a server with all its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
