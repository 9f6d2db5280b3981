"""Training in two processes is the training of one: the same losses, the same weights."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support import multiplication

from mtdpo_lib.experiment import steps
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
    shared = launch(functools.partial(train_preference, shared_job), 2)
    assert len(log) == len(shared) == 6
    for ours, theirs in zip(log, shared, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=2e-5)
        assert theirs["margin"] == pytest.approx(ours["margin"], abs=2e-5, rel=2e-6)
    assert log[-1]["loss"] < log[0]["loss"] - 0.01  # it is no standstill that agrees
    weights = [load_file(one.folder / "step-6" / "adapter_model.safetensors") for one in (job, shared_job)]
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-4), name


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want two GPUs")
def test_a_failure_in_a_process_is_one_sentence(job):
    wrong = replace(job, settings=replace(job.settings, batch_size=3))
    with pytest.raises(RuntimeError, match="Preference training in 2 processes failed"):
        launch(functools.partial(train_preference, wrong), 2, "Preference training")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would want two GPUs")
@pytest.mark.parametrize("start", ["random weights", "an adapter on a base", "all weights of a base"])
def test_two_processes_fine_tune_as_one(policy, smoke, tmp_path, start):
    rows = [multiplication(a, b) for a in range(2, 10) for b in (3, 7)]
    settings = replace(smoke.sft, batch_size=4, epochs=2, early_epochs=1, underfit_epochs=0.5, step="plain")
    base, logs, weights = None if start == "random weights" else policy, [], []
    model = replace(smoke.model, adapter="none" if start.startswith("all") else "lora")
    for name, processes in (("one", 1), ("two", 2)):
        train = functools.partial(steps._fine_tune, tmp_path / name, rows, base, model, settings, 200, 1)
        log, facts = train() if processes == 1 else launch(train, processes)
        assert facts["demonstrations"] == 16
        logs.append(log)
        (file,) = (tmp_path / name / "epoch-2").glob("*.safetensors")
        weights.append(load_file(file))
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]] == list(range(1, 9))
    for ours, theirs in zip(*logs, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-4)
    assert logs[0][-1]["loss"] < logs[0][0]["loss"] - 0.1  # it is no standstill that agrees
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=2e-3), name


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch, job):
    two = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("mtdpo_lib.train.loop.PartialState", lambda: two)
    with pytest.raises(ValueError, match="A batch of 3 pairs cannot be shared by 2 processes"):
        train_preference(replace(job, settings=replace(job.settings, batch_size=3)))
