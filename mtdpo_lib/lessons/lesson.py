"""Lessons: what every notebook begins and ends with. Parameters in, an experiment and a record out."""

from __future__ import annotations

import ast
import html
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from IPython import get_ipython
from IPython.display import HTML, Markdown, display

from mtdpo_lib import __version__
from mtdpo_lib.chat.show import to_html
from mtdpo_lib.common.files import REFERENCE_RUNS, ROOT, read_json
from mtdpo_lib.common.provenance import versions
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.lessons.run import Run, check_parameters
from mtdpo_lib.models.policy import Policy, device
from mtdpo_lib.profiles import TINY_THREADS, settings_hash
from mtdpo_lib.results import Metric, Metrics, write_record
from mtdpo_lib.results.policy_metrics import paired_metric, policy_metrics
from mtdpo_lib.rollout.evaluate import outcome_string

PIPELINE = tuple((f"{number:02d}", title) for number, title in enumerate((
    "the idea", "theory", "SFT", "tool sandbox", "rollouts, answers", "preference pairs", "multi-turn DPO",
    "reference and KL", "mixture sampling", "report", "a real model",
)))  # fmt: skip


class Lesson(Experiment):
    """An `Experiment` seen from one notebook: it also collects the notebook's figures and writes its record.

    Args:
        notebook: the file's name without ``.ipynb``.
        profile, seed, out, settings: the notebook's parameters; an empty `out` is ``runs/<profile>-seed<seed>`` and what
            is set.

    Raises:
        SettingError: unknown profile, setting or parameter; a parameter of another type.
        UnusableFolder: `out` cannot be written, or is not this run's.
    """

    def __init__(self, notebook: str, profile: str, seed: int, out: str, settings: str):
        self._start = time.perf_counter()
        given = {"profile": profile, "seed": seed, "out": out, "settings": settings}
        declared = Lesson.__init__.__annotations__
        check_parameters(notebook, declared, dict.fromkeys(injected_parameters()) | given)
        run = Run.of(profile, seed, ROOT / out if out else "", settings)
        super().__init__(run.profile, seed, run.out, notebook)
        if self.is_tiny and "OMP_NUM_THREADS" not in os.environ:
            # As the runner does, so that a notebook opened alone gives the same figures.
            torch.set_num_threads(min(os.cpu_count() or 1, TINY_THREADS))
        self.metrics = Metrics()
        self.results: dict[str, Any] = {"outcomes": {}}
        self._stamp()

    def _stamp(self) -> None:
        installed = versions()
        packages = ", ".join(f"{name} {installed[name]}" for name in ("torch", "transformers", "trl"))
        print(
            f"mtdpo {__version__} | profile {self.profile.name} ({self.profile.claims}) | seed {self.seed} | "
            f"settings {settings_hash(self.profile, self.seed)}\n"
            f"Python {installed['python']}, {packages} | {device()}, {torch.get_num_threads()} threads "
            f"of {os.cpu_count()} cores"
        )

    def score(self, policy: Policy, against: Policy | None = None, notebook: str | None = None) -> Metrics:
        """Evaluate `policy` on the test problems and note its metrics, with the paired gain over `against`.

        Args:
            policy: what to evaluate (kept, if it was evaluated before).
            against: the SFT policy; gives ``gain/test/<policy>``.
            notebook: the one that makes this evaluation; default the policy's own.
        """
        outcomes = self.outcomes(policy, notebook=notebook)
        metrics = policy_metrics(policy, outcomes, self.seed)
        theirs = self.outcomes(against) if against else {}
        for kind, how in (("gain", "greedy"), ("sampled-gain", "sampled")):
            if how in outcomes and how in theirs:
                metrics.append(self._paired(kind, policy, outcomes[how], theirs[how]))
        self.metrics += metrics
        self.results["outcomes"][policy.name] = outcome_string(outcomes["greedy"])
        return metrics

    def difference(self, policy: Policy, against: Policy) -> Metric:
        """Note the paired difference of greedy accuracy between two policies that were scored before."""
        ours, theirs = (self.outcomes(one)["greedy"] for one in (policy, against))
        metric = self._paired("difference", policy, ours, theirs, against=against.name)
        self.metrics.append(metric)
        return metric

    def _paired(self, kind: str, policy: Policy, ours: Any, theirs: Any, against: str = "") -> Metric:
        return paired_metric(kind, policy, ours, theirs, self.profile.evaluation, self.seed, against=against)

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
        folder = self.out / "records"
        file = write_record(folder, self.notebook or "", self.profile, self.seed, self.results, measured)
        if self.metrics:
            display(metric_table(self.metrics.select(unit="fraction")))
        print(f"Record: {file.relative_to(self.out)}")

    def answer(self, sentences: Iterable[str]) -> None:
        """Show the answer to the card's question, below what this profile may claim."""
        claims = f"*What profile {self.profile.name} may claim: {self.profile.claims}.*\n"
        display(Markdown("\n".join([claims, *(f"- {one}" for one in sentences)])))


def injected_parameters() -> list[str]:
    """Names that papermill set in this notebook: it passes every one that it is given, after a word in its own log.

    Read from the cell that papermill puts in, which begins with the comment "Parameters".
    """
    shell = get_ipython()
    cells = [cell for cell in shell.user_ns["In"] if cell.startswith("# Parameters\n")] if shell else []
    statements = ast.parse(cells[-1]).body if cells else []
    return [ast.unparse(one.targets[0]) for one in statements if isinstance(one, ast.Assign)]


def metric_table(metrics: Sequence[Metric]) -> HTML:
    """Metrics as a table: value, 95% interval, n and seeds; fractions in per cent, paired differences in points."""
    body = ""
    for metric in metrics:
        paired = metric.kind in ("gain", "sampled-gain", "difference")
        unit = metric.unit if metric.unit != "fraction" else "points" if paired else "%"
        values = (metric.value_in_words(paired), metric.interval_in_words(paired), unit, metric.n)
        body += _html_row((metric.full_name, *values, ", ".join(map(str, metric.seeds))), "td")
    head = _html_row(("figure", "value", "95% interval", "unit", "n", "seed"), "th")
    return HTML(f"<table><thead>{head}</thead><tbody>{body}</tbody></table>")


def _html_row(cells: Iterable[Any], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def measured_cost(here: str, runs: Path = REFERENCE_RUNS) -> str:
    """What notebook number `here` took in the kept runs: time and peak memory by profile; empty without any."""
    costs = []
    for file in sorted(runs.glob("*/seconds.json")):
        seconds = {name: took for name, took in read_json(file).items() if name[:2] == here}
        records = [read_json(one) for one in file.parent.glob(f"*/records/{here}_*.json")]
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


def show_tokens(
    tokens: Any, tokenizer: Any, mask: Sequence[int] | None = None, mark: int | None = None
) -> HTML:
    """A trajectory coloured by who wrote each token, underlined where the loss looks: at `mask`, where it is given.

    Args:
        mark: place of a token that is pointed out.
    """
    return HTML(to_html(tokens, tokenizer, mask, mark=mark))
