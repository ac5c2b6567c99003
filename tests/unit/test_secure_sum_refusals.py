"""What a client refuses to mask: its coordinator hears why, and must not learn by it what is under no mask then."""

from __future__ import annotations

import numpy as np
import pytest

from koinon.errors import ProtocolError
from koinon.privacy.secure_sum.layout import Layout

LAYOUT = Layout.of_scale(3, 1, scale=10, cohort=5, bound=1.0, largest_weight=8)


@pytest.mark.parametrize(
    ("number", "weight", "figure"), [(313.37, 1, 0.0), (0.5, 31_337, 0.0), (0.5, 1, 3.1337e30), (0.5, 1, -3.1337e30)]
)
def test_a_refusal_says_nothing_of_the_numbers(number: float, weight: int, figure: float) -> None:
    with pytest.raises(ProtocolError) as refused:
        LAYOUT.encode(np.array([0, number, 0], np.float32), weight, np.array([figure]))
    told = str(refused.value).replace(",", "").replace(".", "")
    assert not any(digits in told for digits in ("1337", "320891", "328592"))  # as it is, in steps
