"""Results: records to intervals, verdicts, figures and reports."""

from mtdpo_lib.results.claims import JudgedClaim, judge, read_claims, verdict
from mtdpo_lib.results.metric import Metric, Metrics, in_words, rests_on
from mtdpo_lib.results.paper import PAPER_BASE, paper_by_iteration, paper_rows, paper_table
from mtdpo_lib.results.records import current_records, merge_metrics, merge_outcomes, write_record
from mtdpo_lib.results.tables import markdown_table, passport_rows, result_rows, results_caption

__all__ = [
    "PAPER_BASE", "JudgedClaim", "Metric", "Metrics", "current_records", "in_words", "judge",
    "markdown_table", "merge_metrics", "merge_outcomes", "paper_by_iteration", "paper_rows",
    "paper_table", "passport_rows", "read_claims", "rests_on", "result_rows", "results_caption",
    "verdict", "write_record",
]  # fmt: skip
