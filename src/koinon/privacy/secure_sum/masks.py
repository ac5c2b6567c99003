"""Masks: AES-256 in counter mode under a key that two clients share, or one alone, added to a vector in place.

A vector is masked block by block, each by many masks while it is in cache. Body and tail have streams of their own, so
what masks a number does not depend on how long the body is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from koinon.privacy.secure_sum.primitives import keystream
from koinon.privacy.secure_sum.ring import Vector
from koinon.tree import Array

_ZEROS = memoryview(bytes(1 << 17))
_AT_ONCE = 64  # masks: their ciphers' keys stay in cache too
_BODY, _TAIL = 0, 1
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
    _apply(vector.tail, 0, vector.tail.size, masks, _TAIL)
    size, aligned = vector.body.size, _CIPHER_BLOCK // vector.body.itemsize
    cuts = [size * i // threads // aligned * aligned for i in range(threads)] + [size]
    if threads == 1 or vector.body.nbytes <= len(_ZEROS):
        _apply(vector.body, 0, size, masks, _BODY)
        return
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(_apply, vector.body, cuts[i], cuts[i + 1], masks, _BODY) for i in range(threads)]
    for run in runs:
        run.result()


def _apply(numbers: Array, start: int, stop: int, masks: Sequence[Mask], part: int) -> None:
    step, first = len(_ZEROS) // numbers.itemsize, start * numbers.itemsize // _CIPHER_BLOCK
    room = bytearray(len(_ZEROS))
    for at in range(0, len(masks), _AT_ONCE):
        group = [
            (keystream(mask.key, part, first), np.add if mask.added else np.subtract)
            for mask in masks[at : at + _AT_ONCE]
        ]
        for begin in range(start, stop, step):
            block = numbers[begin : min(begin + step, stop)]
            zeros, into = _ZEROS[: block.nbytes], memoryview(room)[: block.nbytes]
            stream = np.frombuffer(into, numbers.dtype)
            for cipher, change in group:
                cipher.update_into(zeros, into)
                change(block, stream, out=block)
