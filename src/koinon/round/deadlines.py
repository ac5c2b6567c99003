"""How long a round may take: learnt from how long earlier ones took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MARGIN = 4.0
_MEASURED = 64


def deadline_seconds(durations: Sequence[float], shortest: float, longest: float) -> float:
    """Return four times the 90th percentile of the last answers' seconds, between ``shortest`` and ``longest``.

    ``longest`` where nothing has been measured yet.
    """
    if not durations:
        return longest
    usual = float(np.quantile(np.asarray(durations[-_MEASURED:]), 0.9))
    return min(longest, max(shortest, _MARGIN * usual))
