"""Noise that nobody can predict, drawn where the gradient is: ChaCha under a 256-bit secret, in plain operators.

One text serves numpy and compiled programs. The cipher is that of Bernstein, "ChaCha, a variant of Salsa20", 2008, with 8
rounds, of which the best published attacks reach 7; words are as RFC 8439 lays them out. The keys of ``koinon.keys``
will not do here: they follow from the run's seed, and threefry's are of 64 bits only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from koinon.tree import Array, Tree, leaves, namespace
from koinon.work.repeat import repeated

SECRET_WORDS = 8
ROUNDS = 8
_CONSTANT = np.frombuffer(b"expand 32-byte k", "<u4").astype(np.uint32)
_PURPOSES = 8
_ROW = 1024


class Draw(IntEnum):
    """What words are drawn for: two purposes never share a stream."""

    NOISE = 0
    COINS = 1
    RATCHET = 2
    ROW_HASH = 3
    HASH = 4


def words(secret: Array, key: Array, turn: Array, draw: Draw, count: int) -> Array:
    """Return ``count`` uint32 of one stream.

    ``secret`` is uint32[8]; ``key`` (uint32[2], a task's) and ``turn`` (uint32 below 2**29, a step) tell streams apart.
    """
    xp = namespace(secret)
    first = turn * xp.uint32(_PURPOSES) + xp.uint32(draw.value)
    nonce = xp.stack([first, key[0], key[1]]).astype(xp.uint32)
    return chacha(secret, nonce, -(-count // 16))[:count]


def secret_for(secret: Array, key: Array, asked: Tree) -> Array:
    """Return a secret, uint32[8], for one task on exactly ``asked``, a tree of float32.

    Who asks for the same task on another model gets other noise, not the same twice, whose difference is none. The model is
    hashed by NH under the secret (Black et al., "UMAC: Fast and Secure Message Authentication", CRYPTO 1999): two
    models that differ in any bit have the same 128 bits with a probability of about 2**-64, for whoever lacks the secret.
    """
    xp = namespace(secret)
    bits = xp.concatenate([leaf.astype(xp.float32).reshape(-1).view(xp.uint32) for leaf in leaves(asked)])
    rows = xp.pad(bits, (0, -len(bits) % _ROW)).reshape(-1, _ROW)
    start = xp.zeros((), xp.uint32)
    short = _hashed(rows, words(secret, key, start, Draw.ROW_HASH, _ROW + 3)).reshape(-1)
    found = _hashed(short, words(secret, key, start, Draw.HASH, len(short) + 3))
    middle = chacha(secret, found[:3], 1)[:SECRET_WORDS]
    return chacha(middle, xp.stack([found[3], key[0], key[1]]), 1)[:SECRET_WORDS]


def _hashed(rows: Array, key: Array) -> Array:
    """Return four uint32 for every row, each of a chance of 2**-16 to be the same for another row."""
    xp, size, half = namespace(rows), rows.shape[-1], namespace(rows).uint32(0xFFFF)
    low, high = rows & half, rows >> xp.uint32(16)

    def one(shift: int) -> Array:
        own = key[shift : shift + size]
        return xp.sum(((low + own) & half) * ((high + (own >> xp.uint32(16))) & half), axis=-1, dtype=xp.uint32)

    return xp.stack([one(shift) for shift in range(4)], axis=-1)


def chacha(secret: Array, nonce: Array, blocks: int, rounds: int = ROUNDS) -> Array:
    """Return ``16 * blocks`` uint32: the first word of every block, then the second of every block, and so on.

    ``nonce`` is uint32[3]; block ``i`` is the cipher's block of counter ``i``.
    """
    xp = namespace(secret)
    rows = xp.broadcast_to(xp.concatenate([xp.asarray(_CONSTANT), secret])[:, None], (12, blocks))
    counter = xp.arange(blocks, dtype=xp.uint32)[None]
    start = (rows[:4], rows[4:8], rows[8:], xp.concatenate([counter, xp.broadcast_to(nonce[:, None], (3, blocks))]))

    def double_round(state: tuple[Array, ...]) -> tuple[Array, ...]:
        a, b, c, d = _quarter_rounds(*state)
        a, b, c, d = _quarter_rounds(a, xp.roll(b, -1, 0), xp.roll(c, -2, 0), xp.roll(d, -3, 0))
        return a, xp.roll(b, 1, 0), xp.roll(c, 2, 0), xp.roll(d, 3, 0)

    end = repeated(double_round, rounds // 2, start, xp)
    return xp.concatenate([before + after for before, after in zip(start, end, strict=True)]).reshape(-1)


def normals(uniform: Array) -> Array:
    """Return as many independent standard normals in float32 as there are uint32 in ``uniform``, an even number.

    Box and Muller 1958. Of each pair 40 bits make the radius, so the largest normal is 7.5, and 24 the angle. What they
    look like to the last bit tells an attacker something who sees them bare (Mironov, CCS 2012): they never are,
    being added to a gradient and rounded to the parameters' float32.
    """
    xp, half = namespace(uniform), len(uniform) // 2
    high, low = uniform[:half], uniform[half:]
    extra = (low & xp.uint32(0xFF)).astype(xp.float32) * xp.float32(2.0**-8)
    share = (high.astype(xp.float32) + (extra + xp.float32(2.0**-9))) * xp.float32(2.0**-32)
    radius = xp.sqrt(xp.float32(-2) * xp.log(xp.minimum(share, xp.float32(1))))
    cosine, sine = _on_circle(low & xp.uint32(0xFFFFFF00), xp)
    return xp.concatenate([radius * cosine, radius * sine])


def _on_circle(angle: Array, xp: Any) -> tuple[Array, Array]:
    """Return a point of the unit circle for every uint32: the first two bits say which quarter.

    Polynomials on 45 degrees either side of an axis, to float32's precision, are five times faster than XLA's cosine.
    """
    x = (angle << xp.uint32(2)).astype(xp.int32).astype(xp.float32) * xp.float32(np.pi / 2 * 2.0**-32)
    square = x * x
    sine = x * (1 + square * (-1.6666654611e-1 + square * (8.3321608736e-3 + square * -1.9515295891e-4)))
    cosine = 1 + square * (
        -0.5 + square * (4.166664568298827e-2 + square * (-1.388731625493765e-3 + square * 2.443315711809948e-5))
    )
    swapped = (angle >> xp.uint32(31)) == 1
    sign = 1 - 2 * ((angle >> xp.uint32(30)) & xp.uint32(1)).astype(xp.float32)
    return xp.where(swapped, sine, cosine) * sign, xp.where(swapped, cosine, sine) * sign


def _quarter_rounds(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    a = a + b
    d = _rotated(d ^ a, 16)
    c = c + d
    b = _rotated(b ^ c, 12)
    a = a + b
    d = _rotated(d ^ a, 8)
    c = c + d
    b = _rotated(b ^ c, 7)
    return a, b, c, d


def _rotated(x: Array, by: int) -> Array:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))
