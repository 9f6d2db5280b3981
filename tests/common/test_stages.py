"""Kept stages: found again, redone exactly when an input changes, never half made, never silently damaged."""

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter

import pytest

from mtdpo_lib.common import stages
from mtdpo_lib.common.files import FullDisk
from mtdpo_lib.common.stages import (
    MANIFEST,
    UNFINISHED,
    CorruptStage,
    MissingProduct,
    Product,
    StageStore,
    UnusableFolder,
    seconds_by_kind,
)
from mtdpo_lib.profiles.overrides import get_profile

CALLS = Counter()


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


class Work(Product):
    """A stage that counts its calls."""

    @staticmethod
    def make(folder, **inputs):
        CALLS[inputs.get("kind", "")] += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "product.txt").write_text(repr(inputs))


class Slow(Product):
    @staticmethod
    def make(folder, value):
        CALLS["slow"] += 1
        time.sleep(0.3)
        (folder / "value").write_text(str(value))


class Fails(Product):
    @staticmethod
    def make(folder, error):
        (folder / "half").write_text("x")
        raise OSError(error, os.strerror(error))


class InTwoParts(Product):
    """Stopped by what its input names after the first part; the second call finds that part."""

    @staticmethod
    def make(folder, stopped_by):
        part = folder / UNFINISHED / "part"
        (folder / "half").write_text("x")
        if not part.exists():
            part.parent.mkdir()
            part.write_text("first")
            raise {"Ctrl-C": KeyboardInterrupt, "error": ValueError, "full disk": OSError}[stopped_by]
        (folder / "whole").write_text(part.read_text() + ", second")


class HangsAtFirst(Product):
    @staticmethod
    def make(folder):
        if (folder.parent / "hang").exists():
            (folder / "half").write_text("x")
            time.sleep(60)
        (folder / "whole").write_text("x")


def test_a_stage_is_made_once_and_found_again(tmp_path):
    first = StageStore(tmp_path).make(Work, "a", {"x": 1})
    again = StageStore(tmp_path).make(Work, "a", {"x": 1})
    assert first == again and type(again) is Work and CALLS.total() == 1
    assert (first.path / "sub" / "product.txt").read_text() == "{'x': 1}"


def test_a_changed_input_redoes_what_depends_on_it_and_nothing_else(tmp_path):
    store = StageStore(tmp_path)

    def run(profile):
        first = store.make(Work, "sft", {"kind": "sft", "settings": profile.sft})
        second = store.make(Work, "pairs", {"kind": "pairs", "policy": first, "settings": profile.pairs})
        store.make(Work, "train", {"kind": "train", "pairs": second, "settings": profile.preference})
        return CALLS["sft"], CALLS["pairs"], CALLS["train"]

    run(get_profile("cpu"))
    assert run(get_profile("cpu", "preference.eta=0.7")) == (1, 1, 2)
    assert run(get_profile("cpu", "sft.epochs=5")) == (2, 2, 3)
    assert run(get_profile("cpu")) == (2, 2, 3)


@dataclasses.dataclass(frozen=True)
class Settings:
    used: int = 1
    unused: int = dataclasses.field(default=1, metadata={"in_stage_key": False})


def test_a_field_may_stay_out_of_the_key(tmp_path):
    store = StageStore(tmp_path)
    keys = {store.product(Work, "a", {"x": Settings(1, unused)}).key for unused in (1, 2)}
    assert len(keys) == 1
    assert store.product(Work, "a", {"x": Settings(2)}).key not in keys


def test_changed_code_redoes_a_stage(tmp_path, monkeypatch):
    store = StageStore(tmp_path)
    store.make(Work, "a", {"x": 1})
    monkeypatch.setattr(stages, "code_key", lambda function: "other")
    store.make(Work, "a", {"x": 1})
    assert CALLS.total() == 2


def test_the_code_of_a_stage_is_that_of_its_own_make(tmp_path):
    store = StageStore(tmp_path)
    assert store.product(Work, "a", {"x": 1}).key != store.product(Slow, "a", {"x": 1}).key


def test_a_stage_is_made_once_by_two_who_want_it(tmp_path):
    products = []

    def want():
        products.append(StageStore(tmp_path).make(Slow, "x", {"value": 7}))

    threads = [threading.Thread(target=want) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert CALLS["slow"] == 1 and len(set(products)) == 1
    assert (products[0].path / "value").read_text() == "7"


def test_a_failed_stage_leaves_nothing_that_looks_finished(tmp_path):
    store = StageStore(tmp_path)
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            store.make(Fails, "a", {"error": errno.EIO})
        assert not store.is_made(store.product(Fails, "a", {"error": errno.EIO}))
        assert not list(tmp_path.glob(".a-*"))


def test_a_full_disk_is_one_sentence_and_leaves_room(tmp_path):
    with pytest.raises(FullDisk, match=r"is full: .*Make room and start again; what is finished is kept\.$"):
        StageStore(tmp_path).make(Fails, "a", {"error": errno.ENOSPC})
    assert not list(tmp_path.glob(".a-*"))


@pytest.fixture
def half_made(tmp_path):
    """A process that is in the middle of a stage."""
    (tmp_path / "hang").touch()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=lambda: StageStore(tmp_path).make(HangsAtFirst, "a", {}))
    process.start()
    while not list(tmp_path.glob(".a-*/half")):
        time.sleep(0.01)
    (tmp_path / "hang").unlink()
    yield process
    process.kill()
    process.join()


def test_a_killed_stage_is_made_again(tmp_path, half_made):
    os.kill(half_made.pid, signal.SIGKILL)
    half_made.join()
    product = StageStore(tmp_path).make(HangsAtFirst, "a", {})
    assert {file.name for file in product.path.iterdir()} == {"whole", "manifest.json"}
    assert not list(tmp_path.glob(".a-*")), "nothing is left of the killed one"


def test_what_a_killed_process_left_is_cleared_away_and_what_a_living_one_makes_is_not(tmp_path, half_made):
    StageStore(tmp_path).verify_all()
    assert list(tmp_path.glob(".a-*/half"))
    os.kill(half_made.pid, signal.SIGKILL)
    half_made.join()
    StageStore(tmp_path).verify_all()
    assert not list(tmp_path.glob(".a-*"))


def test_a_product_without_its_manifest_is_made_again(tmp_path):
    product = StageStore(tmp_path).make(Work, "a", {})
    (product.path / "manifest.json").unlink()
    assert StageStore(tmp_path).make(Work, "a", {}) == product and CALLS.total() == 2


def test_a_run_folder_is_new_or_empty_or_a_runs(tmp_path):
    StageStore.of_run(tmp_path / "new")
    (tmp_path / "new" / "notes.txt").touch()
    StageStore.of_run(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    StageStore.of_run(tmp_path / "empty")
    (tmp_path / "records" / "arms").mkdir(parents=True)  # of a study, brought here without its stages
    StageStore.of_run(tmp_path / "records")
    with pytest.raises(UnusableFolder, match="is neither empty nor a run's: choose another with --out"):
        StageStore.of_run(tmp_path)
    assert not (tmp_path / "stages").exists()


SHAPES = ["{", "[]", "3", "{}", '{"files": 3, "seconds": 1}', '{"files": {"sub/product.txt": 3}, "seconds": 1}',
          '{"files": {}, "seconds": "long"}']  # fmt: skip


@pytest.mark.parametrize("damage", ["change", "delete", *SHAPES])
def test_a_damaged_product_is_named_with_its_remedy(tmp_path, damage):
    product = StageStore(tmp_path).make(Work, "a", {})
    file = product.path / "sub" / "product.txt"
    if damage == "change":
        file.write_text("other")
    elif damage == "delete":
        file.unlink()
    else:
        (product.path / "manifest.json").write_text(damage)
    for check in (lambda: StageStore(tmp_path).verify_all(), lambda: StageStore(tmp_path).is_made(product)):
        with pytest.raises(CorruptStage, match=r"delete the folder .* and run again"):
            check()


@pytest.mark.parametrize("stopped_by", ["Ctrl-C", "error"])
def test_a_stage_that_was_stopped_goes_on_from_what_it_wrote_down(tmp_path, stopped_by):
    inputs = {"stopped_by": stopped_by}
    with pytest.raises((KeyboardInterrupt, ValueError)):
        StageStore(tmp_path).make(InTwoParts, "a", inputs)
    StageStore(tmp_path).verify_all()  # clears away all else
    (draft,) = tmp_path.glob(".a-*")
    assert [file.name for file in draft.rglob("*")] == [UNFINISHED, "part"]
    made = StageStore(tmp_path).make(InTwoParts, "a", inputs)
    assert (made.path / "whole").read_text() == "first, second"
    assert sorted(file.name for file in made.path.iterdir()) == ["half", MANIFEST, "whole"]
    assert not draft.exists()


def test_a_full_disk_gets_its_room_back(tmp_path):
    with pytest.raises(OSError):
        StageStore(tmp_path).make(InTwoParts, "a", {"stopped_by": "full disk"})
    assert not list(tmp_path.glob(".a-*"))


def test_a_missing_product_names_its_notebook(tmp_path):
    with pytest.raises(MissingProduct, match=r"run notebook 02_sft.ipynb first"):
        StageStore(tmp_path).require(Work, "sft", {}, "02_sft")


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableFolder, match="choose another with --out"):
        StageStore(tmp_path / "file" / "out")


def test_inputs_must_be_plain(tmp_path):
    with pytest.raises(TypeError, match="not object"):
        StageStore(tmp_path).product(Work, "a", {"x": object()})


def test_products_are_keyed_by_origin_not_place(tmp_path):
    one, other = StageStore(tmp_path / "one"), StageStore(tmp_path / "other")
    keys = []
    for store in (one, other):
        first = store.make(Work, "a", {"x": 1})
        keys.append(store.product(Work, "b", {"a": first}).key)
    assert keys[0] == keys[1]


def test_manifest_tells_where_a_product_came_from(tmp_path):
    product = StageStore(tmp_path).make(Work, "a", {"settings": get_profile("cpu").pairs})
    manifest = json.loads((product.path / "manifest.json").read_text())
    assert manifest["inputs"]["settings"] == dataclasses.asdict(get_profile("cpu").pairs)
    assert set(manifest["files"]) == {"sub/product.txt"}


def test_seconds_are_told_by_kind(tmp_path):
    store = StageStore(tmp_path)
    for name, seconds in (("a/1", 1.0), ("a/2", 2.0), ("b", 5.0)):
        manifest = store.make(Work, name, {"x": name}).path / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "seconds": seconds}))
    assert seconds_by_kind(tmp_path) == {"a": 1.5, "b": 5.0}
