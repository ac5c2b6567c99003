"""Bytes of strangers are bounded before anything is allocated, and what is malformed is an error of koinon."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

pytest.importorskip("tenseal")
pytest.importorskip("zstandard")

import encrypted_sum_samples as samples
from encrypted_sum_samples import CLIENTS, PARAMETERS, Kept

from koinon.errors import FleetError, FormatError, KoinonError
from koinon.privacy.encrypted_sum import ciphertexts
from koinon.privacy.encrypted_sum.ciphertexts import SUM_BYTES, EncryptedSum
from koinon.privacy.encrypted_sum.holder import Answered, Request
from koinon.privacy.encrypted_sum.keys import PublicKey, SecretKey
from koinon.privacy.encrypted_sum.shares import Count, Share
from koinon.tree import Array

HEAD = 400  # bytes in which a request's lengths and names are
CUTS = st.integers(0, 2**20)
CHANGES = st.lists(st.tuples(st.integers(0, HEAD), st.integers(1, 255)), min_size=1, max_size=4)


def _add(data: bytes) -> None:
    EncryptedSum(samples.the_round()).add(data)


def _request() -> bytes:
    return samples.request().to_bytes()


def _share() -> Share:
    return samples.holder().share(samples.request(), Answered(), Kept([]))


READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], object]]] = {
    "update": (lambda: bytes(samples.sent_by("caen").update), _add),
    "sum": (lambda: samples.total_of(*CLIENTS).to_bytes(), lambda data: ciphertexts.summed(data, samples.the_round())),
    "public key": (lambda: samples.secret_key().public.to_bytes(), PublicKey.from_bytes),
    "secret key": (lambda: samples.secret_key().to_bytes(), SecretKey.from_bytes),
    "share": (lambda: _share().to_bytes(), lambda data: Share.from_bytes(data, PARAMETERS)),
    "count": (lambda: _share().count.to_bytes(), lambda data: Count.from_bytes(data, PARAMETERS)),
}


@pytest.mark.parametrize("what", READERS)
@given(cut=CUTS)
@example(cut=0)
@settings(deadline=None, max_examples=25)
def test_what_is_cut_off_or_too_long_is_refused(what: str, cut: int) -> None:
    make, read = READERS[what]
    whole = make()
    with pytest.raises(FormatError):
        read(whole[: cut % len(whole)])
    with pytest.raises(FormatError):
        read(whole + b"\0")


@pytest.mark.parametrize("what", READERS)
@given(data=st.binary(max_size=200))
@settings(deadline=None, max_examples=25)
def test_other_bytes_are_refused(what: str, data: bytes) -> None:
    with pytest.raises(FormatError):
        READERS[what][1](data)


@given(CHANGES)
@settings(deadline=None, max_examples=100)
def test_a_changed_request_is_an_error_of_koinon(changes: list[tuple[int, int]]) -> None:
    changed = bytearray(_request())
    for place, difference in changes:
        changed[place] ^= difference
    try:
        asked = Request.from_bytes(bytes(changed))
        samples.answer(asked)
    except KoinonError:
        return
    assert bytes(changed) == _request()


@given(CUTS)
@settings(deadline=None, max_examples=25)
def test_a_request_that_is_cut_off_is_refused(cut: int) -> None:
    whole = _request()
    with pytest.raises(FormatError):
        asked = Request.from_bytes(whole[: cut % len(whole)])
        samples.answer(asked)


@given(st.lists(st.tuples(st.integers(0, 2 * SUM_BYTES - 1), st.integers(1, 255)), min_size=1, max_size=3))
@settings(deadline=None, max_examples=25)
def test_a_changed_ciphertext_never_crashes_the_holder(changes: list[tuple[int, int]]) -> None:
    body = bytearray(samples.total_of(*CLIENTS).to_bytes())
    start = len(body) - PARAMETERS.ciphertexts * SUM_BYTES
    for place, difference in changes:
        body[start + place] ^= difference
    try:
        totals = samples.answer(samples.request(total=bytes(body)))
    except FleetError:
        return
    assert totals.clients == 3  # a change that only moves the noise, or a number: the coordinator could do that anyway


@pytest.mark.parametrize("fill", [0, 255])
def test_extreme_ciphertexts_are_refused(fill: int) -> None:
    body = samples.total_of(*CLIENTS).to_bytes()
    size = PARAMETERS.ciphertexts * SUM_BYTES
    with pytest.raises(FleetError, match="is not the sum"):
        extreme = body[:-size] + bytes([fill]) * size
        samples.answer(samples.request(total=extreme))


def test_announced_sizes_are_not_allocated() -> None:
    whole = _request()
    count = whole.index(samples.the_round().keys[0]) + 32
    huge = whole[:count] + struct.pack("<I", 4) + struct.pack("<I", 2**32 - 1) + b"x" * 20
    text = PARAMETERS.text().replace(b'"values":10000', b'"values":4294967296')
    many = whole.replace(
        struct.pack("<I", len(PARAMETERS.text())) + PARAMETERS.text(), struct.pack("<I", len(text)) + text
    )
    tracemalloc.start()
    try:
        for data in (huge, many):
            with pytest.raises(KoinonError):
                samples.answer(Request.from_bytes(data))
        assert tracemalloc.get_traced_memory()[1] < 10 * len(whole)
    finally:
        tracemalloc.stop()


def test_an_update_that_is_refused_leaves_the_sum_alone() -> None:
    total = samples.total_of("amiens")
    before = total.to_bytes()
    for bad in (b"", bytes(samples.sent_by("brest").update[:-1]), bytes(samples.sent_by("brest", 8).update)):
        with pytest.raises(FormatError):
            total.add(bad)
    assert total.to_bytes() == before
    assert total.clients == 1


def test_a_sum_takes_no_more_than_its_cohort() -> None:
    total = samples.total_of("amiens", "brest", "caen", "dijon")
    with pytest.raises(FleetError, match="no more can be summed exactly"):
        total.add(samples.sent_by("amiens").update)


def test_a_key_with_numbers_beyond_its_moduli_is_refused() -> None:
    data = bytearray(samples.secret_key().public.to_bytes())
    data[-8:] = b"\xff" * 8
    with pytest.raises(FormatError, match="below its modulus"):
        PublicKey.from_bytes(bytes(data))


def test_sums_are_of_numpy_alone() -> None:
    words: Array = samples.total_of("amiens")._total
    assert words.dtype == np.uint64
    assert words.shape == (PARAMETERS.ciphertexts, 2, 4096)
