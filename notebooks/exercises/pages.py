"""Pages of the instructor's pack that code makes: common mistakes, minutes in the plans, slides for a browser."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import nbformat
from masters import MASTERS, Master, WrongAnswer, read_master, wrong_answers

from mtdpo_lib.common.files import NOTEBOOKS, REFERENCE_RUNS, read_json
from mtdpo_lib.results import markdown_table

MEASURED = REFERENCE_RUNS / "cpu"  # the run whose times the plans state
SLIDES_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
html {{ scroll-snap-type: y mandatory; font: 22px/1.4 sans-serif }}
body {{ margin: 0 }}
section {{ box-sizing: border-box; min-height: 100vh; padding: 4vh 8vw; scroll-snap-align: start; break-after: page }}
img {{ width: 100%; height: 64vh; object-fit: contain; object-position: left top }}
table {{ border-collapse: collapse }}
td, th {{ border-bottom: 1px solid #ccc; padding: .2em .6em; text-align: left }}
pre {{ white-space: pre-wrap; font-size: .7em }}
.anchor-link {{ display: none }}
</style>
{slides}
</html>
"""


def write(pack: Path, variant: str) -> None:
    """Write the pages into the instructor's pack, whose slides have been executed."""
    plans = pack / "PLANS.md"
    plans.write_text(planned(plans.read_text(encoding="utf8")), encoding="utf8")
    (pack / "MISTAKES.md").write_text(mistakes(variant), encoding="utf8")
    (pack / "SLIDES.html").write_text(slides(pack / "SLIDES.ipynb"), encoding="utf8")


def mistakes(variant: str) -> str:
    """What students write, what they are told, and where they should read: from the planted wrong answers."""
    parts = [
        "# Common mistakes",
        "What students write, and what the check or the page of feedback tells them with this term's numbers. Each of these "
        "answers was graded when this page was made, and loses points.",
    ]
    for number, file in MASTERS.items():
        master = read_master(file, variant)
        parts.append(f"## {master.title}")
        answers = list(wrong_answers(number))
        for name, task in master.tasks.items():
            found = [
                entry(answer, told)
                for answer in answers
                if answer.task == name and (told := feedback(master, answer))
            ]
            parts += [f"### {task.title} (`{name}`)", *found] if found else []
    return "\n\n".join(parts) + "\n"


def feedback(master: Master, answer: WrongAnswer) -> str:
    """What the first check that names the mistake says about a wrong answer; empty where this term's numbers hide it."""
    with redirect_stdout(StringIO()):
        said = master.failures(answer.task, master.variables({answer.task: answer.code}))
    told = [one for one in said if answer.must_say in one] or [*said, ""]
    return told[0].removeprefix("AssertionError: ")


def entry(answer: WrongAnswer, told: str) -> str:
    """One wrong answer: the mistake in a sentence, the feedback, and the code."""
    named = re.search(r"This is what comes out when (.+?)\. Read", told)
    mistake = named[1] if named else answer.mistake or answer.must_say
    return (
        f"**{mistake[0].upper()}{mistake[1:]}.**\n\n> {told}\n\n"
        f"<details><summary>Such an answer</summary>\n\n```python\n{answer.code.strip()}\n```\n\n</details>"
    )


def planned(text: str, kept: Path = MEASURED) -> str:
    """Plans with their minutes: ``{times}``, ``{run}`` and ``{hours 00 to 03}`` filled from records, cards and masters.

    Args:
        text: the plans.
        kept: the run whose times are stated; where nothing is kept of it, that is said in their place.
    """
    masters = {number: read_master(file) for number, file in MASTERS.items()}
    minutes = {number: sum(task.minutes for task in one.tasks.values()) for number, one in masters.items()}
    file = kept / "seconds.json"
    seconds = {name[:2]: took for name, took in (read_json(file) if file.is_file() else {}).items()}
    rows = []
    for number, master in masters.items():
        (lesson,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
        card = nbformat.read(lesson, 4).cells[0].source
        (reading,) = re.findall(r"\*\*Reading time:\*\* (?:about )?(\d+) minutes", card)
        points = [sum(t.points for t in master.tasks.values() if t.written == kind) for kind in (False, True)]
        ran = f"{seconds[number] / 60:.1f}" if number in seconds else "not measured"
        rows.append([lesson.stem, reading, ran, str(minutes[number]), *map(str, points)])
    numbers = ([cell for cell in column if cell[0].isdigit()] for column in list(zip(*rows, strict=True))[1:])
    rows.append(["all", *(f"{sum(map(float, own)):g}" if own else "not measured" for own in numbers)])
    head = [
        "lesson",
        "reading, minutes",
        "running, minutes",
        "its exercise, minutes",
        "points by tests",
        "written points",
    ]

    def hours(found: re.Match[str]) -> str:
        total = sum(took for number, took in minutes.items() if found[1] <= number <= found[2])
        return f"{total / 60:.1f} hours"

    run = f"{sum(seconds.values()) / 60:.0f} minutes as measured on two cores"
    missing = f"not measured: nothing is kept of profile `{kept.name}`"
    text = re.sub(r"\{hours (\d\d) to (\d\d)\}", hours, text)
    return text.replace("{run}", run if seconds else missing).replace("{times}", markdown_table(head, rows))


def slides(file: Path) -> str:
    """An executed notebook's slides as one page for any browser: a screen and a sheet of paper each, nothing fetched."""
    from nbconvert import HTMLExporter

    notebook, screens = nbformat.read(file, 4), []
    for cell in notebook.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind == "slide":
            screens.append([])
        if kind != "skip":
            screens[-1].append(cell)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    bodies = [exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))[0] for cells in screens]
    title = screens[0][0].source.partition("\n")[0].removeprefix("# ")
    return SLIDES_PAGE.format(title=title, slides="\n".join(f"<section>{body}</section>" for body in bodies))
