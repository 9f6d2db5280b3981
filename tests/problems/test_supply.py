"""Whether there will be enough problems is told before a run starts, in one sentence that says how many there are."""

import json
import os
from pathlib import Path

import pytest

from mtdpo_lib.problems import SUITES, load_problems
from mtdpo_lib.problems.habits import supply
from mtdpo_lib.problems.supply import check_problems, fitted
from mtdpo_lib.profiles import PROFILES, get_profile

GSM8K = Path(os.environ.get("MTDPO_GSM8K_DIR") or Path(__file__).parents[2] / "../shared/data/gsm8k")
PUBLISHED = ("small", "paper")


@pytest.mark.parametrize("name", ["smoke", "cpu", "habits"])
def test_the_generated_profiles_have_enough(name):
    assert check_problems(PROFILES[name].problems, PROFILES[name].iterations) == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            "problems.test=60000",
            "has too few problems: 57,600 for problems.test=60000. Ask for no more than that.",
        ),
        (
            "iterations=1000 problems.families=1",
            "14,000 for 1000 iterations of problems.prompts_per_iteration=480. Ask for no more than that, or raise "
            "problems.families=1 (0: no limit).",
        ),
        ("problems.demonstrations=9999999", "216,000 for problems.demonstrations=9999999."),
    ],
)
def test_more_than_a_world_is_sure_to_have_is_refused_at_once(settings, sentence):
    profile = get_profile("habits", settings)
    with pytest.raises(ValueError, match="The world of habits has too few") as caught:
        check_problems(profile.problems, profile.iterations)
    assert sentence in str(caught.value)


def test_more_composed_problems_than_can_be_made_in_minutes_are_refused():
    profile = get_profile("cpu", "problems.test=200000")
    with pytest.raises(
        ValueError, match=r"The composed world has too few problems: 100,000 for problems\.test=200000"
    ):
        check_problems(profile.problems, profile.iterations)


def test_where_small_answers_are_the_cause_the_advice_is_to_allow_larger_ones():
    profile = get_profile("habits", "problems.largest_answer=1")
    with pytest.raises(
        ValueError, match=r"for problems\.demonstrations=5600, .* raise problems\.largest_answer=1 \(0"
    ):
        check_problems(profile.problems, 2)
    assert set(supply(largest_answer=1).values()) == {0}


def test_what_supply_promises_is_found():
    promised = supply(families=1, largest_answer=20)
    settings = get_profile("smoke").problems
    for split, count in promised.items():
        assert count > 150 and len(load_problems(settings, split, 30, seed=5)) == 30
    assert supply() == {
        split: 2 * 12 * 200 * share for split, share in zip(promised, (45, 35, 8, 12), strict=True)
    }
    assert all(len(families) == 12 for families in SUITES.values())


# ---- published sources


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small GSM8K without a test file, a small MATH, and an SFT set."""
    write(
        tmp_path / "train.jsonl",
        (
            {"question": f"Add 2 to {n}.", "answer": f"{n}+2=<<{n}+2={n + 2}>>{n + 2} pens\n#### {n + 2}"}
            for n in range(200)
        ),
    )
    for name, first in (("math-train", 0), ("math", 300)):
        numbers = range(first, first + 100)
        write(
            tmp_path / f"{name}.jsonl",
            (
                {"problem": f"Halve ${2 * n}$.", "type": "Algebra", "solution": f"$\\boxed{{{n}}}$"}
                for n in numbers
            ),
        )
    write(tmp_path / "sft-510k.jsonl", ({"messages": []} for _ in range(500)))
    monkeypatch.setenv("MTDPO_GSM8K_DIR", str(tmp_path))
    monkeypatch.setenv("MTDPO_BENCHMARKS_DIR", str(tmp_path))
    return tmp_path


def counts(profile):
    problems = profile.problems
    return (problems.demonstrations, problems.prompts_per_iteration, problems.development, problems.test)


def test_the_papers_bases_ask_for_the_same_problems():
    others = [name for name, profile in PROFILES.items() if profile.problems.world.startswith("gsm8k")]
    assert {*PUBLISHED} < {*others} and all(name.startswith("paper-") for name in {*others} - {*PUBLISHED})
    for name in {*others} - {"small"}:
        assert PROFILES[name].problems == PROFILES["paper"].problems
        assert PROFILES[name].iterations == PROFILES["paper"].iterations


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_profile_starts_with_what_a_small_folder_gives(name, folder):
    profile = fitted(get_profile(name))
    assert check_problems(profile.problems, profile.iterations) == "" and fitted(profile) == profile
    demonstrations, prompts, development, test = counts(profile)
    training = 200 if name == "small" else 300
    assert 0.6 * training < prompts * profile.iterations <= training and development >= 10
    assert prompts * profile.iterations + development + test <= (200 if name == "small" else 400)
    assert demonstrations == 500 if name != "small" else demonstrations >= prompts * profile.iterations
    assert {one.suite for one in load_problems(profile.problems, "preference", 2 * prompts, 0)} == (
        {"gsm8k"} if name == "small" else {"gsm8k", "math"}
    )


@pytest.mark.skipif(not (GSM8K / "test.jsonl").is_file(), reason="needs GSM8K: set MTDPO_GSM8K_DIR")
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_profile_starts_with_the_published_files(name, folder, monkeypatch):
    """7,473 and 1,319 questions, 558 of them for development; of MATH only what the small folder has."""
    monkeypatch.setenv("MTDPO_GSM8K_DIR", str(GSM8K))
    profile = fitted(get_profile(name))
    check_problems(profile.problems, profile.iterations)
    demonstrations, prompts, development, test = counts(profile)
    if name == "small":
        assert (prompts, development, test) == (1000, 300, 1319) and demonstrations > 2 * 6_915
    else:
        assert 6_915 < 3 * prompts <= 6_915 + 100 and 558 < development < 658 and test == 1_319 + 100


def test_a_count_that_the_user_sets_is_not_lowered(folder):
    profile = fitted(get_profile("small", "problems.prompts_per_iteration=999"))
    with pytest.raises(
        ValueError, match=r"GSM8K has too few problems: \d+ for 3 iterations of problems.prompts_per_it"
    ):
        check_problems(profile.problems, profile.iterations)
    assert fitted(get_profile("cpu")) == get_profile("cpu")
    (folder / "train.jsonl").unlink()  # nothing is read where nothing is left to decide
    every = (
        "problems.demonstrations=1 problems.prompts_per_iteration=1 problems.development=1 problems.test=1"
    )
    assert counts(fitted(get_profile("small", every))) == (1, 1, 1, 1)


@pytest.mark.parametrize("missing", ["math-train", "math", "sft-510k"])
def test_a_missing_source_is_named(missing, folder):
    (folder / f"{missing}.jsonl").unlink()
    with pytest.raises(ValueError, match=rf"The set {missing} is not in .*: put {missing}.jsonl there"):
        fitted(get_profile("paper"))
