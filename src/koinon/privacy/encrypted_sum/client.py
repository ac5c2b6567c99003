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
    """``update`` goes into the coordinator's sum; ``pad`` is for the key holder, who gets it from the coordinator."""

    update: bytearray
    pad: SealedPad


def encrypted(
    round: Round, public: PublicKey, client: str, numbers: tuple[Array, int, Sequence[float]], sign: Sign
) -> Sent:
    """Return what ``client`` sends of ``numbers``: an update, its weight, its metric sums.

    The update is float32 ``[values]``; it, the weight and the figures are weighted and rounded as ``round.parameters`` says.
    Raises ClientError for numbers that do not fit, FleetError for another key than the round's, and UnsupportedError
    without ``koinon[he]``.
    """
    parameters = round.parameters
    if public.fingerprint != round.key:
        raise FleetError(
            f"The key holder's key has the fingerprint {public.fingerprint.hex()}, and the round is for {round.key.hex()}. "
            "Ask the key holder, not the coordinator, which is right."
        )
    own, pad = Packed(parameters, *numbers, client), Pad.fresh(parameters)
    mask = np.uint64((1 << parameters.plain_bits) - 1)
    out = bytearray(UPDATE + round.digest)
    with lattice.opened(parameters.plain_bits) as seal:
        encrypt = seal.encryptor(public.lattice)
        for index in range(parameters.ciphertexts):
            pair = encrypt((own.plaintext(index) + pad(index)) & mask)
            for words, dropped in zip(pair, parameters.dropped_bits, strict=True):
                for plane in packed(words, dropped):
                    out += plane.data
    return Sent(out, pad.sealed(round, client, public, sign))
