"""Write a report: ``write_page(path, RunSummary(...))`` for one run, ``write_page(path, Comparison(...))`` for a demo."""

from __future__ import annotations

from pathlib import Path

from koinon.report.comparison_page import comparison_page
from koinon.report.files import write_text
from koinon.report.run_page import run_page
from koinon.report.summary import Comparison, RunSummary


def write_page(path: str | Path, shown: RunSummary | Comparison) -> Path:
    """Write one self-contained HTML file and return its path.

    It loads nothing, runs no script and holds no time of day: the same run gives the same bytes, but for
    its wall times. Raises StoreError where the file cannot be written.
    """
    return write_text(Path(path), page(shown))


def page(shown: RunSummary | Comparison) -> str:
    """Return the HTML of a page."""
    return comparison_page(shown) if isinstance(shown, Comparison) else run_page(shown)
