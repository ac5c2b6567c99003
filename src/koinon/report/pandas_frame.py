"""Rows as a pandas frame, where pandas is installed."""

from __future__ import annotations

from typing import Any

from koinon.errors import UnsupportedError


def frame(rows: list[dict[str, Any]]) -> Any:
    """Return a ``pandas.DataFrame`` of the rows; raises UnsupportedError without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise UnsupportedError(
            "History.frame() makes a pandas frame, but pandas is not installed. "
            "Install it (pip install 'koinon[pandas]'), or use History.rows()."
        ) from error
    return pandas.DataFrame(rows)
