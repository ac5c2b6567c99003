"""Masks: AES-256 in counter mode under a key that two clients share, or one alone, added to a vector in place.

A vector is masked block by block, each by many masks while it is in cache. The stream masks the tail first, then the body,
so what masks a number does not depend on how long the body is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from koinon.privacy.secure_sum.primitives import keystream
from koinon.privacy.secure_sum.ring import Vector
from koinon.tree import Array

_ZEROS = memoryview(bytes(1 << 17))
_AT_ONCE = 64  # masks: their ciphers' keys stay in cache too
_CIPHER_BLOCK = 16


@dataclass(frozen=True)
class Mask:
    """A mask's key of 32 bytes, and whether the mask is added or subtracted."""

    key: bytes
    added: bool

    def taken_off(self) -> Mask:
        """Return what undoes it."""
        return Mask(self.key, not self.added)


def apply(vector: Vector, masks: Sequence[Mask], threads: int = 1) -> None:
    """Add all masks to the vector, or subtract them, in place; ``threads`` share its body.

    The cipher and numpy leave the interpreter's lock while they work.
    """
    whole = threads == 1 or vector.body.nbytes <= len(_ZEROS)
    size, aligned = vector.body.size, _CIPHER_BLOCK // vector.body.itemsize
    cuts = [0, size] if whole else [*(size * i // threads // aligned * aligned for i in range(threads)), size]
    parts = [_part(vector, start, stop) for start, stop in pairwise(cuts)]
    if whole:
        _apply(*parts[0], masks)
        return
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(_apply, *part, masks) for part in parts]
    for run in runs:
        run.result()


def _part(vector: Vector, start: int, stop: int) -> tuple[list[Array], int]:
    """Return the blocks of a part, and where in the stream they begin, in blocks of the cipher; the first has the tail."""
    if not start:
        return _blocks(vector.tail) + _blocks(vector.body[:stop]), 0
    tail, before = vector.tail.nbytes, vector.body[:start].nbytes
    return _blocks(vector.body[start:stop]), -(-tail // _CIPHER_BLOCK) + before // _CIPHER_BLOCK


def _blocks(numbers: Array) -> list[Array]:
    step = len(_ZEROS) // numbers.itemsize
    return [numbers[at : at + step] for at in range(0, numbers.size, step)]


def _apply(blocks: Sequence[Array], first: int, masks: Sequence[Mask]) -> None:
    room = memoryview(bytearray(len(_ZEROS)))
    for at in range(0, len(masks), _AT_ONCE):
        group = [
            (keystream(mask.key, 0, first).update_into, np.add if mask.added else np.subtract)
            for mask in masks[at : at + _AT_ONCE]
        ]
        for block in blocks:
            whole = -(-block.nbytes // _CIPHER_BLOCK) * _CIPHER_BLOCK
            zeros, into = _ZEROS[:whole], room[:whole]
            stream = np.frombuffer(into, block.dtype, block.size)
            for expand, change in group:
                expand(zeros, into)
                change(block, stream, block)
