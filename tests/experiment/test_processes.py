"""Preference training in two processes is the training of one: the same losses, the same adapters."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mtdpo_lib.common.seeds import small_stream
from mtdpo_lib.experiment.processes import launch, write_job
from mtdpo_lib.models.policy import load_for_training, load_tokenizer
from mtdpo_lib.rollout import save_trajectories
from mtdpo_lib.train import train_preference


@pytest.fixture
def settings(smoke):
    return replace(
        smoke.preference, batch_size=2, epochs=2, checkpoints=1, learning_rate=3e-3, warmup_fraction=0.0
    )


@pytest.fixture
def job(policy, pairs, smoke, settings, tmp_path):
    """The job's file; six pairs."""
    folder = tmp_path / "two"
    folder.mkdir()
    sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    save_trajectories(tmp_path / "trajectories.jsonl", sides)
    rows = [{"chosen": place, "rejected": place + 1} for place in range(0, len(sides), 2)] * 2
    return write_job(
        folder, tmp_path / "trajectories.jsonl", rows, policy, policy, settings, smoke.model, seed=3
    )


@pytest.mark.slow
def test_two_processes_train_as_one(job, policy, pairs, smoke, settings, tmp_path):
    launch(job, 2, cpu=True)
    network = load_for_training(policy, smoke.model, small_stream(3, "adapter"))
    seed = small_stream(3, "preference")
    one = tmp_path / "one"
    log = train_preference(
        one, network, load_tokenizer(policy), pairs * 2, policy, policy, settings, smoke.model, seed
    )
    shared = json.loads((job.parent / "log.json").read_text())
    assert len(log) == len(shared) == 6
    for ours, theirs in zip(log, shared, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=2e-5)
        assert theirs["margin"] == pytest.approx(ours["margin"], abs=2e-5)
    assert log[-1]["loss"] < log[0]["loss"] - 0.01  # it is no standstill that agrees
    weights = [load_file(folder / "step-6" / "adapter_model.safetensors") for folder in (one, job.parent)]
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-4), name


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, policy, pairs, smoke, settings, tmp_path):
    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("mtdpo_lib.train.preference.PartialState", lambda: two)
    network, tokenizer = load_for_training(policy, smoke.model, 0), load_tokenizer(policy)
    odd = replace(settings, batch_size=3)
    with pytest.raises(ValueError, match="A batch of 3 pairs cannot be shared by 2 processes"):
        train_preference(tmp_path, network, tokenizer, pairs, policy, policy, odd, smoke.model, 0)
