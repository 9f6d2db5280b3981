"""Records: every result as one JSON file that says what it came from.

A record has a part that the same seed and settings reproduce exactly (`results`) and a part that differs from run to run
(`provenance`: seconds, memory, machine). Reports, figures and prose read records; no number is typed by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import write_json
from mtdpo_lib.common.provenance import commit, machine, peak_memory_mib, versions
from mtdpo_lib.profiles.overrides import settings_hash
from mtdpo_lib.profiles.sections import Profile


def write_record(
    folder: Path, name: str, profile: Profile, seed: int, results: dict[str, Any], measured: dict[str, Any]
) -> Path:
    """Write ``folder/name.json``.

    Args:
        folder: the run's ``records`` folder.
        name: the notebook's name, e.g. ``06_multi_turn_dpo``.
        profile: all settings of the run.
        seed: the run's seed.
        results: what the same seed reproduces: ``metrics`` (list of `Metric` dictionaries), ``outcomes`` (policy name to a
            string of 0 and 1, one a test problem), ``passports`` (one an iteration), ``logs``, ``tables``; all optional.
        measured: what differs between runs, e.g. seconds.

    Returns:
        The file.
    """
    settings = profile.to_dict()
    settings["problems"].pop("gsm8k_dir")
    record = {
        "record": name,
        "profile": profile.name,
        "claims": profile.claims,
        "seed": seed,
        "settings": settings,
        "settings_hash": settings_hash(profile, seed),
        "results": results,
        "provenance": {
            **measured,
            "versions": versions(),
            "machine": machine(),
            "commit": commit(),
            "peak_memory_mib": round(peak_memory_mib(), 1),
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / f"{name}.json", record)


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """All records of a run, by name, in notebook order.

    Raises:
        ValueError: a file that is not JSON; the sentence names it.
    """
    records = {}
    for file in sorted(folder.glob("*.json")):
        try:
            records[file.stem] = json.loads(file.read_text(encoding="utf8"))
        except ValueError as error:
            raise ValueError(
                f"The record {file} is not readable JSON: delete it and run its notebook again."
            ) from error
    return records
