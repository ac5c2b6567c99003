"""CKKS in the bytes of TenSEAL, to talk to federations that exist, NVFlare's above all. For all else there is ``Encrypted``.

It protects less, and no run of koinon uses it. Sums are approximate. Where all clients have the secret key, as NVFlare gives it
to them, each opens the others' updates. Nothing says whose ciphertexts are in a sum. And what was decrypted must not be shown to
anybody who sees ciphertexts: the two together give the secret key away (Li and Micciancio, EUROCRYPT 2021).

CKKS: Cheon, Kim, Kim and Song, ASIACRYPT 2017. Bytes from outside reach SEAL only rebuilt, of known fields and checked lengths.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np

from koinon.errors import ConfigurationError, DataError, FormatError, KoinonError, UnsupportedError
from koinon.tree import Array

Version: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[tuple[int, ...], int]  # numbers in each ciphertext; primes that are left
_VERSIONS = (4, 1), (4, 3)  # of one layout, but SEAL reads its own alone: TenSEAL 0.3.15 and .16, and .17 and .18
# Tags of protobuf, in TenSEAL's order: of a context, of its public part (and the private one's key), of a vector.
_PARAMETERS, _PUBLIC, _PRIVATE, _SYMMETRIC = 0x0A, 0x12, 0x1A, 0x20
_KEY, _FLAGS, _SCALE = 0x0A, 0x10, 0x19
_LENGTHS, _CIPHERTEXT = 0x0A, 0x12
_YES, _AUTOMATIC = b"\x01", b"\x07"  # flags: TenSEAL rescales by itself
_SIZES = {0: 1, 1: 8}  # of numbers below 128, and of float64; the rest say theirs
_MARK, _CKKS, _NOT_COMPRESSED, _ZSTANDARD = 0xA15E, 2, 0, 2  # of SEAL
_HEADER = struct.Struct("<HBBBBHQ")  # mark, its own length, version, compression, reserved, bytes in all
_NUMBER = struct.Struct("<Q")
_PART = _HEADER.size + _NUMBER.size  # a number behind a header of its own
_SCHEME = struct.Struct("<BQQ")  # scheme, degree, primes
_SECRET = struct.Struct("<Qd")  # coefficients, scale
_PAIR = struct.Struct("<BQQQdQ")  # transformed, polynomials, degree, primes, scale, and what CKKS does not use
_OWNER = 32  # the digest of the parameters, which SEAL compares
_LARGEST_DEGREE, _MOST_PRIMES = 1 << 15, 64
_MOST_BYTES = 1 << 31  # of a vector's ciphertexts, unpacked
_FEWEST_BITS = 16  # of the factor that divides a sum
_FARTHEST = 2.0**-10  # of a prime from the scale, of which it takes the place


@dataclass(frozen=True, eq=False)  # alike are also contexts of other keys
class SharedKeyCKKS:
    """A TenSEAL context. If it :attr:`decrypts`, its owner opens every vector encrypted under it, not only sums.

    A ciphertext holds ``degree / 2`` numbers, multiplied by ``scale`` and rounded, modulo all ``primes`` but the last.
    ``version`` is that of the SEAL which wrote the context; vectors are written for it, whatever TenSEAL is installed here.
    """

    degree: int
    primes: tuple[int, ...]
    scale: float
    version: Version
    encrypts: bool
    decrypts: bool
    _context: Any = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the context in NVFlare's ``client_context.tenseal`` or ``server_context.tenseal``, or any that TenSEAL wrote.

        Raises FormatError for bytes that are none, or not of CKKS, and UnsupportedError without ``koinon[he]``.
        """
        tenseal, own = _tenseal()
        message = _Message(data)
        version, degree, primes = _parameters(message.field(_PARAMETERS))
        public, private = _Message(message.field(_PUBLIC)), _Message(message.field(_PRIVATE))
        symmetric = message.field(_SYMMETRIC) == _YES
        message.end()
        key, _, scale = public.field(_KEY), public.field(_FLAGS), _float(public.field(_SCALE))
        secret, words = private.field(_KEY), degree * len(primes)  # behind them are only keys that no sum needs
        if not 1 < scale < math.prod(primes):
            raise FormatError(f"A context has a scale of {scale:g}, which does not fit its primes. Make another.")
        shown = _field(_FLAGS, _AUTOMATIC) + _field(_SCALE, struct.pack("<d", scale))
        if key:
            front = _PAIR.pack(1, 2, degree, len(primes), 1.0, 1)
            shown = _field(_KEY, _restamped(key, front, 2 * words, own)) + shown
        known = _field(_PARAMETERS, _framed(own, _layout(own, degree, primes))) + _field(_PUBLIC, shown)
        if secret:
            own_secret = _restamped(secret, _SECRET.pack(words, 1.0), words, own)
            known += _field(_PRIVATE, _field(_KEY, own_secret))
        with _refusals("this context"):
            context = tenseal.context_from(known + _field(_SYMMETRIC, _YES) * symmetric, 1)
        return cls(degree, primes, scale, version, bool(secret if symmetric else key), bool(secret), context)

    def encrypt(self, values: Array, weight: float = 1.0) -> bytes:
        """Return ``weight * values``, float64 ``[values]``, as a serialised CKKSVector: NVFlare's clients weight by themselves.

        Raises DataError for values that are not finite or do not fit, ConfigurationError where there is no key to encrypt.
        """
        if not self.encrypts:
            raise ConfigurationError("This context has no key that encrypts: it is a server's. Use a client's.")
        slots = self.degree // 2
        with np.errstate(all="ignore"):
            numbers = np.asarray(values, np.float64) * weight
        if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
            raise DataError(f"One row of finite numbers can be encrypted. These, of shape {numbers.shape}, are not.")
        chunks = (numbers[start : start + slots] for start in range(0, len(numbers), slots))
        with _refusals("these values", DataError):  # one by one: of several ciphertexts TenSEAL prints a warning
            return self._written(_tenseal()[0].ckks_vector(self._context, chunk) for chunk in chunks)

    def added(self, vectors: Iterable[bytes]) -> bytes:
        """Return the sum of serialised vectors, which have one length and were divided equally often. It needs no key."""
        shape: Shape | None = None
        total: list[Any] = []
        for data in vectors:
            found, chunks = self._read(data)
            if shape is None:
                shape, total = found, list(chunks)
                continue
            if found != shape:
                raise FormatError("Vectors of one length, and divided equally often, can be added. These differ.")
            for own, other in zip(total, chunks, strict=True):
                with _refusals("this sum"):
                    own.add_(other)
        if shape is None:
            raise DataError("A sum of no vectors was asked for. Give it at least one.")
        return self._written(total)

    def divided(self, vector: bytes, weight: float) -> bytes:
        """Return a vector divided by ``weight``: NVFlare's server divides a sum by that of the weights. It needs no key.

        It uses up one of the primes. TenSEAL takes that prime for the scale, so all numbers come out larger by the ratio of
        the two: by 7e-7 of themselves with NVFlare's parameters. Raises ConfigurationError if it is more than 2^-10, or if
        the weight leaves less than 16 bits.
        """
        (_, left), chunks = self._read(vector)
        if left < 2 or self._off(left - 1) or not 0 < weight <= math.ldexp(self.scale, -_FEWEST_BITS):
            raise ConfigurationError(
                f"A vector with {left} primes left was to be divided by {weight:g}. It takes two primes, of which the last is "
                f"as large as the scale, and a weight above 0 and up to 2^-{_FEWEST_BITS} of it. Divide what is decrypted."
            )
        with _refusals("this quotient"):
            return self._written(chunk * (1.0 / weight) for chunk in chunks)

    def decrypt(self, vector: bytes, *, values: int, largest: float) -> Array:
        """Return the numbers of a serialised vector, float64 ``[values]``. Show them to nobody who sees ciphertexts.

        Nothing in a vector says which key it is under, and under another one it decrypts to huge numbers. It is refused if any
        is beyond ``largest``: choose the least that honest numbers keep to. Raises FormatError then and if there are not as many,
        and ConfigurationError without a secret key, or if numbers as large do not fit.
        """
        if not self.decrypts:
            raise ConfigurationError("This context has no secret key: it is a server's. Use a client's.")
        (sizes, left), chunks = self._read(vector)
        if sum(sizes) != values:
            raise FormatError(f"A vector has {sum(sizes)} numbers, and {values} were expected: it is another layer's.")
        room = math.prod(self.primes[:left]) / (2 * self.scale)
        if not 0 < largest < room:
            raise ConfigurationError(f"Numbers up to {largest:g} were asked for. This vector has room below {room:g}.")
        with _refusals("this vector"):
            numbers = np.concatenate([np.array(chunk.decrypt()) for chunk in chunks])
        if not (np.abs(numbers) <= largest).all():
            raise FormatError(
                f"A vector decrypts to numbers beyond {largest:g}: it is under another key, or damaged, or a sum of more than "
                "you thought. Do not use it."
            )
        return numbers

    def _read(self, data: bytes) -> tuple[Shape, Iterator[Any]]:
        """Return a vector's shape, and its ciphertexts, which are loaded one after the other."""
        message, slots = _Message(data), self.degree // 2
        sizes = _Message(message.field(_LENGTHS)).numbers(_MOST_BYTES // (2 * self.degree * _NUMBER.size))
        raws = [message.field(_CIPHERTEXT) for _ in sizes]
        scale = _float(message.field(_SCALE))
        message.end()
        if not sizes or not all(1 <= size <= slots for size in sizes) or scale != self.scale:
            raise FormatError(
                "A vector has not the scale of this context, or other lengths: it is of another, or damaged."
            )
        if self._off(left := self._left(raws[0])):
            raise FormatError(
                "A vector was divided by a prime that is not the scale, so its numbers are not what they were."
            )
        if (size := len(raws) * 2 * self.degree * left * _NUMBER.size) > _MOST_BYTES:
            raise FormatError(f"A vector has {size:,} bytes, and up to {_MOST_BYTES:,} are read. Cut it into several.")
        return (sizes, left), self._loaded(sizes, raws, left)

    def _loaded(self, sizes: tuple[int, ...], raws: list[memoryview], left: int) -> Iterator[Any]:
        tenseal, own = _tenseal()
        for size, raw in zip(sizes, raws, strict=True):
            with _refusals("this vector"):
                chunk = tenseal.ckks_vector_from(self._context, self._vector([size], [self._stamped(raw, left, own)]))
            yield chunk

    def _written(self, chunks: Iterable[Any]) -> bytes:
        own, sizes, ciphertexts = _tenseal()[1], list[int](), list[bytes | memoryview]()
        for chunk in chunks:
            message = _Message(chunk.serialize())
            sizes += _Message(message.field(_LENGTHS)).numbers(1)
            raw = message.field(_CIPHERTEXT)
            ciphertexts.append(raw if own == self.version else self._stamped(raw, self._left(raw), self.version, True))
        return self._vector(sizes, ciphertexts)

    def _vector(self, sizes: Iterable[int], ciphertexts: Iterable[bytes | memoryview]) -> bytes:
        lengths = _field(_LENGTHS, b"".join(map(_varint, sizes)))
        parts = (part for one in ciphertexts for part in (_head(_CIPHERTEXT, len(one)), one))
        return b"".join((lengths, *parts, _field(_SCALE, struct.pack("<d", self.scale))))

    def _left(self, raw: memoryview) -> int:
        """Return how many primes a ciphertext has left, by its size."""
        unit, most = 2 * self.degree * _NUMBER.size, max(1, len(self.primes) - 1)
        return _count(raw, _OWNER + _PAIR.size + _PART, unit, most)

    def _off(self, left: int) -> bool:
        """Return whether a prime that is gone was too far from the scale."""
        return any(abs(prime / self.scale - 1) > _FARTHEST for prime in self.primes[left:-1])

    def _stamped(self, raw: memoryview, left: int, version: Version, packed: bool = False) -> bytes:
        front = _PAIR.pack(1, 2, self.degree, left, self.scale, 1)
        return _restamped(raw, front, 2 * self.degree * left, version, packed)


def _parameters(raw: memoryview) -> tuple[Version, int, tuple[int, ...]]:
    """Return the version, the degree and the primes of a context."""
    count = _count(raw, _SCHEME.size, _PART, _MOST_PRIMES)
    version, body = _body(raw, _SCHEME.size + count * _PART)
    scheme, degree, _ = _SCHEME.unpack_from(body)
    numbers = tuple(_NUMBER.unpack_from(body, at + _HEADER.size)[0] for at in range(_SCHEME.size, len(body), _PART))
    if degree > _LARGEST_DEGREE or body != _layout(version, degree, numbers[:-1]):
        raise FormatError(
            f"A context of scheme {scheme}, degree {degree} was found. CKKS, which is 2, up to 32768 is read."
        )
    return version, degree, numbers[:-1]


def _layout(version: Version, degree: int, primes: tuple[int, ...]) -> bytes:
    """Return parameters as SEAL writes them. Behind the primes is a modulus of plaintexts, which CKKS has not."""
    return _SCHEME.pack(_CKKS, degree, len(primes)) + b"".join(_part(version, number) for number in (*primes, 0))


def _part(version: Version, number: int, more: int = 0) -> bytes:
    header = _HEADER.pack(_MARK, _HEADER.size, *version, _NOT_COMPRESSED, 0, _PART + more)
    return header + _NUMBER.pack(number)


def _restamped(raw: memoryview, front: bytes, words: int, version: Version, packed: bool = False) -> bytes:
    """Return an object for another version of SEAL. Raises FormatError unless this is its front, and so many its words."""
    start, end, size = _OWNER, _OWNER + len(front) + _PART, words * _NUMBER.size
    found, body = _body(raw, end + size)
    if body[start:end] != front + _part(found, words, size):
        raise FormatError("A key or a ciphertext is not what its context says: it is of another, or damaged.")
    return _framed(version, b"".join((body[:start], front, _part(version, words, size), body[end:])), packed)


def _framed(version: Version, body: bytes, packed: bool = False) -> bytes:
    import zstandard

    kind, rest = (_ZSTANDARD, zstandard.compress(body)) if packed else (_NOT_COMPRESSED, body)
    return _HEADER.pack(_MARK, _HEADER.size, *version, kind, 0, _HEADER.size + len(rest)) + rest


def _count(raw: memoryview, fixed: int, unit: int, most: int) -> int:
    """Return how many units of bytes an object says it has behind the fixed ones."""
    count, odd = divmod(_object(raw)[1] - fixed, unit)
    if odd or not 1 <= count <= most:
        raise FormatError(
            "A context or a ciphertext has a size that does not fit: it is of another context, or damaged."
        )
    return count


def _body(raw: memoryview, size: int) -> tuple[Version, bytes]:
    """Return an object's version and its bytes, which are ``size``: no more is allocated."""
    import zstandard

    version, said, rest, packed = _object(raw)
    if said != size:
        raise FormatError(
            f"A key or a ciphertext has {said} bytes, and not {size}: it is of another context, or damaged."
        )
    with _refusals("these bytes"):
        return version, zstandard.decompress(rest) if packed else bytes(rest)


def _object(raw: memoryview) -> tuple[Version, int, memoryview, bool]:
    """Return an object's version, how many bytes it says it has, those behind its header, and whether they are compressed."""
    import zstandard

    found = bytes(raw[: _HEADER.size])
    mark, length, major, minor, kind, _, size = _HEADER.unpack(found.ljust(_HEADER.size))
    known = (major, minor) in _VERSIONS and kind in (_NOT_COMPRESSED, _ZSTANDARD)
    if (mark, length, size) != (_MARK, _HEADER.size, len(raw)) or not known:
        raise FormatError(
            f"{len(raw)} bytes with the header {found.hex()!r} are not what TenSEAL 0.3.15 to 0.3.18 write, or were cut off."
        )
    rest, packed = raw[_HEADER.size :], kind == _ZSTANDARD
    with _refusals("these bytes"):
        return (major, minor), zstandard.frame_content_size(rest) if packed else len(rest), rest, packed


class _Message:
    """Reads protobuf, field by field in the order in which TenSEAL writes them. One that is not there is empty."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest = memoryview(data)

    def field(self, tag: int) -> memoryview:
        """Return the next field, if it has this tag."""
        if bytes(self._rest[:1]) != bytes((tag,)):
            return self._rest[:0]
        self._rest = self._rest[1:]
        size = _SIZES.get(tag & 7) or self._number()
        if size > len(self._rest):
            raise FormatError(f"A field of {size} bytes was announced, and {len(self._rest)} follow: it was cut off.")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def numbers(self, most: int) -> tuple[int, ...]:
        """Return up to ``most`` numbers, which are all that is left."""
        found = list[int]()
        while len(self._rest) and len(found) < most:
            found.append(self._number())
        self.end()
        return tuple(found)

    def end(self) -> None:
        """Refuse bytes that are of no field."""
        if len(self._rest):
            raise FormatError(
                f"{len(self._rest)} bytes are of no field that TenSEAL writes there: they are another file's."
            )

    def _number(self) -> int:
        value = 0
        for index, byte in enumerate(self._rest[:5]):
            value |= (byte & 127) << 7 * index
            if byte < 128:
                self._rest = self._rest[index + 1 :]
                return value
        raise FormatError("A number was cut off, or is larger than any of TenSEAL's.")


def _field(tag: int, value: bytes) -> bytes:
    return _head(tag, len(value)) + value


def _head(tag: int, size: int) -> bytes:
    return bytes((tag,)) + (b"" if tag & 7 in _SIZES else _varint(size))


def _varint(value: int) -> bytes:
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128,)) + _varint(value >> 7)


def _float(value: memoryview) -> float:
    return float(struct.unpack("<d", value)[0]) if value else math.nan


@contextmanager
def _refusals(what: str, kind: type[KoinonError] = FormatError) -> Iterator[None]:
    """Raise what TenSEAL and zstandard refuse as an error of koinon."""
    from zstandard import ZstdError

    try:
        yield
    except (ValueError, RuntimeError, IndexError, ZstdError) as error:
        raise kind(f"TenSEAL refuses {what}: {error}.") from error


def _tenseal() -> tuple[Any, Version]:
    """Return the module, and the version of its SEAL."""
    try:
        import tenseal
        import zstandard  # noqa: F401
        from tenseal import sealapi
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"CKKS needs TenSEAL, and {error.name} is missing. Run: pip install 'koinon[he]'"
        ) from error
    header = sealapi.Serialization.SEALHeader()
    if (own := (header.version_major, header.version_minor)) not in _VERSIONS:
        raise UnsupportedError(f"This TenSEAL has SEAL {own}, which was not tried. Run: pip install tenseal==0.3.18")
    return tenseal, own
