"""Tasks over processes: results as they come, a core for each process, and no arm that takes others with it."""

import itertools
import json
import os
import sys

import pytest

from mtdpo_lib.__main__ import main
from mtdpo_lib.experiment import study as studies
from mtdpo_lib.experiment.parallel import computing_environment, run_here
from mtdpo_lib.experiment.study import Study

SMALL = ["--set", "iterations=1", "--set", "evaluation.sampled=0"]


def records(out):
    found = {file.name: json.loads(file.read_text()) for file in sorted((out / "arms").glob("*.json"))}
    return {
        name: {key: value for key, value in row.items() if key != "seconds"} for name, row in found.items()
    }


def observer():
    """A function that goes to another process by value, without this file's imports."""

    def observe(task):
        import os
        import time

        time.sleep(0.5)  # so that the other process gets a task too
        names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "PYTHONHASHSEED")
        return (
            task,
            os.getpid(),
            sorted(os.sched_getaffinity(0)),
            {name: os.environ.get(name) for name in names},
        )

    return observe


@pytest.mark.skipif(sys.platform != "linux", reason="cores can be chosen on Linux only")
@pytest.mark.parametrize("word", ["3", None])
def test_each_process_keeps_to_a_core_and_has_the_environment(smoke, tmp_path, monkeypatch, word):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if word:  # the user's own word stays
        monkeypatch.setenv("OMP_NUM_THREADS", word)
    before = os.sched_getaffinity(0)
    seen = list(run_here(observer(), range(4), smoke, 2, tmp_path))
    assert sorted(task for task, *_ in seen) == [0, 1, 2, 3]
    cores = {pid: tuple(core) for _, pid, core, _ in seen}
    assert len(cores) == 2 and os.getpid() not in cores
    assert {len(core) for core in cores.values()} == {1}
    assert len(set(cores.values())) == min(2, len(before))
    wanted = {"OMP_NUM_THREADS": word or "1", "GOMP_SPINCOUNT": "10000", "PYTHONHASHSEED": "0"}
    assert all(variables == wanted for *_, variables in seen)
    assert os.sched_getaffinity(0) == before


def test_one_job_works_here_on_all_cores(smoke, tmp_path):
    before = os.sched_getaffinity(0)
    ((task, pid, cores, _),) = run_here(observer(), [7], smoke, 1, tmp_path)
    assert (task, pid, cores) == (7, os.getpid(), sorted(before))


def test_the_environment_is_left_as_it_was(smoke, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    before = dict(os.environ)
    with computing_environment(smoke, GOMP_SPINCOUNT="0"):
        assert os.environ["GOMP_SPINCOUNT"] == "0" and "MALLOC_TRIM_THRESHOLD_" in os.environ
    assert dict(os.environ) == before


def test_a_process_that_is_ended_from_outside_is_told(smoke, tmp_path, monkeypatch):
    def killed(self, task):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Study, "compute", property(lambda self: lambda task: killed(self, task)))
    said = []
    assert not Study("smoke", (), [0, 1], ["mdpo"], tmp_path).run(2, say=said.append)
    assert any("ended from outside" in line for line in said)


def test_seeds_take_turns(tmp_path):
    tasks = Study("smoke", (), [0, 1, 2], ["mdpo", "raft"], tmp_path).tasks()
    assert len(set(tasks)) == len(tasks) == 6
    for one, other in itertools.pairwise(tasks):
        assert one[0] != other[0]


def test_an_arm_that_fails_does_not_lose_the_others(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, experiment, arm, tested):
            self.name = arm.name

        def record(self):
            if self.name == "raft":
                raise RuntimeError("the pairs ran out")
            return {"outcomes": {}}

    monkeypatch.setattr(studies, "ArmRun", Fake)
    monkeypatch.setattr(Study, "plan", lambda self: studies.Plan())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said = []
    study = Study("smoke", ("iterations=1",), [0, 3], ["mdpo", "raft", "fixed"], tmp_path)
    assert not study.run(1, say=said.append)
    assert set(records(tmp_path)) == {
        f"{arm}-seed{seed}.json" for arm in ("mdpo", "fixed") for seed in (0, 3)
    }
    assert sum("the pairs ran out" in line for line in said) == 2
    assert any(line.startswith("6 of 6 arms") for line in said)
    record = records(tmp_path)["fixed-seed3.json"]
    assert (record["arm"], record["against"], record["seed"]) == ("fixed", "mdpo", 3)
    assert (record["profile"], record["settings"]) == ("smoke", "iterations=1")


def test_without_ray_the_remedy_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["study", "--profile", "smoke", "--seeds", "0", "--out", str(tmp_path), "--ray", "auto"]) == 2
    assert "mtdpo[ray]" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_records_of_one(tmp_path):
    found = {}
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        command = ["study", "--profile", "smoke", "--seeds", "0", "--arms", "fixed", "--jobs", jobs, *SMALL]
        assert main([*command, "--out", str(out)]) == 0
        found[jobs] = records(out)
    assert found["1"] == found["2"] and len(found["1"]) == 2


@pytest.mark.slow
def test_two_workers_of_a_cluster_give_the_records_of_one_machine(tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    command = ["study", "--profile", "smoke", "--seeds", "0-1", "--arms", "raft", *SMALL]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        assert main([*command, "--out", str(tmp_path / "ray"), "--ray", cluster.address]) == 0
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert main([*command, "--out", str(tmp_path / "here")]) == 0
    ours = records(tmp_path / "ray")
    assert set(ours) == {f"{arm}-seed{seed}.json" for arm in ("mdpo", "raft") for seed in (0, 1)}
    assert ours == records(tmp_path / "here")
