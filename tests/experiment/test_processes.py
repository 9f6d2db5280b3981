"""Preference training in two processes is the training of one: the same losses, the same adapters."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mtdpo_lib.experiment.processes import launch
from mtdpo_lib.train import PreferenceJob, train_preference


@pytest.fixture
def job(policy, pairs, smoke, tmp_path):
    """Six pairs, two at a time."""
    settings = replace(
        smoke.preference, batch_size=2, epochs=2, checkpoints=1, learning_rate=3e-3, warmup_fraction=0.0
    )
    return PreferenceJob(tmp_path / "one", pairs * 2, policy, policy, settings, smoke.model, seed=3)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want two GPUs")
def test_two_processes_train_as_one(job, tmp_path):
    log = train_preference(job)
    shared_job = replace(job, folder=tmp_path / "two")
    shared = launch(shared_job, 2)
    assert len(log) == len(shared) == 6
    for ours, theirs in zip(log, shared, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=2e-5)
        assert theirs["margin"] == pytest.approx(ours["margin"], abs=2e-5)
    assert log[-1]["loss"] < log[0]["loss"] - 0.01  # it is no standstill that agrees
    weights = [load_file(one.folder / "step-6" / "adapter_model.safetensors") for one in (job, shared_job)]
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-4), name


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want two GPUs")
def test_a_failure_in_a_process_is_one_sentence(job):
    with pytest.raises(RuntimeError, match="Preference training in 2 processes failed"):
        launch(replace(job, settings=replace(job.settings, batch_size=3)), 2)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, job):
    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("mtdpo_lib.train.preference.PartialState", lambda: two)
    with pytest.raises(ValueError, match="A batch of 3 pairs cannot be shared by 2 processes"):
        train_preference(replace(job, settings=replace(job.settings, batch_size=3)))
