"""What benchmarks read of a finished run: the policies and inputs of its rollouts, from the manifests of its stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtdpo_lib.common.stages import MANIFEST, Product
from mtdpo_lib.models.policy import Policy


def policy_of(row: dict[str, Any], stages: Path) -> Policy:
    """A policy from a manifest; products lie in folders named by stage and key."""
    name, _, key = row["product"].rpartition("-")
    product = Product(name, key, stages / f"{name.partition('/')[0]}-{key}")
    return Policy(name, product, row["part"], policy_of(row["base"], stages) if row["base"] else None)


def rollouts(stages: Path, sources: int) -> dict[int, dict[str, Any]]:
    """Inputs of the rollouts of each iteration, those sampled by so many policies.

    Raises:
        SystemExit: there are none.
    """
    found = {}
    for file in stages.glob(f"rollouts-*/{MANIFEST}"):
        manifest = json.loads(file.read_text(encoding="utf8"))
        if len(manifest["inputs"]["sources"]) == sources:
            found[int(manifest["stage"].partition("/")[2])] = manifest["inputs"]
    if not found:
        raise SystemExit(f"{stages} holds no rollouts: give the folder of a finished run (make reproduce).")
    return dict(sorted(found.items()))
