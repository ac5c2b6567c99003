"""CKKS in TenSEAL's bytes: what it reads TenSEAL wrote, what it writes TenSEAL reads, and all else is an error of koinon."""

from __future__ import annotations

import re
import struct
import sys
import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

tenseal = pytest.importorskip("tenseal", reason="needs koinon[he]")
sealapi = pytest.importorskip("tenseal.sealapi", reason="needs koinon[he]")
zstandard = pytest.importorskip("zstandard", reason="needs koinon[he]")

from koinon.errors import ConfigurationError, DataError, FormatError, UnsupportedError
from koinon.privacy.encrypted_sum.ckks import SharedKeyCKKS
from koinon.tree import Array

HEADER = sealapi.Serialization.SEALHeader()
OWN = bytes((HEADER.version_major, HEADER.version_minor))
SYMMETRIC, ASYMMETRIC = tenseal.ENCRYPTION_TYPE.SYMMETRIC, tenseal.ENCRYPTION_TYPE.ASYMMETRIC
DEGREE, BITS, SCALE = 8192, (60, 40, 40), 2.0**40  # NVFlare's
SLOTS = DEGREE // 2
SEAL = re.compile(rb"\x5e\xa1\x10\x04[\x01\x03]")  # the mark, the header's length and the version
LARGEST_ERROR, LARGEST_SECRET = 21, 1  # of SEAL, a coefficient
LONG = np.random.default_rng(7).uniform(-1, 1, 2 * SLOTS + 100)
FEW = LONG[:100]


@cache
def theirs(kind: object, degree: int = DEGREE, bits: tuple[int, ...] = BITS, scale: float = SCALE) -> Any:
    """Return a context of TenSEAL."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=degree, coeff_mod_bit_sizes=list(bits), encryption_type=kind
    )
    context.generate_relin_keys()
    context.global_scale = scale
    return context


@cache
def client(kind: object = SYMMETRIC) -> SharedKeyCKKS:
    """Return it with its secret key, as NVFlare's clients have it."""
    return SharedKeyCKKS.from_bytes(secret_bytes(kind))


@cache
def server(kind: object = SYMMETRIC) -> SharedKeyCKKS:
    """Return it without, as NVFlare's server has it."""
    return SharedKeyCKKS.from_bytes(theirs(kind).serialize(save_public_key=False, save_galois_keys=False))


@cache
def secret_bytes(kind: object = SYMMETRIC) -> bytes:
    """Return the bytes of a client's context."""
    return bytes(theirs(kind).serialize(save_secret_key=True, save_galois_keys=False))


@cache
def few() -> bytes:
    """Return a vector of one ciphertext."""
    return client().encrypt(FEW)


def opened(vector: bytes, context: SharedKeyCKKS | None = None, values: int = len(FEW)) -> Array:
    """Return what a client decrypts."""
    return (context or client()).decrypt(vector, values=values, largest=1000)


def bound(kind: object, clients: int) -> float:
    """Return the largest error there can be in a number of a sum: of all coefficients, in one direction.

    A coefficient is rounded once by encoding. A symmetric ciphertext has one error of SEAL, an asymmetric one is also
    divided by the last prime, which rounds both polynomials; what that leaves of three errors is below 1.
    """
    rounding = (1 + DEGREE * LARGEST_SECRET) / 2 + 1
    return clients * DEGREE * (0.5 + (LARGEST_ERROR if kind is SYMMETRIC else rounding)) / SCALE


def bound_of_quotient(largest: float, kind: object, clients: int, weight: float, prime: int) -> float:
    """Return it after a division, which rounds both polynomials, the factor, and takes a prime for the scale."""
    rounded = bound(kind, clients) / weight + DEGREE * (1 + DEGREE * LARGEST_SECRET) / 2 / SCALE
    return rounded + largest * (abs(SCALE / prime - 1) + weight / (2 * SCALE)) * 1.001


@pytest.mark.parametrize("kind", [SYMMETRIC, ASYMMETRIC], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("count", [1, SLOTS, SLOTS + 1, len(LONG)])
def test_what_was_encrypted_decrypts_within_the_bound(
    kind: object, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    vector = client(kind).encrypt(LONG[:count], weight=3)
    assert np.abs(opened(vector, client(kind), count) - 3 * LONG[:count]).max() <= bound(kind, 1)
    assert capfd.readouterr().out == ""  # TenSEAL prints a warning for every vector of more than one ciphertext


@pytest.mark.parametrize("kind", [SYMMETRIC, ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_a_server_without_a_key_sums_ten_clients_and_divides_by_their_weights(kind: object) -> None:
    random, weights = np.random.default_rng(3), range(1, 11)
    updates = [random.uniform(-1, 1, len(LONG)) for _ in weights]
    expected = sum(weight * update for weight, update in zip(weights, updates, strict=True))
    sent = (client(kind).encrypt(update, weight) for weight, update in zip(weights, updates, strict=True))
    total = server(kind).added(sent)
    assert np.abs(opened(total, client(kind), len(LONG)) - expected).max() <= bound(kind, 10)
    mean = server(kind).divided(total, sum(weights))
    far = bound_of_quotient(1.0, kind, 10, 55, client(kind).primes[1])
    assert np.abs(opened(mean, client(kind), len(LONG)) - expected / 55).max() <= far


def test_tenseal_reads_what_we_write_and_we_read_what_it_writes() -> None:
    context = theirs(SYMMETRIC)
    other = tenseal.ckks_vector_from(context, client().encrypt(LONG))
    assert np.abs(np.array(other.decrypt()) - LONG).max() <= bound(SYMMETRIC, 1)
    assert np.abs(opened(other.serialize(), values=len(LONG)) - LONG).max() <= bound(SYMMETRIC, 1)
    mean = (other + tenseal.ckks_vector(context, 3 * LONG)) * (1 / 4)
    far = bound_of_quotient(1.0, SYMMETRIC, 2, 4, client().primes[1])
    assert np.abs(opened(mean.serialize(), values=len(LONG)) - LONG).max() <= far
    ours = tenseal.ckks_vector_from(context, server().divided(server().added([client().encrypt(LONG)] * 2), 2))
    assert np.abs(np.array(ours.decrypt()) - LONG).max() <= far


def test_a_context_is_read_with_keys_that_no_sum_needs() -> None:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=4096, coeff_mod_bit_sizes=[36, 36, 37])
    context.global_scale = 2.0**30
    context.generate_galois_keys()
    public = SharedKeyCKKS.from_bytes(context.serialize())
    assert public.encrypts and not public.decrypts and public.degree == 4096
    found = tenseal.ckks_vector_from(context, public.encrypt(FEW)).decrypt()
    assert np.abs(np.array(found) - FEW).max() < 4096 * 4096 / 2**30


def objects(data: bytes) -> list[bytes]:
    """Return SEAL's objects in bytes of TenSEAL, headers and all."""
    found, at = [], 0
    while match := SEAL.search(data, at):
        at = match.start() + struct.unpack_from("<Q", data, match.start() + 8)[0]
        found.append(data[match.start() : at])
    return found


def sealed(body: bytes, version: bytes = OWN) -> bytes:
    """Return an object of SEAL around its bytes."""
    rest: bytes = zstandard.compress(body)
    return b"\x5e\xa1\x10" + version + b"\x02\x00\x00" + struct.pack("<Q", 16 + len(rest)) + rest


def of_4_1(raw: bytes) -> bytes:
    """Return an object as SEAL 4.1 writes it, which differs in the version alone."""
    return sealed(SEAL.sub(b"\x5e\xa1\x10\x04\x01", zstandard.decompress(raw[16:])), b"\x04\x01")


def message(*fields: tuple[int, bytes]) -> bytes:
    """Return bytes of protobuf."""
    return b"".join(bytes((tag,)) + (length(len(value)) if tag & 7 == 2 else b"") + value for tag, value in fields)


def length(value: int) -> bytes:
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128,)) + length(value >> 7)


def vector(*ciphertexts: bytes, lengths: bytes | None = None, scale: float = SCALE) -> bytes:
    """Return a vector of 100 numbers in each ciphertext, if not told otherwise."""
    lengths = bytes((100,)) * len(ciphertexts) if lengths is None else lengths
    fields = [(0x0A, lengths)] if lengths else []
    return message(*fields, *((0x12, one) for one in ciphertexts), (0x19, struct.pack("<d", scale)))


def test_a_federation_whose_tenseal_is_older_is_talked_to_in_its_version() -> None:
    parameters, secret = map(of_4_1, objects(secret_bytes()))
    public = message((0x10, b"\x07"), (0x19, struct.pack("<d", SCALE)))
    old = message((0x0A, parameters), (0x12, public), (0x1A, message((0x0A, secret), (0x10, b"\x01"))), (0x20, b"\x01"))
    with pytest.raises(RuntimeError, match="version"):
        tenseal.context_from(old)
    context = SharedKeyCKKS.from_bytes(old)
    assert (context.version, client().version) == ((4, 1), (4, OWN[1]))
    written = context.divided(context.added([context.encrypt(FEW), vector(*map(of_4_1, objects(few())))]), 2)
    (raw,) = objects(written)
    assert set(SEAL.findall(raw[:16] + zstandard.decompress(raw[16:]))) == {b"\x5e\xa1\x10\x04\x01"}
    far = bound_of_quotient(1.0, SYMMETRIC, 2, 2, context.primes[1])
    assert np.abs(opened(written, context) - FEW).max() <= far
    assert np.abs(opened(written) - FEW).max() <= far  # and a client whose own file is of another version reads it


def test_a_server_opens_nothing_and_without_a_public_key_encrypts_nothing() -> None:
    with pytest.raises(ConfigurationError, match="no secret key"):
        opened(few(), server())
    with pytest.raises(ConfigurationError, match="no key that encrypts"):
        server().encrypt(FEW)
    public = SharedKeyCKKS.from_bytes(theirs(ASYMMETRIC).serialize())
    with pytest.raises(ConfigurationError, match="no secret key"):
        opened(public.encrypt(FEW), public)


def test_a_context_that_is_not_of_ckks_is_refused() -> None:
    bfv = tenseal.context(tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=4096, plain_modulus=1032193)
    with pytest.raises(FormatError, match="scheme 1"):
        SharedKeyCKKS.from_bytes(bfv.serialize(save_galois_keys=False))


@pytest.mark.parametrize(
    "other",
    [
        {"degree": 16384},
        {"bits": (60, 40, 40, 40)},
        {"bits": (60, 41, 40)},
        {"bits": (50, 40, 40)},
        {"scale": 2.0**39},
    ],
    ids=str,
)
def test_a_vector_of_another_context_is_an_error_and_not_a_number(other: dict[str, object]) -> None:
    strange = bytes(tenseal.ckks_vector(theirs(SYMMETRIC, **other), FEW).serialize())
    for use in (opened, lambda own: server().added([few(), own]), lambda own: server().divided(own, 2)):
        with pytest.raises(FormatError, match="of another|TenSEAL refuses this vector"):
            use(strange)


@pytest.mark.parametrize("count", [1, 100])
def test_a_vector_under_another_key_is_an_error_and_not_a_number(count: int) -> None:
    """Nothing in it says so: it is what it decrypts to that is too large."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=list(BITS),
        encryption_type=SYMMETRIC,
    )
    context.global_scale = SCALE
    strange = bytes(tenseal.ckks_vector(context, FEW[:count]).serialize())
    with pytest.raises(FormatError, match="another key"):
        opened(strange, values=count)
    with pytest.raises(FormatError, match="another key"):  # with a prime less there is less room to be wrong in
        opened(server().divided(server().added([strange, client().encrypt(FEW[:count])]), 2), values=count)


def test_numbers_beyond_what_was_agreed_or_what_fits_are_refused() -> None:
    with pytest.raises(FormatError, match="beyond 0.5"):
        client().decrypt(client().encrypt(FEW + 2), values=100, largest=0.5)
    halved = server().divided(few(), 2)
    assert client().decrypt(halved, values=100, largest=500_000).shape == (100,)
    for largest in (2.0**19, 0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="room below 524288"):
            client().decrypt(halved, values=100, largest=largest)


def test_vectors_of_other_lengths_are_not_added_or_taken_for_others() -> None:
    one = client().encrypt(LONG[:1])  # TenSEAL itself adds a vector of one number to each number of another
    for other in (one, client().encrypt(LONG), server().divided(few(), 2)):
        with pytest.raises(FormatError, match="These differ"):
            server().added([few(), other])
    with pytest.raises(FormatError, match="100 numbers, and 99"):
        opened(few(), values=99)
    with pytest.raises(DataError, match="no vectors"):
        server().added([])


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), 2.0**24 + 1])
def test_a_weight_that_leaves_too_few_bits_does_not_divide(weight: float) -> None:
    with pytest.raises(ConfigurationError, match="was to be divided"):
        server().divided(few(), weight)


def test_where_primes_are_not_the_scale_nothing_is_divided() -> None:
    """TenSEAL divides by the prime and says the scale: here by 64 too much."""
    context = theirs(SYMMETRIC, 4096, (36, 36, 37), 2.0**30)
    own = SharedKeyCKKS.from_bytes(context.serialize(save_secret_key=True, save_galois_keys=False))
    assert np.abs(opened(own.added([own.encrypt(FEW)] * 2), own) - 2 * FEW).max() < 1e-3
    with pytest.raises(ConfigurationError, match="as large as the scale"):
        own.divided(own.encrypt(FEW), 2)
    with pytest.raises(FormatError, match="not the scale"):
        opened((tenseal.ckks_vector(context, FEW) * 0.5).serialize(), own)


def test_a_vector_is_divided_as_often_as_there_are_primes() -> None:
    once = server().divided(few(), 2.0**24)
    assert np.abs(opened(once) * 2**24 - FEW).max() < 2**24 * bound_of_quotient(2.0**-24, SYMMETRIC, 1, 2**24, 1 << 40)
    with pytest.raises(ConfigurationError, match="1 primes left"):
        server().divided(once, 2)
    with pytest.raises(FormatError, match="TenSEAL refuses this quotient"):
        server().divided(few(), 1e-30)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros(0), "finite numbers"),
        (np.zeros((2, 2)), r"finite numbers.*\(2, 2\)"),
        (np.array([0.0, np.nan]), "finite numbers"),
        (np.array([np.inf]), "finite numbers"),
        (np.array([1e300]), "finite numbers"),
        (np.array([1e30]), "too large"),
    ],
    ids=["none", "rows", "nan", "infinite", "overflows", "does not fit"],
)
def test_values_that_cannot_be_encrypted_are_refused(values: Array, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        client().encrypt(values, weight=1e10)


@pytest.mark.parametrize("read", [SharedKeyCKKS.from_bytes, opened], ids=["context", "vector"])
@given(cut=st.integers(0, 2**20))
@settings(deadline=None, max_examples=30)
def test_what_is_cut_off_is_refused(read: Callable[[bytes], object], cut: int) -> None:
    data = few() if read is opened else secret_bytes()
    with pytest.raises(FormatError):
        read(data[: cut % (len(data) - 2)])  # without the last field, of two bytes, a context would be another's


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 255)), min_size=1, max_size=4), st.booleans())
@settings(deadline=None, max_examples=100)
def test_bytes_changed_where_vectors_say_what_they_are_give_an_error_or_the_same(
    changes: list[tuple[int, int]], inside: bool
) -> None:
    """Behind its header a ciphertext is random: a change there is caught by what it decrypts to, if it is."""
    (raw,) = objects(few())
    data = bytearray(zstandard.decompress(raw[16:]) if inside else few())
    for at, by in changes:
        data[at] ^= by
    try:
        found = opened(vector(sealed(bytes(data)) if inside else raw) if inside else bytes(data))
    except FormatError:
        return
    assert np.abs(found - FEW).max() <= bound(SYMMETRIC, 1)


def grown(raw: bytes) -> bytes:
    """Return an object that says its own size, and unpacks to a thousand times that."""
    said, more = len(zstandard.decompress(raw[16:])), 1 << 26
    frame = zstandard.compress(bytes(more)).replace(struct.pack("<I", more), struct.pack("<I", said), 1)
    assert zstandard.frame_content_size(frame) == said
    return b"".join((raw[:8], struct.pack("<Q", 16 + len(frame)), frame))


def test_a_malformed_vector_is_refused_before_anything_is_allocated() -> None:
    (raw,) = objects(few())
    other, right = zstandard.decompress(raw[16:]), struct.pack("<d", SCALE)
    tiny, huge = sealed(bytes(97 + 2 * 2 * DEGREE * 8)), sealed(bytes(1 << 26))  # thousands of times their size
    cases = {
        "no lengths": (vector(raw, lengths=b""), "of no field"),
        "a number too many": (vector(raw, lengths=length(SLOTS + 1)), "lengths"),
        "more lengths than ciphertexts": (vector(raw, lengths=b"\x64\x64"), "0 bytes"),
        "fewer": (vector(raw, raw, lengths=b"\x64"), "of no field"),
        "none of either": (vector(), "lengths"),
        "a length of nothing": (vector(raw, lengths=b"\x00"), "lengths"),
        "ten million lengths": (vector(raw, lengths=b"\x01" * 10_000_000), "of no field"),
        "three gigabytes of ciphertexts": (vector(*[tiny] * 12_000), "3,145,728,000 bytes"),
        "a ciphertext that is huge": (vector(huge), "does not fit"),
        "a huge one behind another": (vector(raw, huge), "not 262241"),
        "more than it says": (vector(grown(raw)), "decompress"),
        "another compression": (vector(raw[:5] + b"\x01" + raw[6:]), "with the header"),
        "another version": (vector(raw[:4] + b"\x02" + raw[5:]), "with the header"),
        "not of SEAL": (vector(b"\x5f" + raw[1:]), "with the header"),
        "of another scale": (
            vector(sealed(other.replace(right, struct.pack("<d", 2.0**39)))),
            "not what its context says",
        ),
        "cut off in its scale": (vector(raw)[:-3], "cut off"),
        "no scale": (vector(raw)[:-9], "scale"),
        "an impossible scale": (vector(raw, scale=float("nan")), "scale"),
        "two scales": (vector(raw) + message((0x19, struct.pack("<d", SCALE))), "of no field"),
        "a field nobody knows": (vector(raw) + message((0x22, b"")), "of no field"),
        "nothing": (b"", "lengths"),
    }
    for name, (data, reason) in cases.items():
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match=reason):
                server().added([data])
            assert tracemalloc.get_traced_memory()[1] < 4 * (1 << 20), name
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.0, float("nan"), float("inf"), 2.0**150])
def test_a_context_with_a_scale_that_does_not_fit_is_refused(scale: float) -> None:
    right = struct.pack("<d", SCALE)
    assert secret_bytes().count(right) == 1
    with pytest.raises(FormatError, match="scale"):
        SharedKeyCKKS.from_bytes(secret_bytes().replace(right, struct.pack("<d", scale)))


def with_degree(degree: int) -> bytes:
    """Return the parameters of a context, with another degree."""
    body = bytearray(zstandard.decompress(objects(secret_bytes())[0][16:]))
    body[1:9] = struct.pack("<Q", degree)
    return sealed(bytes(body))


PUBLIC = message((0x10, b"\x07"), (0x19, struct.pack("<d", SCALE)))


def test_parameters_that_are_not_safe_are_refused() -> None:
    """SEAL has the standard's table, and is not asked to be lenient: of 140 bits it allows 109."""
    with pytest.raises(FormatError, match="TenSEAL refuses this context"):
        SharedKeyCKKS.from_bytes(message((0x0A, with_degree(4096)), (0x12, PUBLIC)))


def test_a_context_is_bounded_before_anything_is_allocated() -> None:
    parameters, huge = objects(secret_bytes())[0], sealed(bytes(1 << 26))
    cases = {
        "a degree of a million": (message((0x0A, with_degree(1 << 20)), (0x12, PUBLIC)), "degree 1048576"),
        "a million primes": (message((0x0A, sealed(bytes(17 + 24 * 1_000_000))), (0x12, PUBLIC)), "does not fit"),
        "a secret key that is huge": (
            message((0x0A, parameters), (0x12, PUBLIC), (0x1A, message((0x0A, huge)))),
            "not 196680",
        ),
        "a public one": (message((0x0A, parameters), (0x12, message((0x0A, huge)) + PUBLIC)), "not 393313"),
        "bytes behind it": (secret_bytes() + b"\x2a\x00", "2 bytes are of no field"),
        "no public part": (message((0x0A, parameters)), "scale of nan"),
        "text": (b"name: server_context.tenseal", "0 bytes with the header"),
    }
    for name, (data, reason) in cases.items():
        tracemalloc.start()
        try:
            with pytest.raises(FormatError, match=reason):
                SharedKeyCKKS.from_bytes(data)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20, name
        finally:
            tracemalloc.stop()


def test_a_context_shows_no_secret() -> None:
    assert "context=" not in repr(client()) and len(repr(client())) < 250


def test_without_tenseal_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = secret_bytes()
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'koinon\[he\]'"):
        SharedKeyCKKS.from_bytes(data)
