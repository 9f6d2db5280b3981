"""Kept stages: found again, redone exactly when an input changes, never half made, never silently damaged."""

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import time

import pytest

from mtdpo_lib.common import stages
from mtdpo_lib.common.stages import CorruptStage, MissingProduct, StageStore, UnusableFolder
from mtdpo_lib.profiles.overrides import get_profile


class Work:
    """A stage that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder, **inputs):
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "product.txt").write_text(repr(inputs))


def test_a_stage_is_made_once_and_found_again(tmp_path):
    work = Work()
    first = StageStore(tmp_path).make("a", work, {"x": 1})
    again = StageStore(tmp_path).make("a", work, {"x": 1})
    assert (first, work.calls) == (again, 1)
    assert (first.path / "sub" / "product.txt").read_text() == "{'x': 1}"


def test_a_changed_input_redoes_what_depends_on_it_and_nothing_else(tmp_path):
    store, sft, pairs, train = StageStore(tmp_path), Work(), Work(), Work()

    def run(profile):
        first = store.make("sft", sft, {"settings": profile.sft})
        second = store.make("pairs", pairs, {"policy": first, "settings": profile.pairs})
        return store.make("train", train, {"pairs": second, "settings": profile.preference})

    run(get_profile("cpu"))
    run(get_profile("cpu", "preference.eta=0.7"))
    assert (sft.calls, pairs.calls, train.calls) == (1, 1, 2)
    run(get_profile("cpu", "sft.epochs=5"))
    assert (sft.calls, pairs.calls, train.calls) == (2, 2, 3)
    run(get_profile("cpu"))
    assert (sft.calls, pairs.calls, train.calls) == (2, 2, 3)


def test_changed_computing_code_redoes_everything(tmp_path, monkeypatch):
    store, work = StageStore(tmp_path), Work()
    store.make("a", work, {"x": 1})
    monkeypatch.setattr(stages, "code_fingerprint", lambda: "other")
    store.make("a", work, {"x": 1})
    assert work.calls == 2


def test_the_code_fingerprint_sees_every_computing_file():
    root = stages.Path(stages.__file__).parent
    for room in stages.COMPUTING_CODE:
        assert (root / room).exists(), f"{room} is listed as computing code but is not there"


def test_a_failed_stage_leaves_nothing_that_looks_finished(tmp_path):
    def fails(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("stop")

    store = StageStore(tmp_path)
    with pytest.raises(RuntimeError, match="stop"):
        store.make("a", fails, {})
    assert not store.is_made(store.product("a", {}))
    work = Work()
    store.make("a", work, {})
    assert work.calls == 1


def test_a_full_disk_is_one_sentence_and_leaves_room(tmp_path):
    def fails(folder):
        (folder / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UnusableFolder, match="is full: make room and start again; what is finished is kept"):
        StageStore(tmp_path).make("a", fails, {})
    assert not list(tmp_path.glob(".a-*"))

    def other(folder):
        raise OSError(errno.EIO, "another error")

    with pytest.raises(OSError, match="another error"):
        StageStore(tmp_path).make("b", other, {})


def _hang(root):
    def work(folder):
        (folder / "half").write_text("x")
        time.sleep(60)

    StageStore(root).make("a", work, {})


def test_a_killed_stage_is_made_again(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_hang, args=(tmp_path,))
    process.start()
    while not list(tmp_path.glob(".a-*/half")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    work = Work()
    product = StageStore(tmp_path).make("a", work, {})
    assert work.calls == 1
    assert not (product.path / "half").exists() and not list(tmp_path.glob(".a-*")), "nothing is left of it"


@pytest.mark.parametrize("damage", ["change", "delete", "manifest"])
def test_a_damaged_product_is_named_with_its_remedy(tmp_path, damage):
    product = StageStore(tmp_path).make("a", Work(), {})
    file = product.path / "sub" / "product.txt"
    if damage == "change":
        file.write_text("other")
    elif damage == "delete":
        file.unlink()
    else:
        (product.path / "manifest.json").write_text("{")
    for check in (lambda: StageStore(tmp_path).verify_all(), lambda: StageStore(tmp_path).is_made(product)):
        with pytest.raises(CorruptStage, match=r"delete the folder .* and run again"):
            check()


def test_a_missing_product_names_its_notebook(tmp_path):
    with pytest.raises(MissingProduct, match=r"run notebook 02_sft.ipynb first"):
        StageStore(tmp_path).require("sft", {}, "02_sft")


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableFolder, match="choose another with --out"):
        StageStore(tmp_path / "file" / "out")


def test_inputs_must_be_plain(tmp_path):
    with pytest.raises(TypeError, match="not object"):
        StageStore(tmp_path).product("a", {"x": object()})


def test_products_are_keyed_by_origin_not_place(tmp_path):
    one, other = StageStore(tmp_path / "one"), StageStore(tmp_path / "other")
    keys = []
    for store in (one, other):
        first = store.make("a", Work(), {"x": 1})
        keys.append(store.product("b", {"a": first}).key)
    assert keys[0] == keys[1]


def test_manifest_tells_where_a_product_came_from(tmp_path):
    product = StageStore(tmp_path).make("a", Work(), {"settings": get_profile("cpu").pairs})
    manifest = json.loads((product.path / "manifest.json").read_text())
    assert manifest["inputs"]["settings"] == dataclasses.asdict(get_profile("cpu").pairs)
    assert set(manifest["files"]) == {"sub/product.txt"}
