"""Laws of robust aggregation: how far liars can move it, what it owes to no order, and the formulas taken literally."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import koinon as kn
from koinon.aggregate.coordinates import squared_distances
from koinon.core.protocols import Aggregator
from koinon.tree import Array

HONEST = st.integers(-32, 32).map(lambda eighths: eighths / 8)
"""Numbers whose sums and squares float32 holds exactly: what ties, ties in every order and wherever it is shifted."""
LIES = st.one_of(HONEST, st.sampled_from([1e4, -1e4, 3e5, -2e6]))


def finish(rule: Aggregator, values: Array) -> Array:
    found: Array = rule.finish({"w": np.asarray(values, np.float32)}, np.ones(len(values), np.int64))["w"]
    return found


@st.composite
def round_with_liars(draw: Any, least_honest: Any) -> tuple[Array, Array]:
    """Return honest updates, as many as ``least_honest(liars)`` or more, and liars', all of four numbers."""
    liars = draw(st.integers(1, 3))
    honest = least_honest(liars) + draw(st.integers(0, 3))
    return draw(arrays(np.float32, (honest, 4), elements=HONEST)), draw(arrays(np.float32, (liars, 4), elements=LIES))


@given(round_with_liars(lambda liars: liars + 1), st.randoms())
def test_less_than_half_cannot_move_a_median_beyond_the_honest(sent: tuple[Array, Array], shuffle: Any) -> None:
    honest, lies = sent
    rows = [*honest, *lies]
    shuffle.shuffle(rows)
    found = finish(kn.Median(), rows)
    assert np.all((honest.min(axis=0) <= found) & (found <= honest.max(axis=0)))


@given(round_with_liars(lambda liars: 4 * liars))
def test_the_trimmed_share_cannot_move_the_trimmed_mean_beyond_the_honest(sent: tuple[Array, Array]) -> None:
    honest, lies = sent
    rule = kn.TrimmedMean(len(lies) / (len(honest) + len(lies)))
    found = finish(rule, np.concatenate([lies, honest]))
    assert np.all((honest.min(axis=0) <= found) & (found <= honest.max(axis=0)))


@given(round_with_liars(lambda liars: 3 * liars + 3))
def test_bulyan_stays_as_near_to_the_honest_as_they_are_to_each_other(sent: tuple[Array, Array]) -> None:
    honest, lies = sent
    found = finish(kn.Bulyan(len(lies)), np.concatenate([lies, honest]))
    spread = honest.max(axis=0) - honest.min(axis=0)
    assert np.all((honest.min(axis=0) - spread <= found) & (found <= honest.max(axis=0) + spread))


@given(round_with_liars(lambda liars: liars + 3), st.sampled_from([1e3, -1e5]))
def test_krum_takes_an_honest_update_though_liars_agree(sent: tuple[Array, Array], far: float) -> None:
    honest, lies = sent
    rows = np.concatenate([np.full_like(lies, far), honest])
    for rule in (kn.Krum(len(lies)), kn.MultiKrum(len(lies), chosen=1)):
        assert finish(rule, rows).tolist() in honest.tolist()
    several = finish(kn.MultiKrum(len(lies)), rows)
    assert np.all((honest.min(axis=0) <= several) & (several <= honest.max(axis=0)))


@given(round_with_liars(lambda liars: liars + 1))
def test_the_geometric_median_moves_no_further_than_its_share_of_liars_allows(sent: tuple[Array, Array]) -> None:
    """Lemma 2.1 of Minsker 2015: within ``2 (1 - a) / (1 - 2 a)`` radii of the honest, here with room for rounding."""
    honest, lies = sent
    centre = honest.mean(axis=0)
    radius = np.linalg.norm(honest - centre, axis=1).max()
    share = len(lies) / (len(honest) + len(lies))
    found = finish(kn.GeometricMedian(), np.concatenate([lies, honest]))
    reach = 2 * (1 - share) / (1 - 2 * share) * radius
    assert np.linalg.norm(found - centre) <= reach * 1.01 + 1e-5 + 1e-7 * np.abs(lies).max()


@given(round_with_liars(lambda liars: 1), st.sampled_from([0.5, 4.0]))
def test_a_liar_moves_a_bounded_mean_by_twice_the_bound_of_its_share(sent: tuple[Array, Array], norm: float) -> None:
    honest, lies = sent
    rule = kn.NormBound(norm)
    moved = finish(rule, np.concatenate([lies, honest])) - finish(rule, np.concatenate([0 * lies, honest]))
    assert np.linalg.norm(moved) <= len(lies) * norm / (len(lies) + len(honest)) * (1 + 1e-6)


@given(round_with_liars(lambda liars: 2))
def test_fltrust_is_never_longer_than_the_root_nor_against_it(sent: tuple[Array, Array]) -> None:
    honest, lies = sent
    found, root = finish(kn.FLTrust("root"), np.concatenate([honest, lies])), honest[0].astype(np.float64)
    assert np.linalg.norm(found) <= np.linalg.norm(root) * (1 + 1e-9)
    assert found @ root >= -1e-9


@given(round_with_liars(lambda liars: 3))
def test_who_points_against_the_root_is_as_good_as_absent(sent: tuple[Array, Array]) -> None:
    honest, lies = sent
    against = np.concatenate([honest, -1000 * np.repeat(honest[:1], len(lies), axis=0)])
    rule = kn.FLTrust("root")
    np.testing.assert_allclose(finish(rule, against), finish(rule, honest), rtol=1e-12, atol=1e-15)


COHORT = arrays(np.float32, st.tuples(st.integers(7, 12), st.just(5)), elements=HONEST)


@pytest.mark.parametrize(
    "rule", [kn.Median(), kn.TrimmedMean(0.2), kn.Krum(1), kn.MultiKrum(2), kn.Bulyan(1)], ids=repr
)
@given(values=COHORT, shift=st.integers(-8, 8))
def test_shifting_all_updates_shifts_the_aggregate(rule: Aggregator, values: Array, shift: int) -> None:
    np.testing.assert_allclose(finish(rule, values + shift), finish(rule, values) + shift, atol=1e-9)


@pytest.mark.parametrize("rule", [kn.Median(), kn.TrimmedMean(0.2), kn.TrimmedMean(0.0)], ids=repr)
@given(values=arrays(np.float32, (7, 5), elements=st.one_of(HONEST, st.just(-0.0))), shuffle=st.randoms())
def test_no_bit_of_a_coordinatewise_rule_depends_on_the_order(rule: Aggregator, values: Array, shuffle: Any) -> None:
    turned = list(values)
    shuffle.shuffle(turned)
    assert finish(rule, turned).tobytes() == finish(rule, values).tobytes()


@given(COHORT)
def test_the_median_and_the_trimmed_mean_are_numpys(values: Array) -> None:
    np.testing.assert_array_equal(finish(kn.Median(), values), np.median(values.astype(np.float64), axis=0))
    middle = np.sort(values.astype(np.float64), axis=0)[2:-2]
    share = 2 / len(values)
    np.testing.assert_allclose(finish(kn.TrimmedMean(share), values), middle.mean(axis=0), rtol=1e-12, atol=1e-12)


@given(COHORT, st.integers(0, 2))
def test_krums_choice_has_the_least_score_of_the_formula(values: Array, byzantine: int) -> None:
    wide, near = values.astype(np.float64), len(values) - byzantine - 2
    scores = [sorted(((x - y) ** 2).sum() for j, y in enumerate(wide) if j != i)[:near] for i, x in enumerate(wide)]
    found = finish(kn.Krum(byzantine), values)
    own = [sum(score) for score, x in zip(scores, wide, strict=True) if np.array_equal(x, found)]
    assert min(own) == pytest.approx(min(map(sum, scores)), abs=1e-9)


def literal_bulyan(values: Array, byzantine: int) -> Array:
    """Return the paper's two steps, one after the other, as they stand there."""
    left, chosen = list(range(len(values))), []
    while len(chosen) < len(values) - 2 * byzantine:
        near = max(1, len(left) - byzantine - 2)
        apart = {i: sorted(float(((values[i] - values[j]) ** 2).sum()) for j in left if j != i) for i in left}
        best = min(left, key=lambda i, apart=apart, near=near: (sum(apart[i][:near]), sum(apart[i]), i))
        chosen.append(best)
        left.remove(best)
    kept = len(values) - 4 * byzantine
    medians = np.median(values[chosen], axis=0)
    pairs = zip(values[chosen].T, medians, strict=True)
    return np.array([np.mean(sorted(column, key=lambda v, m=m: (abs(v - m), v))[:kept]) for column, m in pairs])


@given(COHORT, st.integers(0, 2))
def test_bulyan_is_the_papers(values: Array, byzantine: int) -> None:
    if len(values) >= 4 * byzantine + 3:
        wanted = literal_bulyan(values.astype(np.float64), byzantine)
        np.testing.assert_allclose(finish(kn.Bulyan(byzantine), values), wanted, rtol=1e-12, atol=1e-12)


@given(COHORT, st.integers(0, 2), st.integers(1, 3))
def test_multi_krum_takes_the_least_scores_of_the_formula(values: Array, byzantine: int, chosen: int) -> None:
    wide, near = values.astype(np.float64), len(values) - byzantine - 2
    apart = [sorted(((x - y) ** 2).sum() for j, y in enumerate(wide) if j != i) for i, x in enumerate(wide)]
    order = sorted(range(len(wide)), key=lambda i: (sum(apart[i][:near]), sum(apart[i]), i))
    found = finish(kn.MultiKrum(byzantine, chosen), values)
    np.testing.assert_allclose(found, wide[order[:chosen]].mean(axis=0), rtol=1e-12, atol=1e-12)


@given(COHORT)
def test_fltrust_is_the_papers(values: Array) -> None:
    root, *others = values.astype(np.float64)
    length = np.linalg.norm(root)
    total, trust = np.zeros(5), 0.0
    for x in others:
        if np.linalg.norm(x) and length:
            score = max(0.0, float(x @ root / np.linalg.norm(x) / length))
            total, trust = total + score * length / np.linalg.norm(x) * x, trust + score
    wanted = total / trust if trust else total
    np.testing.assert_allclose(finish(kn.FLTrust("root"), values), wanted, rtol=1e-9, atol=1e-12)


@given(COHORT)
def test_no_nearby_point_has_a_smaller_sum_of_distances(values: Array) -> None:
    def cost(point: Array) -> float:
        return float(np.linalg.norm(values - point, axis=1).sum())

    found = finish(kn.GeometricMedian(), values)
    assert all(cost(found) <= cost(point) + 1e-4 for point in [*values, values.mean(axis=0), np.median(values, axis=0)])
    steps = np.concatenate([np.eye(5), -np.eye(5)]) * 1e-2
    assert all(cost(found) <= cost(found + step) + 1e-5 for step in steps)


@given(COHORT, st.sampled_from([1.0, 1e-20, 1e4]))
def test_distances_are_right_where_updates_are_nearly_alike(values: Array, size: float) -> None:
    base = np.random.default_rng(1).normal(size=5).astype(np.float32) * np.float32(size * 1e3)
    rows = base + values * np.float32(size)
    wanted = [[((x - y) ** 2).sum() for y in rows.astype(np.float64)] for x in rows.astype(np.float64)]
    np.testing.assert_allclose(squared_distances({"w": rows}), wanted, rtol=1e-3, atol=1e-8 * size**2)


def alike(kind: str) -> Array:
    """Return 12 updates of two leaves' length, of which some are near each other, or the same."""
    draw = np.random.default_rng(2)
    rows: Array = draw.normal(size=(12, 6_000)).astype(np.float32)
    if kind == "a pair":
        rows[7] = rows[3]
    elif kind == "two crowds":
        rows[:5] = rows[0] + 1e-4 * rows[:5]
        rows[5:10] = rows[5] + 1e-4 * rows[5:10]
    elif kind != "apart":
        rows = (rows[0] + np.float32(1e-5) * rows).astype(np.float32)
        rows[11] *= {"all": 1, "all but a liar": -1e6, "all but a quiet one": 0}[kind]
    return rows


@pytest.mark.parametrize("kind", ["apart", "a pair", "two crowds", "all", "all but a liar", "all but a quiet one"])
def test_distances_are_right_whoever_is_near_whom(kind: str) -> None:
    rows = alike(kind)
    wide = rows.astype(np.float64)
    wanted = [[np.square(x - y).sum() for y in wide] for x in wide]
    found = squared_distances({"a": rows[:, :10], "b": rows[:, 10:].reshape(12, 10, 599)})
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


EACH = [
    kn.Median(), kn.TrimmedMean(0.2), kn.Krum(1), kn.MultiKrum(2), kn.Bulyan(1), kn.GeometricMedian(), kn.NormBound(1.0),
    kn.FLTrust("root"),
]  # fmt: skip


@pytest.mark.parametrize("rule", EACH, ids=repr)
def test_no_rule_of_single_updates_reads_what_a_client_says_of_its_weight(rule: Aggregator) -> None:
    values = np.random.default_rng(4).normal(size=(9, 5)).astype(np.float32)
    for weights in ([2**24 - 1, *[1] * 8], list(range(1, 10))):
        found = rule.finish({"w": values}, np.array(weights, np.int64))["w"]
        assert found.tobytes() == finish(rule, values).tobytes()


def test_the_largest_weight_spoils_no_more_than_its_own_group() -> None:
    means = np.float64([-1, 0, 1, 2, 50])
    weights = np.array([4, 4, 4, 4, 2**24 - 1])
    totals = {"w": (means * weights * 2.0**30).astype(np.int64)[:, None]}
    assert kn.Bucketed(2).finish(totals, weights)["w"] == 1


@given(st.integers(3, 9), st.integers(1, 3))
def test_rules_over_groups_of_one_are_the_rule_itself(clients: int, weight: int) -> None:
    values = np.random.default_rng(clients).integers(-8, 8, (clients, 3)) / 4
    totals = (values * weight * 2.0**30).astype(np.int64)
    found = kn.Bucketed(1).finish({"w": totals}, np.full(clients, weight))["w"]
    np.testing.assert_array_equal(found, finish(kn.Median(), values))


def test_multi_krum_of_all_is_the_mean_and_of_one_is_krum() -> None:
    values = np.random.default_rng(3).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_allclose(finish(kn.MultiKrum(0, chosen=9), values), values.mean(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(finish(kn.MultiKrum(2, chosen=1), values), finish(kn.Krum(2), values))


def test_bulyan_without_liars_is_the_mean() -> None:
    values = np.random.default_rng(3).normal(size=(9, 4)).astype(np.float32)
    np.testing.assert_allclose(finish(kn.Bulyan(0), values), values.mean(axis=0, dtype=np.float64))


def test_the_last_bits_of_distances_do_not_reach_the_geometric_median(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other numbers of threads, or other processors, may round a product of matrices in another way."""
    draw = np.random.default_rng(8)
    values = draw.normal(size=(20, 50)).astype(np.float32)

    def nearly(updates: Any, *, exact: bool = False) -> Array:
        distances = squared_distances(updates, exact=exact)
        return distances * (1 + 4e-16 * draw.integers(-1, 2, distances.shape))

    found = finish(kn.GeometricMedian(), values)
    monkeypatch.setattr("koinon.aggregate.geometric_median.squared_distances", nearly)
    for _ in range(10):
        assert finish(kn.GeometricMedian(), values).tobytes() == found.tobytes()


def test_blocks_do_not_show() -> None:
    """A leaf of many blocks against the same numbers one by one."""
    values = np.random.default_rng(5).normal(size=(7, 40_000)).astype(np.float32)
    for rule in (kn.Median(), kn.TrimmedMean(0.2), kn.NormBound(1.0), kn.GeometricMedian(), kn.Krum(1), kn.Bulyan(1)):
        parts = rule.finish({str(i): values[:, i::9] for i in range(9)}, np.ones(7))
        whole = finish(rule, values)
        for i in range(9):
            np.testing.assert_allclose(parts[str(i)], whole[i::9], rtol=1e-6, atol=1e-9)
    pairs = squared_distances({"w": values})
    for i, j in combinations(range(7), 2):
        assert pairs[i, j] == pytest.approx(np.square(values[i] - values[j], dtype=np.float64).sum(), rel=1e-5)
