"""What the fleet can do as a runtime: the coordinator checks an app against it, and so does each participant."""

from __future__ import annotations

from koinon.core.protocols import Offers

OFFERS = frozenset({Offers.CLIENT_STATE, Offers.APART, Offers.HANDSHAKE})
