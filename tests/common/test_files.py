"""Files: written whole or not at all, read with the name of what is wrong."""

import errno
import os
from pathlib import Path

import pytest

from mtdpo_lib.common.files import (
    CorruptData,
    FullDisk,
    default_folder,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from mtdpo_lib.common.stages import Product, StageStore

ROWS = [{"a": 1, "text": "é\n"}, {"b": [None, True]}]


def test_what_is_written_is_read_again(tmp_path):
    assert read_json(write_json(tmp_path / "a.json", ROWS)) == ROWS
    write_jsonl(tmp_path / "a.jsonl", iter(ROWS))
    assert read_jsonl(tmp_path / "a.jsonl") == ROWS
    assert (tmp_path / "a.jsonl").read_text(encoding="utf8") == '{"a":1,"text":"é\\n"}\n{"b":[null,true]}\n'
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "a.jsonl"]


def test_a_reader_meets_the_old_rows_until_all_new_ones_are_written(tmp_path):
    file, met = tmp_path / "a.jsonl", []

    def rows():
        for row in ROWS:
            met.append(read_jsonl(file))
            yield row

    write_jsonl(file, [])
    write_jsonl(file, rows())
    assert met == [[], []] and read_jsonl(file) == ROWS


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), TypeError("no row"), OSError(errno.EIO, "broken")])
def test_what_stops_the_writing_is_not_hidden_and_leaves_the_old_file(tmp_path, fault):
    def rows():
        yield ROWS[0]
        raise fault

    write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(type(fault)) as caught:
        write_jsonl(tmp_path / "a.jsonl", rows())
    assert caught.value is fault
    assert read_jsonl(tmp_path / "a.jsonl") == ROWS and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("write", [write_json, write_jsonl])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, write):
    (tmp_path / f".a.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(
        FullDisk, match=r"^The disk at / is full: .*/a\.json needs more than the .* MiB that are free"
    ):
        write(tmp_path / "a.json", ROWS)
    assert not list(tmp_path.iterdir())


class Fills(Product):
    """A stage whose disk is full after its first row."""

    @staticmethod
    def make(folder, code):
        def rows():
            yield ROWS[0]
            raise OSError(code, os.strerror(code))

        write_jsonl(folder / "rows.jsonl", rows())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_in_a_stage_is_the_stores_sentence(tmp_path, code):
    with pytest.raises(FullDisk, match=rf"is full: {tmp_path}/a-\w+ needs more than"):
        StageStore(tmp_path).make(Fills, "a", {"code": code})
    assert not list(tmp_path.glob(".a-*")), "the draft is removed, to make room"


def test_damaged_files_are_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n\n{"b": \n', encoding="utf8")
    with pytest.raises(CorruptData, match=r"Line 3 of .*a\.jsonl is not a JSON object"):
        read_jsonl(file)
    for damaged in (file, tmp_path / "missing.json"):
        with pytest.raises(
            CorruptData, match=rf"{damaged.name} is missing, or not the JSON that was written: restore"
        ):
            read_json(damaged)


def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path):
    file = write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(file, dict[str, int]) == {"a": 1}
    for kind in (dict[str, str], list[int]):
        with pytest.raises(
            CorruptData, match=r"a\.json is missing, or not the JSON that was written: call\.$"
        ):
            read_json(file, kind, "call")


def test_a_default_folder_carries_what_was_set():
    assert default_folder("cpu-seed0", "").name == "cpu-seed0"
    one, other = (default_folder("cpu-seed0", text) for text in ("b=1e-4 a=2", "a=2 b=1e-4"))
    assert one == other and one.name == "cpu-seed0-a=2-b=1e-4" and one.parent.name == "runs"
    name = default_folder("cpu-seed0", f"a=../../{'é' * 300}").name
    assert name.isascii() and "/" not in name and len(name) < 200
