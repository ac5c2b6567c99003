"""Masks: AES-256 in counter mode under a key that two clients share, or one alone, added to a vector in place.

A vector is masked block by block, each by many masks while it is in cache. Every 2 MiB of its body have a stream of their own,
so that threads share the work; the tail comes before the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from koinon.privacy.secure_sum.primitives import keystream
from koinon.privacy.secure_sum.ring import Vector
from koinon.tree import Array

_SEGMENT = 1 << 21
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
    segments = _cut(vector.body, _SEGMENT) or [vector.body]
    blocks = [_cut(segment, len(_ZEROS)) for segment in segments]
    blocks[0] = _cut(vector.tail, len(_ZEROS)) + blocks[0]
    if threads == 1 or len(blocks) == 1:
        for part, of_part in enumerate(blocks):
            _apply(of_part, part, masks)
        return
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(_apply, of_part, part, masks) for part, of_part in enumerate(blocks)]
    for run in runs:
        run.result()


def _cut(numbers: Array, count: int) -> list[Array]:
    """Return the numbers in pieces of so many bytes."""
    step = count // numbers.itemsize
    return [numbers[at : at + step] for at in range(0, numbers.size, step)]


def _apply(blocks: Sequence[Array], part: int, masks: Sequence[Mask]) -> None:
    """Mask the blocks of a segment."""
    room = memoryview(bytearray(len(_ZEROS)))
    for at in range(0, len(masks), _AT_ONCE):
        group = [
            (keystream(mask.key, part).update_into, np.add if mask.added else np.subtract)
            for mask in masks[at : at + _AT_ONCE]
        ]
        for block in blocks:
            whole = -(-block.nbytes // _CIPHER_BLOCK) * _CIPHER_BLOCK
            zeros, into = _ZEROS[:whole], room[:whole]
            stream = np.frombuffer(into, block.dtype, block.size)
            for expand, change in group:
                expand(zeros, into)
                change(block, stream, block)
