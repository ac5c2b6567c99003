"""The names under which both sides speak of how numbers travel, where that is not as plain float32."""

from __future__ import annotations

from koinon.core.wire import Domain, Wire

BFLOAT16, INT8, MASKED, BFV = "bfloat16", "int8", "masked", "bfv"
CODECS = (BFLOAT16, INT8)
"""What every participant can send."""


def codec_of(wire: Wire) -> str | None:
    """Return what a client must be able to send for a channel with these facts; None for plain float32."""
    if wire.domain is Domain.REAL:
        return None
    if wire.opaque_by is not None:
        return BFV if wire.domain is Domain.CIPHERTEXT else MASKED
    return INT8 if wire.bits <= 8 else BFLOAT16


def known(wire: Wire) -> list[str]:
    """Return what a participant can send that has the app with such a channel."""
    own = codec_of(wire)
    return list(CODECS) if own is None or own in CODECS else [*CODECS, own]
