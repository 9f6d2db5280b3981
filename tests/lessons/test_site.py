"""The site: what its pages are made from, and the built site as Chromium sees it (`make site-test`)."""

import ast
import functools
import gzip
import http.server
import importlib.util
import json
import re
import resource
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from mtdpo_lib.common.files import REFERENCE_RUNS, ROOT
from mtdpo_lib.pairs import make_pairs
from mtdpo_lib.profiles.sections import PairSettings
from mtdpo_lib.rollout import Trajectory, Turn

SITE = ROOT / "notebooks" / "site"
sys.path.append(str(SITE))

import contents  # noqa: E402
import explorer  # noqa: E402

HOSTILE = "<script>window.acted = true</script><img src=x onerror='window.acted = true'>"
LARGEST, SLOWEST = 25 * 2**20, 60.0  # bytes, seconds of computing
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def lacking(*modules: str) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


needs_sphinx = pytest.mark.skipif(
    bool(lacking("sphinx", "myst_nb")), reason="no Sphinx here: `make site-test` brings it"
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or bool(lacking("playwright", "axe_playwright_python")),
    reason="no Chromium on PATH, or no Playwright: install Chromium and run `make site-test`",
)


# What pages are made from


def test_every_named_test_exists_and_a_wrong_name_is_noticed():
    named = re.findall(r'"(tests/[\w/]+\.py::\w+)"', (SITE / "details.md").read_text())
    assert len(named) > 20 and len(named) == len(set(named))
    for name in named:
        assert contents.test(name)
    for wrong in ("tests/test_pairs.py::test_that_never_was", "tests/test_nothing.py::test_one"):
        with pytest.raises(ValueError, match="There is no test"):
            contents.test(wrong)


def test_the_metrics_of_the_details_are_those_of_arms():
    from mtdpo_lib.experiment.arms import ARMS

    named = re.findall(r'"(difference/test/([\w-]+)-minus-([\w-]+))"', (SITE / "details.md").read_text())
    assert len(named) > 5
    for _, arm, against in named:
        assert ARMS[arm].against == against, f"{arm} is compared with {ARMS[arm].against}"


def test_a_metric_that_was_not_measured_leaves_its_cell_empty():
    assert contents.measured("difference/test/never-minus-measured", "one minus other") == ""


def test_no_page_script_or_style_asks_another_host():
    """Links are only followed by readers; what a page loads by itself is what matters."""
    loads = re.compile(
        r"""(?:src|srcset|poster|data)\s*=\s*["']?(?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import|fetch\(|import\("""
    )
    files = [file for file in SITE.rglob("*") if file.suffix in (".md", ".js", ".css", ".svg", ".html")]
    assert (
        len(files) > 8 and loads.search('<img src="https://a.b/c.png">') and loads.search("url(//a.b/c.woff)")
    )
    for file in files:
        assert not loads.search(file.read_text(encoding="utf8")), file.name


def test_every_lesson_has_a_line_on_the_path():
    lessons = contents.lessons()
    assert [lesson.stem for lesson in lessons] == [
        file.stem for file in sorted((ROOT / "notebooks").glob("*.ipynb"))
    ]
    assert all(re.search(r"\d+ minutes?", lesson.reading) and lesson.question for lesson in lessons)
    taken = REFERENCE_RUNS / contents.RUN / "seconds.json"  # of the run whose outputs the lessons show
    assert all(lesson.minutes for lesson in lessons) == taken.exists()


def test_setup_is_folded_and_the_answer_to_a_guess_stays_so():
    cells = [{"metadata": {"tags": [tag]}} for tag in ("parameters", "setup", "predict", "hide-output")]
    found = [
        made["metadata"]["tags"] for made in contents.folded({"cells": [*cells, {"metadata": {}}]})["cells"]
    ]
    assert found == [["parameters", "hide-input"], ["setup", "hide-input"], ["predict"], ["hide-output"], []]


def test_the_repository_is_where_the_project_says(monkeypatch):
    monkeypatch.setattr(contents, "project", lambda: {"urls": {"Repository": "https://example.org/one/"}})
    assert contents.repository() == "https://example.org/one"
    monkeypatch.setattr(contents, "project", lambda: {})
    monkeypatch.setattr(
        contents, "text", lambda name: 'title: "a"\nrepository-code: "https://example.org/two"\n'
    )
    assert contents.repository() == "https://example.org/two"
    monkeypatch.setattr(contents, "text", lambda name: 'title: "a"\n')
    assert contents.repository() == ""


def test_what_the_site_installs_has_reasons():
    for name in ("requirements.txt", "requirements-test.txt"):
        for line in (SITE / name).read_text().splitlines():
            assert line.startswith("#") or re.fullmatch(r"[\w-]+==[\w.]+  # \S.*", line), line


# The explorer's data


@pytest.fixture(scope="module")
def sampled():
    """Three prompts: one with a pair and a dropped winner, one all right, one all wrong."""

    def one(problem, sample, correct, error=None):
        turns = [Turn("Try.", "print(x)", "1", error=error), Turn("It is 1.")]
        roles = [0, 0, 1, 1, 3, 2, 2, 3, 1]
        return Trajectory(
            problem, "s", "q", "1", "sft", sample, list(range(9)), roles, turns, "1", correct, "answer"
        )

    return [
        one("a", 0, True), one("a", 1, False), one("a", 2, True, "NameError"), one("b", 0, True), one("b", 1, True),
        one("c", 0, False),
    ]  # fmt: skip


def test_every_trajectory_has_one_fate(sampled):
    settings = PairSettings()
    pairs, report = make_pairs(sampled, settings, seed=0)
    fate = explorer.fates(sampled, [(pair.chosen, pair.rejected) for pair in pairs], settings)
    assert report.pairs == 1
    assert [fate[explorer.key(one)] for one in sampled] == [
        "chosen", "rejected", "right, but the last tool output is an error", *["in no pair"] * 3,
    ]  # fmt: skip


def test_prompts_of_every_kind_are_shown(sampled):
    settings = PairSettings()
    fate = explorer.fates(sampled, [], settings)
    assert explorer.some_prompts(sampled, fate, 2) == ["a", "b"]
    assert explorer.some_prompts(sampled, fate, 9) == ["a", "b", "c"]


def test_segments_say_who_wrote_how_many_tokens(sampled):
    tokenizer = SimpleNamespace(
        decode=lambda ids, skip_special_tokens: "".join(f"<{number}>" for number in ids)
    )
    assert explorer.segments(sampled[0], tokenizer) == [
        ("prompt", 2, "<0><1>"), ("assistant", 2, "<2><3>"), ("template", 1, "<4>"), ("tool", 2, "<5><6>"),
        ("template", 1, "<7>"), ("assistant", 1, "<8>"),
    ]  # fmt: skip


def test_the_same_data_give_the_same_bytes_and_too_many_are_refused(tmp_path, monkeypatch):
    one, other = tmp_path / "one.json.gz", tmp_path / "other.json.gz"
    assert explorer.save({"a": "é"}, one) == explorer.save({"a": "é"}, other) == len(one.read_bytes())
    assert one.read_bytes() == other.read_bytes() and contents.explorer_data(one) == {"a": "é"}
    monkeypatch.setattr(explorer, "LIMIT", 10)
    with pytest.raises(ValueError, match="--prompts"):
        explorer.save({"a": "é"}, other)


def test_kept_data_are_small_and_of_the_kept_run():
    for file in REFERENCE_RUNS.glob(f"*/{explorer.FILE}"):
        data = json.loads(gzip.decompress(file.read_bytes()))
        assert file.stat().st_size <= explorer.LIMIT and data["profile"] != "smoke"


def test_text_of_a_model_never_becomes_html():
    """The script sets text, and no property that is parsed; that nothing acts is seen in the browser below."""
    script = (SITE / "static" / "explorer.js").read_text(encoding="utf8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(", script)


# The reference of the library


@needs_sphinx
def test_the_reference_is_read_without_importing_the_library():
    code = (
        f"import sys; sys.path.insert(0, {str(SITE)!r}); import api; text = ''.join(map(api.page, api.rooms()));"
        "assert not {'torch', 'mtdpo_lib'} & set(sys.modules); print(text)"
    )
    text = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    tree = ast.parse((ROOT / "mtdpo_lib/train/__init__.py").read_text())
    shown = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert all(re.search(rf":: {name}\b", text) for name in shown)


# The built site


def planted() -> dict:
    """Data of the explorer's form, with text that would act if it were HTML."""

    def row(policy, iteration, correct, fate="", sample=0):
        facts = {
            "policy": policy,
            "iteration": iteration,
            "correct": correct,
            "sample": sample,
            "answer": HOSTILE,
        }
        counts = {"stop": "answer", "tool_calls": 1, "tool_errors": 0, "problem_id": "p"}
        return facts | counts | ({"fate": fate, "raft": correct} if fate else {}) | {
            "segments": [["prompt", 3, HOSTILE], ["assistant", 5, f"I say {HOSTILE}"], ["tool", 2, HOSTILE],
                         ["assistant", 4, "So it is 4."]],
        }  # fmt: skip

    report = {
        "trajectories": {"right": 1, "wrong": 1},
        "pairs": 1,
        "prompts": {"paired": 1},
        "dropped_trajectories": {},
    }
    return {
        "profile": "planted", "seed": 0, "settings": "", "scored": ["assistant"], "policies": ["sft", "mdpo-1"],
        "reports": {"1": report}, "problems": {"p": [f"What? {HOSTILE}", "4", "s"]},
        "trajectories": [row("sft", 1, True, "chosen"), row("sft", 1, False, "rejected", 1)],
        "answers": [row("sft", 0, False), row("mdpo-1", 1, True)],
    }  # fmt: skip


def computing_seconds() -> float:
    """Of all processes that were started and have ended: what a build takes on a machine that does nothing else."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make site` builds it, with planted data and a repository: its folder, computing time, Sphinx's words."""
    folder = tmp_path_factory.mktemp("built")
    explorer.save(planted(), folder / explorer.FILE)
    command = [sys.executable, SITE / "build.py", folder / "site", "--explorer", folder / explorer.FILE]
    environment = {
        "MTDPO_REPOSITORY": "https://github.com/owner/mtdpo",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
    }
    before = computing_seconds()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(path=folder / "site", seconds=computing_seconds() - before, said=done.stderr)


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served, on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens a page by name; afterwards: no request left this host, and nothing complained on the console."""
    context, strange, complaints = browser.new_context(viewport={"width": 1280, "height": 900}), [], []
    page = context.new_page()
    page.on(
        "request",
        lambda asked: strange.append(asked.url) if not asked.url.startswith((address, "data:")) else None,
    )
    page.on(
        "console",
        lambda said: complaints.append((said.text, said.location)) if said.type == "error" else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def open_page(name, width=1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{address}/{name}", wait_until="networkidle")
        return page

    yield open_page
    context.close()
    assert not strange and not complaints


def names(site) -> list[str]:
    """All pages; `_static` also holds templates of the theme."""
    found = (file.relative_to(site.path).as_posix() for file in site.path.rglob("*.html"))
    return sorted(name for name in found if not name.startswith("_static"))


@pytest.mark.slow
@needs_sphinx
def test_the_site_is_complete_small_and_quickly_built(site):
    found = set(names(site))
    wanted = {
        "index",
        "path",
        "claims",
        "explorer",
        "details",
        "glossary",
        "coursework",
        "api/train",
    }
    assert {f"{name}.html" for name in wanted | {lesson.stem for lesson in contents.lessons()}} <= found
    assert sum(file.stat().st_size for file in site.path.rglob("*") if file.is_file()) < LARGEST
    assert "WARNING" not in site.said and "ERROR" not in site.said, site.said
    assert site.seconds < SLOWEST


@pytest.mark.slow
@needs_sphinx
def test_lessons_are_as_committed_folded_and_can_be_launched(site):
    for lesson in contents.lessons():
        given = site.path / "_sources" / f"{lesson.stem}.ipynb"
        assert given.read_bytes() == (ROOT / "notebooks" / given.name).read_bytes()
        page = (site.path / f"{lesson.stem}.html").read_text()
        assert f"github/owner/mtdpo/blob/main/notebooks/{given.name}" in page
        assert "mybinder.org" in page and page.count("hide-input") >= 2


@pytest.mark.slow
@needs_sphinx
def test_claims_stand_with_figures_and_details_with_tests(site):
    claims, details = ((site.path / f"{name}.html").read_text() for name in ("claims", "details"))
    for row in contents.judged():
        assert f'id="{row.claim.name}"' in claims
        assert (site.path / contents.figure_file(row)).exists() == bool(row.measured)
    assert "test_the_mask_is_one_exactly_where_the_policy_writes" in details


@pytest.mark.slow
@needs_sphinx
@needs_browser
def test_no_page_asks_another_host_complains_or_is_wider_than_a_phone(site, opened):
    for name in names(site):
        page = opened(name, width=390)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than a phone"


@pytest.mark.slow
@needs_sphinx
@needs_browser
def test_formulae_are_rendered(opened):
    page = opened("06_multi_turn_dpo.html")
    page.wait_for_selector("mjx-container")
    assert page.locator("mjx-container").count() > 10 and not page.locator("mjx-merror").count()
    assert not page.locator(".math:not(:has(mjx-container))").count()


@pytest.mark.slow
@needs_sphinx
@needs_browser
def test_the_explorer_works_by_keyboard_and_text_stays_text(opened):
    page = opened("explorer.html")
    page.focus("#explorer select")
    assert page.locator("#explorer article ins").count() == 2
    page.focus("#explorer .list button")
    page.keyboard.press("ArrowDown")
    assert "wrong" in page.inner_text("#explorer article h3")
    page.focus("#explorer input[type=checkbox]")
    page.keyboard.press("Space")
    assert not page.locator("#explorer article ins").count()
    page.keyboard.press("Space")
    page.focus("#explorer select")
    for shown, sides in (("p", 2), ("answers", 2)):
        page.keyboard.type(shown)
        assert page.locator("#explorer article").count() == sides, shown
    assert HOSTILE in page.inner_text("#explorer .text") and HOSTILE in page.inner_text("#explorer .list")
    assert page.evaluate("window.acted") is None
    assert not page.locator("#explorer img, #explorer script").count()


@pytest.mark.slow
@needs_sphinx
@needs_browser
def test_claims_are_sorted_by_keyboard(opened):
    if not contents.judged():
        pytest.skip("no study is kept")
    page = opened("claims.html")
    column = (
        "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[1].innerText.trim())"
    )
    page.locator("table.sortable th button").nth(1).focus()
    page.keyboard.press("Enter")
    upwards = page.evaluate(column)
    assert upwards == sorted(upwards) and page.locator("th[aria-sort=ascending]").count() == 1
    page.keyboard.press("Enter")
    assert page.evaluate(column) == sorted(upwards, reverse=True)


@pytest.mark.slow
@needs_sphinx
@needs_browser
@pytest.mark.parametrize(
    "name", ["index", "path", "claims", "explorer", "details", "glossary", "05_preference_pairs", "api/train"]
)
def test_no_serious_obstacle_for_people_with_disabilities(opened, name):
    from axe_playwright_python.sync_playwright import Axe

    # Its own loading of style sheets would look for their imports in the wrong folder.
    found = Axe().run(opened(f"{name}.html"), options={"preload": False}).response["violations"]
    serious = [
        (one["id"], len(one["nodes"]), one["nodes"][0]["html"][:150])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not serious, serious
