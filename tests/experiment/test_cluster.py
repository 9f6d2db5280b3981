"""A study on a Ray cluster gives the records of a study on one machine."""

import json
import sys

import pytest

from mtdpo_lib.__main__ import main

COMMAND = ["study", "--profile", "smoke", "--seeds", "0-1", "--arms", "raft",
           "--set", "iterations=1", "--set", "evaluation.sampled=0"]  # fmt: skip


def records(out):
    found = {file.name: json.loads(file.read_text()) for file in sorted((out / "arms").glob("*.json"))}
    return {
        name: {key: value for key, value in row.items() if key != "seconds"} for name, row in found.items()
    }


def test_without_ray_the_remedy_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*COMMAND, "--out", str(tmp_path), "--ray", "auto"]) == 2
    assert "mtdpo[ray]" in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_give_the_records_of_one_machine(tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        assert main([*COMMAND, "--out", str(tmp_path / "ray"), "--ray", cluster.address]) == 0
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert main([*COMMAND, "--out", str(tmp_path / "here")]) == 0
    ours = records(tmp_path / "ray")
    assert set(ours) == {f"{arm}-seed{seed}.json" for arm in ("mdpo", "raft") for seed in (0, 1)}
    assert ours == records(tmp_path / "here")
