"""Run folders with a file that is damaged in some way: every command says one sentence, or does what it always does."""

import contextlib
import functools
import io
import json
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import strategies as st
from support import fuzzed

from mtdpo_lib import __main__ as command_line
from mtdpo_lib.common.stages import Product, StageStore
from mtdpo_lib.lessons import publish
from mtdpo_lib.lessons import run as runner
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.results import Metric, write_record
from mtdpo_lib.results.figures.style import Figure


class Kept(Product):
    @staticmethod
    def make(folder: Path, text: str) -> None:
        (folder / "text.txt").write_text(text)


def execute(notebook, folder, parameters, say) -> None:
    """What a notebook does, without its kernel: a stage and a record."""
    out, profile, seed = Path(parameters["out"]), get_profile("smoke"), parameters["seed"]
    StageStore.of_run(out).make(Kept, "kept", {"text": "a text"})
    policies = {"sft": 0, "mdpo-1": 1}
    metrics = [
        Metric(
            "accuracy",
            0.5,
            0.4,
            0.6,
            4,
            seeds=(seed,),
            split="test",
            arm=name[:4],
            iteration=number,
            policy=name,
        )
        for name, number in policies.items()
    ]
    passport = {
        "iteration": 1,
        "policy": "mdpo-1",
        "reference": "sft",
        "data source": [],
        "prompts by fate": {},
    }
    results = {
        "metrics": [metric.to_dict() for metric in metrics],
        "outcomes": dict.fromkeys(policies, "0101"),
        "passports": [passport],
        "logs": {"SFT": [{"step": 1, "loss": 0.5}]},
        "tables": {"claims": []},
        "deviations": ["none"],
    }
    write_record(out / "records", notebook.stem, profile, seed, results, {})
    folder.mkdir(exist_ok=True)
    shutil.copy(notebook, folder)


@functools.cache
def notebooks() -> Path:
    place = Path(tempfile.mkdtemp())
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        'profile: str = "cpu"\nseed: int = 0\nout: str = ""\nsettings: str = ""', metadata={"tags": ["parameters"]}
    )])  # fmt: skip
    nbformat.write(made, place / "00_only.ipynb")
    return place


def save(figure: Figure, file: Path) -> Path:
    """A figure is made, but not drawn."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def say(*arguments: str) -> tuple[int, str]:
    """Exit code and errors of a command; only notebooks and kept records are others, and nothing takes long."""
    reproduce, target = runner.reproduce, Path(arguments[-1]).parent / "kept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "execute", execute)
        patch.setattr(Figure, "save", save)
        patch.setattr(runner, "reproduce", functools.partial(reproduce, notebooks_dir=notebooks(), say=print))
        patch.setattr(publish, "keep", functools.partial(publish.keep, target=target))
        again = functools.partial(publish.refresh_notebooks, notebooks=notebooks(), made_with=("smoke", 0))
        patch.setattr(publish, "refresh_notebooks", again)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as errors,
        ):
            code = command_line.main(list(arguments))
    return code, errors.getvalue()


@functools.cache
def undamaged() -> Path:
    """A finished run."""
    out = Path(tempfile.mkdtemp()) / "out"
    assert say("reproduce", "--profile", "smoke", "--out", str(out))[0] == 0
    return out


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800")
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
PLACES = st.lists(
    st.integers(0, 20), max_size=6
)  # the way to a part of a JSON value: which child at each level


def changed(value, way: list[int], new=None, drop: bool = False):
    """`value` with the part at the end of `way` replaced or left out."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if not way or not keys:
        return new
    key = keys[way[0] % len(keys)]
    inside = changed(value[key], way[1:], new, drop)
    pairs = {name: inside if name == key else value[name] for name in keys}
    if drop and (len(way) == 1 or not isinstance(value[key], dict | list) or not value[key]):
        del pairs[key]
    return pairs if isinstance(value, dict) else list(pairs.values())


def damage(file: Path, kind: str, way: list[int], value) -> None:
    content = file.read_bytes()
    if kind in ("replace", "drop") and file.suffix in (".json", ".ipynb"):
        file.write_text(json.dumps(changed(json.loads(content), way, value, kind == "drop")))
        return
    file.unlink()
    if kind == "text":
        file.write_text(json.dumps(value))
    elif kind == "cut":
        file.write_bytes(content[: len(content) * sum(way) // 120])
    elif kind == "noise":
        file.write_bytes(bytes(way) + content)
    elif kind == "deep":
        file.write_text("[" * 10**5)
    elif kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)


KINDS = st.sampled_from(("replace", "drop", "text", "cut", "noise", "deep", "folder", "loop", "gone"))


@fuzzed(st.integers(0, 10**6), KINDS, PLACES, VALUES)
def test_a_damaged_file_in_a_run_folder_is_no_traceback(number, kind, way, value):
    with tempfile.TemporaryDirectory() as place:
        out = shutil.copytree(undamaged(), Path(place) / "out")
        files = sorted(path for path in out.rglob("*") if path.is_file())
        damage(files[number % len(files)], kind, way, value)
        for arguments in (
            ("combine", str(out), "--out", str(out.with_name("combined"))),
            ("keep", str(out)),
            ("refresh-notebooks", str(out)),
            ("reproduce", "--profile", "smoke", "--out", str(out)),
        ):
            code, errors = say(*arguments)
            assert code in (runner.OK, runner.BAD_INPUT)
            assert errors.count("\n") == (code != 0) and errors.startswith("error: ") == (code != 0)
