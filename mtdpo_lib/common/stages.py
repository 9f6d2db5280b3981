"""Stages: a long computation is done once, kept whole, and found again by what it was computed from.

A stage is a class derived from `Product`. Its static ``make(folder, **inputs)`` writes the product into `folder`, and its
readers give back what is there. A product's key is a hash of the stage's name, the content of its inputs and the code that
``make`` can run (`mtdpo_lib.common.code_key`), so the same inputs give the same folder, in any notebook, after any
interruption, and a changed setting or function redoes exactly the stages that it can change. A product appears under its
final name only when it is complete: a killed stage leaves nothing that looks finished. A stage that takes longer than
`KEEP_EVERY` writes its state into the folder `UNFINISHED` of its draft; killed, it goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock, Timeout
from pydantic import FiniteFloat

from mtdpo_lib.common.code_key import code_key
from mtdpo_lib.common.files import (
    CorruptData,
    UnusableFolder,
    checksum,
    read_json,
    room_for,
    write_json,
)
from mtdpo_lib.common.provenance import MISHAPS
from mtdpo_lib.common.seeds import digest

MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
KEEP_EVERY = 240.0  # seconds of work that a kill may cost, a little more where a piece of it takes long


class Manifest(TypedDict):
    """What the readers of a manifest need of it: a checksum for each file, and how long the product took."""

    files: dict[str, str]
    seconds: FiniteFloat


class MissingProduct(RuntimeError):
    """An earlier notebook has not made what this one needs."""


class CorruptStage(RuntimeError):
    """A kept product whose files are not those that were written."""


@dataclass(frozen=True)
class Product:
    """A finished stage: its name, the key of everything it came from, its folder, and what it was made from.

    A stage derives from it and states its inputs once, in the signature of its ``make``:

    >>> class Squares(Product):
    ...     @staticmethod
    ...     def make(folder, numbers):
    ...         _ = (folder / "squares.txt").write_text(" ".join(str(number**2) for number in numbers))
    ...     def squares(self):
    ...         return [int(word) for word in (self.path / "squares.txt").read_text().split()]
    """

    name: str
    key: str
    path: Path
    inputs: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def make(*folder_first: Any, **inputs: Any) -> None:
        """Write the product into a folder; every stage has its own."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """The name without the iteration or the policy: what stages of one sort share."""
        return self.name.partition("/")[0]

    def fingerprint(self) -> str:
        """What other stages hash when they take this product as input: the key, never the location."""
        return f"{self.name}-{self.key}"


def _plain(value: Any) -> Any:
    """An input that is no JSON yet: settings by content, and what has a fingerprint (products, questions) by that.

    A field with the metadata ``in_stage_key=False`` is left out, and no stage may read it.
    """
    if hasattr(value, "fingerprint"):
        return value.fingerprint()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [item.name for item in dataclasses.fields(value) if item.metadata.get("in_stage_key", True)]
        return {name: getattr(value, name) for name in kept}
    raise TypeError(f"A stage input must be settings, products or plain data, not {type(value).__name__}.")


def clear(draft: Path) -> None:
    """Remove a draft, but for what a stage that was stopped goes on from."""
    if draft.is_dir():
        for left in draft.iterdir():
            if left.is_file():
                left.unlink()
            elif left.name != UNFINISHED:
                shutil.rmtree(left)
        with contextlib.suppress(OSError):  # it is not empty
            draft.rmdir()


def seconds_of_stages(root: Path) -> dict[str, list[float]]:
    """Computing time of each stage under a folder, by kind, in seconds."""
    found = defaultdict[str, list[float]](list)
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        found[manifest.parent.name.rpartition("-")[0]].append(read_json(manifest)["seconds"])
    return found


def seconds_by_kind(root: Path) -> dict[str, float]:
    """Mean computing time of the stages under a folder, by kind, in seconds."""
    return {kind: round(statistics.mean(each), 1) for kind, each in seconds_of_stages(root).items()}


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
        self._verified: set[Path] = set()

    @classmethod
    def of_run(cls, out: Path) -> StageStore:
        """The stages of a run or a study in `out`: a new or empty folder, or one with stages or a study's records.

        Raises:
            UnusableFolder: something else lies in it, or it cannot be written.
        """
        begun = any((out / name).is_dir() for name in ("stages", "arms"))
        if not begun and out.is_dir() and any(out.iterdir()):
            raise UnusableFolder(f"The folder {out} is neither empty nor a run's: choose another with --out.")
        return cls(out / "stages")

    def product[S: Product](self, stage: type[S], name: str, inputs: Mapping[str, Any]) -> S:
        """Where the product of `stage` from `inputs` is, or will be."""
        kind = name.partition("/")[0]
        origin = {"stage": kind, "inputs": inputs, "code": code_key(stage.make)}
        key = digest(json.dumps(origin, sort_keys=True, default=_plain))
        return stage(name, key, self.root / f"{kind}-{key}", inputs)

    def is_kept(self, product: Product) -> bool:
        """True when the product is complete; what is in its files is not looked at."""
        return product.path in self._verified or (product.path / MANIFEST).exists()

    def is_made(self, product: Product) -> bool:
        """True when the product is complete and its files are as written.

        Raises:
            CorruptStage: a file is missing or changed.
        """
        is_kept = self.is_kept(product)
        if is_kept and product.path not in self._verified:
            self._verify(product.path)
        return is_kept

    def _verify(self, folder: Path) -> None:
        remedy = (
            f"delete the folder {folder} and run again; only this stage and what depends on it are redone."
        )
        try:
            files = read_json(folder / MANIFEST, Manifest)["files"]
        except CorruptData as error:
            raise CorruptStage(f"The manifest of stage {folder.name} is unreadable: {remedy}") from error
        for name, written in files.items():
            file = folder / name
            if not file.is_file() or checksum(file) != written:
                raise CorruptStage(f"The file {name} of stage {folder.name} is missing or damaged: {remedy}")
        self._verified.add(folder)

    def verify_all(self) -> None:
        """Check every kept product, before long work starts, and clear away what killed processes left half made.

        Raises:
            CorruptStage: names the first damaged product and the remedy.
        """
        for draft in self.root.glob(".*-*"):
            with contextlib.suppress(Timeout), self._lock(draft.with_name(draft.name[1:]), blocking=False):
                clear(draft)
        for manifest in sorted(self.root.glob(f"*-*/{MANIFEST}")):
            self._verify(manifest.parent)

    def seconds(self, product: Product) -> float:
        """Wall time the product took to make, in seconds."""
        return read_json(product.path / MANIFEST)["seconds"]

    def make[S: Product](self, stage: type[S], name: str, inputs: Mapping[str, Any]) -> S:
        """The product of `stage`; computed by ``stage.make(folder, **inputs)`` unless it is kept already.

        A second process that wants the same one waits until the first has made it.
        """
        product = self.product(stage, name, inputs)
        if not self.is_made(product):
            with room_for(product.path), self._lock(product.path):
                if not self.is_made(product):
                    self._make(product)
        return product

    def _lock(self, folder: Path, **how: Any) -> FileLock:
        """Held by the process that makes the product in `folder`; the system gives it back when the process dies."""
        return FileLock(self.root / ".locks" / folder.name, **how)

    def _make(self, product: Product) -> None:
        draft = product.path.with_name(f".{product.path.name}")
        shutil.rmtree(product.path, ignore_errors=True)  # without its manifest; the lock is ours
        clear(draft)  # left by a killed process
        draft.mkdir(exist_ok=True)
        try:
            start, before = time.perf_counter(), MISHAPS.copy()
            product.make(draft, **product.inputs)
            shutil.rmtree(draft / UNFINISHED, ignore_errors=True)
            written = [file for file in sorted(draft.rglob("*")) if file.is_file()]
            files = {file.relative_to(draft).as_posix(): checksum(file) for file in written}
            inputs = json.loads(json.dumps(product.inputs, default=_plain))
            origin = {"stage": product.name, "key": product.key, "inputs": inputs, "files": files}
            making = {"seconds": round(time.perf_counter() - start, 3), "mishaps": dict(MISHAPS - before)}
            write_json(draft / MANIFEST, origin | making)
            draft.rename(product.path)
        except OSError:  # a full disk, say: what is unfinished may need the most room
            shutil.rmtree(draft, ignore_errors=True)
            raise
        finally:
            clear(draft)

    def require[S: Product](self, stage: type[S], name: str, inputs: Mapping[str, Any], notebook: str) -> S:
        """The kept product of `stage`, which `notebook` makes.

        Raises:
            MissingProduct: it was not made with these settings.
        """
        product = self.product(stage, name, inputs)
        if not self.is_made(product):
            raise MissingProduct(
                f"The product {name!r} is not in {self.root} for these settings: "
                f"run notebook {notebook}.ipynb first, with the same profile, seed and settings."
            )
        return product
