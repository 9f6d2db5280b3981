"""The runner on tiny notebooks: order, failure, resumption after a kill, and one sentence for each wrong input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock

from mtdpo_lib import __main__ as command_line
from mtdpo_lib.common import files
from mtdpo_lib.common.files import CorruptData, FullDisk, write_json
from mtdpo_lib.common.stages import CorruptStage, Product, StageStore, UnusableFolder
from mtdpo_lib.lessons import publish
from mtdpo_lib.lessons import run as runner
from mtdpo_lib.profiles import SettingError, get_profile

ROOT = Path(__file__).parents[2]
PARAMETERS = (
    'profile: str = "cpu"\nseed: int = 0\nout: str = ""\nsettings: str = ""  # e.g. "preference.eta=0.5"'
)
WRITES_A_RECORD = """
from pathlib import Path
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.results.records import write_record
metric = {"name": "accuracy/test/sft", "kind": "accuracy", "split": "test", "arm": "sft"}
metric |= {"value": 0.5, "low": 0.4, "high": 0.6, "n": 4, "unit": "fraction", "seeds": [seed]}
results = {"metrics": [metric], "outcomes": {"sft": "0101"}}
write_record(Path(out) / "records", NAME, get_profile(profile, settings), seed, results, {})
print(profile, seed, settings)
"""


def notebook(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook with a parameters cell and `cells`."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    made.cells = [nbformat.v4.new_markdown_cell("# A notebook"), nbformat.v4.new_code_cell(parameters)]
    made.cells[1].metadata["tags"] = ["parameters"]
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    folder.mkdir(exist_ok=True)
    nbformat.write(made, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def run(folder: Path, out: Path, **options) -> tuple[int, list[str]]:
    """Exit code and printed lines."""
    lines: list[str] = []
    code = runner.reproduce("smoke", out=out, notebooks_dir=folder, say=lines.append, **options)
    return code, lines


@pytest.fixture
def instant(monkeypatch):
    """Notebooks run here, without a kernel."""

    def execute(notebook, folder, parameters, say):
        monkeypatch.syspath_prepend(notebook.parent)
        names = dict(parameters)
        for cell in nbformat.read(notebook, as_version=4).cells[2:]:
            exec(cell.source, names)
        folder.mkdir(exist_ok=True)
        shutil.copy(notebook, folder)

    monkeypatch.setattr(runner, "execute", execute)


@pytest.fixture
def finished(tmp_path, instant):
    """A finished run: its notebooks and its folder."""
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_first", f"NAME = '00_first'\n{WRITES_A_RECORD}")
    assert run(folder, out)[0] == 0
    return folder, out


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    """What a user's shell sees."""
    call = [sys.executable, "-m", "mtdpo_lib", *arguments]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, cwd=ROOT, **options)


def test_notebooks_run_in_order_with_their_parameters_and_end_in_a_report(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(
        folder,
        "01_second",
        "assert (Path := __import__('pathlib').Path)(out, 'records', '00_first.json').exists()",
    )
    notebook(
        folder,
        "00_first",
        f"NAME = '00_first'\n{WRITES_A_RECORD}",
        "import os; print(os.environ['OMP_NUM_THREADS'])",
    )
    code, lines = run(folder, out, seed=3, settings=["preference.eta=0.5"])
    assert code == 0, lines
    assert lines[-1].startswith("Report: ") and (out / "report.html").exists()
    assert any("elapsed" in line and "00_first" in line for line in lines)
    record = json.loads((out / "records" / "00_first.json").read_text())
    assert (record["profile"], record["seed"], record["settings"]["preference"]["eta"]) == ("smoke", 3, 0.5)
    report = {row["name"]: row for row in json.loads((out / "report.json").read_text())}
    assert report["accuracy/test/sft"]["value"] == 0.5
    parts = report["seconds/00_first"]["value"] + report["seconds/01_second"]["value"]
    assert report["seconds/notebooks"]["value"] == pytest.approx(parts, abs=0.02)
    assert json.loads((out / "run.json").read_text())["complete"]


def test_a_failing_notebook_is_one_sentence_and_what_is_finished_stays(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_good", "print('fine')")
    notebook(folder, "01_bad", "raise RuntimeError('first line\\nthe pairs ran out')")
    notebook(folder, "02_never", "print('not reached')")
    code, lines = run(folder, out)
    assert code == runner.NOTEBOOK_FAILED
    assert "error: Notebook 01_bad failed: RuntimeError: the pairs ran out" in lines
    assert sorted(file.name for file in (out / "notebooks").iterdir()) == [
        "00_good.ipynb",
        "01_bad.failed.ipynb",
    ]
    assert not any("01_bad done" in line for line in lines)


# A stage of its own, in a file beside the notebooks that use it; one text waits, unless it may go on.
STAGES = """
import time
from pathlib import Path
from mtdpo_lib.common.stages import Product, StageStore

class Text(Product):
    @staticmethod
    def make(place, text):
        (place / "product.txt").write_text(text)
        out = place.parent.parent
        with open(out / "log.txt", "a") as log:
            log.write(text + "\\n")
        if text == "waits" and not (out / "go-on").exists():
            time.sleep(600)  # until its kernel sees that the runner is gone
"""
USE_STAGES = "from stages_of_a_test import *\nstore = StageStore(Path(out) / 'stages')\n"


def with_stages(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stages_of_a_test.py").write_text(STAGES)
    return folder


def test_a_missing_product_reaches_the_user_as_it_is(tmp_path):
    folder = with_stages(tmp_path / "notebooks")
    notebook(folder, "05_later", f"{USE_STAGES}store.require(Text, 'sft', {{'text': 'x'}}, '02_sft')")
    code, lines = run(folder, tmp_path / "out", only="5")
    assert code == runner.BAD_INPUT
    assert (
        lines[-1].startswith("error: The product 'sft' is not in")
        and "run notebook 02_sft.ipynb first" in lines[-1]
    )


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (PARAMETERS.replace("seed", "sed"), "declares no typed parameter 'seed': it declares sed"),
        (
            PARAMETERS.replace("seed: int", "seed: float"),
            "declares the parameter 'seed' as float, and got 0, which is int",
        ),
        ("x = (", "single cell tagged 'parameters'"),
    ],
)
def test_wrong_parameter_cells_are_refused_before_anything_runs(tmp_path, parameters, sentence):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_good", "print('fine')")
    notebook(folder, "01_bad", parameters=parameters)
    with pytest.raises(ValueError, match=sentence):
        run(folder, out)
    assert not out.exists()


def test_every_notebook_here_declares_the_four_parameters():
    notebooks = runner.find_notebooks(runner.NOTEBOOKS)
    for file in notebooks:
        assert runner.declared_parameters(file) == {
            "profile": "str",
            "seed": "int",
            "out": "str",
            "settings": "str",
        }


def test_wrong_input_is_refused_by_name(tmp_path):
    folder = tmp_path / "notebooks"
    notebook(folder, "00_good", "print('fine')")
    with pytest.raises(SettingError, match=r"did you mean preference\.eta"):
        run(folder, tmp_path / "out", settings=["preference.ta=1"])
    with pytest.raises(ValueError, match="no notebook '07': known are 00_good"):
        run(folder, tmp_path / "out", only="07")
    with pytest.raises(ValueError, match="No notebooks named like"):
        run(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="cannot hold a space"):
        run(folder, tmp_path / "out", settings=["problems.gsm8k_dir=/a folder"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableFolder, match="cannot be written"):
        run(folder, tmp_path / "file" / "out")


class Made(Product):
    @staticmethod
    def make(place: Path, text: str) -> None:
        (place / "x.txt").write_text(text)


# A clone, its parts, and a root.
NO_RUNS = (".", "data", "notebooks", "data/reference_runs/habits", "/")


def test_a_damaged_stage_is_named_before_anything_runs(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_good", "print('fine')")
    product = StageStore(out / "stages").make(Made, "sft", {"text": "x"})
    (product.path / "x.txt").write_text("y")
    with pytest.raises(CorruptStage, match=r"x\.txt of stage sft-"):
        run(folder, out)
    assert not (out / "notebooks").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reproduce", "--profile", "cpus"], "Unknown profile 'cpus': did you mean cpu"),
        (["reproduce", "--set", "preference.etaa=1"], "did you mean preference.eta"),
        (
            ["reproduce", "--set", "preference.eta=much"],
            "wants a number above zero, at most 10000000, got much",
        ),
        (["reproduce", "--only", "99"], "There is no notebook '99'"),
        (["reproduce", "--only", "⑥"], "There is no notebook '⑥'"),
        (["reproduce", "--out", "LICENSE/sub"], "cannot be written"),
        *((["reproduce", "--out", out], "neither empty nor a run's") for out in NO_RUNS),
        (
            ["reproduce", "--out", "data/reference_runs/habits/seed0"],
            "with profile 'habits' instead of 'cpu'",
        ),
        (["study", "--plan", "--out", "."], "neither empty nor a run's"),
        (
            ["reproduce", "--profile", "smoke", "--set", "model.base=/no/x.gguf"],
            "x.gguf does not exist: give model.base",
        ),
        (["combine", "nowhere", "--out", "nowhere"], "is not a run folder"),
        (
            ["combine", "data/reference_runs/habits/seed0", "--out", "LICENSE/x"],
            "Not a directory: 'LICENSE/x'",
        ),
        (["figures", "--out", "LICENSE/x"], "Not a directory: 'LICENSE/x/cpu'"),
        (["gsm8k", "nowhere"], "There is no GSM8K folder 'nowhere': set problems.gsm8k_dir or"),
    ],
)
def test_the_command_line_says_one_sentence_and_exits_with_2(arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command_line.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("error: ") and words in printed.err


def test_the_shell_sees_the_same():
    answer = command("reproduce", "--profile", "small", "--set", "rollouts.temperature=1")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(
        "error: Unknown setting 'rollouts.temperature': did you mean rollout.temperature"
    )
    assert "Traceback" not in answer.stderr
    shown = command("profiles", "cpu").stdout
    assert "preference.eta = " in shown and "--set budget=reduced changes: iterations=1, " in shown


def test_a_reader_that_stops_reading_ends_a_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    for arguments in (["profiles"], ["--help"]):
        call = [sys.executable, "-m", "mtdpo_lib", *arguments]
        done = subprocess.run(call, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
    os.close(writer)


def test_a_locale_without_a_letter_of_the_path_is_no_error(finished, tmp_path):
    given = ("combine", str(finished[1]), "--out", str(tmp_path / "é"))
    done = command(*given, env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\\xe9/report.html\n")


@pytest.mark.parametrize(("name", "words"), [("reproduce", ["reduced"]), ("study", ["reduced", "eta-low"])])
def test_help_lists_budgets_and_arms(name, words, capsys):
    with pytest.raises(SystemExit):
        command_line.main([name, "--help"])
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)


@pytest.mark.parametrize(
    "arguments", [["reproduce"], ["readme", "--check"], ["keep", "runs/cpu"], ["figures"]]
)
def test_without_the_repository_a_command_says_that_it_needs_it(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "NOTEBOOKS", tmp_path / "notebooks")
    assert command_line.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: The command {arguments[0]} needs a checkout of the repository, with its notebooks and data: "
        "git clone it, then run it there.\n"
    )


def test_after_a_kill_the_finished_stage_is_found_and_the_half_made_one_is_not(tmp_path):
    folder, out = with_stages(tmp_path / "notebooks"), tmp_path / "out"
    work = f"{USE_STAGES}store.make(Text, 'first', {{'text': 'first'}})\nstore.make(Text, 'second', {{'text': 'waits'}})"
    notebook(folder, "00_work", work)
    script = (
        "import sys; from pathlib import Path; from mtdpo_lib.lessons.run import reproduce;"
        "sys.exit(reproduce('smoke', out=sys.argv[1], notebooks_dir=Path(sys.argv[2])))"
    )
    call = [sys.executable, "-c", script, str(out), str(folder)]
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while "waits" not in ((out / "log.txt").read_text() if (out / "log.txt").exists() else ""):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "notebooks" / "00_work.ipynb").exists()
    (out / "go-on").touch()
    assert subprocess.run(call, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=600).returncode == 0
    assert (out / "log.txt").read_text().split() == ["first", "waits", "waits"]
    assert (out / "notebooks" / "00_work.ipynb").exists()


def test_the_way_is_told_with_the_time_to_go_once_enough_is_finished(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    for number in range(4):
        notebook(folder, f"{number:02d}_part")
    usual = dict.fromkeys((file.stem for file in folder.iterdir()), 60.0)
    monkeypatch.setattr(runner, "kept_seconds", lambda profile, budget: [usual] if not budget else [])
    code, lines = run(folder, tmp_path / "out")
    assert code == 0
    assert lines[0].startswith("Running 4 notebooks; kept runs took about 4 min 00 s.")
    told = [line for line in lines if line.startswith("Notebooks: ")]
    assert told[-1].startswith("Notebooks: 100%, 03_part done; ") and "to go" not in told[-1]
    assert all("to go" in line for line in told[:-1] if " done" in line)


def test_a_second_start_keeps_seconds_of_the_same_run_only(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_one")
    notebook(folder, "01_two")
    assert run(folder, out, only="00")[0] == 0
    assert not json.loads((out / "run.json").read_text())["complete"]
    again = runner.Run.of("smoke", 0, out)
    assert list(again.seconds) == ["00_one"]
    assert json.loads((out / "run.json").read_text())["settings_hash"] == again.hash
    kept = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(kept | {"settings_hash": "of an older version"}))
    assert runner.Run.of("smoke", 0, out).seconds == {}


def test_finished_notebooks_are_not_run_again_until_something_they_come_from_changes(
    tmp_path, monkeypatch, instant
):
    folder, out = with_stages(tmp_path / "notebooks"), tmp_path / "out"
    cell = f"""{USE_STAGES}
store.make(Text, NAME, {{"text": NAME}})
with open(Path(out) / "ran.txt", "a") as ran:
    ran.write(NAME)
"""
    for name in "abc":
        notebook(folder, f"{ord(name) - ord('a'):02d}_{name}", f"NAME = '{name}'", cell)

    def runs(**options) -> str:
        (out / "ran.txt").unlink(missing_ok=True)
        code, lines = run(folder, out, **options)
        assert code == 0
        ran = (out / "ran.txt").read_text() if (out / "ran.txt").exists() else ""
        if "only" not in options and ran != "abc":
            assert f"{3 - len(ran)} of 3 notebooks are finished" in lines[0]
        return ran

    assert runs() == "abc"
    assert runs() == ""
    shutil.rmtree(next((out / "stages").glob("c-*")))
    assert runs() == "c"
    shutil.rmtree(next((out / "stages").glob("b-*")))
    assert runs() == "bc"
    (out / "notebooks" / "02_c.ipynb").unlink()
    assert runs() == "c"
    assert runs(only="01") == "b"
    notebook(folder, "01_b", "NAME = 'b'", cell, "'changed'")
    assert runs() == "bc"
    monkeypatch.setenv("MTDPO_GSM8K_DIR", str(tmp_path))
    assert runs() == "abc"
    monkeypatch.setattr(runner, "versions", lambda: {"torch": "another"})
    assert runs() == "abc"


def test_another_run_is_not_written_over_one_that_is_there(finished):
    folder, out = finished
    report = (out / "report.json").read_bytes()
    for others, words in (
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"settings": ["preference.eta=0.25"]}, "settings '' instead of 'preference.eta=0.25'"),
    ):
        with pytest.raises(UnusableFolder, match=f"holds a run with {words}: choose another with --out"):
            run(folder, out, **others)
    with pytest.raises(UnusableFolder, match="profile 'smoke' instead of 'cpu'"):
        runner.reproduce("cpu", out=out, notebooks_dir=folder)
    assert (out / "report.json").read_bytes() == report
    # What is set to its own value, or in another order, is the same run.
    eta = get_profile("smoke").preference.eta
    assert run(folder, out, settings=[f"preference.eta={eta}"])[0] == 0
    assert run(folder, out, settings=["iterations=2", f"preference.eta={eta}"])[0] == 0


def test_a_runs_own_folder_is_named_after_what_is_set():
    plain, other = (runner.Run.of("smoke", 3, settings=given).out for given in ("", "preference.eta=0.25"))
    assert plain.name == "smoke-seed3" and other == plain.with_name("smoke-seed3-preference.eta=0.25")


@pytest.mark.parametrize("shape", ["", "{", "[]", "3", "{}", '{"files": 3}', '{"00_first": 3}', "[" * 10**5])
@pytest.mark.parametrize("name", ["run.json", "finished.json", "records/00_first.json"])
def test_a_damaged_file_of_a_run_is_named_with_its_remedy_and_the_run_goes_on(finished, name, shape):
    folder, out = finished
    (out / name).write_text(shape)
    if (name, shape) != ("finished.json", "{}"):  # as if nothing were finished
        with pytest.raises(CorruptData, match=rf"{out / name} is missing, or not .* delete the file and run"):
            run(folder, out)
        (out / name).unlink()
    assert run(folder, out)[0] == 0
    assert json.loads((out / "report.json").read_text())[0]["value"] == 0.5


def test_a_record_whose_content_was_changed_is_named(finished):
    folder, out = finished
    file = out / "records" / "00_first.json"
    file.write_text(file.read_text().replace("0.5", "0.6"))
    with pytest.raises(
        CorruptData, match=r"00_first\.json was changed after it was written: delete the file"
    ):
        run(folder, out)


def test_a_run_has_its_folder_to_itself_and_clears_away_what_a_killed_one_left(finished):
    folder, out = finished
    left = [out / ".run.json.7.tmp", out / "figures" / ".x.png.7.tmp", out / "notebooks" / ".00_first.ipynb"]
    for file in left:
        file.touch()
    with FileLock(out / ".lock"), pytest.raises(UnusableFolder, match="Another process is at work in"):
        run(folder, out)
    assert all(file.exists() for file in left)
    assert run(folder, out)[0] == 0
    assert not any(file.exists() for file in left)


def test_what_takes_minutes_is_told_while_the_notebook_runs_also_in_a_folder_with_braces(tmp_path):
    folder, out = tmp_path / "{notebooks}", tmp_path / "{profile} é"
    line = "SFT: 4 of 40 steps; 1 min 10 s elapsed, about 10 min 30 s to go"
    waits = "import time\nfrom pathlib import Path\nwhile not (Path(out) / 'heard').exists(): time.sleep(0.1)"
    notebook(folder, "00_long", f"print('a line', {line!r}, sep='\\n', flush=True)", waits)
    lines = []

    def say(text):
        lines.append(text)
        if text == line:
            (out / "heard").touch()

    assert runner.reproduce("smoke", out=out, notebooks_dir=folder, say=say) == 0
    assert line in lines and "a line" not in lines
    assert (out / "notebooks" / "00_long.ipynb").exists()


def test_a_dead_kernel_is_one_sentence_also_before_its_first_answer(tmp_path, monkeypatch):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_dies", "import os\nos.kill(os.getpid(), 9)")
    code, lines = run(folder, out)
    assert code == runner.NOTEBOOK_FAILED
    assert "error: Notebook 00_dies failed: DeadKernelError: the kernel died;" in lines[-2]

    def execute(source, target, *_, **__):
        shutil.copy(source, target)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    assert run(folder, out) == (code, lines)


def test_a_run_that_is_interrupted_says_one_line_and_leaves_no_draft(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_waits", "import time\nopen(f'{out}/waits', 'w').close()\ntime.sleep(600)")
    script = (
        "import signal, sys; from pathlib import Path; from mtdpo_lib import __main__ as command_line;"
        "from mtdpo_lib.lessons import run as runner;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # it is ignored below a shell's background
        "reproduce, place = runner.reproduce, Path(sys.argv[2]);"
        "runner.reproduce = lambda *given: reproduce(*given, notebooks_dir=place);"
        "sys.exit(command_line.main(['reproduce', '--profile', 'smoke', '--out', sys.argv[1]]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(out), str(folder)], cwd=ROOT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not (out / "waits").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert errors == "Stopped. What is finished is kept: the same command goes on from there.\n"
    assert process.returncode == 130 and not list((out / "notebooks").iterdir())


FILLS = """
from safetensors.numpy import save_file
import numpy

class Weights(Product):
    @staticmethod
    def make(place, count):
        save_file({"x": numpy.zeros(count, "float32")}, place / "weights.safetensors")
"""


def test_a_full_disk_is_one_sentence_wherever_it_is_met_and_with_room_the_run_goes_on(small_disk):
    disk, resize = small_disk
    folder, out = with_stages(disk.parent / "notebooks"), disk / "out"
    with (folder / "stages_of_a_test.py").open("a") as file:
        file.write(FILLS)
    notebook(folder, "00_weights", f"{USE_STAGES}store.make(Weights, 'weights', {{'count': 500_000}})")
    notebook(folder, "01_prints", "print('x' * 2_000_000)")
    full = rf"^(error: )?The disk at {disk} is full: {out}/%s needs more than the [\d.]+ MiB .* is kept\.$"

    def left() -> list[str]:
        return [file.name for file in out.rglob(".*") if file.name not in (".lock", ".locks")]

    (disk / "other").write_bytes(b"x" * 2**20)
    with pytest.raises(FullDisk, match=full % "run.json"):
        run(folder, out)
    (disk / "other").unlink()
    code, lines = run(folder, out)
    assert code == runner.BAD_INPUT and re.match(full % r"stages/weights-\w+", lines[-1]), lines
    assert left() == []
    resize("3m")
    with pytest.raises(FullDisk, match=full % r"notebooks/01_prints\.ipynb"):
        run(folder, out)
    assert left() == []
    resize("9m")
    code, lines = run(folder, out)
    assert code == 0 and lines[0].startswith("1 of 2 notebooks are finished")


def test_outputs_are_taken_over_without_times_paths_or_the_injected_cell(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    progress = "print('SFT: 4 of 40 steps; 40 s elapsed, about 6 min 00 s to go')"
    file = notebook(folder, "00_one", f"print(out)\n{progress}", "1 + 1")
    assert publish.stale_notebooks(folder) == ["00_one"]
    assert run(folder, out)[0] == 0
    with pytest.raises(ValueError, match="Outputs come from profile cpu, seed 0"):
        publish.refresh_notebooks(out, folder)
    publish.refresh_notebooks(out, folder, ("smoke", 0))
    fresh = nbformat.read(file, as_version=4)
    assert publish.stale_notebooks(folder) == []
    assert [cell.cell_type for cell in fresh.cells] == ["markdown", "code", "code", "code"]
    assert fresh.cells[1].source == PARAMETERS and fresh.cells[2].outputs[0].text == "RUN\n"
    assert [cell.execution_count for cell in fresh.cells[1:]] == [1, 2, 3]
    assert "papermill" not in file.read_text() and str(tmp_path) not in file.read_text()
    fresh.cells[0].source += " In better words."
    nbformat.write(fresh, file)
    assert publish.stale_notebooks(folder) == []
    fresh.cells[3].source = "1 + 2"
    nbformat.write(fresh, file)
    assert publish.stale_notebooks(folder) == ["00_one"]
    with pytest.raises(ValueError, match="was changed after that run"):
        publish.refresh_notebooks(out, folder, ("smoke", 0))


@pytest.mark.parametrize(
    ("shows", "file"),
    [
        ('pipeline_map("02")', "reference_runs/cpu/seconds.json"),
        ('(REFERENCE_RUNS / "cpu").glob("seed*")', "reference_runs/cpu/seed0/records/02_sft.json"),
        ('(REFERENCE_RUNS / "cpu").glob("seed*")', "reference_runs/cpu/seed1/run.json"),
        ("study_metrics.kept()", "reference_runs/cpu/study/report.json"),
        ("report.real_runs()", "reference_runs/small/seed0/run.json"),
        ("paper_table('table1')", "paper/table1.csv"),
        ("claims.read_claims()", "paper/claims.csv"),
    ],
)
def test_outputs_are_stale_when_a_record_or_table_that_they_show_changes(tmp_path, shows, file):
    """Each file of the parametrization, changed or new, makes the notebooks stale that show it, and no other."""
    record = {"provenance": {"peak_memory_mib": 1.0, "machine": {"cores": 2}}}
    kept = {
        "reference_runs/cpu/seed0/records/02_sft.json": record,
        "reference_runs/cpu/seconds.json": {"02_sft": 1.0},
        "reference_runs/cpu/study/report.json": {},
        "reference_runs/small/seed0/run.json": {},
        "paper/table1.csv": {},
    }
    for name, content in kept.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / name, content)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    showing, other = (
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]) for code in (shows, "1")
    )
    before = [publish.made_from(one, tmp_path) for one in (showing, other)]
    assert before[0].keys() > before[1].keys()
    assert before[0] == publish.made_from(showing, tmp_path)
    write_json(tmp_path / file, record | {"02_sft": 99.0})
    assert publish.made_from(showing, tmp_path) != before[0]
    assert publish.made_from(other, tmp_path) == before[1]


def test_an_output_with_a_local_path_is_refused(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    notebook(folder, "00_one", "print('/home/someone/file.txt')")
    assert run(folder, out)[0] == 0
    with pytest.raises(ValueError, match=r"'/home/someone/file.txt'"):
        publish.refresh_notebooks(out, folder, ("smoke", 0))


def test_committed_outputs_were_made_by_the_committed_cells():
    assert publish.stale_notebooks() == [], (
        "run `make notebooks`: these notebooks changed after their outputs were made"
    )
