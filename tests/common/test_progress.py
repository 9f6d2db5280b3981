"""Progress: a line per tenth, with the time to go; silent where work is short."""

import pytest

from mtdpo_lib.common import progress as module
from mtdpo_lib.common.progress import Progress, Relay, duration


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the tests set by hand."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_each_tenth_is_said_once_with_the_time_to_go(clock):
    lines: list[str] = []
    progress = Progress("SFT", "steps", say=lines.append)
    for done in range(41):
        clock[0] = 10.0 * done
        progress(done, 40)
    assert len(lines) == 10
    assert lines[0] == "SFT: 4 of 40 steps; 40 s elapsed, about 6 min 00 s to go"
    assert lines[-1] == "SFT: 40 of 40 steps; 6 min 40 s elapsed"


def test_short_work_is_silent(clock):
    lines: list[str] = []
    progress = Progress("SFT", quiet=2.0, say=lines.append)
    for clock[0], done in ((0.5, 5), (1.9, 10)):
        progress(done, 10)
    assert lines == []


def test_a_way_that_grows_longer_is_not_said_again(clock):
    lines: list[str] = []
    progress = Progress("Notebooks", quiet=0.0, say=lines.append)
    for part in (0.05, 0.21, 0.19, 0.25, 0.31):
        progress.report(part, f"{part:.0%}")
    assert lines == ["Notebooks: 21%; 0 s elapsed", "Notebooks: 31%; 0 s elapsed"]


def test_durations_are_read_at_a_glance():
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 185)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 05 s",
    ]


def test_of_all_that_is_printed_only_the_progress_of_long_work_is_passed_on(clock):
    lines: list[str] = []
    relay = Relay(lines.append)
    progress = Progress("SFT", "steps", say=lambda line: relay.write(f"a row: of a table\n{line}\n"))
    for clock[0], done in ((50.0, 4), (100.0, 8), (500.0, 40)):
        progress(done, 40)
    relay.flush()
    assert lines == [
        "SFT: 8 of 40 steps; 1 min 40 s elapsed, about 6 min 40 s to go",
        "SFT: 40 of 40 steps; 8 min 20 s elapsed",
    ]


def test_lines_of_progress_are_known_and_nothing_else_is_taken_for_one(clock):
    lines: list[str] = []
    progress = Progress("rollouts of sft", "trajectories", say=lines.append)
    for done in (100, 1000):
        clock[0] += 50.0
        progress(done, 1000)
    text = "a result\n" + "\n".join(lines) + "\nanother: 5 s elapsed since\n"
    assert module.LINE.sub("", text) == "a result\nanother: 5 s elapsed since\n"
