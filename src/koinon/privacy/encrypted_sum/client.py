"""A client's half: pack, pad, encrypt, seal. What leaves it opens for nobody but the key holder, and there only in a sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from koinon.errors import FleetError
from koinon.privacy.encrypted_sum import lattice
from koinon.privacy.encrypted_sum.ciphertexts import UPDATE, packed
from koinon.privacy.encrypted_sum.keys import PublicKey
from koinon.privacy.encrypted_sum.packing import Packed
from koinon.privacy.encrypted_sum.pads import Pad, Round, SealedPad, Sign
from koinon.tree import Array


@dataclass(frozen=True)
class Sent:
    """``update`` goes into the coordinator's sum; ``pads`` are for the key holders, one each, by way of the coordinator."""

    update: bytearray
    pads: tuple[SealedPad, ...]


def encrypted(
    round: Round, holders: Sequence[PublicKey], client: str, numbers: tuple[Array, int, Sequence[float]], sign: Sign
) -> Sent:
    """Return what ``client`` sends of ``numbers``: an update, its weight, its metric sums.

    The update is float32 ``[values]``; it, the weight and the figures are weighted and rounded as ``round.parameters`` says.
    Of several ``holders`` the first one's lattice encrypts, and each has a pad of its own. Raises ClientError for numbers
    that do not fit, FleetError for other keys than the round's, and UnsupportedError without ``koinon[he]``.
    """
    _refuse_other_keys(round, holders)
    parameters = round.parameters
    own, pads = Packed(parameters, *numbers, client), [Pad.fresh() for _ in holders]
    mask = np.uint64((1 << parameters.plain_bits) - 1)
    out = bytearray(UPDATE + round.digest)
    with lattice.opened(parameters.plain_bits) as seal:
        encrypt, streams = seal.encryptor(holders[0].lattice), [pad.plaintexts() for pad in pads]
        for index in range(parameters.ciphertexts):
            cells = own.plaintext(index)
            for stream in streams:
                cells += next(stream)
            for words, dropped in zip(encrypt(cells & mask), parameters.dropped_bits, strict=True):
                out += packed(words, dropped)
    sealed = (pad.sealed(round, client, holder, sign) for pad, holder in zip(pads, holders, strict=True))
    return Sent(out, tuple(sealed))


def _refuse_other_keys(round: Round, holders: Sequence[PublicKey]) -> None:
    if (found := tuple(holder.fingerprint for holder in holders)) != round.keys:
        raise FleetError(
            f"The key holders' keys have the fingerprints {_hex(found)}, and the round is for {_hex(round.keys)}. Ask the key "
            "holders, not the coordinator, which are right."
        )


def _hex(fingerprints: Sequence[bytes]) -> str:
    return ", ".join(key.hex() for key in fingerprints)
