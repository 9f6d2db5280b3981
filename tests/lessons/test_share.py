"""A run that is packed, unpacked, and not trusted."""

import io
import tarfile

import pytest

from mtdpo_lib import __main__ as commands
from mtdpo_lib.common.files import UnusableFolder, write_json
from mtdpo_lib.common.stages import CorruptStage, Product, StageStore
from mtdpo_lib.lessons import share


class Numbers(Product):
    @staticmethod
    def make(folder, count):
        (folder / "numbers.txt").write_text(str(list(range(count))))


INPUTS = {"count": 3}


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it, with one stage and a lock."""
    out = tmp_path / "made"
    StageStore.of_run(out).make(Numbers, "numbers", INPUTS)
    facts = {
        "profile": "smoke",
        "seed": 3,
        "settings": "",
        "settings_hash": "x",
        "seconds": {},
        "complete": False,
    }
    write_json(out / "run.json", facts)
    (out / ".lock").touch()
    return out


def packed_with(tmp_path, member, content=b"x", link=""):
    """A file that holds one member of this name."""
    file, info = tmp_path / "hostile.tar.gz", tarfile.TarInfo(member)
    info.size = len(content)
    if link:
        info.type, info.linkname, info.size = tarfile.SYMTYPE, link, 0
    with tarfile.open(file, "w:gz") as pack:
        pack.addfile(info, io.BytesIO(content))
    return file


def test_what_was_packed_is_found_again_by_its_stages(run, tmp_path, monkeypatch):
    file = share.pack_run(run, tmp_path / "run.tar.gz")
    monkeypatch.setattr(share, "default_folder", lambda name, settings: tmp_path / "runs" / name)
    for source, out in ((str(file), None), (file.as_uri().replace("file://", ""), tmp_path / "other")):
        found = share.fetch_run(source, out)
        assert found == (out or tmp_path / "runs" / "smoke-seed3")
        product = StageStore.of_run(found).require(Numbers, "numbers", INPUTS, "02_sft")
        assert (product.path / "numbers.txt").read_text() == "[0, 1, 2]"
        assert not (found / ".lock").exists()


def test_a_run_comes_from_an_address_too(run, tmp_path, monkeypatch):
    file = share.pack_run(run, tmp_path / "run.tar.gz")
    asked = []
    monkeypatch.setattr(share, "urlopen", lambda address: asked.append(address) or file.open("rb"))
    assert (share.fetch_run("https://a.b/run.tar.gz", tmp_path / "new") / "run.json").is_file()
    assert asked == ["https://a.b/run.tar.gz"]


def test_nothing_is_overwritten(run, tmp_path):
    file = share.pack_run(run, tmp_path / "run.tar.gz")
    with pytest.raises(UnusableFolder, match="is there already: choose another folder with --out"):
        share.fetch_run(str(file), run)


def test_a_damaged_stage_is_found_before_it_is_used(run, tmp_path):
    (numbers,) = run.glob("stages/*/numbers.txt")
    numbers.write_text("[9]")
    file = share.pack_run(run, tmp_path / "run.tar.gz")
    with pytest.raises(CorruptStage, match=r"numbers\.txt"):
        share.fetch_run(str(file), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("member", "link"), [("../outside", ""), ("/tmp/outside", ""), ("run/x", "/etc/passwd")]
)
def test_no_member_reaches_outside_of_the_folder(tmp_path, member, link):
    file = packed_with(tmp_path, member, link=link)
    with pytest.raises(ValueError, match=r"is not a packed run|is not a run folder"):
        share.fetch_run(str(file), tmp_path / "new")
    assert not (tmp_path / "new").exists() and not (tmp_path / "outside").exists()


@pytest.mark.parametrize("content", [b"", b"no archive at all"])
def test_what_is_no_packed_run_is_refused_in_one_sentence(tmp_path, content):
    file = tmp_path / "some.tar.gz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not a packed run"):
        share.fetch_run(str(file), tmp_path / "new")
    with pytest.raises(ValueError, match="is not a packed run"):
        share.fetch_run(str(tmp_path / "missing.tar.gz"), tmp_path / "new")


def test_only_runs_are_packed(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        share.pack_run(tmp_path, tmp_path / "run.tar.gz")


def test_the_commands_pack_and_fetch(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (["pack-run", "made"], ["fetch-run", "made.tar.gz", "--out", "again"]):
        options = commands.PARSER.parse_args(arguments)
        options.action(options)
    assert capsys.readouterr().out == "Packed: made.tar.gz\nRun: again\n"
