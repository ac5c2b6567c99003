"""A small signed chain for the tests of receipts: two clients, one of each kind of key, three rounds."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from koinon.core.types import Purpose
from koinon.fleet.wire.receipts import Commit, Entry, Opening, Receipt, Sealed, seal
from koinon.fleet.wire.signatures import Kind, OwnKey, PublicKey

ROUNDS = 3
COORDINATOR = OwnKey(bytes(range(32)))
LYON = OwnKey(bytes(range(1, 33)))
_BROWSER = ec.derive_private_key(7, ec.SECP256R1())


def name(text: str) -> str:
    """Return a digest that stands for something."""
    return hashlib.sha256(text.encode()).hexdigest()


def browser_key() -> PublicKey:
    """Return the public half of the P-256 key."""
    return PublicKey(Kind.P256, _BROWSER.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


def browser_sign(text: bytes) -> bytes:
    """Return ``r || s``, as WebCrypto signs."""
    r, s = decode_dss_signature(_BROWSER.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def opening() -> Opening:
    """Return where the chain begins."""
    return Opening("r-1", name("app"), COORDINATOR.public)


def receipt(number: int, previous: str) -> Receipt:
    """Return the receipt of a round: lyon and the browser train, paris is lost, lyon alone evaluates."""
    bare = Receipt(
        run="r-1",
        app=name("app"),
        round=number,
        previous=previous,
        model_before=name(f"model {number - 1}"),
        model_after=name(f"model {number}"),
        variables=name(f"model {number}"),
        aggregate=name(f"sum {number}"),
        privacy=None if number % 2 else f'{{"round": {number}}}',
        train=(),
    )
    lost = Entry(client="c-3", name="paris", key=OwnKey(bytes(32)).public, commit=None, reason="late: nothing in 5 s")
    train = (signed(bare, Purpose.TRAIN, "c-1"), signed(bare, Purpose.TRAIN, "c-2"), lost)
    return replace(bare, train=train, evaluate=(signed(bare, Purpose.EVALUATE, "c-1"),))


def signed(asked: Receipt, purpose: Purpose, client: str) -> Entry:
    """Return what a client committed, signed with its own key."""
    bare = Commit(root=name(f"{client} {asked.round} {purpose}"), length_bytes=900, weight=30, signature=bytes(64))
    text = bare.text(asked, purpose, client)
    if client == "c-1":
        commit = replace(bare, signature=LYON.sign(text))
        return Entry(client=client, name="lyon", key=LYON.public, commit=commit, reason=None)
    commit = replace(bare, signature=browser_sign(text))
    return Entry(client=client, name="browser", key=browser_key(), commit=commit, reason=None)


def chain(rounds: int = ROUNDS) -> list[Sealed]:
    """Return the sealed receipts of the first rounds."""
    previous, out = opening().digest(), []
    for number in range(1, rounds + 1):
        out.append(seal(receipt(number, previous), COORDINATOR))
        previous = out[-1].receipt.digest()
    return out
