"""Who answered a stage, as the rows that every runtime returns. What a client says of itself is checked against others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from koinon.core.types import Rows
from koinon.fleet.coordinator.members import Members
from koinon.fleet.coordinator.stage import Settled
from koinon.tree import Array


def rows(settled: Settled, members: Members, leaves: tuple[str, ...]) -> Rows:
    """Return one row for each client that answered, and why the others did not."""
    received = settled.received
    refused = [set(settled.commits[members[part.client].client].refused) for part in received]
    accepted = np.array([[name not in bad for name in leaves] for bad in refused], bool).reshape(
        len(received), len(leaves)
    )
    weights = [0 if bad else part.weight for part, bad in zip(received, refused, strict=True)]
    return Rows(
        np.array([part.client for part in received], np.int64),
        np.array(weights, np.float32),
        _columns([part.metrics() for part in received]),
        accepted,
        leaves,
        {members.position(client): why for client, why in settled.lost.items()},
    )


def _columns(seen: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the metrics that half of the clients or more sent in one shape; zeros where another did not.

    A single client can neither bring in a metric of its own nor break one of all others.
    """
    kinds = Counter((name, value.shape) for own in seen for name, value in own.items())
    usual = {name: shape for (name, shape), count in kinds.items() if 2 * count >= len(seen)}
    return {
        name: np.stack([own[name] if name in own and own[name].shape == shape else np.zeros(shape, np.float32) for own in seen])
        for name, shape in sorted(usual.items())
    }  # fmt: skip
