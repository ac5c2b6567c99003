"""A comparison as a table in a terminal: for rich, or as aligned plain text for a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koinon.report.figures import mean_and_deviation
from koinon.report.summary import Comparison, ComparisonRow, Kind
from koinon.report.terminal import printable, width

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = ("own rows", "all rows")
_JUDGED = ("accuracy", "AUC")


def comparison_table(comparison: Comparison) -> Table:
    """Return the comparison for ``rich.console.Console.print``; it fits 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(printable(comparison.title), style="bold"),
        caption=Text("\n".join(caption(comparison))),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("\nmodel", overflow="fold")
    for rows in _ROWS:
        for figure in _JUDGED:
            table.add_column(f"{rows}\n{figure}", justify="right", no_wrap=True)
    for row in comparison.rows:
        cells = (Text(cell) for cell in (label(row), *figures(row)))
        table.add_row(*cells, style="bold" if row.kind is Kind.TOGETHER else None)
    return table


def comparison_text(comparison: Comparison) -> str:
    """Return the comparison as aligned lines, the last one ended too."""
    head = ("model", *(f"{rows} {figure}" for rows in _ROWS for figure in _JUDGED))
    body = [(label(row), *figures(row)) for row in comparison.rows]
    widths = [max(map(width, column)) for column in zip(head, *body, strict=True)]
    lines = []
    for row in (head, *body):
        gaps = [" " * (room - width(cell)) for cell, room in zip(row, widths, strict=True)]
        cells = (gap + cell for cell, gap in zip(row[1:], gaps[1:], strict=True))
        lines.append("  ".join((row[0] + gaps[0], *cells)))
    return "\n".join([printable(comparison.title), "", *lines, "", *caption(comparison)]) + "\n"


def label(row: ComparisonRow) -> str:
    """Return what a row is called: a party that trained alone is said to have done so."""
    name = printable(row.name)
    return f"{name} alone" if row.kind is Kind.ALONE else name


def figures(row: ComparisonRow) -> tuple[str, ...]:
    """Return a row's four figures: accuracy and AUC at home, then for everyone."""
    home = row.at_home()
    spreads = (home.accuracy, home.auc, row.everyone.accuracy, row.everyone.auc)
    return tuple(mean_and_deviation(spread.mean, spread.deviation) for spread in spreads)


def caption(comparison: Comparison) -> tuple[str, ...]:
    """Return how the figures are to be read, in lines."""
    party, count = printable(comparison.source.party), len(comparison.seeds)
    return (
        f"own rows: the {party}'s own held-out rows; for a shared model, the mean over the {party}s",
        f"all rows: the held-out rows of all {party}s",
        f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed",
    )
