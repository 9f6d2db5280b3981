"""The hub is asked once and in seconds; what is kept here already is not asked for."""

import pytest

from mtdpo_lib.common import hub


@pytest.fixture
def asked(monkeypatch):
    """What the hub was asked; it knows nothing, and nothing of it is kept here but `kept`."""
    calls = []

    def answer(url, timeout):
        calls.append((url, timeout))
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", answer)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda name, file, repo_type: "path" if name == "kept" else None,
    )
    return calls


def test_what_is_nowhere_is_asked_for_once(asked):
    with pytest.raises(ConnectionError, match="no network"):
        hub.look_up("some/data", "README.md", "dataset")
    ((url, seconds),) = asked
    assert url.endswith("/datasets/some/data/resolve/main/README.md") and seconds <= 5


def test_what_is_kept_is_not_asked_for(asked):
    hub.look_up("kept", "config.json")
    assert asked == []


def test_a_name_that_cannot_be_one_is_refused_unasked(asked, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match="Repo id must"):
        hub.look_up("../x/y", "config.json")
