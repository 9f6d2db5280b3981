"""What the pages may ask for: lessons, claims, numbers, tests and parts of other files, each read where it is kept.

Pages are templates (Jinja): ``{{ measured("difference/test/dpo-minus-mdpo") }}`` stands for a number that no one types.
"""

from __future__ import annotations

import ast
import gzip
import html
import inspect
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import REFERENCE_RUNS, ROOT
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.results import claims, figures, study_metrics
from mtdpo_lib.results.metric import Metrics, in_words

RUN = "cpu"  # the profile of the kept run whose outputs the lessons show
STUDY = next(iter(study_metrics.worlds()), RUN)  # whose study the pages show
FOLDED = {"parameters": "hide-input", "setup": "hide-input"}
DATA = "explorer.json.gz"


def project() -> dict[str, Any]:
    """The project's own description."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def repository() -> str:
    """Where the repository says that it lives, in ``pyproject.toml`` or ``CITATION.cff``; empty where it does not."""
    urls = {name.lower(): url for name, url in project().get("urls", {}).items()}
    if known := urls.get("repository") or urls.get("source"):
        return known.rstrip("/")
    cited = re.search(r"^repository-code:\s*\"?([^\"\s]+)", text("CITATION.cff"), re.MULTILINE)
    return cited[1].rstrip("/") if cited else ""


def text(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf8")


def section(name: str, heading: str) -> str:
    """What stands below a heading of a file in Markdown, up to the next one of its level."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text(name), re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"{name} has no heading {heading!r}: change the page that asks for it.")
    return without_links(found[2].strip())


def without_links(words: str) -> str:
    """Links to files of the repository as plain names: the site does not hold those files."""
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"`\1`", words)


# Lessons


@dataclass(frozen=True)
class Lesson:
    """A notebook as the path through the lessons lists it."""

    stem: str
    title: str
    question: str
    reading: str
    minutes: str


@cache
def lessons() -> list[Lesson]:
    """All lessons in order: questions of the README, reading times of their cards, run times of the kept run."""
    file, taken = REFERENCE_RUNS / RUN / "seconds.json", {}
    if file.exists():
        taken = json.loads(file.read_text(encoding="utf8"))
    questions = dict(re.findall(r"^\| `(\d\d_\w+)\.ipynb` \| (.*) \|$", text("README.md"), re.MULTILINE))
    found = []
    for stem, question in questions.items():
        card = "".join(json.loads(text(f"notebooks/{stem}.ipynb"))["cells"][0]["source"])
        reading = re.search(r"\*\*Reading time:\*\* ([^.;\n]+)", card)
        title = card.partition("\n")[0].removeprefix("# ")
        minutes = f"{taken[stem] / 60:.1f}" if stem in taken else ""
        found.append(Lesson(stem, title, question, reading[1] if reading else "", minutes))
    return found


def total_minutes() -> str:
    """Of all lessons, at the kept run's profile; empty without one."""
    known = [float(lesson.minutes) for lesson in lessons() if lesson.minutes]
    return f"{sum(known):.0f}" if known else ""


def folded(notebook: dict[str, Any]) -> dict[str, Any]:
    """A notebook whose cells of parameters and setup are folded; what answers a guess has the tag for it already."""
    for cell in notebook["cells"]:
        tags = cell["metadata"].setdefault("tags", [])
        tags += [FOLDED[tag] for tag in tags if tag in FOLDED]
    return notebook


# Results


@cache
def study() -> Metrics:
    """The kept study; empty where there is none."""
    return study_metrics.kept(STUDY) if (REFERENCE_RUNS / STUDY / "study").is_dir() else Metrics()


def measured(name: str, what: str = "") -> str:
    """A metric of the kept study in points with its interval, after a word that says of `what`; empty if not measured."""
    metric = study().named(name)
    words = in_words(metric, sign=True) if metric else ""
    return f"{what}: {words}" if words and what else words


def whose() -> str:
    """Which study the pages show, as the beginning of a sentence."""
    words = f"The study is of profile `{STUDY}`"
    if STUDY != RUN:
        words += f", another world than that of the lessons; of theirs, `{RUN}`, no study is kept yet"
    return words


@cache
def judged() -> list[claims.JudgedClaim]:
    """The claims of the paper with their verdicts, the primary ones first; empty without a study."""
    rows = claims.judge(study(), get_profile(STUDY).claims) if study() else []
    return sorted(rows, key=lambda row: row.claim.kind != "primary")


def claims_table() -> str:
    """The claims as a table in HTML, to be sorted by its reader; each has its verdict beside it and its figure below."""
    head, rows = claims.rows(judged())
    claim, *others, last = head
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in (claim, last, *others))
    body = []
    for row, cells in zip(judged(), rows, strict=True):
        first, *rest, verdict = map(html.escape, cells)
        marked = f'<span class="verdict {row.verdict.replace(" ", "-")}">{verdict}</span>'
        body.append(f'<tr id="{row.claim.name}"><td>{first}{figure_of(row)}</td><td>{marked}</td>')
        body += [*(f"<td>{cell}</td>" for cell in rest), "</tr>"]
    table = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="claims of the paper">{table}</div>'


def figure_of(row: claims.JudgedClaim) -> str:
    """The figure of a claim, folded; nothing where nothing was measured."""
    if not row.measured:
        return ""
    alt = html.escape(drawn(row).alt)
    return (
        "<details><summary>each seed</summary>"
        f'<img src="{figure_file(row)}" alt="{alt}" width="950" loading="lazy"></details>'
    )


def figure_file(row: claims.JudgedClaim) -> str:
    """Where the figure of a claim is, from the page of claims."""
    return f"_static/claims/{row.claim.name}.png"


@cache
def drawn(row: claims.JudgedClaim) -> figures.Figure:
    """The library's figure of one claim."""
    return figures.claims([row], row.claim.theme)


def rule() -> str:
    """The rule of verdicts, as the function that gives them states it."""
    return inspect.cleandoc(str(claims.verdict.__doc__)).partition("\n\nArgs:")[0]


# Tests


def test(name: str) -> str:
    """A test by its file and name, for people; refuses one that does not exist.

    Raises:
        ValueError: there is no such test.
    """
    file, _, function = name.partition("::")
    if not (ROOT / file).is_file() or function not in tests_in(ROOT / file):
        raise ValueError(f"There is no test {name}: name one that fails when the detail is missing.")
    return f"`{function}` in `{file}`"


@cache
def tests_in(file: Path) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse(file.read_text(encoding="utf8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


# The explorer


def explorer_data(file: Path | None = None) -> dict[str, Any] | None:
    """What `explorer.py` wrote to `file`, or kept of a reference run, `STUDY`'s first; None where it kept nothing."""
    files = (
        [file]
        if file
        else sorted(REFERENCE_RUNS.glob(f"*/{DATA}"), key=lambda file: file.parent.name != STUDY)
    )
    return json.loads(gzip.decompress(files[0].read_bytes())) if files else None


def names() -> dict[str, Any]:
    """What a page may use."""
    given = (
        text,
        section,
        without_links,
        lessons,
        total_minutes,
        measured,
        judged,
        claims_table,
        rule,
        test,
        repository,
    )
    return {one.__name__: one for one in given} | {
        "whose": whose,
        "caption": lambda: study_metrics.caption(study()),
        "verdict_counts": claims.verdict_counts,
    }
