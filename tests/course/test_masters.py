"""The exercises: a solution passes its tests, no planted wrong answer does, and what is said names its mistake."""

import re
from itertools import combinations

import nbformat
import pages
import pytest
from masters import EXERCISES, MASTERS, Master, WrongAnswer, read_master, wrong_answers

from mtdpo_lib.common.files import NOTEBOOKS, write_json
from mtdpo_lib.results import Metric, claims

ANSWERS = [(number, answer) for number in MASTERS for answer in wrong_answers(number)]


@pytest.fixture(scope="module")
def read():
    """A master by its number and variant, read once."""
    kept: dict[tuple[str, str], Master] = {}

    def get(number: str, variant: str = "2026a") -> Master:
        if (number, variant) not in kept:
            kept[number, variant] = read_master(MASTERS[number], variant)
        return kept[number, variant]

    return get


def checked(master: Master) -> list[str]:
    return [task.name for task in master.tasks.values() if not task.written]


@pytest.mark.parametrize("variant", ["2026a", "2026b", "2027x"])
@pytest.mark.parametrize("number", MASTERS)
def test_the_solutions_pass_in_every_variant(read, number, variant):
    master = read(number, variant)
    space = master.variables()
    assert {name: said for name in checked(master) if (said := master.failures(name, space))} == {}


@pytest.mark.parametrize("number", MASTERS)
def test_the_solutions_of_another_variant_do_not_pass(read, number):
    space = read(number, "2026b").variables()
    assert any(read(number).failures(name, space) for name in checked(read(number)))


@pytest.mark.parametrize("number", MASTERS)
def test_what_is_handed_out_passes_no_test(read, number):
    master = read(number)
    space = master.variables({name: master.tasks[name].stub for name in checked(master)})
    for name in checked(master):
        assert len(master.failures(name, space)) == len(master.tasks[name].tests), name


@pytest.mark.parametrize(("number", "answer"), ANSWERS, ids=[f"{n}-{answer.name}" for n, answer in ANSWERS])
def test_a_planted_wrong_answer_fails_and_is_told_its_mistake(read, number, answer):
    """It says in one line which case, what was expected, what came, the likely mistake, and where to read."""
    said = read(number).failures(answer.task, read(number).variables({answer.task: answer.code}))
    assert said, "full marks for a wrong answer"
    told = [one for one in said if answer.must_say in one]
    assert told, said
    assert re.fullmatch(
        r"AssertionError: .+(: expected .+, got | should ).+ Read notebook \d\d, .+\.", told[0]
    )
    assert answer.mistake or "This is what comes out when" in told[0], (
        "needs a line `# mistake: ` for teachers"
    )


@pytest.mark.parametrize("variant", ["2026b", "2027x"])
@pytest.mark.parametrize("number", MASTERS)
def test_no_planted_wrong_answer_gets_full_marks_in_another_variant(read, number, variant):
    """A term's numbers may happen to be those of a mistake: where that is not rare, draw them otherwise."""
    master = read(number, variant)
    for answer in wrong_answers(number):
        assert master.failures(answer.task, master.variables({answer.task: answer.code})), answer.name


def test_common_mistakes_hold_each_planted_answer_but_one_that_a_terms_numbers_hide(read, monkeypatch):
    assert pages.mistakes("2026b").count("<summary>") == len(ANSWERS)
    hidden = WrongAnswer(
        "log_ratio-right", "log_ratio", "no words", read("00").tasks["log_ratio"].solution, ""
    )
    monkeypatch.setattr(pages, "wrong_answers", lambda number: [hidden] if number == "00" else [])
    assert "<summary>" not in pages.mistakes("2026b")


@pytest.mark.parametrize("number", MASTERS)
def test_every_task_has_its_share_of_tests_and_of_planted_wrong_answers(read, number):
    master = read(number)
    assert len(checked(master)) >= 2 and any(task.written for task in master.tasks.values())
    for name in checked(master):
        planted = [answer for of, answer in ANSWERS if (of, answer.task) == (number, name)]
        assert len(planted) >= 3 and len(master.tasks[name].tests) >= 2, name


def test_the_rule_for_a_verdict_is_the_librarys(read):
    rule, margin = read("09").variables()["verdict"], claims.MARGIN["fraction"]
    for low, high in combinations((one * margin for one in (-3, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 3)), 2):
        measured = Metric("gain", (low + high) / 2, low, high)
        assert rule(low, high, margin) == claims.verdict(measured), (low, high)


@pytest.mark.parametrize("number", MASTERS)
def test_points_and_minutes_add_up_as_stated(read, number):
    text = MASTERS[number].read_text(encoding="utf8")
    tasks = read(number).tasks.values()
    points, minutes = sum(task.points for task in tasks), sum(task.minutes for task in tasks)
    assert f"**Points:** {points}. **Time:** about {minutes} minutes." in text
    stated = re.findall(r"\*(?:Difficulty \d|Written), (\d+) minutes, (\d+) points\.\*", text)
    assert stated == [(str(task.minutes), str(task.points)) for task in tasks]


@pytest.mark.parametrize("number", MASTERS)
def test_a_written_task_has_a_rubric_of_four_levels(read, number):
    for task in read(number).tasks.values():
        levels = [int(level) for level in re.findall(r"(?m)^- \*\*(\d+) points?:\*\* \S", task.solution)]
        expected = 4 if task.written else 0
        assert len(levels) == expected and levels == sorted(set(levels), reverse=True), task.name
        assert not task.written or (levels[0], levels[-1]) == (task.points, 0), task.name


def has_section(lesson: str, section: str) -> bool:
    """Sections are named by number, and a lesson may be changed by somebody who never looks here."""
    (file,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    return bool(re.search(rf"## {section}\. ", file.read_text(encoding="utf8")))


@pytest.mark.parametrize("number", MASTERS)
def test_what_feedback_sends_students_to_is_there(number):
    text = MASTERS[number].read_text(encoding="utf8")
    named = set(re.findall(r"notebook (\d\d), section (\d+)", text))
    assert named
    assert [place for place in sorted(named) if not has_section(*place)] == []


def test_the_sections_that_the_plans_name_are_there():
    text = (EXERCISES / "instructor" / "PLANS.md").read_text(encoding="utf8")
    named = re.findall(r"(\d\d), sections? (\d+(?:(?:, | and | to )\d\b)*)", text)
    places = [(lesson, section) for lesson, sections in named for section in re.findall(r"\d+", sections)]
    assert len(places) > 20 and [place for place in places if not has_section(*place)] == []


def test_the_quiz_has_thirty_questions_with_folded_answers():
    text = (EXERCISES / "instructor" / "QUIZ.md").read_text(encoding="utf8")
    found = re.findall(r"<details><summary>(\d+)\. \S.*?</summary>\S.*?</details>", text)
    assert found == [str(number) for number in range(1, 31)]


def test_plans_fill_their_time_and_leave_students_enough_for_their_tasks(read):
    text = (EXERCISES / "instructor" / "PLANS.md").read_text(encoding="utf8")
    two_hours, half_day = (text.partition(f"## {name}")[2].partition("\n## ")[0] for name in ("Two", "Half"))
    for plan, total in ((two_hours, 120), (half_day, 240)):
        rows = re.findall(r"(?m)^\| (\d+) \|(.+)$", plan)
        assert sum(int(minutes) for minutes, _ in rows) == total
        for minutes, what in rows:
            tasks = [
                int(one)
                for part in re.findall(r"tasks? (\d(?: and \d)?)", what)
                for one in part.split(" and ")
            ]
            if tasks:
                (number,) = re.findall(r"exercises (\d\d)", what)
                needed = [task.minutes for task in read(number).tasks.values()]
                assert sum(needed[task - 1] for task in tasks) <= int(minutes), what


def test_plans_state_the_kept_runs_minutes_and_say_where_nothing_is_kept(tmp_path):
    text = (EXERCISES / "instructor" / "PLANS.md").read_text(encoding="utf8")
    nothing = pages.planned(text, tmp_path / "none")
    assert "not measured: nothing is kept of profile `none`" in nothing
    assert nothing.count("| not measured |") == len(MASTERS) + 1
    write_json(tmp_path / "seconds.json", {"02_sft": 120.0})
    kept = pages.planned(text, tmp_path)
    assert "2 minutes as measured" in kept and kept.count("| not measured |") == len(MASTERS) - 1
    assert kept.count("| 2.0 |") == 1 and "{" not in nothing + kept


def test_slides_say_where_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("mtdpo_lib.common.files.REFERENCE_RUNS", tmp_path)
    space, shown = {}, []
    for cell in nbformat.read(EXERCISES / "instructor" / "SLIDES.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
            last = cell.source.splitlines()[-1]
            shown += [eval(last, space).data] if last.startswith("drawn") else []
    assert shown == [space["NOTHING"]] * 6 and space["lines"][0] not in space["shown"]


def test_slides_are_ten_and_hold_no_typed_result():
    notebook = nbformat.read(EXERCISES / "instructor" / "SLIDES.ipynb", 4)
    kinds = [cell.metadata.slideshow.slide_type for cell in notebook.cells]
    assert kinds.count("slide") == 10
    for cell in notebook.cells:
        assert not cell.get("outputs"), "`make course` executes them"
        assert not re.search(r"\d\.\d|\d ?%|per cent", cell.source.replace("2409.02392", "")), cell.source
