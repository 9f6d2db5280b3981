"""Every arm of every seed is done by somebody, nothing is done twice at a time, and a core belongs to one process."""

import json
import os
import sys
import threading
import time

import pytest

from mtdpo_lib.__main__ import main
from mtdpo_lib.common.stages import StageStore
from mtdpo_lib.experiment.workers import in_order, take_core, unclaimed


@pytest.mark.parametrize(("seeds", "workers"), [([0], 1), ([0], 2), ([0, 1, 2, 3, 4], 2), ([3, 5], 3)])
def test_every_worker_comes_to_every_arm_its_own_seeds_first(seeds, workers):
    arms = ["a", "b", "c"]
    for worker in range(workers):
        order = list(in_order(seeds, arms, worker, workers))
        assert sorted(order) == sorted((seed, arm) for seed in seeds for arm in arms)
        own = seeds[worker::workers]
        assert [seed for seed, _ in order[: len(own) * 3]] == [seed for seed in own for _ in arms]
    if workers > 1:  # two that meet at one seed come from both ends
        first, second = (list(in_order(seeds[:1], arms, worker, 2)) for worker in range(2))
        assert first == second[::-1]


def test_a_claimed_arm_is_left_to_its_process(tmp_path):
    tasks = [(0, "a"), (0, "b"), (0, "c")]
    one = unclaimed(iter(tasks), tmp_path)
    assert next(one) == (0, "a")
    other = unclaimed(iter(tasks), tmp_path)
    assert next(other) == (0, "b")  # "a" is claimed
    assert next(one) == (0, "c")  # "b" is claimed, "a" given up
    assert list(unclaimed(iter(tasks), tmp_path)) == [(0, "a")]


def test_a_stage_is_made_once_by_two_who_want_it(tmp_path):
    made = []

    def work(folder, value):
        made.append(value)
        time.sleep(0.3)
        (folder / "value").write_text(str(value))

    products = []
    threads = [
        threading.Thread(target=lambda: products.append(StageStore(tmp_path).make("x", work, {"value": 7})))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [7] and len(set(products)) == 1
    assert (products[0].path / "value").read_text() == "7"


@pytest.mark.skipif(sys.platform != "linux", reason="cores can be chosen on Linux only")
def test_a_worker_keeps_to_one_core():
    before = os.sched_getaffinity(0)
    try:
        take_core(0, 1)
        assert os.sched_getaffinity(0) == before
        take_core(1, 2)
        assert os.sched_getaffinity(0) == {sorted(before)[1 % len(before)]}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_two_processes_give_the_records_of_one(tmp_path):
    found = {}
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        arms = ["--arms", "fixed", "--set", "iterations=1", "--jobs", jobs, "--out", str(out)]
        assert main(["study", "--profile", "smoke", "--seeds", "0", *arms]) == 0
        found[jobs] = {file.name: json.loads(file.read_text()) for file in (out / "arms").glob("*.json")}
        for record in found[jobs].values():
            del record["seconds"]
    assert found["1"] == found["2"] and len(found["1"]) == 2
