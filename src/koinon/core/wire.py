"""All that is known of a payload before any payload exists. Facts name the part that made them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Domain(Enum):
    """What the numbers of a payload are."""

    REAL = "real"
    INTEGER = "integer"
    SPARSE = "sparse"
    CIPHERTEXT = "ciphertext"


@dataclass(frozen=True, kw_only=True)
class Wire:
    """The facts of a payload after some steps of a channel.

    ``l2_bound`` is how far one client can move the unweighted sum, None if unbounded. ``additive`` says
    that decoding the sum equals the sum of the decoded. The three ``*_by`` fields hold the ``repr`` of
    the part that made the payload opaque (the server sees only the sum), noisy or stateful.
    """

    domain: Domain = Domain.REAL
    l2_bound: float | None = None
    additive: bool = True
    opaque_by: str | None = None
    noise_by: str | None = None
    stateful_by: str | None = None
    bits: int = 32
