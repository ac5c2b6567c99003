"""The primitives of the secure sum are the published ones: vectors of RFC 7748, 5869 and 8032, NIST SP 800-38A, GCM."""

from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from koinon.errors import ProtocolError
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.secure_sum import primitives
from koinon.privacy.secure_sum.primitives import KeyPair, hkdf, keystream, seal, unseal


def raw(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("scalar", "point", "shared"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_is_that_of_rfc_7748(scalar: str, point: str, shared: str) -> None:
    assert KeyPair(raw(scalar)).agree(raw(point), "them") == raw(shared)


def test_bobs_key_is_that_of_rfc_7748() -> None:
    """Section 6.1."""
    bob = raw("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = raw("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert KeyPair(bob).public == raw("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert KeyPair(bob).agree(alice, "alice") == raw("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_point_of_low_order_is_refused_with_its_owners_name(point: str) -> None:
    with pytest.raises(ProtocolError, match="'mallory' is of low order"):
        KeyPair(bytes(range(32))).agree(raw(point), "mallory")


@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "key"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            (
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8"
                "367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
            ),
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_is_that_of_rfc_5869(secret: str, salt: str, info: str, length: int, key: str) -> None:
    assert hkdf(raw(secret), raw(salt), raw(info), length) == raw(key)


@pytest.mark.parametrize(
    ("secret", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ],
)
def test_a_participants_key_signs_as_in_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    key = OwnKey(raw(secret))
    assert key.public.raw == raw(public)
    assert key.sign(raw(message)) == raw(signature)
    assert key.public.signed(raw(signature), raw(message))
    assert not key.public.signed(raw(signature), raw(message) + b"?")


def test_the_masks_cipher_is_that_of_nist_sp_800_38a() -> None:
    """F.5.5, CTR-AES256.Encrypt: its blocks are counters under a cipher, and ours are, from 2 on and numbered by the rest."""
    key = raw("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update
    plain, wanted = raw("6bc1bee22e409f96e93d7e117393172a"), raw("601ec313775789a5b7a7f504bbf3d228")
    counter = raw("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    assert bytes(a ^ b for a, b in zip(block(counter), plain, strict=True)) == wanted
    counters = b"".join((7).to_bytes(12, "big") + i.to_bytes(4, "big") for i in range(2, 5))
    assert keystream(key, 7).update(bytes(48)) == block(counters)


@pytest.mark.parametrize("quicker", [primitives._counter, primitives._galois])
def test_a_stream_is_that_of_the_gcm_specification_in_either_mode(
    quicker: Callable[[int], modes.Mode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """McGrew and Viega, test case 15: what zeros become is text xor ciphertext, and does not hang on how it is computed."""
    monkeypatch.setattr(primitives, "_quicker", lambda: quicker)
    key = raw("feffe9928665731c6d6a8f9467308308 feffe9928665731c6d6a8f9467308308")
    plain = raw("d9313225f88406e5a55909c5aff5269a 86a7a9531534f7da2e4c303d8a318a72")
    wanted = raw("522dc1f099567d07f47f37a32a84427d 643a8cdcbfe5c0c97598a2bd2555d1aa")
    cipher = keystream(key, 0xCAFEBABEFACEDBADDECAF888)
    assert cipher.update(plain[:16]) + cipher.update(plain[16:]) == wanted
    long = keystream(key, 1)
    assert long.update(bytes(1 << 17)) + long.update(bytes(160)) == stream_of_blocks(key, 1, (1 << 13) + 10)


def stream_of_blocks(key: bytes, part: int, blocks: int) -> bytes:
    """Return a stream, each block of it enciphered by itself."""
    counters = np.zeros((blocks, 4), ">u4")
    counters[:, 2], counters[:, 3] = part, np.arange(2, blocks + 2)
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(counters.tobytes())


def test_shares_are_sealed_as_in_the_gcm_specification() -> None:
    """McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 and 14: the zero nonce is ours too."""
    assert seal(bytes(32), b"", b"") == raw("530f8afbc74536b9a963b4f1c4cb738b")
    wanted = raw("cea7403d4d606b6e074ec5d3baf39d18 d0d1c8a799996bf0265b98b5d48ab919")
    assert seal(bytes(32), bytes(16), b"") == wanted
    assert unseal(bytes(32), wanted, b"") == bytes(16)
    assert unseal(bytes(32), wanted, b"to another") is None
    assert unseal(bytes(32), wanted[:-1] + b"?", b"") is None
