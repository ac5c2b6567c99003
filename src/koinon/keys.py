"""Randomness as an argument: ``fold(seed, round, client, purpose)``, never a global generator.

One threefry2x32 written in plain operators serves numpy and compiled programs alike, so every engine
draws the same bits. Raw keys are ``uint32[2]``, as ``jax.random`` takes them.
Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from koinon.tree import Array, namespace

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


class Purpose(IntEnum):
    """What a key is for: two purposes never share a stream."""

    INITIAL = 1
    COHORT = 2
    CLIENT = 3
    SHUFFLE = 4
    STEP = 5
    CHANNEL = 6
    PARTITION = 7
    HOLD_OUT = 8
    JUDGES = 9
    RESERVE = 10
    GROUPS = 11


def threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Encrypt the counters ``(high, low)``, uint32 arrays, under ``key`` of shape ``[..., 2]``."""
    xp = namespace(low)
    uint = xp.uint32
    first, second = key[..., 0], key[..., 1]
    if isinstance(key, np.ndarray):  # strided halves would be read anew by every round of the cipher
        first, second = np.array(first), np.array(second)
    schedule = (first, second, first ^ second ^ uint(_PARITY))
    with np.errstate(over="ignore"):  # uint32 wraps by design; numpy warns of it for scalars
        left, right = high + schedule[0], low + schedule[1]
        for turn in range(5):
            for rotation in _ROTATIONS[turn % 2]:
                left = left + right
                right = (right << uint(rotation)) | (right >> uint(32 - rotation))
                right = right ^ left
            left = left + schedule[(turn + 1) % 3]
            right = right + schedule[(turn + 2) % 3] + uint(turn + 1)
    return left, right


def root(seed: int) -> Array:
    """Return the key of a run from its seed, an integer in ``[0, 2**64)``."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed lies in [0, 2**64); found {seed}")
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def fold(key: Array, *data: Any) -> Array:
    """Derive a key from ``key`` and integers: each an int below 2**64 or an array of uint32.

    Keys of shape ``[..., 2]`` and data of shape ``[...]`` broadcast: a cohort's keys come from one call.
    """
    for value in data:
        high, low = _halves(key, value)
        left, right = threefry(key, high, low)
        key = namespace(left).stack([left, right], axis=-1)
    return key


def bits(key: Array, count: int) -> Array:
    """Return ``count`` uint32 from one key of shape ``[2]``: both words of each block, concatenated."""
    xp = namespace(key)
    blocks = (count + 1) // 2
    low = xp.arange(blocks, dtype=xp.uint32)
    left, right = threefry(key, xp.zeros_like(low), low)
    return xp.concatenate([left, right])[:count]


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Return float32 in (0, 1) with 16 bits of resolution: enough for rounding, never for privacy noise."""
    xp = namespace(key)
    count = int(np.prod(shape))
    words = bits(key, (count + 1) // 2)
    halves = xp.concatenate([words & xp.uint32(0xFFFF), words >> xp.uint32(16)])[:count]
    return ((halves.astype(xp.float32) + xp.float32(0.5)) * xp.float32(2.0**-16)).reshape(shape)


def name_hash(names: Sequence[str]) -> Array:
    """Return a uint64 per client name: the first 8 bytes of its BLAKE2b."""
    joined = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(joined, "<u8").astype(np.uint64)


def _halves(key: Array, value: Any) -> tuple[Array, Array]:
    if isinstance(value, int):
        if not 0 <= value < 2**64:
            raise ValueError(f"fold takes integers in [0, 2**64); found {value}")
        value = np.asarray(value, np.uint64)
    if isinstance(value, np.ndarray | np.generic):
        wide = np.asarray(value, np.uint64)
        high, low = (wide >> np.uint64(32)).astype(np.uint32), wide.astype(np.uint32)
        if isinstance(key, np.ndarray):
            return high, low
        return namespace(key).asarray(high), namespace(key).asarray(low)
    low = value.astype(namespace(value).uint32)
    return namespace(low).zeros_like(low), low
