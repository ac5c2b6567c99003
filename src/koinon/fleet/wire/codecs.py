"""The names under which both sides speak of how numbers travel, where that is not as plain float32."""

from __future__ import annotations

from koinon.core.wire import Domain, Wire

BFLOAT16, INT8, BFV = "bfloat16", "int8", "bfv"
CODECS = (BFLOAT16, INT8, BFV)


def codec_of(wire: Wire) -> str | None:
    """Return what a client must be able to send for a channel with these facts; None for plain float32."""
    if wire.domain is Domain.REAL:
        return None
    if wire.domain is Domain.CIPHERTEXT:
        return BFV
    return INT8 if wire.bits <= 8 else BFLOAT16
