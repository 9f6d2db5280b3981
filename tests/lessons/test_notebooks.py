"""Every notebook as a page: its parts, its widths, its drawings. Then all of them at `smoke`, through the command a user
types; and again with a kill in the middle.

A copy of the finished run forgets what notebook 06 made; it is started again, killed with all its processes while notebook
06 trains, and started once more. It must end in the same records.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest
from support import results_in, undo_notebook

ROOT = Path(__file__).parents[2]
DRAWINGS = ROOT / "notebooks" / "drawings"
PARTS = ("card", "parameters", "setup", "predict", "check", "break-it", "results", "answer", "limits")
WIDEST, MEDIAN, LONGEST = 76, 10, 35  # letters of a line of code, lines of a cell
NOTEBOOKS = sorted(file.stem for file in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
INTERRUPTED = "06_multi_turn_dpo"
LIMIT = 1200  # seconds; a smoke run takes a few minutes on busy cores


def tags_of(cell: dict) -> list[str]:
    return cell["metadata"].get("tags") or []


def faults(notebook: dict) -> list[str]:
    """What keeps a notebook from being a lesson that fits a page."""
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]).split("\n") for cell in code]
    places = {part: [n for n, cell in enumerate(cells) if part in tags_of(cell)] for part in PARTS}
    found = [f"no cell {part}" for part, where in places.items() if not where]
    if not found and not places["results"][-1] < places["answer"][0] < places["limits"][0]:
        found.append("the answer is not between results and limits")
    found += [f"wide: {line}" for lines in sources for line in lines if len(line) > WIDEST]
    if (median := statistics.median(map(len, sources))) > MEDIAN:
        found.append(f"median cell of {median} lines")
    found += [f"long: {lines[0]}" for lines in sources if len(lines) > LONGEST]
    for number, cell in enumerate(code):
        guess = re.findall(r"^(my_\w+)\s*:", "".join(cell["source"]), re.MULTILINE)
        if bool(guess) != ("predict" in tags_of(cell)):
            found.append(f"a guess without its tag, or the tag without one: {sources[number][0]}")
        for later in range(number + 1, len(code)) if guess else ():
            folded = code[later]["metadata"].get("jupyter", {}).get("outputs_hidden")
            if not folded or "hide-output" not in tags_of(code[later]):
                found.append(f"the answer to {guess[0]} stands open: {sources[later][0]}")
            if any(name in "".join(code[later]["source"]) for name in guess):
                break
    for cell in cells:
        text = "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
        blocks = len(re.findall(r"(?:\A|\n\n) *\$\$[^$]+\$\$(?=\n\n|\Z)", text))
        if blocks != text.count("$$") / 2:  # some pages show its signs otherwise
            found.append(f"a formula without an empty line above and below: {cell['source'][0]}")
    for cell in code:
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}) and not output["metadata"]["image/png"].get("alt"):
                found.append(f"a figure without words: {cell['source'][0]}")
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_all_its_parts_and_fits_a_page(name):
    assert faults(json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf8"))) == []


def test_each_fault_of_a_page_is_found():
    def cell(*lines, tags=(), kind="code", outputs=(), **metadata):
        source = "\n".join(lines).splitlines(keepends=True)
        made = {"cell_type": kind, "metadata": {"tags": list(tags), **metadata}, "source": source}
        return made | ({"outputs": list(outputs)} if kind == "code" else {})

    hidden = {"tags": ["hide-output"], "jupyter": {"outputs_hidden": True}}
    whole = [cell("text", tags=[part], kind="markdown") for part in PARTS]
    whole[3:4] = [cell("my_guess: int | None = None", tags=["predict"]), cell("print(my_guess)", **hidden)]
    assert faults({"cells": whole}) == []

    def with_fault(extra=(), drop=None, change=()):
        cells = [one for one in whole if drop not in tags_of(one)] + list(extra)
        for place, one in change:
            cells[place] = one
        return faults({"cells": cells})

    assert with_fault(drop="check") == ["no cell check"]
    late = [cell("text", tags=["answer"], kind="markdown")]
    assert with_fault(late, drop="answer") == ["the answer is not between results and limits"]
    assert with_fault([cell("x" * 77)]) == ["wide: " + "x" * 77]
    assert with_fault([cell("x", *["y"] * 35), *[cell("x")] * 3]) == ["long: x"]
    assert with_fault([cell("x", *["y"] * 20)] * 3) == ["median cell of 21 lines"]
    (fault,) = with_fault(change=[(4, cell("print(my_guess)"))])
    assert fault == "the answer to my_guess stands open: print(my_guess)"
    (fault,) = with_fault([cell("my_order: list = []"), cell("print(my_order)", **hidden)])
    assert fault.startswith("a guess without its tag")
    formula = [cell("words:", "$$x", "+ y$$", "", "$$z$$", kind="markdown")]
    assert with_fault(formula) == ["a formula without an empty line above and below: words:\n"]
    assert with_fault([cell("words:", "", "   $$x", "   + y$$", kind="markdown")]) == []
    figure = {"data": {"image/png": ""}, "metadata": {"image/png": {}}}
    assert with_fault([cell("draw()", outputs=[figure])]) == ["a figure without words: draw()"]


SVG = "{http://www.w3.org/2000/svg}"


def words_outside(drawing: ElementTree.Element) -> list[str]:
    """Texts that reach over an edge of the page, at 0.55 of a letter's height for its width, a wide font's mean."""
    width, found = float(drawing.get("viewBox").split()[2]), []
    for text in drawing.iter(f"{SVG}text"):
        kinds, words = (text.get("class") or "").split(), "".join(text.itertext()).replace("\u200b", "")
        size, x = 13 if "small" in kinds else 15, float(text.get("x"))
        length = 0.55 * size * len(words)
        start = x if "left" in kinds else x - length if "end" in (text.get("style") or "") else x - length / 2
        if start < 5 or start + length > width - 5:
            found.append(words)
    return found


@pytest.mark.parametrize("file", sorted(DRAWINGS.glob("*.svg")), ids=lambda file: file.stem)
def test_a_drawing_is_legible_at_700_pixels_in_light_and_dark(file):
    drawing = ElementTree.parse(file).getroot()
    assert float(drawing.get("viewBox").split()[2]) <= 700 and drawing.get("role") == "img"
    assert all(drawing.find(f"{SVG}{part}").text for part in ("title", "desc"))
    style = drawing.find(f"{SVG}style").text
    assert min(float(size) for size in re.findall(r"([\d.]+)px", style)) >= 12
    page = next(drawing.iter(f"{SVG}rect"))  # its own ground, so that a dark page changes nothing
    assert page.get("class") == "page" and ".page { fill: #fff" in style
    assert words_outside(drawing) == []


def test_a_word_over_the_edge_is_found():
    text = f'<svg xmlns="{SVG[1:-1]}" viewBox="0 0 700 9"><text x="690" class="left">outside</text></svg>'
    assert words_outside(ElementTree.fromstring(text)) == ["outside"]


def test_every_drawing_is_shown_once_with_words_for_who_cannot_see_it():
    texts = [(ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf8") for name in NOTEBOOKS]
    cells = ["".join(cell["source"]) for text in texts for cell in json.loads(text)["cells"]]
    shown = [one for cell in cells for one in re.findall(r"!\[(.*?)\]\((.*?)\)", cell)]
    assert sorted(file for _, file in shown) == sorted(
        f"drawings/{file.name}" for file in DRAWINGS.glob("*.svg")
    )
    assert all(len(words) > 80 for words, _ in shown)


def start(out: Path, *more: str) -> subprocess.Popen:
    log = (out.parent / f"{out.name}.log").open("a")
    command = [sys.executable, "-m", "mtdpo_lib", "reproduce", "--profile", "smoke", "--out", str(out), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # other tests run beside it
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)


def kill_everything(process: subprocess.Popen) -> None:
    """SIGKILL for the command and all it started: what a power cut or an impatient scheduler does."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def said(out: Path) -> str:
    return (out.parent / f"{out.name}.log").read_text()


def trained(out: Path) -> set[Path]:
    return set((out / "stages").glob("training-*/manifest.json"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished run folders, unbroken and killed in notebook 06; and when each file that was kept was written."""
    place = tmp_path_factory.mktemp("smoke")
    unbroken, broken = place / "unbroken", place / "broken"
    assert start(unbroken).wait(LIMIT) == 0, said(unbroken)
    shutil.copytree(unbroken, broken)
    undo_notebook(broken, INTERRUPTED)
    finished = [*(broken / "stages").glob("*/manifest.json"), *(broken / "notebooks").glob("[0-9]*")]
    kept = {file: file.stat().st_mtime_ns for file in finished}

    before, deadline = trained(broken), time.monotonic() + LIMIT
    process = start(broken, "--only", INTERRUPTED)
    while trained(broken) == before:
        assert process.poll() is None, said(broken)
        assert time.monotonic() < deadline, said(broken)
        time.sleep(0.1)
    kill_everything(process)
    assert not (broken / "records" / f"{INTERRUPTED}.json").exists(), (
        "the kill came too late to test anything"
    )
    kept |= {file: file.stat().st_mtime_ns for file in trained(broken)}
    assert start(broken, "--only", INTERRUPTED).wait(LIMIT) == 0, said(broken)
    return unbroken, broken, kept


def test_every_notebook_runs_and_leaves_its_outputs(runs):
    out = runs[0]
    assert sorted(file.stem for file in (out / "notebooks").glob("*.ipynb")) == NOTEBOOKS
    assert (out / "report.html").stat().st_size > 10_000
    names = {entry["name"] for entry in json.loads((out / "report.json").read_text())}
    assert {"accuracy/test/sft", "accuracy/test/mdpo-2", "gain/test/mdpo-2", "seconds/notebooks"} <= names


def test_the_same_seed_gives_the_same_records_also_after_a_kill(runs):
    unbroken, broken = map(results_in, runs[:2])
    assert unbroken.keys() == broken.keys()
    for name, record in unbroken.items():
        assert record == broken[name], f"record {name} differs"


def test_what_was_finished_before_the_kill_is_found_again(runs):
    broken, kept = runs[1:]
    assert len([file for file in kept if file.name == "manifest.json"]) >= 5
    assert {file.stem for file in kept if file.suffix == ".ipynb"} == {*NOTEBOOKS} - {INTERRUPTED}
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())
    assert (broken / "notebooks" / f"{INTERRUPTED}.ipynb").exists()
