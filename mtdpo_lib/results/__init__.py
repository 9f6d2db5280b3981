"""Results: records to intervals, verdicts, figures and reports."""
