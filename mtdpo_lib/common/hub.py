"""The hub of models and data, asked in seconds: its own clients try again and again before they say that nobody answers."""

from __future__ import annotations

SECONDS = 5.0  # to wait for an answer


def look_up(repository: str, file: str, kind: str = "model") -> None:
    """See that a repository of the hub is kept here already or can be had.

    Args:
        repository: its name there.
        file: that it must have.
        kind: "model" or "dataset".

    Raises:
        Exception: it is neither; of many classes, as the hub's client raises them.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(repository, file, repo_type=kind), str):
        get_hf_file_metadata(hf_hub_url(repository, file, repo_type=kind), timeout=SECONDS)
