"""The report of runs, one page: did it work, which checkpoint to take, and where not to trust it."""

from .page import try_report, write_report

__all__ = ["try_report", "write_report"]
