"""How often an address may call without a session: enough for a whole clinic behind one router, too little for a guesser.

A token bucket an address (RFC 2697 has the idea): it is asked before any database or signature is.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from koinon.fleet.wire.refusal import Refusal

BURST = 10_000  # calls at once: 2,000 parties that come back after a restart make 6,000
PER_SECOND = 100.0
MOST_ADDRESSES = 10_000  # that are remembered; who called longest ago is forgotten first
_SIXTY_FOUR = 64  # bits of an IPv6 address that belong to one customer


class Strangers:
    """The buckets, in memory. For the service's one thread."""

    def __init__(self, clock: Callable[[], float], burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._clock, self._burst, self._per_second = clock, burst, per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # calls left, and when that was so

    def admit(self, address: str | None) -> None:
        """Count a call of an address. Raises Refusal 429 if it has made too many."""
        now, place = self._clock(), _network(address or "")
        left, then = self._buckets.pop(place, (float(self._burst), now))
        left = min(self._burst, left + (now - then) * self._per_second)
        self._buckets[place] = max(0.0, left - 1), now
        while len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        if left < 1:
            raise Refusal(
                429, "rate", "Too many calls without a session came from this address. Wait, as Retry-After says."
            )


@lru_cache(1024)
def _network(address: str) -> str:
    """Return what shares a bucket: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _SIXTY_FOUR), strict=False))
    return str(found)
