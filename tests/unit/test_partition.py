"""Partitioners deal every row to exactly one client, by the seed alone, as skewed as they say."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import koinon as kn
from koinon import keys
from koinon.data.dataset import FederatedDataset, NumberedNames
from koinon.errors import ConfigurationError, DataError

BY: dict[str, Callable[[int], object]] = {
    "iid": kn.IID,
    "dirichlet": lambda clients: kn.Dirichlet(clients, 0.7, at_least=1),
    "shards": lambda clients: kn.Shards(clients, 2),
    "quantity": lambda clients: kn.QuantitySkew(clients, 0.7),
}


def owners(data: FederatedDataset) -> np.ndarray:
    """Return the client of every row."""
    owner = np.empty(len(data.rows), np.int64)
    owner[data.rows] = np.repeat(np.arange(len(data)), np.diff(data.offsets))
    return owner


def label_shares(data: FederatedDataset) -> np.ndarray:
    """Return each client's share of every label, ``[clients, labels]``."""
    counts = np.zeros((len(data), int(data.y.max()) + 1))
    np.add.at(counts, (owners(data), data.y), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def digits(rows: int, labels: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(rows, dtype=np.float32)[:, None], (np.arange(rows) % labels).astype(np.int32)


@pytest.mark.parametrize("name", BY)
@given(
    clients=st.integers(1, 12), rows=st.integers(60, 200), holdout=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 99)
)
def test_every_row_goes_to_exactly_one_client_and_nobody_is_left_out(
    name: str, clients: int, rows: int, holdout: float, seed: int
) -> None:
    x, y = digits(rows, 3)
    data = kn.partition(x, y, BY[name](clients), holdout=holdout, seed=seed)
    assert sorted(data.rows.tolist()) == list(range(rows))
    assert np.diff(data.offsets).min() >= 1
    assert list(data.names) == [f"client-{i}" for i in range(clients)]
    again = kn.partition(x, y, BY[name](clients), holdout=holdout, seed=seed)
    assert data.fingerprint() == again.fingerprint()


@pytest.mark.parametrize("name", BY)
def test_the_seed_decides(name: str) -> None:
    x, y = digits(300)
    first, second = (owners(kn.partition(x, y, BY[name](5), seed=seed)) for seed in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", BY)
def test_the_hold_out_moves_no_row_to_another_client(name: str) -> None:
    x, y = digits(300)
    without, with_it = (kn.partition(x, y, BY[name](5), holdout=share) for share in (0.0, 0.25))
    np.testing.assert_array_equal(owners(without), owners(with_it))
    assert not without.has_held_out
    sizes = np.diff(with_it.offsets)
    np.testing.assert_array_equal(with_it.held_out, np.where(sizes > 1, np.minimum(np.ceil(sizes / 4), sizes - 1), 0))


@given(st.integers(1, 40), st.integers(40, 400))
def test_iid_parts_differ_by_one_row_at_most(clients: int, rows: int) -> None:
    sizes = np.diff(kn.partition(*digits(rows), kn.IID(clients)).offsets)
    assert sizes.max() - sizes.min() <= 1


@given(st.integers(1, 4), st.sampled_from([10, 20, 50]), st.integers(0, 99))
def test_shards_that_fit_the_labels_give_a_client_no_more_labels_than_shards(
    shards: int, clients: int, seed: int
) -> None:
    x, y = digits(10 * clients * shards)  # each of the ten labels fills whole shards
    data = kn.partition(x, y, kn.Shards(clients, shards), seed=seed)
    assert (label_shares(data) > 0).sum(axis=1).max() <= shards
    assert set(np.diff(data.offsets)) == {10 * shards}


@given(st.integers(2, 60), st.integers(60, 1000), st.integers(0, 99))
def test_a_shard_is_a_piece_of_the_rows_sorted_by_label(clients: int, rows: int, seed: int) -> None:
    data = kn.partition(*digits(rows, 2), kn.Shards(clients, 1), seed=seed)
    sizes = np.diff(data.offsets)
    assert sizes.max() - sizes.min() <= 1
    mixed = (label_shares(data).max(axis=1) < 1).sum()
    assert mixed <= 1  # only the piece where one label ends and the other begins


def test_a_large_alpha_is_nearly_iid_and_a_small_one_is_not() -> None:
    x, y = digits(20_000)
    even, skewed = (label_shares(kn.partition(x, y, kn.Dirichlet(10, alpha))) for alpha in (1e6, 0.1))
    assert np.abs(even - 0.1).max() < 0.005
    assert np.sort(skewed, axis=1)[:, -2:].sum(axis=1).mean() > 0.6  # two labels make up most of a client


def test_dirichlet_divides_each_label_as_dirichlet_does() -> None:
    alpha, clients = 0.5, 4
    draws = [kn.partition(*digits(4000, 1), kn.Dirichlet(clients, alpha, 1), seed=s) for s in range(300)]
    shares = np.array([np.diff(data.offsets) / 4000 for data in draws])
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / clients, atol=0.06)
    np.testing.assert_allclose(shares.var(axis=0), variance, rtol=0.3)


def test_quantity_skew_leaves_labels_alone_and_sizes_unequal() -> None:
    x, y = digits(20_000)
    data = kn.partition(x, y, kn.QuantitySkew(10, 0.5), seed=3)
    sizes = np.diff(data.offsets)
    assert sizes.max() > 4 * sizes.min()
    assert np.abs(label_shares(data)[sizes > 1000] - 0.1).max() < 0.05
    even = np.diff(kn.partition(x, y, kn.QuantitySkew(10, 1e6)).offsets)
    assert even.max() < 1.02 * even.min()


@pytest.mark.parametrize("alpha", [1e-4, 1e-2])
def test_a_tiny_alpha_still_deals_every_row(alpha: float) -> None:
    data = kn.partition(*digits(500), kn.QuantitySkew(20, alpha))
    assert sorted(data.rows.tolist()) == list(range(500))


def test_natural_columns_are_named_after_their_values() -> None:
    x, y = digits(6)
    data = kn.partition(x, y, kn.NaturalColumn(["lyon", "paris", "lyon", "nice", "paris", "lyon"]), holdout=0.0)
    assert data.names == ("lyon", "nice", "paris")
    np.testing.assert_array_equal(owners(data), [0, 2, 0, 1, 2, 0])
    assert kn.partition(x, y, kn.NaturalColumn(np.array([3, 3, 1, 1, 2, 2])), holdout=0.0).names == ("1", "2", "3")


def test_one_hot_labels_are_labels() -> None:
    x, y = digits(200)
    plain, hot = (kn.partition(x, labels, kn.Shards(10)) for labels in (y, np.eye(10, dtype=np.float32)[y]))
    np.testing.assert_array_equal(owners(plain), owners(hot))


def test_many_clients_take_the_memory_of_their_rows() -> None:
    clients = 100_000
    x, y = np.zeros((2 * clients, 4), np.float32), np.zeros(2 * clients, np.int32)
    tracemalloc.start()
    try:
        data = kn.partition(x, y, kn.IID(clients), holdout=0.5)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert isinstance(data.names, NumberedNames)
    assert taken < 1.1 * (data.rows.nbytes + data.offsets.nbytes + data.held_out.nbytes) + 100_000


def refused() -> list[tuple[Callable[[], object], type[Exception], str]]:
    x, y = digits(20)
    return [
        (lambda: kn.IID(0), ConfigurationError, r"IID.clients must be a whole number from 1; found 0"),
        (lambda: kn.IID(2.5), ConfigurationError, r"found 2.5"),  # type: ignore[arg-type]
        (lambda: kn.Dirichlet(3, 0.0), ConfigurationError, r"Dirichlet.alpha must be a number above 0"),
        (lambda: kn.Dirichlet(3, float("nan")), ConfigurationError, r"found nan"),
        (lambda: kn.Shards(3, 0), ConfigurationError, r"Shards.shards must be a whole number from 1"),
        (lambda: kn.partition(x, y, kn.IID(21)), DataError, r"at least 21 rows; there are 20"),
        (lambda: kn.partition(x, y, kn.Shards(11)), DataError, r"at least 22 rows; there are 20"),
        (lambda: kn.partition(x, y, kn.Dirichlet(10, 1e-3)), DataError, r"Use a larger alpha, fewer clients"),
        (lambda: kn.partition(x, y[:19], kn.IID(2)), DataError, r"20 rows in x and 19 in y"),
        (lambda: kn.partition(x, y, kn.NaturalColumn(["a"])), DataError, r"shape \[20\]; found shape \[1\]"),
        (lambda: kn.partition(x, np.zeros((20, 3, 2)), kn.Shards(2)), DataError, r"one label a row"),
        (lambda: kn.partition(x, y, kn.IID(2), holdout=1.0), ConfigurationError, r"holdout is a share in \[0, 1\)"),
        (lambda: kn.partition(x * np.nan, y, kn.IID(2)), DataError, r"not a finite number"),
    ]


@pytest.mark.parametrize(("make", "kind", "says"), refused())
def test_what_cannot_be_dealt_is_said(make: Callable[[], object], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        make()


def test_a_dealer_never_reads_a_global_generator() -> None:
    x, y = digits(300)
    before = np.random.get_state()[1].tolist()
    kn.partition(x, y, kn.Dirichlet(5))
    assert np.random.get_state()[1].tolist() == before
    first = kn.Dirichlet(5).deal(y, keys.root(0))[1]
    np.testing.assert_array_equal(first, kn.Dirichlet(5).deal(y, keys.root(0))[1])
