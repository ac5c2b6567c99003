"""Who can judge a model: clients that hold examples out, as many as a sum that hides each of them needs."""

from __future__ import annotations

import numpy as np

from koinon.core.algorithm import Algorithm
from koinon.core.protocols import Dataset
from koinon.errors import ConfigurationError
from koinon.privacy.hiding import hiding
from koinon.round.stopping import Stop
from koinon.tree import Array

_NOT_HELD_OUT = ("train_", "test_")


def able(data: Dataset) -> Array:
    """Return the positions of the clients that hold examples out."""
    clients = np.arange(len(data), dtype=np.int64)
    return clients[data.span(clients, held_out=True)[1] > 0]


def left_out(algorithm: Algorithm, data: Dataset, most: int | None) -> str | None:
    """Return why nobody judges the model though examples are held out; None where somebody does.

    ``most`` is how many clients may judge. Their figures are hidden as their updates are, and of too few there is no sum.
    """
    step = hiding(algorithm)
    if step is None or not data.has_held_out:
        return None
    count = len(able(data))
    if min(count, count if most is None else most) >= step.least:
        return None
    few = f"{count} hold{'s' if count == 1 else ''} examples out" if count < step.least else f"{most} may judge"
    return f"{step!r} adds up at least {step.least} clients, and {few}: nobody judges the model"


def check_watched(algorithm: Algorithm, data: Dataset, most: int | None, stop: Stop) -> None:
    """Raise ConfigurationError if a run is to end by a figure of held-out examples that nobody could ever know."""
    reason = left_out(algorithm, data, most)
    hidden = [name for name in stop.named if not name.startswith(_NOT_HELD_OUT)]
    if reason is not None and hidden:
        raise ConfigurationError(
            f"Stop watches {hidden[0]!r}, a figure of examples that clients hold out, and there will be none: {reason}. Let "
            f"more clients hold examples out or judge, give the App a test set and watch {'test_' + hidden[0]!r}, or watch "
            f"{'train_' + hidden[0]!r}."
        )
