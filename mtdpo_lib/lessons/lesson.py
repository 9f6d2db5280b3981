"""Lessons: what every notebook begins and ends with. Parameters in, an experiment and a record out."""

from __future__ import annotations

import html
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from IPython.display import HTML, display

from mtdpo_lib import __version__
from mtdpo_lib.common.files import REFERENCE_RUNS, ROOT
from mtdpo_lib.common.provenance import versions
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.models.policy import Policy, device
from mtdpo_lib.profiles.overrides import get_profile, settings_hash
from mtdpo_lib.profiles.presets import TINY_THREADS
from mtdpo_lib.results.metric import Metric
from mtdpo_lib.results.policy_metrics import gain_metric, policy_metrics
from mtdpo_lib.results.records import write_record
from mtdpo_lib.rollout.evaluate import outcome_string

PIPELINE = (
    ("00", "the idea"),
    ("01", "theory"),
    ("02", "SFT"),
    ("03", "tool sandbox"),
    ("04", "rollouts, answers"),
    ("05", "preference pairs"),
    ("06", "multi-turn DPO"),
    ("07", "reference and KL"),
    ("08", "mixture sampling"),
    ("09", "report"),
    ("10", "a real model"),
)


def default_out(profile: str, seed: int) -> Path:
    """Where a run goes when no folder is given: ``runs/<profile>-seed<seed>`` beside the library."""
    return ROOT / "runs" / f"{profile}-seed{seed}"


class Lesson(Experiment):
    """An `Experiment` seen from one notebook: it also collects the notebook's figures and writes its record.

    Args:
        notebook: the file's name without ``.ipynb``.
        profile, seed, out, settings: the notebook's parameters.

    Raises:
        SettingError: unknown profile or setting.
        UnusableFolder: `out` cannot be written.
    """

    def __init__(self, notebook: str, profile: str, seed: int, out: str, settings: str):
        self._start = time.perf_counter()
        resolved = get_profile(profile, settings)
        folder = Path(out) if out else default_out(profile, seed)
        super().__init__(resolved, seed, folder if folder.is_absolute() else ROOT / folder, notebook)
        if self.is_tiny and "OMP_NUM_THREADS" not in os.environ:
            # As the runner does, so that a notebook opened alone gives the same figures.
            torch.set_num_threads(min(os.cpu_count() or 1, TINY_THREADS))
        self.metrics: list[Metric] = []
        self.results: dict[str, Any] = {"outcomes": {}}
        self._stamp()

    def _stamp(self) -> None:
        installed = versions()
        print(
            f"mtdpo {__version__} | profile {self.profile.name} ({self.profile.claims}) | seed {self.seed} | "
            f"settings {settings_hash(self.profile, self.seed)}"
        )
        print(
            f"Python {platform.python_version()}, torch {installed['torch']}, transformers {installed['transformers']}, "
            f"trl {installed['trl']} | {device()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
        )

    def score(
        self, policy: Policy, against: Policy | None = None, notebook: str | None = None
    ) -> list[Metric]:
        """Evaluate `policy` on the test problems and note its figures, with the paired gain over `against`.

        Args:
            policy: what to evaluate (kept, if it was evaluated before).
            against: the policy to compare with, usually SFT; gives ``gain/test/<policy>``.
            notebook: the one that makes this evaluation; default the policy's own.
        """
        outcomes = self.outcomes(policy, notebook=notebook)
        metrics = policy_metrics(policy.name, outcomes, self.seed)
        if against is not None:
            theirs = self.outcomes(against)
            evaluation = self.profile.evaluation
            for kind, label in (("greedy", "gain"), ("sampled", "sampled-gain")):
                if kind in outcomes and kind in theirs:
                    name = f"{label}/test/{policy.name}"
                    metrics.append(gain_metric(name, outcomes[kind], theirs[kind], evaluation, self.seed))
        self.metrics += metrics
        self.results["outcomes"][policy.name] = outcome_string(outcomes["greedy"])
        return metrics

    def finish(self, **results: Any) -> None:
        """Write the record and show its accuracies and gains.

        Args:
            results: further reproducible parts of the record: ``passports``, ``logs``, ``tables``, ``deviations``.
        """
        self.results.update(results, metrics=[metric.to_dict() for metric in self.metrics])
        measured = {
            "computing_seconds": round(self.seconds(), 1),
            "notebook_seconds": round(time.perf_counter() - self._start, 1),
        }
        file = write_record(
            self.out / "records", self.notebook, self.profile, self.seed, self.results, measured
        )
        if self.metrics:
            display(metric_table([metric for metric in self.metrics if metric.unit == "fraction"]))
        print(f"Record: {file.relative_to(self.out)}")


def metric_table(metrics: Sequence[Metric]) -> HTML:
    """Figures as a table: value, 95% interval, n and seeds; fractions in per cent."""
    rows = []
    for metric in metrics:
        scale, digits, unit = (100, 1, "%") if metric.unit == "fraction" else (1, 2, metric.unit)
        interval = (
            ""
            if metric.low is None
            else f"{scale * metric.low:.{digits}f} to {scale * metric.high:.{digits}f}"
        )
        cells = (
            metric.name,
            f"{scale * metric.value:.{digits}f}",
            interval,
            unit,
            metric.n,
            ", ".join(map(str, metric.seeds)),
        )
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("figure", "value", "95% interval", "unit", "n", "seed"))
    return HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def measured_cost(here: str, runs: Path = REFERENCE_RUNS) -> str:
    """What notebook number `here` took in the kept runs: time and peak memory by profile; empty without any."""
    costs = []
    for file in sorted(runs.glob("*/seconds.json")):
        seconds = {name: took for name, took in json.loads(file.read_text()).items() if name[:2] == here}
        records = [json.loads(one.read_text()) for one in file.parent.glob(f"*/records/{here}_*.json")]
        if seconds and records:
            minutes, rest = divmod(round(sum(seconds.values())), 60)
            memory = max(record["provenance"]["peak_memory_mib"] for record in records)
            cores = records[0]["provenance"]["machine"]["cores"]
            costs.append(f"{file.parent.name}: {minutes} min {rest:02d} s, {memory:,.0f} MiB, {cores} cores")
    return f"This notebook, as measured: {'; '.join(costs)}." if costs else ""


def pipeline_map(here: str) -> HTML:
    """The pipeline as a row of boxes with notebook `here` marked, and what that notebook costs."""
    boxes = []
    for number, title in PIPELINE:
        style = "background:#0072b2;color:#fff" if number == here else "background:#e8eef3;color:#222"
        boxes.append(
            f'<span style="{style};padding:.25em .6em;border-radius:.4em;white-space:nowrap">{number} {title}</span>'
        )
    row = '<div style="line-height:2.4">' + " &rarr; ".join(boxes) + "</div>"
    return HTML(f"{row}<p><small>{html.escape(measured_cost(here))}</small></p>")


def show_tokens(tokens: Any, tokenizer: Any, mask: Sequence[int] | None = None) -> HTML:
    """A trajectory coloured by who wrote each token, underlined where the loss looks: at `mask`, where it is given."""
    from mtdpo_lib.chat.show import to_html

    return HTML(to_html(tokens, tokenizer, mask))
