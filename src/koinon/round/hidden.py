"""What is left of a round's rows under a step that hides single clients: who is in the sum, and the sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from koinon.core.algorithm import Algorithm
from koinon.core.types import Job, Partial, Purpose, Rows
from koinon.errors import ConfigurationError
from koinon.privacy.hiding import Hiding, hiding
from koinon.privacy.secure_sum.layout import SUM_SCALE
from koinon.tree import Array, Tree


def check_drawn(algorithm: Algorithm, population: int) -> None:
    """Raise ConfigurationError if no draw from so many clients is ever enough for a sum that hides them."""
    step = hiding(algorithm)
    if step is not None and (drawn := algorithm.sampler.largest(population)) < step.least:
        raise ConfigurationError(
            f"{algorithm.sampler!r} draws {_clients(drawn)} a round, and {step!r} adds up at least {step.least}: no round could be made. "
            f"Draw more, or lower least to no less than {step.fewest}."
        )


def too_few_drawn(drawn: int, least: int) -> str:
    """Return why a round has no result whose draw was too small for a sum that hides its clients, for people."""
    return f"{_clients(drawn)} {'was' if drawn == 1 else 'were'} drawn, and the sum takes {least}: nobody was asked"


def void_draw(algorithm: Algorithm, job: Job) -> Partial | None:
    """Return a simulated round of which chance drew fewer clients than may be known the sum of; None for every other.

    Nobody trains, as nobody is asked between institutions: the model and everybody's state stay.
    """
    step = hiding(algorithm)
    if step is None or job.purpose is not Purpose.TRAIN or len(job.tasks) >= step.least:
        return None
    why = too_few_drawn(len(job.tasks), step.least)
    nobody = Rows(np.zeros(0, np.int64), np.zeros(0, np.float32), {}, np.zeros((0, 0), bool), (), pooled={}, void=why)
    return Partial({}, 0, nobody)


def hidden(
    step: Hiding, purpose: Purpose, partial: Partial, names: Sequence[str], noise: Callable[[Tree, int], Tree] | None = None
) -> Partial:  # fmt: skip
    """Return a simulated round as a server would see it; one that is hidden already is returned as it is.

    ``noise`` returns a total of so many clients' updates with the noise that they would have added themselves.
    Raises ConfigurationError for a client that weighs too much and for fewer clients than may be known the sum of.
    """
    rows = partial.rows
    if rows.pooled is not None:
        return partial
    if purpose is Purpose.TRAIN:
        _check(step, rows, names)
    kept = rows.accepted.all(axis=1)
    if np.count_nonzero(kept) < step.least:
        of_no_use = ", ".join(names[i] for i in rows.refused())
        raise ConfigurationError(
            f"{step!r} adds up at least {step.least} clients, and this round has {np.count_nonzero(kept)} ({purpose.value})"
            + (f": what comes of {of_no_use} cannot be added. Look at those data first." if of_no_use else ".")
            + f" Draw more clients a round, or lower least to no less than {step.fewest}."
        )
    total = partial.total
    if noise is not None and purpose is Purpose.TRAIN:
        total = noise(total, int(np.count_nonzero(kept)))
    pooled = {name: _sum(np.asarray(column)[kept]) for name, column in rows.metrics.items()}
    return replace(partial, total=total, rows=replace(rows, weights=kept.astype(np.float32), metrics={}, pooled=pooled))


def _clients(count: int) -> str:
    return f"{count} {'client' if count == 1 else 'clients'}"


def _check(step: Hiding, rows: Rows, names: Sequence[str]) -> None:
    heaviest = int(np.argmax(rows.weights)) if len(rows) else 0
    if len(rows) and rows.weights[heaviest] > step.largest_weight:
        raise ConfigurationError(
            f"{names[int(rows.clients[heaviest])]!r} weighs {rows.weights[heaviest]:.0f}, and {step!r} has room for "
            f"{step.largest_weight}. Raise largest_weight, or let every client weigh 1 (Weighting.UNIFORM)."
        )


def _sum(column: Array) -> Array:
    """Return a sum in the steps in which clients send it: no order of the clients can change it."""
    return np.rint(column.astype(np.float64) * SUM_SCALE).sum(axis=0) / SUM_SCALE
