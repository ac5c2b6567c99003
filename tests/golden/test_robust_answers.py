"""Known answers of the robust rules, worked out by hand on seven numbers and a few points of the plane."""

import numpy as np
import pytest

import koinon as kn
from koinon.core.protocols import Aggregator
from koinon.errors import CompositionError
from koinon.tree import Array

SEVEN = [0, 1, 2, 4, 5, 9, 100]
"""Krum(1) adds the squares of the four least distances: 46, 27, 18, 30, 42, 154 and many."""


def finish(rule: Aggregator, rows: list[float] | list[tuple[float, float]]) -> Array:
    values = np.float32(rows)
    return rule.finish({"w": values}, np.full(len(values), 7))["w"]


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        (kn.Median(), 4),
        (kn.TrimmedMean(0.2), (1 + 2 + 4 + 5 + 9) / 5),  # one at each end
        (kn.TrimmedMean(0.3), (2 + 4 + 5) / 3),  # two at each end
        (kn.TrimmedMean(0.49), 4),
        (kn.Krum(1), 2),
        (kn.Krum(2), 2),  # of three: 21, 11, 9, 14, 26, 57
        (kn.MultiKrum(1, chosen=3), (2 + 1 + 4) / 3),
        (kn.MultiKrum(1), (0 + 1 + 2 + 4 + 5 + 9) / 6),
        # Krum takes 2, then 4 (26, as 1 has, but nearer to all), 1, 9 and 5; their median is 4, its nearest are 4, 5 and 2.
        (kn.Bulyan(1), (2 + 4 + 5) / 3),
        (kn.NormBound(5.0), (0 + 1 + 2 + 4 + 5 + 5 + 5) / 7),
    ],
    ids=repr,
)
def test_the_answer_on_seven_numbers(rule, answer: float) -> None:
    assert finish(rule, SEVEN) == pytest.approx(answer, rel=1e-12)


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    assert finish(kn.Median(), [1, 2, 4, 100]) == 3


@pytest.mark.parametrize(("rows", "answer"), [([1, 2, 9], 2), ([1, 2, 4, 100], 3), ([0, 1, 2, 50, 1000], 2)])
def test_a_share_just_below_a_half_leaves_the_median(rows: list[float], answer: float) -> None:
    rule = kn.TrimmedMean(0.5 - 1e-10)
    assert finish(rule, rows) == answer
    with pytest.raises(CompositionError, match="needs at least 3 updates, but has 2"):
        rule.values(2)


def test_the_geometric_median_of_four_corners_is_where_the_diagonals_cross() -> None:
    assert finish(kn.GeometricMedian(), [(0, 0), (6, 0), (4, 4), (0, 3)]) == pytest.approx([2, 2], abs=1e-6)


def test_the_geometric_median_of_a_line_is_its_median() -> None:
    assert finish(kn.GeometricMedian(), [0, 1, 2, 50, 1000]) == pytest.approx(2, abs=1e-4)


def test_fltrust_scales_to_the_root_and_weighs_by_the_cosine() -> None:
    root, slanted, across, against, along = (1, 0), (3, 4), (0, 2), (-1, 0), (2, 0)
    found = finish(kn.FLTrust("root"), [root, slanted, across, against, along])
    assert found == pytest.approx([(0.6 * 0.6 + 1) / 1.6, 0.6 * 0.8 / 1.6])


def test_fltrust_moves_nothing_when_nobody_is_trusted() -> None:
    assert finish(kn.FLTrust("root"), [(1, 0), (-1, 5), (0, 0)]).tolist() == [0, 0]


def test_a_rule_over_groups_reads_their_weighted_means() -> None:
    totals = np.array([[3 << 30], [10 << 30], [-8 << 30]])  # weights 3, 2 and 4: means 1, 5 and -2
    assert kn.Bucketed(2).finish({"w": totals}, np.array([3, 2, 4]))["w"].tolist() == [1]
    mean = kn.Bucketed(2, kn.TrimmedMean(0.0)).finish({"w": totals}, np.array([3, 2, 4]))["w"]
    assert mean == pytest.approx([4 / 3])
