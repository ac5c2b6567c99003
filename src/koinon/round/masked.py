"""A round's update as a vector under masks, and its sum as an update again: what simulation and fleet share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from koinon import exact, tree
from koinon.channel.distributed_noise import distributed_noise_of
from koinon.channel.secure_sum import secure_sum_of
from koinon.core.algorithm import Algorithm
from koinon.core.types import Metrics, Payload, Purpose
from koinon.errors import ProtocolError
from koinon.privacy.secure_sum.distributed import SharedNoise, most_noise, rotation_key
from koinon.privacy.secure_sum.layout import Layout, Total
from koinon.privacy.secure_sum.messages import Cohort
from koinon.privacy.secure_sum.neighbours import LARGEST_COHORT, Assumptions, honest_survivors
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.terms import NO_MODEL, NO_ROSTER, Terms
from koinon.tree import Array, Tree


def terms_of(
    algorithm: Algorithm, run: str, round: int, purpose: Purpose, attempt: int, *, value: Tree, cohort: int, roster: bytes = NO_ROSTER,
    model: bytes = NO_MODEL,
) -> Terms:  # fmt: skip
    """Return the terms of one attempt at the sum of a stage.

    ``value`` has the shape of an update, ``cohort`` is the round's, ``roster`` the digest of who may take part, ``model``
    that of what is sent to be trained or judged.
    """
    step, bound = secure_sum_of(algorithm), algorithm.wires()[-1][1].l2_bound
    assert step is not None and bound is not None, "the step's own check refuses what is unbounded"
    train, largest = purpose is Purpose.TRAIN, math.ceil(cohort * algorithm.schedule.over_selection)
    if largest > LARGEST_COHORT:
        raise ProtocolError(
            f"A secure sum has room for {LARGEST_COHORT:,} clients; a cohort of {largest:,} was asked for."
        )
    assumptions = Assumptions()
    noise = distributed_noise_of(algorithm) if train else None
    if noise is not None:
        shared = noise.shared(bound, max(1, tree.size(value)), honest_survivors(step.least, assumptions))
        layout = shared.layout(largest, step.figures, most_noise(step.least, largest, assumptions))
    else:
        layout = Layout.of_scale(
            max(1, tree.size(value)) if train else 1,
            step.figures,
            scale=step.fraction_bits,
            cohort=largest,
            bound=bound if train else 1.0,
            largest_weight=step.largest_weight if train and not algorithm.private else 1,
        )
    return Terms(
        run=f"{run} {purpose.value}",
        round=round,
        attempt=attempt,
        layout=layout,
        roster=roster,
        model=model,
        assumptions=assumptions,
        noise=0.0 if noise is None else noise.multiplier,
    )


@dataclass(frozen=True)
class Encoding:
    """How updates become the vectors that a cohort masks, and the sum of these an update again."""

    algorithm: Algorithm
    terms: Terms
    cohort: Cohort

    @cached_property
    def noise(self) -> SharedNoise | None:
        """What each member adds of the noise, where they do."""
        return noise_of(self.algorithm, self.terms, len(self.cohort))

    def vector(self, sent: Payload, entropy: bytes) -> Vector:
        """Return what a client masks. ``entropy`` is 32 bytes from the operating system's generator for this vector alone.

        Raises ProtocolError for an update that cannot be added, or that no noise would cover.
        """
        step, layout = secure_sum_of(self.algorithm), self.terms.layout
        assert step is not None, "a vector is for a secure sum"
        numbers, weight, figures = flat(sent.value), int(sent.weight), flat_figures(sent.metrics, step.figures)
        if self.noise is None:
            return layout.encode(numbers, weight, figures)
        return layout.encode_integers(self.noise.encode(numbers, self._rotation, entropy), weight, figures)

    def total(self, vector: Vector) -> Total:
        """Return what the sum of unmasked vectors says, in the steps of every other total."""
        total = self.terms.layout.decode(vector)
        if self.noise is None:
            return replace(total, update=total.update << (exact.FRACTION_BITS - self.terms.layout.scale))
        real = self.noise.decode(total.update, self._rotation)
        return replace(total, update=np.rint(real * exact.SCALE).astype(np.int64))

    @property
    def _rotation(self) -> bytes:
        return rotation_key(self.cohort.transcript)


def noise_of(algorithm: Algorithm, terms: Terms, cohort: int) -> SharedNoise | None:
    """Return the noise that each of a cohort of this size adds under these terms, if they do."""
    step, bound = distributed_noise_of(algorithm), algorithm.wires()[-1][1].l2_bound
    if step is None or not terms.noise:
        return None
    assert bound is not None, "the step's own check refuses what is unbounded"
    return step.shared(bound, terms.layout.numbers, honest_survivors(cohort, terms.assumptions))


def flat(value: Tree) -> Array:
    """Return an update's numbers, leaves in the order of their names; a single 0 where it has none."""
    leaves = [np.asarray(leaf, np.float32).reshape(-1) for leaf in tree.leaves(value)]
    return np.concatenate(leaves) if leaves else np.zeros(1, np.float32)


def summed(total: Total, scale: int, like: Tree) -> Tree:
    """Return a sum in steps of ``2**-scale`` as an exact int64 total in the shape of ``like``, in the steps of every other total."""
    numbers, start = total.update << (exact.FRACTION_BITS - scale), 0

    def leaf(x: Array) -> Array:
        nonlocal start
        start += int(np.size(x))
        return numbers[start - int(np.size(x)) : start].reshape(np.shape(x))

    return tree.map(leaf, like)


def flat_figures(metrics: Metrics, room: int) -> Array:
    """Return metric sums in the order of their names, followed by zeros. Raises ProtocolError where they are too many."""
    found: Any = [np.asarray(metrics[name], np.float64).reshape(-1) for name in sorted(metrics)]
    numbers = np.concatenate(found) if found else np.zeros(0)
    if len(numbers) > room:
        raise ProtocolError(
            f"The model's metrics are {len(numbers):,} sums, and the hidden sum has room for {room:,}. "
            f"Let SecureSum or Encrypted have figures={len(numbers)}."
        )
    return np.concatenate([numbers, np.zeros(room - len(numbers))])


def unflat_figures(numbers: Array, like: Metrics) -> dict[str, Array]:
    """Return the metric sums of :func:`flat_figures`, named and shaped like ``like``."""
    found, start = {}, 0
    for name in sorted(like):
        size = int(np.size(like[name]))
        found[name] = numbers[start : start + size].reshape(np.shape(like[name]))
        start += size
    return found
