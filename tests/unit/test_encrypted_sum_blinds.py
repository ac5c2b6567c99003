"""The blind over a sum: uniform to whoever decrypts, exact to whoever takes it off, and the same after a restart."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tenseal")
pytest.importorskip("zstandard")

import encrypted_sum_samples as samples
from encrypted_sum_samples import CLIENTS, PARAMETERS, SECRET

from koinon.errors import ConfigurationError
from koinon.privacy.encrypted_sum import blinds, lattice
from koinon.privacy.encrypted_sum.blinds import Blind, turns
from koinon.privacy.encrypted_sum.ciphertexts import SUM_BYTES, polynomials, reduced
from koinon.privacy.encrypted_sum.parameters import _ANSWERED, DEGREE, INTEGER_BITS, MODULUS, TURN_BITS
from koinon.tree import Array


def _drawn() -> Array:
    return next(Blind(SECRET, b"a sum").polynomials())


def _first_polynomial(body: bytes) -> Array:
    return polynomials(memoryview(body)[-PARAMETERS.ciphertexts * SUM_BYTES :][:SUM_BYTES])[0]


def test_a_blind_is_uniform_modulo_the_modulus_but_where_clients_are_counted() -> None:
    words = np.concatenate([row for row, _ in zip(Blind(SECRET, b"a sum").polynomials(), range(20), strict=False)])
    assert (words[::DEGREE] == 0).all()
    free = np.delete(words, np.s_[::DEGREE])
    assert (free < MODULUS).all()
    for shift in (0, 13, 26, 39, 52):
        counts = np.bincount((free >> np.uint64(shift)).astype(np.uint8), minlength=256)
        assert 130 < ((counts - free.size / 256) ** 2 / (free.size / 256)).sum() < 400
    assert len(np.unique(free)) == free.size


def test_a_number_that_is_not_below_the_modulus_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """To reduce it would make small numbers twice as likely: no stream shows that, so here is one."""
    supply = iter([np.full(DEGREE, 2**64 - 1, np.uint64), np.full(DEGREE, MODULUS, np.uint64) << np.uint64(4)])

    class Stream:
        def __init__(self, key: bytes, number: int) -> None:
            assert (len(key), number) == (32, 0)

        def words(self, count: int) -> Array:
            return next(supply, np.full(count, (MODULUS - 1) << 4, np.uint64))

    monkeypatch.setattr(blinds, "RandomStream", Stream)
    assert _drawn().tolist() == [0, *[MODULUS - 1] * (DEGREE - 1)]


def test_turns_are_exact_to_two_units() -> None:
    random = np.random.default_rng(3)
    words = np.concatenate(
        [[0, 1, 2, MODULUS // 2, MODULUS - 2, MODULUS - 1], random.integers(0, MODULUS, 10_000)]
    ).astype(np.uint64)
    pairs = zip(words.tolist(), turns(words).tolist(), strict=True)
    short = [(word << INTEGER_BITS) - turn * MODULUS for word, turn in pairs]
    assert 0 <= min(short) <= max(short) <= 2 * MODULUS


@pytest.mark.parametrize("plain_bits", [20, 33, 46])
def test_noise_up_to_its_bound_is_rounded_away_under_any_blind(plain_bits: int) -> None:
    """The bound of the margin is that of the whole way: blinded, decrypted to the leading bits, the blind taken off, rounded."""
    spacing, blind = MODULUS >> plain_bits, _drawn()
    most = (spacing - _ANSWERED) // 2
    with lattice.opened(20) as seal:
        secret, _ = seal.generate()
    with lattice.opened(TURN_BITS) as seal:
        decrypt, _ = seal.decryptor(secret)
        beyond = spacing // 2 + _ANSWERED
        for error, expected in ((most, 0), (-most, 0), (beyond, 1), (-beyond, (1 << plain_bits) - 1)):
            words = np.zeros((2, DEGREE), np.uint64)
            words[0] = reduced(blind + np.uint64(error % MODULUS))
            answer = decrypt(words) << np.uint64(INTEGER_BITS - TURN_BITS)
            noise_bits = INTEGER_BITS - plain_bits
            plain = (answer - turns(blind) + np.uint64(1 << (noise_bits - 1))) >> np.uint64(noise_bits)
            assert (plain == expected).all()


def test_what_is_decrypted_is_the_nearest_for_any_ciphertext() -> None:
    """Also far from every plaintext, where a blinded ciphertext is: half a step of the leading bits away at most."""
    words = np.zeros((2, DEGREE), np.uint64)
    words[0] = _drawn()
    with lattice.opened(20) as seal:
        secret, _ = seal.generate()
    with lattice.opened(TURN_BITS) as seal:
        found = seal.decryptor(secret)[0](words)
    for word, near in zip(words[0].tolist(), found.tolist(), strict=True):
        away = ((near * MODULUS - (word << TURN_BITS)) + (MODULUS << (TURN_BITS - 1))) % (MODULUS << TURN_BITS)
        assert 2 * abs(away - (MODULUS << (TURN_BITS - 1))) <= MODULUS + (1 << TURN_BITS)


def test_the_same_sum_has_the_same_blind_and_another_another() -> None:
    first, again = samples.blinded(*CLIENTS), samples.blinded(*CLIENTS[::-1])
    assert first.total == again.total
    assert np.array_equal(first.share.words, again.share.words)
    changed = samples.total_of(*CLIENTS)
    changed._total[-1, -1, -1] ^= np.uint64(1 << 58)
    others = [
        changed.blinded(SECRET),
        samples.blinded(*CLIENTS, "dijon"),
        samples.blinded(*CLIENTS[:2]),
        samples.total_of(*CLIENTS).blinded(bytes(32)),
        samples.blinded(*CLIENTS, number=8),
    ]
    for other in others:
        assert not (other.share.words == first.share.words)[:, 1:].any()
    assert not any(share.words[:, 0].any() for share in (first.share, *(other.share for other in others)))


def test_only_the_numbers_are_blinded() -> None:
    """The first coefficient counts, and the second polynomials never met a number."""
    plain, blinded = (
        _first_polynomial(body) for body in (samples.total_of(*CLIENTS).to_bytes(), samples.blinded(*CLIENTS).total)
    )
    assert plain[0] == blinded[0]
    assert not (plain == blinded)[1:].any()


@pytest.mark.parametrize("secret", [b"", bytes(31)])
def test_nothing_is_blinded_under_no_secret(secret: bytes) -> None:
    with pytest.raises(ConfigurationError, match="a secret of 32 bytes"):
        samples.total_of(*CLIENTS).blinded(secret)
