"""Records: every result as one JSON file that says what it came from.

A record has a part that the same seed and settings reproduce exactly (`results`) and a part that differs from run to run
(`provenance`: seconds, memory, machine). Reports, figures and prose read records; no number is typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from pydantic import FiniteFloat

from mtdpo_lib.common.files import CorruptData, read_json, write_json
from mtdpo_lib.common.provenance import MISHAPS, commit, machine, peak_memory_mib, versions
from mtdpo_lib.common.seeds import digest
from mtdpo_lib.common.stages import MissingProduct
from mtdpo_lib.profiles import Profile, settings_hash
from mtdpo_lib.results.metric import Metric, Metrics

Passport = dict[str, Any]


class RunState(TypedDict):
    """What ``run.json`` holds: whose run a folder is, and how far it came."""

    profile: str
    seed: int
    settings: str
    settings_hash: str
    seconds: dict[str, FiniteFloat]
    complete: bool


class Record(TypedDict):
    """What a notebook found, as `write_record` writes it."""

    record: str
    profile: str
    claims: str
    seed: int
    settings: dict[str, Any]
    settings_hash: str
    results: dict[str, Any]
    provenance: dict[str, Any]


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
            string of 0 and 1, one per test problem), ``passports`` (one per iteration), ``logs``, ``tables``; all optional.
        measured: what differs between runs, e.g. seconds.

    Returns:
        The file.
    """
    settings = profile.to_dict()
    settings["problems"].pop("gsm8k_dir")
    record: Record = {
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
            "mishaps": dict(MISHAPS),
        },
    }
    record["provenance"]["checksum"] = _checksum(record)
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / f"{name}.json", record)


def _checksum(record: Record) -> str:
    """Of all but itself: readers may trust the shape of what was not changed since it was written."""
    provenance = {key: value for key, value in record["provenance"].items() if key != "checksum"}
    return digest(json.dumps({**record, "provenance": provenance}))


def _read_record(file: Path) -> Record:
    remedy = f"delete the file and run notebook {file.stem}.ipynb again"
    record: Record = read_json(file, Record, remedy)
    whole = _checksum(record)
    if record["provenance"].get("checksum", whole) != whole:
        raise CorruptData(f"{file} was changed after it was written: {remedy}.")
    return record


def current_records(folder: Path, wanted: str, needed: Sequence[str] = ()) -> dict[str, Record]:
    """The records of one run by name, in notebook order; those that other settings left in the folder are not part of it.

    Args:
        folder: the run's ``records`` folder.
        wanted: the hash of the run's settings.
        needed: records that must be there.

    Raises:
        MissingProduct: a needed record is not there; the sentence names the notebook to run.
        CorruptData: a file is damaged; the sentence names it.
    """
    found = {file.stem: _read_record(file) for file in sorted(folder.glob("*.json"))}
    records = {name: record for name, record in found.items() if record["settings_hash"] == wanted}
    for name in needed:
        if name not in records:
            raise MissingProduct(
                f"The record of notebook {name} is not in {folder} for these settings: "
                f"run notebook {name}.ipynb first, with the same profile, seed and settings."
            )
    return records


def merge_metrics(records: dict[str, Record]) -> Metrics:
    """All records' metrics, each once.

    Raises:
        ValueError: two records give the same metric different numbers.
    """
    merged: dict[str, tuple[str, Metric]] = {}
    for record_name, record in records.items():
        for metric in Metrics.from_dicts(record["results"].get("metrics", [])):
            other, known = merged.setdefault(metric.name, (record_name, metric))
            if known != metric:
                raise ValueError(
                    f"The records {other} and {record_name} disagree about {metric.name} "
                    f"({known.value} and {metric.value}): run both notebooks again."
                )
    return Metrics(metric for _, metric in merged.values())


def merge_outcomes(records: dict[str, Record]) -> dict[str, list[int]]:
    """Right (1) or wrong (0) of every test problem, by policy."""
    return {
        policy: [int(letter) for letter in letters]
        for record in records.values()
        for policy, letters in record["results"].get("outcomes", {}).items()
    }


def merge_passports(records: dict[str, Record]) -> list[Passport]:
    """Every iteration's passport once, those of the main run first."""
    found: dict[str, Passport] = {}
    for record in records.values():
        for passport in record["results"].get("passports", []):
            found.setdefault(passport["policy"], passport)
    return sorted(found.values(), key=lambda one: one["policy"] != f"mdpo-{one['iteration']}")
