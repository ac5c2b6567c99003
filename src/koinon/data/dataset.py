"""A federated dataset: who holds which rows. No example is moved to say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from koinon import keys, tree
from koinon.errors import ConfigurationError, DataError
from koinon.tree import Array, Tree


class NumberedNames(Sequence[str]):
    """Client names ``client-0, client-1, ...`` that take no memory."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return f"client-{index % self._count}"


@dataclass(frozen=True, eq=False)
class FederatedDataset:
    """Clients over shared arrays.

    ``rows[offsets[k]:offsets[k + 1]]`` are the row numbers of client k, training rows first, the last
    ``held_out[k]`` of them kept for judging. Make one with :func:`federate` or :func:`partition`.
    """

    x: Tree  # arrays [rows, ...]
    y: Tree  # arrays [rows, ...]
    names: Sequence[str]
    rows: Array  # int32
    offsets: Array  # int64 [clients + 1]
    held_out: Array  # int32 [clients]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"FederatedDataset(clients={len(self)}, examples={len(self.rows)}, held_out={int(self.held_out.sum())})"

    @cached_property
    def has_held_out(self) -> bool:
        """Whether any client keeps examples for judging."""
        return bool(self.held_out.any())

    def span(self, clients: Array, *, held_out: bool) -> tuple[Array, Array]:
        """Return where each client's examples start in :meth:`order`, and how many there are."""
        start, kept = self.offsets[clients], self.held_out[clients].astype(np.int64)
        train = self.offsets[np.asarray(clients) + 1] - start - kept
        return (start + train, kept) if held_out else (start, train)

    def order(self) -> Array:
        """Return the row numbers, grouped by client."""
        return self.rows

    def fingerprint(self) -> str:
        """Return a SHA-256 over arrays, names and splits."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        state = hashlib.sha256()
        for name in self.names:
            state.update(name.encode() + b"\0")
        splits = {"rows": self.rows, "offsets": self.offsets, "held_out": self.held_out}
        parts = ({"x": self.x, "y": self.y}, splits)
        for part in parts:
            state.update(tree.digest(part).encode())
        return state.hexdigest()

    def holdings(self) -> str:
        """Return a SHA-256 over who holds which examples: the same for any split of them and any order of clients."""
        state = hashlib.sha256()
        for k in sorted(range(len(self)), key=self.names.__getitem__):
            rows = np.sort(self.rows[self.offsets[k] : self.offsets[k + 1]])
            own = tree.map(lambda array, rows=rows: array[rows], {"x": self.x, "y": self.y})
            state.update(f"{self.names[k]}\0{tree.digest(own)}".encode())
        return state.hexdigest()

    def subset(self, clients: Iterable[str]) -> FederatedDataset:
        """Return some of the clients, over the same arrays."""
        chosen = list(clients)
        position = {name: i for i, name in enumerate(self.names)}
        missing = [name for name in chosen if name not in position]
        if missing:
            raise DataError(f"No client is called {missing[0]!r}. The clients are {', '.join(list(position)[:8])}.")
        return self._regroup(chosen, [[position[name]] for name in chosen])

    def pooled(self, name: str = "pooled") -> FederatedDataset:
        """Return one client that holds everybody's examples: the upper bound nobody may have."""
        return self._regroup([name], [list(range(len(self)))])

    def _regroup(self, names: Sequence[str], groups: Sequence[Sequence[int]]) -> FederatedDataset:
        pieces: list[Array] = []
        for group in groups:
            for held_out in (False, True):
                starts, counts = self.span(np.asarray(group), held_out=held_out)
                pieces += [self.rows[s : s + c] for s, c in zip(starts, counts, strict=True)]
        sizes = [int(sum(self.offsets[i + 1] - self.offsets[i] for i in group)) for group in groups]
        held = [int(self.held_out[list(group)].sum()) for group in groups]
        return replace(
            self,
            names=tuple(names),
            rows=np.concatenate(pieces),
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            held_out=np.asarray(held, np.int32),
        )


def federate(clients: Any, *, label: str | None = None, holdout: float = 0.2, seed: int = 0) -> FederatedDataset:
    """Return a dataset from ``{name: (x, y)}`` or ``{name: frame}`` with the column ``label``.

    ``holdout`` in [0, 1) is the share of each client's examples kept for judging, drawn by ``seed``; a
    client with fewer than two examples keeps none. Arrays of 64-bit floats become float32, 64-bit
    integers int32. Raises DataError naming the clients whose shapes, types or values cannot be used.
    """
    if isinstance(clients, FederatedDataset):
        return clients
    if not isinstance(clients, Mapping) or not clients:
        raise DataError(
            f"Clients were asked for as a dict of name -> (x, y) or frame; found {type(clients).__name__}"
            f"{' without entries' if isinstance(clients, Mapping) else ''}."
        )
    parts = {str(name): _pair(str(name), value, label) for name, value in clients.items()}
    _check_alike(parts)
    x = tree.map(_joined, *(pair[0] for pair in parts.values()))
    y = tree.map(_joined, *(pair[1] for pair in parts.values()))
    sizes = np.asarray([_length(pair[0]) for pair in parts.values()], np.int64)
    return assemble(x, y, tuple(parts), np.arange(int(sizes.sum())), sizes, holdout=holdout, seed=seed)


def assemble(
    x: Tree, y: Tree, names: Sequence[str], rows: Array, sizes: Array, *, holdout: float, seed: int
) -> FederatedDataset:
    """Return a dataset from row numbers, client after client, ``sizes[k]`` of them; checks values once for all."""
    if not 0 <= holdout < 1:
        raise ConfigurationError(f"holdout is a share in [0, 1); found {holdout!r}.")
    if not sizes.all():
        empty = [names[i] for i in np.nonzero(sizes == 0)[0][:5]]
        raise DataError(f"Client {empty[0]!r} has no examples. Give it some, or leave it out. (All such: {empty})")
    rows = np.asarray(rows, np.int32)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    _check_finite(x, "x", names, rows, offsets)
    _check_finite(y, "y", names, rows, offsets)
    held = np.where(sizes >= 2, np.minimum(np.ceil(sizes * holdout), sizes - 1), 0).astype(np.int32)
    if holdout:
        rows = _shuffled(rows, names, sizes, seed)
    return FederatedDataset(x, y, names, rows, offsets, held)


def _shuffled(rows: Array, names: Sequence[str], sizes: Array, seed: int) -> Array:
    """Shuffle each client's rows, so that the held-out ones are drawn and not merely last."""
    stream = keys.fold(keys.root(seed), keys.Purpose.HOLD_OUT.value)
    own = keys.fold(np.broadcast_to(stream, (len(sizes), 2)), keys.name_hash(list(names)))
    client = np.repeat(np.arange(len(sizes)), sizes)
    position = (np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[client]).astype(np.uint32)
    word, _ = keys.threefry(own[client], np.zeros_like(position), position)
    order = np.argsort((client.astype(np.uint64) << np.uint64(32)) | word.astype(np.uint64), kind="stable")
    return rows[order]


def _pair(name: str, value: Any, label: str | None) -> tuple[Tree, Tree]:
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        if label is None:
            raise DataError(f"Client {name!r} is a frame. Say which column is the label: label=...")
        if label not in value.columns:
            raise DataError(f"Client {name!r} has no column {label!r}. Its columns are {list(value.columns)}.")
        value = (value.drop(columns=[label]), value[label])
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"Client {name!r} must be a pair (x, y) or a frame; found {type(value).__name__}.")
    x, y = (as_arrays(part, f"client {name!r}") for part in value)
    if _length(x) != _length(y):
        raise DataError(f"Client {name!r} has {_length(x)} rows in x and {_length(y)} in y. Each row needs its label.")
    if _length(x) == 0:
        raise DataError(f"Client {name!r} has no examples. Give it some, or leave it out.")
    return x, y


def as_arrays(value: Any, whose: str) -> Tree:
    """Return numpy arrays in the types koinon trains on: 64-bit floats as float32, integers as int32."""
    if isinstance(value, Mapping):
        return {str(name): as_arrays(value[name], whose) for name in value}
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"The data of {whose} has type {array.dtype}, and a model takes numbers. "
            "Encode text and categories as numbers first."
        )
    if array.dtype.kind in "fb":
        with np.errstate(over="ignore"):  # what becomes infinite is refused with its client's name
            return np.ascontiguousarray(array, np.float32)
    if array.dtype.itemsize <= 2:
        return np.ascontiguousarray(array)
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise DataError(
            f"The data of {whose} holds whole numbers beyond 32 bits ({array.min()} to {array.max()}). "
            "Number such things from 0, or give real numbers."
        )
    return np.ascontiguousarray(array, np.int32)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an empty array that begins at a multiple of 64 bytes: compiled programs read it without a copy."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _joined(*arrays: Array) -> Array:
    rows = sum(len(array) for array in arrays)
    return np.concatenate(arrays, out=aligned((rows, *arrays[0].shape[1:]), arrays[0].dtype))


def _check_alike(parts: Mapping[str, tuple[Tree, Tree]]) -> None:
    first = next(iter(parts))

    def kind(pair: tuple[Tree, Tree]) -> str:
        named = tree.items({"x": pair[0], "y": pair[1]})
        return ", ".join(f"{name} {leaf.dtype}{list(leaf.shape[1:])}" for name, leaf in named)

    wanted = kind(parts[first])
    other = {name: kind(pair) for name, pair in parts.items() if kind(pair) != wanted}
    if other:
        name, found = next(iter(other.items()))
        raise DataError(
            f"Clients must hold examples of one shape and type. {first!r} has {wanted} a row, but {name!r} has {found}"
            f"{f' (and {len(other) - 1} more differ: {list(other)[1:6]})' if len(other) > 1 else ''}."
        )


def _check_finite(part: Tree, what: str, names: Sequence[str], rows: Array, offsets: Array) -> None:
    for leaf in tree.leaves(part):
        if leaf.dtype.kind != "f" or np.isfinite(leaf.sum(dtype=np.float64)):
            continue
        bad_rows = np.nonzero(~np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1))[0]
        places = np.nonzero(np.isin(rows, bad_rows))[0]
        if len(places):
            client = names[int(np.searchsorted(offsets, places[0], side="right")) - 1]
            raise DataError(
                f"{what} of client {client!r} holds a value that is not a finite number "
                f"({len(places)} such rows in all). Fill in or drop missing values first."
            )


def _length(part: Tree) -> int:
    return len(tree.leaves(part)[0])
