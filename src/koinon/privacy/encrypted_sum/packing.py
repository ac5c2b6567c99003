"""Numbers in the coefficients of plaintexts: several side by side, each with room for the carries of a whole cohort.

Number ``i`` of an update stands in field ``i // cells`` of cell ``i % cells``, so that a field of consecutive cells is a run of
consecutive numbers. A cell is ``sum over f of number[f] * 2**(f * field_bits)``, negative numbers borrowing from the next
field. After the update come its weight and its metric sums, each as the digits of a 64-bit integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from koinon.errors import ClientError
from koinon.privacy.encrypted_sum.parameters import BLOCK, DEGREE, INTEGER_BITS, Parameters
from koinon.tree import Array

FIGURE_SCALE = 2.0**20
"""Metric sums are rounded to multiples of 1 / FIGURE_SCALE."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a sum decrypts to.

    ``values`` int64 ``[values]`` in units of ``2**-scale``, the sum of the clients' weights, ``figures`` float64
    ``[figures]``, and how many ``clients`` there are in it.
    """

    values: Array
    weight: int
    figures: Array
    clients: int


class Packed:
    """One client's numbers, cut into plaintexts when they are asked for."""

    def __init__(
        self, parameters: Parameters, values: Array, weight: int, figures: Sequence[float], client: str
    ) -> None:
        self._parameters, self._client = parameters, client
        self._values = np.ascontiguousarray(values, np.float32).reshape(-1)
        if self._values.size != parameters.values or len(figures) != parameters.figures:
            raise self._refused(
                f"its update has {self._values.size} numbers and {len(figures)} figures, where {parameters.values} and "
                f"{parameters.figures} were agreed on: it trained another model"
            )
        if type(weight) is not int or not 0 <= weight <= parameters.largest_weight:
            raise self._refused(f"its weight is no whole number up to {parameters.largest_weight}, the agreed cap")
        self._factor = np.float32(weight) * np.float32(2.0**parameters.scale)
        self._tail = _digits([weight, *map(self._figure, figures)], parameters)

    def plaintext(self, index: int) -> Array:
        """Return the coefficients of plaintext ``index``: uint64 ``[DEGREE]`` below ``2**plain_bits``. Raises ClientError."""
        found, cells = self._parameters, self._parameters.cells
        start = index * BLOCK
        count = min(BLOCK, cells - start)
        total = np.zeros(count, np.int64)
        for field in range(found.fields):
            total += self._numbers(field * cells + start, count) << (field * found.field_bits)
        out = np.zeros(DEGREE, np.uint64)
        out[0] = 1  # adds up to the number of clients
        out[1 : 1 + count] = total.view(np.uint64)
        out &= np.uint64((1 << found.plain_bits) - 1)
        return out

    def _numbers(self, start: int, count: int) -> Array:
        """Return ``count`` whole numbers from ``start`` on: of the update, then of the tail, then zeros."""
        out = np.zeros(count, np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(self._values[start : start + count] * self._factor)
        if scaled.size and not np.abs(scaled).max() <= self._parameters.limit:  # also where one is not a number
            raise self._refused(
                f"a number of its update is not finite, or above {self._parameters.bound:g}. Clip updates, or lower the "
                "learning rate"
            )
        out[: scaled.size] = scaled
        first = max(0, start - self._values.size)
        rest = self._tail[first : first + count - scaled.size]
        out[scaled.size : scaled.size + rest.size] = rest
        return out

    def _figure(self, figure: float) -> int:
        scaled = float(figure) * FIGURE_SCALE
        most = 2.0 ** (INTEGER_BITS - 1) / self._parameters.cohort
        if not abs(scaled) < most:
            raise self._refused(
                f"a metric sum is not finite, or above {most / FIGURE_SCALE:g}, up to which there is room"
            )
        return round(scaled)

    def _refused(self, why: str) -> ClientError:
        """Return an error that says nothing of the numbers: the coordinator, whose model they are of, hears it."""
        return ClientError(f"{self._client} cannot encrypt its update: {why}.", client=self._client, stage="encrypt")


def unpacked(parameters: Parameters, plaintexts: Array, clients: int) -> Totals:
    """Return the totals in summed plaintexts, uint64 ``[ciphertexts, DEGREE]``; their first coefficients are not read."""
    bits = parameters.field_bits
    cells = _signed(plaintexts[:, 1:].reshape(-1)[: parameters.cells], parameters.plain_bits)
    numbers = np.empty(parameters.fields * parameters.cells, np.int64)
    for field in numbers.reshape(parameters.fields, parameters.cells):
        field[:] = _signed(cells.view(np.uint64), bits)
        cells = (cells - field) >> bits
    tail = _integers(numbers[parameters.values :], parameters)
    figures = np.array(tail[1:], np.float64) / FIGURE_SCALE
    return Totals(values=numbers[: parameters.values], weight=tail[0], figures=figures, clients=clients)


def _signed(low: Array, bits: int) -> Array:
    """Return the signed numbers that the lowest ``bits`` bits stand for, as int64."""
    shift = INTEGER_BITS - bits
    return (low << np.uint64(shift)).view(np.int64) >> np.int64(shift)


def _digits(whole: Sequence[int], parameters: Parameters) -> Array:
    """Return the digits of signed 64-bit integers, lowest first: each at least 0 and at most ``limit``."""
    unsigned = np.array([number % (1 << INTEGER_BITS) for number in whole], np.uint64)[:, None]
    shifts = np.arange(parameters.digits, dtype=np.uint64) * np.uint64(parameters.digit_bits)
    return ((unsigned >> shifts) & np.uint64((1 << parameters.digit_bits) - 1)).astype(np.int64).reshape(-1)


def _integers(sums: Array, parameters: Parameters) -> list[int]:
    """Return the integers whose digits add up to ``sums``: arithmetic modulo 2**64 has carried them."""
    count = 1 + parameters.figures
    rows = sums[: count * parameters.digits].reshape(count, parameters.digits).tolist()
    found = (sum(digit << (place * parameters.digit_bits) for place, digit in enumerate(row)) for row in rows)
    half = 1 << (INTEGER_BITS - 1)
    return [(number + half) % (2 * half) - half for number in found]
