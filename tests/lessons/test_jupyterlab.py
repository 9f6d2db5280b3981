"""Lessons as readers run them, at `smoke` on a copy of the repository: by plain papermill, and in JupyterLab (Chromium)."""

import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from support import copy_repository

LESSONS = ("00_start_here", "05_preference_pairs")
NEEDED = ("02_sft", "04_rollouts_and_answers")  # what they made, lesson 05 uses
LIMIT = 7200  # seconds for each, on cores that others use, too; on free ones half a minute
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = secrets.token_hex()
LAB = [
    "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0",
    f"--IdentityProvider.token={TOKEN}", f"--MappingKernelManager.kernel_info_timeout={LIMIT}",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
]  # fmt: skip

# All cells stand on the page, not only those that are scrolled to; and no question about news.
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
}

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or any(importlib.util.find_spec(name) is None for name in ("playwright", "jupyterlab")),
    reason="no Chromium on PATH, no Playwright or no JupyterLab: install Chromium and run `make site-test`",
)


def faults(notebook: dict) -> list[str]:
    """What went wrong in an executed notebook: code that was not run, and outputs that are errors."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    found = [f"not executed: {''.join(cell['source'])}" for cell in code if not cell["execution_count"]]
    outputs = [output for cell in code for output in cell["outputs"]]
    return found + [output["ename"] for output in outputs if output["output_type"] == "error"]


def environment(place: Path) -> dict[str, str]:
    """For processes that see the copy's library, with everything of Jupyter in a folder of its own."""
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(place / "own" / name) for name in folders}
    return os.environ | own | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}


def papermill(place: Path, name: str) -> dict:
    """The notebook as papermill's own command runs it, without a word of the project's runner."""
    given = ["--no-progress-bar", "--start-timeout", str(LIMIT), "-p", "profile", "smoke"]
    given += [f"notebooks/{name}.ipynb", f"{name}.ipynb"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *given],
        cwd=place, env=environment(place), capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((place / f"{name}.ipynb").read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the repository in which the lessons that others need have been run."""
    place = copy_repository(tmp_path_factory.mktemp("repository"))
    for name in NEEDED:
        assert faults(papermill(place, name)) == []
    return place


@pytest.mark.parametrize("name", LESSONS)
def test_plain_papermill_runs_a_lesson(place, name):
    assert faults(papermill(place, name)) == []
    assert (place / "runs" / "smoke-seed0" / "records" / f"{name}.json").exists()


@pytest.fixture(scope="module")
def lab(place):
    """The address of a JupyterLab on loopback that shows the copy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Path(environment(place)["JUPYTER_CONFIG_DIR"], "labconfig")
    settings.mkdir(parents=True)
    (settings / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
    command = [sys.executable, "-m", "jupyterlab", *LAB, f"--ServerApp.port={port}"]
    with (place / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=place, env=environment(place), stdout=log, stderr=log)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + LIMIT
    while True:
        try:
            urlopen(f"{address}/api/status?token={TOKEN}").close()
            break
        except URLError:
            assert server.poll() is None and time.monotonic() < deadline, (place / "lab.log").read_text()
            time.sleep(0.5)
    yield address
    server.terminate()  # its kernels with it
    server.wait(60)


@pytest.fixture
def page(lab):
    """A page of Chromium, which asks no other host."""
    from playwright.sync_api import sync_playwright

    strange = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(1000 * LIMIT)
        local = re.compile(rf"(data|blob):|(http|ws)://{lab.partition('//')[2]}/")
        page.on("request", lambda asked: strange.append(asked.url) if not local.match(asked.url) else None)
        yield page
        browser.close()
    assert not strange


DONE = """() => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(one => one.innerText)
    const idle = document.querySelector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    return idle && prompts.some(one => /[0-9]/.test(one)) && !prompts.some(one => one.includes("*"))
}"""


def kernel_is_idle(lab: str) -> bool:
    """Whether the kernel that a page is connected with waits for code."""
    with urlopen(f"{lab}/api/kernels?token={TOKEN}") as answer:
        states = [one["execution_state"] for one in json.load(answer) if one["connections"]]
    return states == ["idle"]


def run_in_lab(page, lab: str, place: Path, name: str) -> dict:
    """The notebook after "Run All Cells", as JupyterLab saves it; the page goes on showing it."""
    file = place / "notebooks" / f"{name}.ipynb"
    page.goto(f"{lab}/lab/workspaces/{name}/tree/notebooks/{file.name}?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    while not kernel_is_idle(lab):
        page.wait_for_timeout(500)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(DONE, polling=500)
    with page.expect_request(lambda asked: asked.method == "PUT") as saving:
        page.keyboard.press("Control+s")
    assert saving.value.response().ok
    return json.loads(file.read_text(encoding="utf8"))


def open_at_smoke(place: Path, name: str) -> None:
    """Take all outputs out of a notebook of the copy, and let it declare the profile `smoke`."""
    file = place / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = cell.source.replace('profile: str = "cpu"', 'profile: str = "smoke"')
    nbformat.write(notebook, file)


@needs_browser
@pytest.mark.parametrize("name", LESSONS)
def test_jupyterlab_runs_a_lesson_and_shows_its_outputs(place, lab, page, name):
    open_at_smoke(place, name)
    notebook = run_in_lab(page, lab, place, name)
    assert faults(notebook) == []
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    drawn = sum("image/png" in output.get("data", {}) for output in outputs)
    figures = page.locator(".jp-OutputArea-output img")
    assert drawn and figures.count() == drawn
    assert all(figures.evaluate_all("all => all.map(one => one.complete && one.naturalWidth > 200)"))
    viewer = page.locator(".jp-OutputArea-output pre", has_text=re.compile(r"\[assistant \d+"))
    viewer.first.scroll_into_view_if_needed()
    assert viewer.first.is_visible() and viewer.locator("ins").count()


@needs_browser
def test_a_broken_cell_is_noticed_in_jupyterlab(place, lab, page):
    cells = [nbformat.v4.new_code_cell(source) for source in ("1 + 1", "1 / 0", "print('never')")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), place / "notebooks" / "broken.ipynb"
    )
    notebook = run_in_lab(page, lab, place, "broken")
    assert faults(notebook) == ["not executed: print('never')", "ZeroDivisionError"]
