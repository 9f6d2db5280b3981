"""The projected time, replayed on the timings of every kept run."""

from statistics import median

import pytest

from mtdpo_lib.common.files import REFERENCE_RUNS, write_json
from mtdpo_lib.lessons.projection import Projection, kept_seconds

HABITS, REDUCED = kept_seconds("habits"), kept_seconds("small", "reduced")
FIRST_MINUTE = 60.0


def replay(kept: list[dict[str, float]], usual: dict[str, float], slow: str = "") -> list[float]:
    """What a run would say: projected total over true total, at each tenth of the way after the first minute.

    Args:
        kept: runs that the projection knows.
        usual: seconds of each notebook in this run.
        slow: a notebook that takes three times that. Nobody can know before it is over its time, so it counts in the true
            total only for what it has taken so far.
    """
    projection, ratios, before, next_tenth = Projection(list(usual), kept), [], 0.0, 1
    for name in usual:
        took = usual[name] * (3 if name == slow else 1)
        for inside in [*range(1, int(took) + 1), took]:
            if projection.part(name, inside) * 10 < next_tenth:
                continue
            next_tenth = int(projection.part(name, inside) * 10) + 1
            left = projection.left(name, inside)
            if left is not None and before + inside > FIRST_MINUTE:
                later = sum(usual[other] for other in usual if other not in projection.took and other != name)
                true = before + max(usual[name], inside) + later
                ratios.append((before + inside + left) / true)
        projection.finish(name, took)
        before += took
    return ratios


def runs():
    """Every kept run projected by the others, and machines of half and double the speed."""
    for index, run in enumerate(HABITS):
        yield pytest.param([*HABITS[:index], *HABITS[index + 1 :]], run, id=f"habits-seed{index}")
    for name, kept in (("habits", HABITS), ("reduced", REDUCED)):
        usual = {notebook: median(run[notebook] for run in kept) for notebook in kept[0]}
        for speed in (0.5, 1, 2):
            yield pytest.param(
                kept, {key: value / speed for key, value in usual.items()}, id=f"{name}-x{speed}"
            )


@pytest.mark.parametrize(("kept", "usual"), runs())
def test_each_projection_after_the_first_minute_is_between_half_and_double_the_truth(kept, usual):
    for slow in ("", *usual):
        ratios = replay(kept, usual, slow)
        assert ratios and all(0.5 <= ratio <= 2 for ratio in ratios), (slow, ratios)
        assert len(ratios) >= 2, "half of the way and more is told with a projection"


def test_the_replay_finds_a_projection_that_knows_no_pace(monkeypatch):
    monkeypatch.setattr(Projection, "_pace", lambda self, current, inside: 1.0)
    usual = {name: 4 * seconds for name, seconds in HABITS[0].items()}
    assert min(replay(HABITS[:1], usual)) < 0.5


def test_medians_over_kept_runs_are_expected_and_the_pace_corrects_them():
    projection = Projection(
        ["a", "b", "c"],
        [{"a": 9, "b": 50, "c": 40}, {"a": 10, "b": 50, "c": 40}, {"a": 99, "b": 50, "c": 40}],
    )
    assert projection.total() == pytest.approx(100)
    assert projection.left("a", 5) is None, "too little is finished"
    projection.finish("a", 20)
    assert projection.left() is None
    projection.finish("b", 100)
    assert 120 + 1.5 * 40 < projection.total() < 120 + 2 * 40
    assert projection.left("c", 30) == pytest.approx(projection.total("c", 30) - 150)
    assert projection.total("c", 200) == pytest.approx(120 + 250), (
        "a notebook over its time goes on for a while"
    )
    projection.finish("c", 80)
    assert (projection.part(), projection.left()) == (1.0, 0.0)


def test_without_kept_runs_notebooks_weigh_alike():
    projection = Projection(["a", "b", "c", "d"], [{"a": 1.0}])
    assert not projection.is_measured and projection.left("a", 100) is None and projection.part("a", 100) == 0
    projection.finish("a", 30)
    assert (projection.part(), projection.left()) == (0.25, pytest.approx(90))


def test_a_budgets_kept_run_projects_that_budget_only(tmp_path):
    for home, seconds in (("small", 1.0), ("small-reduced", 2.0)):
        (tmp_path / home / "seed0").mkdir(parents=True)
        write_json(tmp_path / home / "seed0" / "run.json", {"seconds": {"a": seconds}})
    assert kept_seconds("small", source=tmp_path) == [{"a": 1.0}]
    assert kept_seconds("small", "reduced", tmp_path) == [{"a": 2.0}]
    assert kept_seconds("small", "tiny", tmp_path) == []
    assert len(HABITS) >= 3 and REDUCED and REFERENCE_RUNS.is_dir()


def test_notebooks_that_took_no_time_still_have_a_pace():
    """A coarse clock, or kept runs of empty notebooks, gives seconds of exactly 0."""
    for kept in ([], [{"a": 0.0, "b": 0.0}]):
        projection = Projection(["a", "b"], kept)
        projection.finish("a", 0.0)
        projection.finish("b", 0.0)

        assert projection.left() == pytest.approx(0.0)
        assert projection.part() == pytest.approx(1.0)
