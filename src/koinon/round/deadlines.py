"""How long a round may take: learnt from how long earlier ones took."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MARGIN = 4.0
_MEASURED = 64


def deadline_seconds(durations: Sequence[float], shortest: float, longest: float) -> float:
    """Return four times the 90th percentile of the last answers' seconds, between ``shortest`` and ``longest``.

    ``longest`` where nothing has been measured yet.
    """
    if not durations:
        return longest
    recent = sorted(durations[-_MEASURED:])
    usual = recent[math.ceil(0.9 * len(recent)) - 1]
    return min(longest, max(shortest, _MARGIN * usual))
