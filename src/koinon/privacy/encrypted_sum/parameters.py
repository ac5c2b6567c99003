"""What clients, coordinator and key holder must agree on to the bit, and what follows from it.

The scheme is BFV (Brakerski, CRYPTO 2012; Fan and Vercauteren, ePrint 2012/144) as Microsoft SEAL has it, in the ring
Z[X]/(X**4096 + 1). SEAL encrypts under ``MODULUS * SPECIAL`` and divides by ``SPECIAL``, which is a modulus switch: what
leaves it is modulo ``MODULUS``, and its noise is little more than the rounding. Plaintexts are modulo a power of two,
several numbers side by side in each coefficient. Nothing is multiplied, so no slots are needed and no primes for them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np

from koinon.errors import ConfigurationError, FormatError
from koinon.exact import LARGEST_WEIGHT

DEGREE = 4096
"""Coefficients of a polynomial."""
MODULUS = 1152921504606830593
"""The prime of a ciphertext: 60 bits."""
SPECIAL = 40961
"""The prime that is divided out in encrypting: 16 bits. The two have 76 bits; the HE standard (Albrecht et al., 2018) allows
109 for 128 bits of security in this ring, and 75 for 192."""
MODULUS_BITS = MODULUS.bit_length()
TURN_BITS = 54
"""So many leading bits of what a ciphertext holds are decrypted, of a turn round its modulus: those of a plaintext and more.
The blind has all of the modulus, and what is left without it is rounded to a plaintext, once, by the coordinator."""
_ANSWERED = 4 + (MODULUS >> TURN_BITS)  # twice what that rounding and a blind's may add to the noise, and SEAL's own
STEP = 4
"""Ciphertexts are shortened by whole multiples of this many bits."""
BLOCK = DEGREE - 1
"""Coefficients that carry numbers: the first one of each ciphertext counts its clients."""
INTEGER_BITS = 64
LARGEST_SCALE = 30
_LARGEST_ERROR = 21  # of SEAL's centred binomial noise, and above six deviations of its clipped normal
_FORMAT = 1
_LONGEST = 1 << 10
_MOST = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The size of an update and of its range. Every other figure is computed from these.

    ``cohort`` is the most clients in one sum (2 to 100,000), ``bound`` the largest absolute value of a number of an update,
    ``largest_weight`` a whole number below 2**24. ``scale``: numbers are rounded to multiples of ``2**-scale`` after they
    have been weighted, ``rint(x * (weight * 2**scale))`` in float32. ``values`` numbers are an update; ``figures``
    metric sums travel with it. Raises ConfigurationError where no exact sum fits.
    """

    cohort: int
    bound: float
    largest_weight: int
    scale: int
    values: int
    figures: int = 0

    def __post_init__(self) -> None:
        _whole("cohort", self.cohort, 2, 100_000)
        _whole("largest_weight", self.largest_weight, 1, LARGEST_WEIGHT - 1)
        _whole("scale", self.scale, -LARGEST_SCALE, LARGEST_SCALE)
        _whole("values", self.values, 1, _MOST)
        _whole("figures", self.figures, 0, 1 << 16)
        if not isinstance(self.bound, float) or not 0 < self.bound < 2.0**60:
            raise ConfigurationError(f"bound is the largest number of an update, above 0: found {self.bound!r}.")
        if self.limit < 1:
            raise ConfigurationError(
                f"At scale 2**{self.scale} every number of at most {self.bound:g} is rounded to 0. Raise the scale; "
                "if there is no room for that, lower the cohort, the largest weight, or how many numbers share a coefficient."
            )
        if not self.fields:
            raise ConfigurationError(
                f"A sum of {self.field_bits} bits, of {self.cohort} numbers up to {self.limit}, is not exact in a coefficient: "
                f"{_room(self.cohort, (0, 0))} bits are. Lower the scale, the bound or the largest weight."
            )

    @classmethod
    def fitting(
        cls, *, cohort: int, bound: float, largest_weight: int, values: int, figures: int = 0, fields: int = 2
    ) -> Self:
        """Return the parameters of the largest scale with ``fields`` numbers in each coefficient."""
        room, scales = _room(cohort, (0, 0)), range(LARGEST_SCALE, -LARGEST_SCALE - 1, -1)
        needed = {scale: _field_bits(cohort, _limit(bound, largest_weight, scale)) for scale in scales}
        scale = next((scale for scale in scales if needed[scale] * fields <= room), None)
        if scale is None:
            raise ConfigurationError(
                f"{fields} numbers of {needed[scales[-1]]} bits do not fit a coefficient: {room} bits can be summed exactly. Put "
                "fewer into one, or lower the bound or the largest weight."
            )
        return cls(
            cohort=cohort, bound=bound, largest_weight=largest_weight, scale=scale, values=values, figures=figures
        )

    @cached_property
    def limit(self) -> int:
        """The largest absolute value of a weighted number as a whole number."""
        return _limit(self.bound, self.largest_weight, self.scale)

    @cached_property
    def field_bits(self) -> int:
        """Bits of one number: a cohort of the largest, and a sign."""
        return _field_bits(self.cohort, self.limit)

    @cached_property
    def fields(self) -> int:
        """Numbers in one coefficient."""
        return _room(self.cohort, (0, 0)) // self.field_bits

    @property
    def plain_bits(self) -> int:
        """Plaintext coefficients are modulo 2 to the power of this."""
        return self.fields * self.field_bits

    @cached_property
    def dropped_bits(self) -> tuple[int, int]:
        """The low bits of the two polynomials of a ciphertext that are not sent: as many as exactness leaves over."""
        steps = range(0, MODULUS_BITS, STEP)
        pairs = [(first, second) for first in steps for second in steps]
        return max(
            (pair for pair in pairs if _room(self.cohort, pair) >= self.plain_bits), key=lambda pair: (sum(pair), pair)
        )

    @property
    def margin_bits(self) -> int:
        """The noise budget, in whole bits, that a whole cohort's sum has left at the very least."""
        return int(math.log2(MODULUS / ((self.cohort * noise(self.dropped_bits) + _ANSWERED) << self.plain_bits)))

    @cached_property
    def digit_bits(self) -> int:
        """Weights and metric sums are whole numbers of 64 bits, cut into digits of so many bits."""
        return (self.limit + 1).bit_length() - 1

    @property
    def digits(self) -> int:
        """Digits of a whole number of 64 bits."""
        return -(-INTEGER_BITS // self.digit_bits)

    @property
    def cells(self) -> int:
        """Coefficients that the numbers, the weight and the metric sums fill."""
        return -(-(self.values + (1 + self.figures) * self.digits) // self.fields)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of one update."""
        return -(-self.cells // BLOCK)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of one ciphertext as a client sends it."""
        return DEGREE * (2 * MODULUS_BITS - sum(self.dropped_bits)) // 8

    def text(self) -> bytes:
        """Return the parameters as canonical JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Return the parameters of :meth:`text`. Raises FormatError for anything else."""
        try:
            found = json.loads(text) if len(text) <= _LONGEST else None
            if not isinstance(found, dict) or found.pop("format", None) != _FORMAT:
                raise FormatError(f"No parameters of an encrypted sum in format {_FORMAT}: {text[:60]!r}.")
            if found.keys() != {field.name for field in fields(cls)}:
                raise FormatError(f"Parameters of an encrypted sum have other fields than {sorted(found)}.")
            return cls(**found)
        except (ValueError, RecursionError, ConfigurationError) as error:
            raise FormatError(f"The parameters of an encrypted sum are no parameters: {error}") from error

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the text, and over the numbers of this file."""
        return hashlib.sha256(b"%d %d %d %d " % (DEGREE, MODULUS, SPECIAL, TURN_BITS) + self.text()).digest()


def noise(dropped: tuple[int, int]) -> int:
    """Return twice the largest noise that one client's ciphertext can have, whatever the draws.

    Half a unit from scaling the plaintext; the noise of encryption, divided by ``SPECIAL``; half a unit in either
    polynomial from that division and ``2**(dropped - 1)`` from what is not sent, where those of the second
    polynomial are multiplied by a secret of 4096 numbers in {-1, 0, 1}.
    """
    encryption = -(-_LARGEST_ERROR * (2 * DEGREE + 1) // SPECIAL)
    first, second = (1 << bits if bits else 0 for bits in dropped)
    return 1 + 2 * encryption + (1 + first) + DEGREE * (1 + second)


def _room(cohort: int, dropped: tuple[int, int]) -> int:
    """Return the most bits of a plaintext at which a cohort's noise, as answered, is below half the distance of two."""
    return ((MODULUS - 1) // (cohort * noise(dropped) + _ANSWERED)).bit_length() - 1


def _limit(bound: float, largest_weight: int, scale: int) -> int:
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.rint(np.float32(bound) * (np.float32(largest_weight) * np.float32(2.0**scale)))
    return int(found) if np.isfinite(found) else 0


def _field_bits(cohort: int, limit: int) -> int:
    return (cohort * limit).bit_length() + 1


def _whole(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigurationError(f"{name} is a whole number from {least} to {most}: found {value!r}.")
