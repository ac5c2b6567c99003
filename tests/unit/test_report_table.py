"""The comparison in a terminal: aligned, complete, and within 80 columns."""

from __future__ import annotations

import io
import math

from hypothesis import given
from hypothesis import strategies as st
from report_samples import comparison, matches_golden
from rich.console import Console

from koinon.report.summary import ComparisonRow, Judgement, Kind, Spread
from koinon.report.table import comparison_table, comparison_text, figures
from koinon.report.terminal import width


def rendered(width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_table(comparison()))
    return stream.getvalue()


def test_the_plain_table_matches_its_golden_file() -> None:
    assert matches_golden("report_comparison.txt", comparison_text(comparison()))


def test_the_plain_table_of_one_seed_matches_its_golden_file() -> None:
    assert matches_golden("report_comparison_one_seed.txt", comparison_text(comparison(seeds=1)))


def test_the_terminal_table_fits_eighty_columns_with_every_figure_whole() -> None:
    text = rendered(80)
    assert max(map(len, text.splitlines())) <= 80
    for row in comparison().rows:
        for figure in figures(row):
            assert figure in text


@given(st.text(min_size=1, max_size=20))
def test_any_name_keeps_the_columns_aligned(name: str) -> None:
    lines = comparison_text(comparison(name)).splitlines()
    assert len(lines) == len(comparison_text(comparison()).splitlines())
    table = lines[2:7]
    assert len({width(line) for line in table}) == 1


def test_a_figure_nobody_has_is_a_dash() -> None:
    none = Judgement(accuracy=Spread((0.5,)), auc=Spread((math.nan,)))
    row = ComparisonRow(name="Basel", kind=Kind.ALONE, own={"Basel": none}, everyone=none)
    assert figures(row) == ("0.500", "–", "0.500", "–")
