"""The noise that is computed from the parameters bounds the noise that SEAL measures, and sums are exact up to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("tenseal")
pytest.importorskip("zstandard")

from koinon.errors import UnsupportedError
from koinon.privacy.encrypted_sum import lattice
from koinon.privacy.encrypted_sum.ciphertexts import packed, reduced, unpacked
from koinon.privacy.encrypted_sum.parameters import _ANSWERED, DEGREE, MODULUS, SPECIAL, Parameters, noise
from koinon.tree import Array

CASES = [
    Parameters.fitting(cohort=cohort, bound=1.0, largest_weight=weight, values=10, fields=fields)
    for cohort, weight, fields in [
        (2, 1, 1),
        (2, 1, 4),
        (10, 1, 2),
        (10, 600, 3),
        (100, 1, 2),
        (1000, 1, 1),
        (100_000, 1, 1),
    ]
]
NAMES = [f"{case.cohort} clients, {case.fields} fields of {case.field_bits} bits" for case in CASES]


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    """Return a secret and a public key."""
    with lattice.opened(20) as seal:
        return seal.generate()


def _as_received(words: Array, parameters: Parameters) -> Array:
    """Return a ciphertext after it has been sent without its low bits."""
    pairs = zip(words, parameters.dropped_bits, strict=True)
    return np.stack([unpacked(memoryview(packed(own, dropped)), dropped) for own, dropped in pairs])


def _times(words: Array, count: int) -> Array:
    return np.array((words.astype(object) * count) % MODULUS, np.uint64)


@pytest.mark.parametrize("parameters", CASES, ids=NAMES)
@pytest.mark.parametrize("value", [0, 1, -1])
def test_a_cohorts_noise_stays_within_the_computed_margin(
    parameters: Parameters, value: int, keys: tuple[bytes, bytes]
) -> None:
    """One ciphertext as often as the cohort is large: noise that adds up in one direction, the worst there is."""
    secret, public = keys
    top = (1 << parameters.plain_bits) - 1
    cells = np.full(DEGREE, value % (top + 1), np.uint64)
    with lattice.opened(parameters.plain_bits) as seal:
        own = _as_received(seal.encryptor(public)(cells), parameters)
        decrypt, measured = seal.decryptor(secret)
        found, budget = decrypt(_times(own, parameters.cohort)), measured()
    assert np.array_equal(found, cells * np.uint64(parameters.cohort) & np.uint64(top))
    assert budget >= max(parameters.margin_bits, 1)
    assert budget <= parameters.margin_bits + 8  # what is computed is the worst, and not far from what happens


@pytest.mark.parametrize("parameters", CASES, ids=NAMES)
def test_dropping_more_bits_would_leave_no_margin(parameters: Parameters) -> None:
    first, second = parameters.dropped_bits
    for more in ((first + 4, second), (first, second + 4)):
        assert (parameters.cohort * noise(more) + _ANSWERED) << parameters.plain_bits >= MODULUS


@pytest.mark.parametrize("plain_bits", [20, 33, 46, 54])
def test_half_the_distance_of_two_plaintexts_is_where_decryption_turns(
    plain_bits: int, keys: tuple[bytes, bytes]
) -> None:
    """The bound that the margin is computed from is SEAL's: noise up to it is rounded away, and no more."""
    half = (MODULUS - 1) // (2 << plain_bits)
    with lattice.opened(plain_bits) as seal:
        decrypt, measured = seal.decryptor(keys[0])
        for error, expected in ((half - 1, 0), (1 - half, 0), (half + 2, 1), (-half - 2, (1 << plain_bits) - 1)):
            words = np.zeros((2, DEGREE), np.uint64)
            words[0] = error % MODULUS
            assert (decrypt(words) == expected).all()
            assert measured() == 0  # SEAL rounds its budget down


def test_one_clients_noise_is_below_its_bound(keys: tuple[bytes, bytes]) -> None:
    """Measured in units, with a plaintext modulus so small that nothing else is in the way."""
    secret, public = keys
    with lattice.opened(2) as seal:
        encrypt, (decrypt, measured) = seal.encryptor(public), seal.decryptor(secret)
        for _ in range(20):
            decrypt(encrypt(np.zeros(DEGREE, np.uint64)))
            at_most = MODULUS / 2 / (1 << 2) / 2 ** measured()  # at least the noise, at most twice that
            assert at_most < noise((0, 0)) / 2


def test_the_moduli_are_within_the_standard() -> None:
    """HE standard (2018): 109 bits in all for 128-bit security with 4096 coefficients and a ternary secret."""
    api = pytest.importorskip("tenseal.sealapi")
    bits = (MODULUS * SPECIAL).bit_length()
    assert bits == 76 <= api.CoeffModulus.MaxBitCount(DEGREE, api.SEC_LEVEL_TYPE.TC128) == 109
    assert all(api.Modulus(prime).is_prime() and prime % (2 * DEGREE) == 1 for prime in (MODULUS, SPECIAL))


def test_moduli_above_the_standard_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    larger = 1125899906826241  # a prime of 50 bits: 110 in all
    monkeypatch.setattr(lattice, "SPECIAL", larger)
    with pytest.raises(UnsupportedError, match="SEAL refuses"), lattice.opened(20):
        pass


def test_the_public_key_opens_nothing(keys: tuple[bytes, bytes]) -> None:
    """Who decrypts with another secret gets numbers that say nothing, and no budget."""
    with lattice.opened(40) as seal:
        other, _ = seal.generate()
        decrypt, measured = seal.decryptor(other)
        found = decrypt(seal.encryptor(keys[1])(np.zeros(DEGREE, np.uint64)))
        assert measured() == 0
    counts = np.bincount((found >> np.uint64(32)).astype(np.uint8), minlength=256)
    assert 130 < float(((counts - DEGREE / 256) ** 2 / (DEGREE / 256)).sum()) < 400


def test_the_same_numbers_from_a_sum_in_any_order(keys: tuple[bytes, bytes]) -> None:
    parameters = CASES[2]
    with lattice.opened(parameters.plain_bits) as seal:
        encrypt: Callable[[Array], Array] = seal.encryptor(keys[1])
        parts = [_as_received(encrypt(np.full(DEGREE, value, np.uint64)), parameters) for value in range(5)]
    orders = [sum_of(parts), sum_of(parts[::-1]), sum_of(parts[2:] + parts[:2])]
    assert all(np.array_equal(orders[0], order) for order in orders)


def sum_of(parts: list[Array]) -> Array:
    """Return the ciphertexts' sum, one after the other."""
    total = np.zeros((2, DEGREE), np.uint64)
    for part in parts:
        total = reduced(total + part)
    return total
