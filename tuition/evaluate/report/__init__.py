"""The report of a run, or of several side by side: one HTML file that opens offline and says whether to ship.

It reads what the run folder holds and computes nothing that is not there: no model is loaded, no answer
is generated. A file that is missing or torn costs its own section, never the report.
"""

from tuition.evaluate.report.page import write_report

__all__ = ["write_report"]
