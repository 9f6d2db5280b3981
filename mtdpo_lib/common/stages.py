"""Stages: a long computation is done once, kept whole, and found again by what it was computed from.

A stage is a function ``work(folder, **inputs)`` that writes its product into `folder`. Its key is a hash of its name,
its inputs and the computing code, so the same inputs give the same folder, in any notebook, after any interruption,
and a changed setting redoes exactly the stages that received it. A product appears under its final name only when it is
complete: a killed stage leaves nothing that looks finished.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

MANIFEST = "manifest.json"

# The rooms whose code decides what a stage computes; plots, reports and the runner do not.
COMPUTING_CODE = (
    "problems", "sandbox", "rollout", "train", "chat", "models", "experiment", "pairs.py", "common/seeds.py",
)  # fmt: skip


class MissingProduct(RuntimeError):
    """An earlier notebook has not made what this one needs."""


class CorruptStage(RuntimeError):
    """A kept product whose files are not those that were written."""


class UnusableFolder(RuntimeError):
    """The output folder cannot be written."""


@dataclass(frozen=True)
class Product:
    """A finished stage: its name, the key of everything it came from, and its folder."""

    name: str
    key: str
    path: Path

    def fingerprint(self) -> str:
        """What other stages hash when they take this product as input: the key, never the location."""
        return f"{self.name}-{self.key}"


@functools.cache
def code_fingerprint() -> str:
    """Hash of the source of `COMPUTING_CODE`."""
    root = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=8)
    for room in COMPUTING_CODE:
        place = root / room
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Inputs as JSON-ready data: dataclasses by content, products by key."""
    if isinstance(value, Product):
        return value.fingerprint()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = (item.name for item in dataclasses.fields(value) if item.metadata.get("key", True))
        return {name: _plain(getattr(value, name)) for name in named}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"A stage input must be settings, products or plain data, not {type(value).__name__}.")


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class StageStore:
    """Kept products under one folder.

    Args:
        root: folder; made if missing.

    Raises:
        UnusableFolder: it cannot be made or written.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise UnusableFolder(
                f"The output folder {self.root} cannot be written ({error.strerror}): choose another with --out."
            ) from error
        self._verified: dict[Path, dict[str, Any]] = {}

    def product(self, name: str, inputs: dict[str, Any]) -> Product:
        """Where the product of stage `name` from `inputs` is, or will be."""
        plain = {"stage": name.split("/")[0], "inputs": _plain(inputs), "code": code_fingerprint()}
        text = json.dumps(plain, sort_keys=True)
        key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return Product(name, key, self.root / f"{plain['stage']}-{key}")

    def is_kept(self, product: Product) -> bool:
        """True when the product is complete; what is in its files is not looked at."""
        return product.path in self._verified or (product.path / MANIFEST).exists()

    def is_made(self, product: Product) -> bool:
        """True when the product is complete and its files are as written.

        Raises:
            CorruptStage: a file is missing or changed.
        """
        if not self.is_kept(product):
            return False
        if product.path not in self._verified:
            self._verified[product.path] = self._verify(product.path)
        return True

    def _verify(self, folder: Path) -> dict[str, Any]:
        remedy = (
            f"delete the folder {folder} and run again; only this stage and what depends on it are redone."
        )
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf8"))
            files = manifest["files"]
        except (ValueError, KeyError, OSError) as error:
            raise CorruptStage(f"The manifest of stage {folder.name} is unreadable: {remedy}") from error
        for name, checksum in files.items():
            file = folder / name
            if not file.is_file() or _checksum(file) != checksum:
                raise CorruptStage(f"The file {name} of stage {folder.name} is missing or damaged: {remedy}")
        return manifest

    def verify_all(self) -> None:
        """Check every kept product, before long work starts.

        Raises:
            CorruptStage: names the first damaged product and the remedy.
        """
        for folder in sorted(self.root.glob("*-*")):
            if (folder / MANIFEST).exists():
                self._verified[folder] = self._verify(folder)

    def seconds(self, product: Product) -> float:
        """Wall time the product took to make, in seconds."""
        return json.loads((product.path / MANIFEST).read_text(encoding="utf8"))["seconds"]

    def make(self, name: str, work: Callable[..., None], inputs: dict[str, Any]) -> Product:
        """The product of stage `name`; computed by ``work(folder, **inputs)`` unless it is kept already.

        A second process that wants the same one waits until the first has made it.
        """
        product = self.product(name, inputs)
        if not self.is_made(product):
            locks = self.root / ".locks"
            locks.mkdir(exist_ok=True)
            with FileLock(locks / product.path.name):
                if not self.is_made(product):
                    self._make(product, work, inputs)
        return product

    def _make(self, product: Product, work: Callable[..., None], inputs: dict[str, Any]) -> None:
        draft = product.path.with_name(f".{product.path.name}")
        shutil.rmtree(draft, ignore_errors=True)  # what a killed process left; the lock is ours
        draft.mkdir()
        start = time.perf_counter()
        try:
            work(draft, **inputs)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            shutil.rmtree(draft, ignore_errors=True)
            raise UnusableFolder(
                f"The disk of {self.root} is full: make room and start again; what is finished is kept."
            ) from error
        files = {
            file.relative_to(draft).as_posix(): _checksum(file)
            for file in sorted(draft.rglob("*"))
            if file.is_file()
        }
        manifest = {
            "stage": product.name,
            "key": product.key,
            "inputs": _plain(inputs),
            "files": files,
            "seconds": round(time.perf_counter() - start, 3),
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf8")
        draft.rename(product.path)

    def require(self, name: str, inputs: dict[str, Any], notebook: str) -> Product:
        """The kept product of stage `name`, which `notebook` makes.

        Raises:
            MissingProduct: it was not made with these settings.
        """
        product = self.product(name, inputs)
        if not self.is_made(product):
            raise MissingProduct(
                f"The product {name!r} is not in {self.root} for these settings: "
                f"run notebook {notebook}.ipynb first, with the same profile, seed and settings."
            )
        return product
