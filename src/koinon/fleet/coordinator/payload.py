"""An update as a file: what it must hold, whether it can be added, and its sum with others, leaf by leaf."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from koinon import exact, tree
from koinon.core.algorithm import Algorithm
from koinon.core.types import Metrics
from koinon.errors import FormatError, StoreError
from koinon.fleet.coordinator.deferred import Deferred
from koinon.fleet.coordinator.spool import Upload
from koinon.fleet.wire.encrypted_terms import CIPHERTEXTS, PAD, PAD_BYTES
from koinon.fleet.wire.secure_terms import BODY, TAIL
from koinon.fleet.wire.update_file import METRICS, UPDATE
from koinon.metrics import EXAMPLES
from koinon.privacy.encrypted_sum.ciphertexts import update_bytes
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.ring import Vector, sent_as, widened
from koinon.round.client import decode, encode, initial_state
from koinon.store import tensors
from koinon.tree import Array, Tree

_MOST_METRICS = 64
_MOST_METRIC_VALUES = 1 << 20


@dataclass(frozen=True)
class Expected:
    """The leaves of every update of an algorithm, as the channel sends them."""

    algorithm: Algorithm
    structure: Tree
    leaves: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    finish: Callable[[Metrics], Any]  # the model's own: makes figures of metric sums
    masked: bool = False  # whether single updates are noise to whoever looks at them

    @classmethod
    def of(cls, algorithm: Algorithm, value: Tree, finish: Callable[[Metrics], Any] = dict) -> Expected:
        """Return what is expected for updates shaped like ``value``."""
        if algorithm.channel:  # the channel says how it encodes; only shapes are kept
            broadcast = tree.to_numpy(value)
            state = initial_state(algorithm, broadcast)["channel"]
            zeros = tree.zeros(broadcast)
            value, _ = encode(algorithm, zeros, state, broadcast, np.zeros(2, np.uint32), np.float32(1))
        known = {name: (np.asarray(leaf).dtype, np.shape(leaf)) for name, leaf in tree.items(value)}
        if not tree.leaves(value):
            known = {}
        return cls(algorithm, tree.structure(value), known, finish)

    @classmethod
    def of_masked(cls, algorithm: Algorithm, layout: Layout, finish: Callable[[Metrics], Any] = dict) -> Expected:
        """Return what is expected of vectors under the masks of a secure sum."""
        known = {BODY: sent_as(layout.numbers, layout.bits), TAIL: (np.dtype("<u8"), (1 + layout.sums,))}
        return cls(algorithm, {BODY: None, TAIL: None}, known, finish, masked=True)

    @classmethod
    def of_encrypted(cls, algorithm: Algorithm, round: Round, finish: Callable[[Metrics], Any] = dict) -> Expected:
        """Return what is expected of ciphertexts and of a sealed pad for each key holder."""
        size = update_bytes(round.parameters)
        known = {CIPHERTEXTS: (np.dtype("u1"), (size,)), PAD: (np.dtype("u1"), (len(round.keys) * PAD_BYTES,))}
        return cls(algorithm, dict.fromkeys(known), known, finish, masked=True)

    @cached_property
    def most_bytes(self) -> int:
        """How long a file of these leaves and of metrics can be."""
        leaves = sum(math.prod(shape) * dtype.itemsize for dtype, shape in self.leaves.values())
        return tensors.LENGTH_BYTES + self.header_bytes + leaves + 4 * _MOST_METRIC_VALUES

    @cached_property
    def header_bytes(self) -> int:
        """How long a header of these leaves and of metrics can be: parsing takes 25 times its bytes of memory."""
        usual = tensors.LIMITS
        names = sum(len(name) for name in self.leaves) + _MOST_METRICS * usual.name_characters
        entries = len(self.leaves) + _MOST_METRICS
        return min(usual.header_bytes, 6 * names + 512 * entries)  # \u1234 has six

    def check(self, layout: tensors.Layout) -> None:
        """Raise FormatError unless a file holds exactly these leaves and some metric sums."""
        found = {t.name.removeprefix(UPDATE): t for t in layout.tensors if t.name.startswith(UPDATE)}
        metrics = [t for t in layout.tensors if t.name.startswith(METRICS)]
        if len(found) + len(metrics) != len(layout.tensors):
            other = next(t.name for t in layout.tensors if not t.name.startswith((UPDATE, METRICS)))
            raise FormatError(f"An update holds update.* and metrics.*; found {other[:80]!r}.")
        if different := found.keys() ^ self.leaves.keys():
            raise FormatError(f"The update has other leaves than the model: {min(different)[:80]!r}.")
        for name, (dtype, shape) in self.leaves.items():
            if (found[name].dtype, found[name].shape) != (dtype, shape):
                raise FormatError(
                    f"Leaf {name[:80]!r} is {found[name].type}{list(found[name].shape)}, where {dtype}{list(shape)} is due."
                )
        if not any(t.name == METRICS + EXAMPLES and t.shape == () for t in metrics):
            raise FormatError(f"An update says in {METRICS}{EXAMPLES} how many examples it was made from.")
        values = sum((t.stop - t.start) // 4 for t in metrics)
        if len(metrics) > _MOST_METRICS or values > _MOST_METRIC_VALUES or any(t.type != "F32" for t in metrics):
            raise FormatError(f"Metrics are at most {_MOST_METRICS} float32 sums of {_MOST_METRIC_VALUES:,} values.")

    def check_metrics(self, sums: Metrics) -> None:
        """Raise FormatError unless the model can make figures of a client's sums: a round would end on them."""
        examples = float(sums[EXAMPLES])
        if not 0 <= examples < math.inf:
            raise FormatError(f"An update was made from a number of examples; found {examples}.")
        try:
            self.finish({**sums, EXAMPLES: np.float32(examples or 1)})
        except Exception as error:  # a model's own code met what a stranger sent
            raise FormatError(f"The metrics are not those of this app ({type(error).__name__}: {error}).") from error


@dataclass(frozen=True)
class Received:
    """A complete upload with what is known of its task."""

    client: int  # position among the run's members
    upload: Upload
    weight: int
    key: Callable[[], Array]  # of the client's task
    cohort: int

    def metrics(self) -> dict[str, Array]:
        """Return the metric sums."""
        mine = [t for t in self.upload.layout().tensors if t.name.startswith(METRICS)]
        return {t.name.removeprefix(METRICS): sums for t, sums in zip(mine, self.upload.read(mine), strict=True)}

    def vector(self) -> Vector:
        """Return the masked vector."""
        stored = {t.name.removeprefix(UPDATE): t for t in self.upload.layout().tensors}
        body, tail = self.upload.read((stored[BODY], stored[TAIL]))
        return Vector(widened(body), tail)

    def encrypted(self) -> tuple[memoryview, memoryview]:
        """Return the ciphertexts and the sealed pads."""
        stored = {t.name.removeprefix(UPDATE): t for t in self.upload.layout().tensors}
        ciphertexts, pads = self.upload.read((stored[CIPHERTEXTS], stored[PAD]))
        return ciphertexts.data, pads.data

    def value(self, expected: Expected) -> Tree:
        """Return the decoded update, all of it in memory."""
        stored = {t.name.removeprefix(UPDATE): t for t in self.upload.layout().tensors}
        names = tree.names(expected.structure) if expected.leaves else ()
        payload = tree.fill(expected.structure, self.upload.read(map(stored.__getitem__, names)))
        value = decode(expected.algorithm, payload, self.key(), np.float32(self.cohort))
        return tree.map(lambda x: np.asarray(x, np.float32), value)

    def verdicts(self, expected: Expected) -> dict[str, bool]:
        """Return for every leaf of the update whether it is finite and small enough to be added."""
        if expected.masked:
            return {}
        bound = np.float32(exact.limit(self.cohort, self.weight))
        if expected.algorithm.channel:
            value = self.value(expected)
            names = tree.names(value) if tree.leaves(value) else ()
            return dict(zip(names, map(bool, exact.acceptable(value, bound)), strict=True))
        stored = [t for t in self.upload.layout().tensors if t.name.startswith(UPDATE)]
        good = (bool(exact.acceptable(leaf, bound)[0]) for leaf in self.upload.read(stored))
        return dict(sorted(zip((t.name.removeprefix(UPDATE) for t in stored), good, strict=True)))


def total(expected: Expected, received: Sequence[Received], seen: Seen) -> Tree:
    """Return the exact integer total; ``seen`` is told all of it, block by block, perhaps more than once.

    Without a channel a block is summed when it is asked for, and not before.
    """
    if not expected.leaves or not received:
        return {}
    if expected.algorithm.channel:
        whole = _summed((part.value(expected) for part in received), [part.weight for part in received])
        for name, summed in tree.items(whole):
            seen(name, 0, summed.reshape(-1))
        return whole
    files = [_File(part) for part in received]
    names = iter(tree.names(expected.structure))
    leaves = (Deferred(expected.leaves[name][1], partial(_block, files, seen, name)) for name in names)
    return tree.fill(expected.structure, leaves)


class Seen(Protocol):
    """Someone who watches a total."""

    def __call__(self, name: str, start: int, block: Array) -> None:
        """Take the flat leaf's int64 elements from ``start`` on; they are not changed later."""


class _File:
    """An update's file, open for as long as it is read."""

    def __init__(self, part: Received) -> None:
        self.weight = part.weight
        self._starts = {t.name: t.start for t in part.upload.layout().tensors}
        self._file = os.open(part.upload.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, name: str, part: slice) -> Array:
        """Return some elements of a float32 leaf."""
        out = np.empty(part.stop - part.start, np.float32)
        if (
            out.nbytes
            and os.preadv(self._file, [out.view(np.uint8).data], self._starts[UPDATE + name] + 4 * part.start)
            != out.nbytes
        ):
            raise StoreError("An update's file was cut short while it was read.")
        return out


def _block(files: Sequence[_File], seen: Seen, name: str, part: slice) -> Array:
    into = np.zeros(part.stop - part.start, np.int64)
    for file in files:
        exact.accumulate(into, file.read(name, part), file.weight)
    seen(name, part.start, into)
    return into


def _summed(values: Any, weights: Sequence[int]) -> Tree:
    into: Tree = None
    for value, weight in zip(values, weights, strict=True):
        into = exact.zero(value) if into is None else into
        exact.accumulate(into, value, weight)
    return {} if into is None else into
