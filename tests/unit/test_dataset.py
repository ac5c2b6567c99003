"""Clients' data: what cannot be trained on is refused by the client's name; what can is held, split and found again."""

import numpy as np
import pytest

import koinon as kn
from koinon.data.dataset import NumberedNames
from koinon.errors import ConfigurationError, DataError

X, Y = np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10, dtype=np.float32)


def rows_of(data: kn.FederatedDataset, name: str, *, held_out: bool) -> list[float]:
    """Return the labels of a client, which tell its rows apart."""
    start, count = data.span(np.array(list(data.names).index(name)), held_out=held_out)
    return [float(v) for v in data.y[data.order()[start : start + count]]]


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ({}, "found dict without entries"),
        ([(X, Y)], "as a dict of name -> .* found list"),
        ({"paris": (X[:0], Y[:0])}, "Client 'paris' has no examples. Give it some, or leave it out"),
        ({"paris": (X, Y[:9])}, "Client 'paris' has 10 rows in x and 9 in y"),
        ({"paris": X}, r"Client 'paris' must be a pair \(x, y\)"),
        ({"paris": (X, Y, Y)}, "Client 'paris' must be a pair"),
        ({"paris": (np.array([["a"], ["b"]]), Y[:2])}, "client 'paris' has type <U1, .* Encode text"),
        ({"paris": (np.array([[None], [1]], object), Y[:2])}, "client 'paris' has type object"),
        ({"paris": (X, Y), "lyon": (X[:, :1], Y)}, r"'paris' has x float32\[2\].* but 'lyon' has x float32\[1\]"),
        ({"paris": (X, Y), "lyon": (X, Y.astype(int))}, r"y float32\[\] a row, but 'lyon' has .* y int32\[\]"),
        ({"paris": (X, Y), "lyon": (X * np.nan, Y)}, "x of client 'lyon' holds a value that is not a finite number"),
        ({"paris": (X, Y), "lyon": (X, Y + np.inf)}, r"y of client 'lyon' .* \(10 such rows"),
    ],
)  # fmt: skip
def test_clients_that_cannot_be_trained_on_are_named(clients, message: str) -> None:
    with pytest.raises(DataError, match=message):
        kn.federate(clients)


def test_how_many_more_differ_is_said() -> None:
    clients = {"a": (X, Y), **{f"odd-{i}": (X[:, :1], Y) for i in range(4)}}
    with pytest.raises(DataError, match=r"but 'odd-0' has .* \(and 3 more differ: \['odd-1', 'odd-2', 'odd-3'\]"):
        kn.federate(clients)


def test_one_bad_value_is_found_in_its_client() -> None:
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match="x of client 'second'"):
        kn.federate({"first": (X, Y), "second": (bad, Y), "third": (X, Y)})


@pytest.mark.parametrize(
    ("given", "kept"),
    [("float64", "float32"), ("float16", "float32"), ("int64", "int32"), ("bool", "float32"), ("uint8", "uint8"),
     ("int16", "int16")],
)  # fmt: skip
def test_wide_numbers_become_those_that_are_trained_on(given: str, kept: str) -> None:
    data = kn.federate({"a": (X.astype(given), Y)})
    assert data.x.dtype == kept
    assert data.x.flags.c_contiguous


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40])
def test_whole_numbers_that_do_not_fit_are_refused_not_wrapped(number: int) -> None:
    with pytest.raises(DataError, match=rf"client 'a' holds whole numbers beyond 32 bits .*{number}"):
        kn.federate({"a": (np.full((10, 1), number), Y)})
    assert kn.federate({"a": (np.full((10, 1), 2**31 - 1, np.uint32), Y)}).x.max() == 2**31 - 1


def test_real_numbers_that_do_not_fit_are_refused_as_infinite() -> None:
    with pytest.raises(DataError, match="x of client 'a' holds a value that is not a finite number"):
        kn.federate({"a": (np.full((10, 1), 1e300), Y)})


def test_nested_inputs_keep_their_names() -> None:
    data = kn.federate({"a": ({"age": Y, "scan": X}, Y)})
    assert set(data.x) == {"age", "scan"}
    with pytest.raises(DataError, match="Clients must hold examples of one shape"):
        kn.federate({"a": ({"age": Y}, Y), "b": ({"sex": Y}, Y)})


def test_the_callers_arrays_are_left_as_they_are() -> None:
    x, y = X.astype(float), Y.copy()
    data = kn.federate({"a": (x, y), "b": (x, y)})
    data.x[:] = -1
    assert x.tolist() == X.tolist()
    assert y.tolist() == Y.tolist()


@pytest.mark.parametrize(("size", "held"), [(1, 0), (2, 1), (3, 1), (5, 1), (6, 2), (10, 2)])
def test_a_share_of_each_client_is_held_out_never_all(size: int, held: int) -> None:
    data = kn.federate({"a": (X[:size], Y[:size])}, holdout=0.2)
    train, judge = (rows_of(data, "a", held_out=which) for which in (False, True))
    assert len(judge) == held
    assert sorted(train + judge) == Y[:size].tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_something_is_left_to_train_on(size: int) -> None:
    assert len(rows_of(kn.federate({"a": (X[:size], Y[:size])}, holdout=0.99), "a", held_out=False)) == 1


def test_what_is_held_out_is_drawn_by_the_seed_and_the_clients_name() -> None:
    clients = {"a": (X, Y), "b": (X, Y)}
    data, again, other = (kn.federate(clients, holdout=0.5, seed=seed) for seed in (1, 1, 2))
    assert rows_of(data, "a", held_out=True) == rows_of(again, "a", held_out=True)
    assert rows_of(data, "a", held_out=True) != rows_of(other, "a", held_out=True)
    assert rows_of(data, "a", held_out=True) != rows_of(data, "b", held_out=True)
    alone = kn.federate({"b": (X, Y)}, holdout=0.5, seed=1)
    assert rows_of(alone, "b", held_out=True) == rows_of(data, "b", held_out=True), "others do not matter"


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 2])
def test_a_share_out_of_range_is_refused(holdout: float) -> None:
    with pytest.raises(ConfigurationError, match=r"holdout is a share in \[0, 1\); found"):
        kn.federate({"a": (X, Y)}, holdout=holdout)


def test_nothing_held_out_keeps_the_order() -> None:
    data = kn.federate({"a": (X, Y)}, holdout=0)
    assert rows_of(data, "a", held_out=False) == Y.tolist()
    assert not data.has_held_out


def test_a_subset_and_the_pool_hold_the_same_rows() -> None:
    data = kn.federate({"a": (X[:4], Y[:4]), "b": (X[4:], Y[4:])}, holdout=0.3)
    only, pool = data.subset(["b"]), data.pooled()
    for held_out in (False, True):
        assert rows_of(only, "b", held_out=held_out) == rows_of(data, "b", held_out=held_out)
        both = rows_of(data, "a", held_out=held_out) + rows_of(data, "b", held_out=held_out)
        assert rows_of(pool, "pooled", held_out=held_out) == both
    with pytest.raises(DataError, match="No client is called 'c'. The clients are a, b"):
        data.subset(["a", "c"])


def test_the_fingerprint_is_of_everything() -> None:
    base = {"a": (X[:4], Y[:4]), "b": (X[4:], Y[4:])}
    changed = X[4:].copy()
    changed[0, 0] += 1
    prints = [
        kn.federate(base).fingerprint(),
        kn.federate(base, seed=1).fingerprint(),
        kn.federate(base, holdout=0.5).fingerprint(),
        kn.federate({"a": base["a"], "c": base["b"]}).fingerprint(),
        kn.federate({"a": base["a"], "b": (changed, Y[4:])}).fingerprint(),
        kn.federate({"a": base["a"], "b": (X[4:], Y[4:] + 1)}).fingerprint(),
        kn.federate(base).subset(["a"]).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert kn.federate(dict(base)).fingerprint() == prints[0]


def test_numbered_names_take_no_memory() -> None:
    names = NumberedNames(10**9)
    assert (len(names), names[5], names[-1]) == (10**9, "client-5", "client-999999999")
    assert names[2:4] == ["client-2", "client-3"]
    for beyond in (10**9, -(10**9) - 1):
        with pytest.raises(IndexError):
            names[beyond]


def test_frames_are_clients_by_their_label_column() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [50, 60], "sex": [0.0, 1.0], "ill": [1, 0]})
    data = kn.federate({"a": frame, "b": frame}, label="ill", holdout=0)
    assert data.x.shape == (4, 2)
    assert data.y.tolist() == [1, 0, 1, 0]
    with pytest.raises(DataError, match="Client 'a' is a frame. Say which column is the label"):
        kn.federate({"a": frame})
    with pytest.raises(DataError, match=r"Client 'a' has no column 'sick'. Its columns are \['age', 'sex', 'ill'\]"):
        kn.federate({"a": frame}, label="sick")
