"""Shamir's secret sharing of 32 bytes over the integers modulo 2**256 - 189, the largest prime below 2**256.

Shamir, "How to Share a Secret", CACM 1979. Plain integers: Python's are quick enough (0.1 ms for 33 shares of which 22
suffice) but not constant in time. Only the differences of public places are multiplied as machine words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import prod

import numpy as np

from koinon.errors import ProtocolError

PRIME = 2**256 - 189
BYTES = 32


def split(secret: bytes, holders: Iterable[int], threshold: int, stream: bytes) -> dict[int, bytes]:
    """Return a share of 32 bytes for each holder; any ``threshold`` of them give the secret, fewer say nothing of it.

    Holders are distinct whole numbers from 0. ``stream`` is 32 * (threshold - 1) random bytes: the coefficients. A number
    drawn from 2**256 values is taken modulo the prime, which is off uniform by less than 2**-247; so is a secret.
    """
    coefficients = [_number(stream[at : at + BYTES]) for at in range(0, BYTES * (threshold - 1), BYTES)]
    if len(stream) != BYTES * (threshold - 1):
        raise ValueError(f"{BYTES * (threshold - 1)} random bytes are needed for a threshold of {threshold}")
    polynomial = [*reversed(coefficients), _number(secret)]
    return {holder: _value(polynomial, holder + 1).to_bytes(BYTES, "big") for holder in holders}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret of at least ``threshold`` shares by holder. Raises ProtocolError for fewer."""
    if len(shares) < threshold:
        raise ProtocolError(f"{threshold} shares are needed to open a secret; {len(shares)} have come.")
    chosen = sorted(shares)[:threshold]
    return weighted(lagrange(chosen), [shares[holder] for holder in chosen])


def weighted(weights: Sequence[int], shares: Sequence[bytes]) -> bytes:
    """Return the secret of the shares of those whose :func:`lagrange` weights are given."""
    total = sum(weight * _number(share) for weight, share in zip(weights, shares, strict=True))
    return (total % PRIME).to_bytes(BYTES, "big")


def lagrange(holders: Sequence[int]) -> list[int]:
    """Return what each holder's share is multiplied with to get the polynomial's value at 0."""
    points = [holder + 1 for holder in holders]
    # x * prod(other - x) of each point x, reduced once: then one inversion serves them all
    below = [x * prod(factors) % PRIME for x, factors in zip(points, _differences(points), strict=True)]
    before = list(accumulate(below, lambda a, b: a * b % PRIME, initial=1))
    whole, inverse = prod(points) % PRIME, pow(before[-1], -1, PRIME)
    weights = [0] * len(points)
    for place in reversed(range(len(points))):
        weights[place] = whole * inverse * before[place] % PRIME
        inverse = inverse * below[place] % PRIME
    return weights


def _differences(points: Sequence[int]) -> list[list[int]]:
    """Return factors of prod(other - x) for each point x: machine words, each the product of as many as one holds."""
    found = np.array(points, np.int64) - np.array(points, np.int64)[:, None]
    np.fill_diagonal(found, 1)
    together = max(1, 62 // max(points).bit_length())
    words = np.ones((len(points), -(-len(points) // together) * together), np.int64)
    words[:, : len(points)] = found
    factors: list[list[int]] = words.reshape(len(points), -1, together).prod(axis=2).tolist()
    return factors


def _value(polynomial: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in polynomial:
        value = (value * x + coefficient) % PRIME
    return value


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big") % PRIME
