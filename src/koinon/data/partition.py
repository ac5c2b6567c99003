"""Partitioners: one array set, dealt out to clients as real ones would hold it.

Each takes the labels and a key and returns a client for every row; none of them moves an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from koinon import keys
from koinon.core.ranges import positive, whole
from koinon.data.dataset import FederatedDataset, NumberedNames, as_arrays, assemble
from koinon.errors import DataError
from koinon.tree import Array, leaves


class Partitioner(Protocol):
    """Who holds which row."""

    def deal(self, y: Array, key: Array) -> tuple[Sequence[str], Array]:
        """Return the clients' names and, for each row of the labels ``y``, the position of its client."""


def partition(x: Any, y: Any, by: Partitioner, *, holdout: float = 0.2, seed: int = 0) -> FederatedDataset:
    """Return the rows of ``x`` and ``y`` as clients.

    ``by`` deals them out by ``seed``; each client then holds the share ``holdout`` of its rows out. Raises
    DataError if a client would get none.
    """
    features, labels = as_arrays(x, "x"), as_arrays(y, "y")
    rows, labelled = len(leaves(features)[0]), len(leaves(labels)[0])
    if rows != labelled:
        raise DataError(f"There are {rows} rows in x and {labelled} in y. Each row needs its label.")
    key = keys.fold(keys.root(seed), keys.Purpose.PARTITION.value)
    names, owner = by.deal(leaves(labels)[0], key)
    order, sizes = np.argsort(owner, kind="stable"), np.bincount(owner, minlength=len(names))
    return assemble(features, labels, names, order, sizes, holdout=holdout, seed=seed)


@dataclass(frozen=True)
class IID:
    """Every client draws from the same distribution: shuffled rows in equal parts."""

    clients: int

    def __post_init__(self) -> None:
        whole(self, "clients")

    def deal(self, y: Array, key: Array) -> tuple[Sequence[str], Array]:
        """Return equal shares of a shuffle."""
        _check_rows(self, len(y), self.clients)
        return NumberedNames(self.clients), _shares(_shuffle(key, len(y)), np.full(self.clients, 1.0))


@dataclass(frozen=True)
class Dirichlet:
    """Label skew: each label is divided among the clients in proportions drawn from Dirichlet(``alpha``).

    Small ``alpha`` gives clients of few labels, large ``alpha`` is IID. Hsu et al. 2019, arXiv 1909.06335.
    The draw is repeated until every client has ``at_least`` rows.
    """

    clients: int
    alpha: float = 0.5
    at_least: int = 2

    def __post_init__(self) -> None:
        whole(self, "clients", "at_least")
        positive(self, "alpha")

    def deal(self, y: Array, key: Array) -> tuple[Sequence[str], Array]:
        """Return the first draw in which nobody is short."""
        _check_rows(self, len(y), self.clients * self.at_least)
        labels = _labels(self, y)
        for turn in range(_DRAWS):
            own = keys.fold(key, turn)
            owner = self._draw(labels, own)
            if np.bincount(owner, minlength=self.clients).min() >= self.at_least:
                return NumberedNames(self.clients), owner
        raise DataError(
            f"{self} left some client with fewer than {self.at_least} rows in {_DRAWS} draws. "
            "Use a larger alpha, fewer clients, or at_least=1."
        )

    def _draw(self, labels: Array, key: Array) -> Array:
        generator = _generator(key)
        owner = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            rows = np.nonzero(labels == label)[0]
            proportions = generator.dirichlet(np.full(self.clients, self.alpha))
            owner[generator.permutation(rows)] = _owners(len(rows), proportions)
        return owner


@dataclass(frozen=True)
class Shards:
    """Few labels each: rows sorted by label are cut into ``clients * shards`` pieces, ``shards`` to a client.

    McMahan et al., AISTATS 2017, section 3: two shards of MNIST's digits for each of 100 clients.
    """

    clients: int
    shards: int = 2

    def __post_init__(self) -> None:
        whole(self, "clients", "shards")

    def deal(self, y: Array, key: Array) -> tuple[Sequence[str], Array]:
        """Return the pieces dealt out at random."""
        pieces = self.clients * self.shards
        _check_rows(self, len(y), pieces)
        by_label = _shuffle(keys.fold(key, 0), len(y))
        by_label = by_label[np.argsort(_labels(self, y)[by_label], kind="stable")]
        holder = _shuffle(keys.fold(key, 1), pieces) // self.shards
        owner = np.empty(len(y), np.int64)
        owner[by_label] = holder[np.arange(len(y)) * pieces // len(y)]
        return NumberedNames(self.clients), owner


@dataclass(frozen=True)
class QuantitySkew:
    """Unequal sizes: shuffled rows in proportions drawn from Dirichlet(``alpha``), at least one row each.

    Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section 3.3.
    """

    clients: int
    alpha: float = 0.5

    def __post_init__(self) -> None:
        whole(self, "clients")
        positive(self, "alpha")

    def deal(self, y: Array, key: Array) -> tuple[Sequence[str], Array]:
        """Return one row for each client, and the others in the drawn proportions."""
        _check_rows(self, len(y), self.clients)
        proportions = _generator(keys.fold(key, 0)).dirichlet(np.full(self.clients, self.alpha))
        owners = np.concatenate([np.arange(self.clients), _owners(len(y) - self.clients, proportions)])
        owner = np.empty(len(y), np.int64)
        owner[_shuffle(keys.fold(key, 1), len(y))] = owners
        return NumberedNames(self.clients), owner


@dataclass(frozen=True, eq=False)
class NaturalColumn:
    """The clients that are in the data: rows with the same value in ``column`` (a hospital, a speaker, a writer)."""

    column: Any

    def deal(self, y: Array, key: Array) -> tuple[Sequence[str], Array]:
        """Return the distinct values, sorted, and each row's."""
        values = np.asarray(self.column)
        if values.shape != (len(y),):
            raise DataError(f"NaturalColumn needs one value a row, shape [{len(y)}]; found shape {list(values.shape)}.")
        names, owner = np.unique(values.astype(str), return_inverse=True)
        return tuple(names.tolist()), owner.astype(np.int64)


_DRAWS = 100


def _shuffle(key: Array, count: int) -> Array:
    """Return a permutation of ``count`` positions."""
    return np.argsort(keys.bits(key, count), kind="stable")


def _shares(order: Array, proportions: Array) -> Array:
    """Return an owner for each position, given in ``order``, in these proportions."""
    owner = np.empty(len(order), np.int64)
    owner[order] = _owners(len(order), proportions / proportions.sum())
    return owner


def _owners(count: int, proportions: Array) -> Array:
    """Return ``count`` owners in runs as long as the proportions say."""
    ends = np.rint(np.cumsum(proportions) * count).astype(np.int64)
    ends[-1] = count
    return np.repeat(np.arange(len(proportions)), np.diff(ends, prepend=0))


def _generator(key: Array) -> np.random.Generator:
    """Return numpy's generator for the draws that have no closed form."""
    return np.random.Generator(np.random.Philox(key=int(key[0]) << 32 | int(key[1])))


def _labels(by: Any, y: Array) -> Array:
    """Return one label a row: the label itself, or the largest place of a one-hot row."""
    if y.ndim == 1:
        return y
    if y.ndim == 2 and y.shape[1] > 1:
        return y.argmax(axis=1)
    if y.ndim == 2:
        return y[:, 0]
    raise DataError(f"{by} skews by label and needs one label a row; found labels of shape {list(y.shape[1:])} a row.")


def _check_rows(by: Any, rows: int, needed: int) -> None:
    if rows < needed:
        raise DataError(f"{by} needs at least {needed} rows; there are {rows}. Use fewer clients.")
