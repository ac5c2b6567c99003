"""Numbers of the secure sum: neighbours and threshold, bits of the ring, the layout of a vector, what travels."""

import itertools
from math import comb, log2

import numpy as np
import pytest

from koinon import exact
from koinon.errors import ConfigurationError, ProtocolError
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.neighbours import (
    Assumptions,
    Coordinator,
    Degree,
    degree,
    holds,
    quorum,
    separable,
    sparse_degree,
)
from koinon.privacy.secure_sum.ring import container, least_bits, share

CURIOUS = Coordinator.HONEST_BUT_CURIOUS
KNOWN = {  # cohort, corrupt, dropped: k, t at 40 bits of secrecy and 30 of correctness
    (100, 0.1, 0.1): (42, 21),
    (100, 0.2, 0.1): (54, 27),
    (100, 0.33, 0.1): (78, 39),
    (1000, 0.1, 0.1): (52, 28),
    (1000, 0.2, 0.1): (74, 45),
    (1000, 0.33, 0.1): (114, 78),
    (1000, 0.2, 0.2): (112, 58),
    (1000, 0.33, 0.33): (310, 159),
    (10**4, 0.1, 0.1): (60, 32),
    (10**4, 0.2, 0.1): (90, 54),
    (10**4, 0.33, 0.1): (140, 95),
    (10**6, 0.1, 0.1): (70, 37),
    (10**6, 0.2, 0.1): (104, 63),
    (10**6, 0.33, 0.1): (162, 109),
}
SPARSE = [
    (n, Assumptions(corrupt=corrupt, dropped=dropped))
    for n in (100, 200, 1000, 10_000)
    for corrupt, dropped in ((0.1, 0.1), (0.2, 0.1), (0.2, 0.2))
]


@pytest.mark.parametrize(("case", "found"), KNOWN.items(), ids=str)
def test_neighbours_against_a_curious_coordinator(case: tuple[int, float, float], found: tuple[int, int]) -> None:
    cohort, corrupt, dropped = case
    assert sparse_degree(cohort, Assumptions(corrupt=corrupt, dropped=dropped), CURIOUS) == Degree(*found)


def test_fifty_clients_have_no_sparse_graph() -> None:
    assert sparse_degree(50, Assumptions(), CURIOUS) is None


def at_least(cohort: int, marked: int, k: int, least: int) -> float:
    """Pr[at least so many of k drawn from the others are marked], as the definition says it."""
    ways = sum(comb(marked, j) * comb(cohort - 1 - marked, k - j) for j in range(max(0, least), min(k, marked) + 1))
    return log2(ways) - log2(comb(cohort - 1, k)) if ways else float("-inf")


@pytest.mark.parametrize(("cohort", "assumed"), SPARSE, ids=str)
def test_neighbours_against_a_malicious_coordinator(cohort: int, assumed: Assumptions) -> None:
    """t is at least two thirds of k, 2t exceeds k and the corrupt, enough survive, and no sum falls apart."""
    found = sparse_degree(cohort, assumed)
    assert found is not None
    k, t = found.neighbours, found.threshold
    corrupt, dropped = assumed.corrupt_of(cohort), assumed.dropped_of(cohort)
    assert 3 * t >= 2 * k
    assert log2(cohort) + at_least(cohort, corrupt, k, 2 * t - k) <= -40
    assert log2(cohort) + at_least(cohort, dropped, k, k - t + 1) <= -30
    assert separable(cohort, found, assumed) <= -40
    assert holds(cohort, found, assumed)


@pytest.mark.parametrize(("cohort", "assumed"), [case for case in SPARSE if case[0] < 1000], ids=str)
def test_no_fewer_neighbours_would_do(cohort: int, assumed: Assumptions) -> None:
    found = sparse_degree(cohort, assumed)
    corrupt, dropped = assumed.corrupt_of(cohort), assumed.dropped_of(cohort)
    for k in range(1, found.neighbours if found else cohort):
        for t in range(-(-2 * k // 3), k + 1):
            safe = log2(cohort) + at_least(cohort, corrupt, k, 2 * t - k) <= -40
            recovers = log2(cohort) + at_least(cohort, dropped, k, k - t + 1) <= -30
            assert not (safe and recovers and separable(cohort, Degree(k, t), assumed) <= -40)


@pytest.mark.parametrize("cohort", range(3, 100))
def test_a_small_cohort_has_the_complete_graph(cohort: int) -> None:
    assert degree(cohort, Assumptions()) == Degree(cohort, 2 * cohort // 3 + 1)


def test_two_quorums_have_an_honest_member_in_common() -> None:
    for cohort in range(3, 2000):
        assert 2 * quorum(cohort) - cohort > cohort // 3


def test_a_lowered_graph_does_not_hold() -> None:
    right, assumed = degree(1000, Assumptions()), Assumptions()
    assert holds(1000, right, assumed)
    assert not holds(1000, Degree(right.neighbours, right.threshold - 1), assumed)
    assert not holds(1000, Degree(40, 30), assumed)
    assert not holds(1000, right, Assumptions(corrupt=0.33))
    assert not holds(1000, right, Assumptions(security=60))
    assert not holds(50, Degree(41, 31), assumed), "below 100 only the complete graph does"
    assert not holds(10, Degree(10, 6), assumed)
    assert holds(1000, Degree(60, 40), Assumptions(corrupt=0.0))
    assert not holds(1000, Degree(60, 39), Assumptions(corrupt=0.0)), "two thirds, even where nobody is corrupt"
    assert holds(10, Degree(10, 7), assumed)


@pytest.mark.parametrize("cohort", [0, 1, 2, 10_001])
def test_a_cohort_of_another_size_is_refused(cohort: int) -> None:
    with pytest.raises(ConfigurationError, match="3 to 10,000"):
        degree(cohort, Assumptions())


def test_what_is_assumed_must_be_less_than_a_third() -> None:
    for wrong in ({"corrupt": 0.4}, {"dropped": -0.1}, {"security": 0}, {"correctness": 200}):
        with pytest.raises(ConfigurationError, match="1/3"):
            Assumptions(**wrong)


def split_off(neighbours: list[set[int]], honest: int, cohort: int, degree: Degree) -> bool:
    """Whether a coordinator finds honest survivors whose sum it can open without the others', by trying all.

    Members from ``honest`` on are corrupt. Each honest one is dead, in the sum or left out. One in the sum has ``threshold``
    neighbours that answer; it has been told that those of its neighbours who are left out have not shared, which one that
    signs would notice and nobody believes of more than k - t. More than two thirds survive and sign.
    """
    most = degree.neighbours - degree.threshold
    for places in itertools.product((DEAD, SUMMED, LEFT_OUT), repeat=honest):
        dead, s, rest = ({i for i in range(honest) if places[i] == place} for place in (DEAD, SUMMED, LEFT_OUT))
        if not rest or not 0 < len(s) < 5 * (quorum(cohort) - (cohort - honest)) // 6:
            continue
        told = [len(neighbours[i] & rest) for i in s]
        signers = cohort - len(dead) - sum(count > 0 for count in told)
        opened = all(degree.neighbours - len(neighbours[i] & dead) >= degree.threshold for i in s)
        if opened and max(told) <= most and signers >= quorum(cohort):
            return True
    return False


DEAD, SUMMED, LEFT_OUT = range(3)


@pytest.mark.parametrize("corrupt", [1, 2])
def test_the_bound_on_splitting_a_sum_holds_by_trying_all(corrupt: int) -> None:
    """A graph of 9 that is far too thin, so that the coordinator does find something, but less often than is said."""
    cohort, k, t, tries = 9, 2, 2, 120
    rng, found = np.random.default_rng(5), 0
    for _ in range(tries):
        others = ([j for j in range(cohort) if j != i] for i in range(cohort))
        graph = [set(rng.choice(those, k, replace=False).tolist()) for those in others]
        found += split_off(graph, cohort - corrupt, cohort, Degree(k, t))
    bound = 2 ** separable(cohort, Degree(k, t), Assumptions(corrupt=corrupt / cohort))
    assert 0 < found / tries <= bound < 1


def test_bits_of_the_ring_and_expansion_are_those_of_bonawitz() -> None:
    """Table of section 7.4: 1.73 for 2**10 clients and 2**20 numbers of 16 bits, 1.98 for 2**14 and 2**24.

    With the paper's cost of a client, section 6: 2n keys and 5n - 4 shares of 256 bits, and the vector.
    """
    for clients, numbers, bits, expansion in ((2**10, 2**20, 26, 1.734), (2**14, 2**24, 30, 1.984)):
        assert least_bits(clients, 2**15 - 1) == bits
        sent = 2 * clients * 256 + (5 * clients - 4) * 256 + numbers * bits
        assert round(sent / (16 * numbers), 3) == expansion


@pytest.mark.parametrize("bits", [2, 7, 16, 26, 32, 47, 64])
@pytest.mark.parametrize("cohort", [1, 3, 99, 1000, 10_000])
def test_no_sum_wraps_at_the_largest_cohort_and_one_more_would(bits: int, cohort: int) -> None:
    most = share(bits, cohort)
    assert cohort * most <= 2 ** (bits - 1) - 1
    assert cohort * (most + 1) > 2 ** (bits - 1) - 1
    if most:
        assert least_bits(cohort, most) <= bits


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_extreme_sum_of_a_whole_cohort_is_exact(bits: int, sign: float) -> None:
    cohort, weight = 37, 8
    layout = Layout.of_bits(5, 1, bits=bits, cohort=cohort, bound=2.0, largest_weight=weight)
    vector = layout.encode(np.full(5, sign * 2.0, np.float32), weight, np.array([sign * 1e6]))
    total = layout.zero()
    for _ in range(cohort):
        total += vector
    found = layout.decode(total)
    assert found.update.tolist() == [int(sign * cohort * 2 * weight * 2.0**layout.scale)] * 5
    assert (found.weight, found.sums.tolist()) == (cohort * weight, [sign * cohort * 1e6])


def test_the_scale_is_the_finest_and_the_ring_the_least() -> None:
    finest = Layout.of_bits(5, 0, bits=32, cohort=100, bound=1.0, largest_weight=10)
    least = Layout.of_scale(5, 0, scale=finest.scale, cohort=100, bound=1.0, largest_weight=10)
    assert least.bits in (31, 32)
    assert Layout.of_scale(5, 0, scale=finest.scale + 1, cohort=100, bound=1.0, largest_weight=10).bits == 33
    assert [container(bits).itemsize for bits in (2, 16, 17, 32, 33, 64)] == [2, 2, 4, 4, 8, 8]
    for wrong in (1, 65):
        with pytest.raises(ConfigurationError, match="2 to 64 bits"):
            container(wrong)
    with pytest.raises(ConfigurationError, match="needs 7"):
        least_bits(2**40, 2**33)


@pytest.mark.parametrize("weight", [1, 3, 1000, 2**24 - 1])
def test_an_update_is_converted_as_the_exact_sum_does(weight: int) -> None:
    rng = np.random.default_rng(weight)
    update = (rng.standard_normal(100_000) * 0.1).astype(np.float32)
    update[:4] = 0.0, -0.0, np.float32(2.5) / 2**30 / weight, np.float32(-3.5) / 2**30 / weight
    layout = Layout(numbers=update.size, sums=0, bits=64, scale=30, cohort=1000, largest_weight=2**24 - 1)
    found = layout.encode(update, weight, np.empty(0))
    assert np.array_equal(found.body.view(np.int64), exact.convert(update, np.float32(weight)))
    total = exact.zero(update)
    exact.accumulate(total, update, weight)
    assert np.array_equal(layout.decode(found).update, total)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1.1, -1.1])
@pytest.mark.parametrize("place", [0, 40_000])
def test_a_client_refuses_a_number_that_is_not_finite_or_beyond_its_share(wrong: float, place: int) -> None:
    layout = Layout.of_bits(50_000, 1, bits=32, cohort=10, bound=1.0)
    # the share is a power of two more than the bound at most: find what is beyond it
    update = np.zeros(50_000, np.float32)
    update[place] = wrong * 2 if np.isfinite(wrong) else wrong
    with pytest.raises(ProtocolError, match="number of the update is"):
        layout.encode(update, 1, np.zeros(1))
    with pytest.raises(ProtocolError, match="metric sum is"):
        layout.encode(np.zeros(50_000, np.float32), 1, np.array([wrong * 1e13]))


@pytest.mark.parametrize("weight", [0, -1, 11, 1.5])
def test_a_client_refuses_a_weight_beyond_its_cap(weight: int) -> None:
    layout = Layout.of_bits(3, 0, bits=32, cohort=10, bound=1.0, largest_weight=10)
    with pytest.raises(ProtocolError, match="weight of 1 to 10 fits"):
        layout.encode(np.zeros(3, np.float32), weight, np.empty(0))


def test_a_vector_of_another_shape_is_refused() -> None:
    layout = Layout.of_bits(3, 1, bits=32, cohort=10, bound=1.0)
    with pytest.raises(ProtocolError, match="the same app"):
        layout.encode(np.zeros(4, np.float32), 1, np.zeros(1))
    for wrong in ({"bits": 65}, {"numbers": 0}, {"cohort": 2**31}, {"largest_weight": 2**24}, {"scale": 200}):
        with pytest.raises(ConfigurationError):
            Layout(**{"numbers": 3, "sums": 0, "bits": 32, "scale": 0, "cohort": 10} | wrong)
