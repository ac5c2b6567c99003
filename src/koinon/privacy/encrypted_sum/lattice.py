"""BFV by Microsoft SEAL, through the binding in TenSEAL (``koinon[he]``).

The binding reads and writes objects only as files, so they pass through one that exists in memory alone and is given to
nobody. What is read is in SEAL's own layout without compression: what SEAL has written in front of the coefficients of such an
object, and then coefficients that have been checked. Bytes from outside never reach SEAL.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from koinon.errors import UnsupportedError
from koinon.privacy.encrypted_sum.parameters import DEGREE, MODULUS, SPECIAL
from koinon.tree import Array

WORD = 8
PUBLIC_BYTES, SECRET_BYTES = 4 * DEGREE * WORD, 2 * DEGREE * WORD
"""Of a public and of a secret key: uint64, a polynomial (of the two) for each prime."""
_HEADER = struct.Struct(
    "<HBBBBHQ"
)  # SEAL's: a mark, its own length, two of version, compression, reserved, bytes in all
_NOT_COMPRESSED, _ZSTANDARD = 0, 2


class Lattice:
    """SEAL with plaintexts modulo ``2**plain_bits``. Closing it forgets the file in memory; see :func:`opened`."""

    def __init__(self, plain_bits: int, file: int) -> None:
        self._seal, self._unzipped = _libraries()
        seal, self._file, self._path = self._seal, file, f"/proc/self/fd/{file}"
        wanted = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
        wanted.set_poly_modulus_degree(DEGREE)
        wanted.set_coeff_modulus([seal.Modulus(MODULUS), seal.Modulus(SPECIAL)])
        wanted.set_plain_modulus(1 << plain_bits)
        self._context = seal.SEALContext(wanted, True, seal.SEC_LEVEL_TYPE.TC128)  # refuses what the standard does
        if not self._context.parameters_set():
            raise UnsupportedError(
                f"SEAL refuses plaintexts of {plain_bits} bits: {self._context.parameters_error_message()}. "
                "Choose parameters by Parameters.fitting(...)."
            )

    def generate(self) -> tuple[bytes, bytes]:
        """Return a new secret key and its public key."""
        generator, public = self._seal.KeyGenerator(self._context), self._seal.PublicKey()
        generator.create_public_key(public)
        return self._tail(generator.secret_key(), SECRET_BYTES), self._tail(public, PUBLIC_BYTES)

    def encryptor(self, public: bytes) -> Callable[[Array], Array]:
        """Return what encrypts a plaintext, uint64 ``[DEGREE]``, to a ciphertext, uint64 ``[2, DEGREE]`` below MODULUS."""
        seal = self._seal
        key, plain, cipher = seal.PublicKey(), seal.Plaintext(DEGREE), seal.Ciphertext()
        self._load(key, self._front(self._own_public(), PUBLIC_BYTES), public)
        encryptor, front = seal.Encryptor(self._context, key), self._front(plain, DEGREE * WORD)

        def encrypt(cells: Array) -> Array:
            self._load(plain, front, np.ascontiguousarray(cells, "<u8").data)
            encryptor.encrypt(plain, cipher)
            return self._words(cipher, 2 * DEGREE).reshape(2, DEGREE)

        return encrypt

    def decryptor(self, secret: bytes) -> tuple[Callable[[Array], Array], Callable[[], int]]:
        """Return what decrypts a ciphertext, uint64 ``[2, DEGREE]`` below MODULUS, and what measures the last one's budget.

        The budget is SEAL's invariant noise budget in bits; at 0 a plaintext may be wrong.
        """
        seal = self._seal
        key, plain, cipher = seal.SecretKey(), seal.Plaintext(), seal.Ciphertext()
        self._load(key, self._front(seal.KeyGenerator(self._context).secret_key(), SECRET_BYTES), secret)
        decryptor = seal.Decryptor(self._context, key)
        seal.Encryptor(self._context, self._own_public()).encrypt_zero(cipher)
        front = self._front(cipher, 2 * DEGREE * WORD)

        def decrypt(words: Array) -> Array:
            self._load(cipher, front, np.ascontiguousarray(words, "<u8").data)
            decryptor.decrypt(cipher, plain)
            out = np.zeros(DEGREE, np.uint64)
            if (count := plain.coeff_count()) and not plain.is_zero():
                out[:count] = self._words(plain, count)
            return out

        return decrypt, lambda: int(decryptor.invariant_noise_budget(cipher))

    def _own_public(self) -> Any:
        """Return a public key nobody has the secret of: SEAL's layout is read off it."""
        public = self._seal.PublicKey()
        self._seal.KeyGenerator(self._context).create_public_key(public)
        return public

    def _saved(self, thing: Any) -> tuple[bytes, bytes]:
        """Return the header that SEAL reads without compression, and what follows it."""
        thing.save(self._path)
        raw = os.pread(self._file, os.fstat(self._file).st_size, 0)
        mark, length, major, minor, compression, reserved, _ = _HEADER.unpack_from(raw)
        if compression != _ZSTANDARD:
            raise UnsupportedError(
                f"This TenSEAL saves with compression {compression}, and koinon reads {_ZSTANDARD}. Install another version."
            )
        body = self._unzipped(memoryview(raw)[length:])
        return _HEADER.pack(mark, length, major, minor, _NOT_COMPRESSED, reserved, length + len(body)), body

    def _words(self, thing: Any, count: int) -> Array:
        return np.frombuffer(self._tail(thing, count * WORD), "<u8")

    def _tail(self, thing: Any, size: int) -> bytes:
        return self._saved(thing)[1][-size:]

    def _front(self, thing: Any, size: int) -> bytes:
        header, body = self._saved(thing)
        return header + body[:-size]

    def _load(self, thing: Any, front: bytes, words: bytes | memoryview) -> None:
        written = os.pwritev(self._file, [front, words], 0)
        os.ftruncate(self._file, written)
        thing.load(self._context, self._path)


@contextmanager
def opened(plain_bits: int) -> Iterator[Lattice]:
    """Yield a :class:`Lattice`. Raises UnsupportedError where ``koinon[he]`` is not installed."""
    file = os.memfd_create("koinon", os.MFD_CLOEXEC)
    try:
        yield Lattice(plain_bits, file)
    finally:
        os.close(file)


def require() -> None:
    """Raise UnsupportedError where ``koinon[he]`` is not installed."""
    _libraries()


def _libraries() -> tuple[Any, Callable[[memoryview], bytes]]:
    try:
        import zstandard
        from tenseal import sealapi
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"Encrypted sums are computed by TenSEAL, and {error.name} is not installed. Run: pip install 'koinon[he]'"
        ) from error
    return sealapi, zstandard.ZstdDecompressor().decompress
