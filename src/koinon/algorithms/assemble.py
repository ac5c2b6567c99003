"""What every factory ends with: client work and server joined by the weighted mean."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from koinon.aggregate.mean import Mean
from koinon.channel.adaptive_clip import AdaptiveClip
from koinon.core.algorithm import Algorithm
from koinon.core.protocols import ClientWork, Sampler, Server, Transform
from koinon.errors import ConfigurationError
from koinon.sample.samplers import All, Uniform
from koinon.server.follow_quantile import FollowQuantile


def assemble(
    name: str, work: ClientWork[Any], server: Server, cohort: int | Sampler | None, channel: tuple[Transform, ...]
) -> Algorithm:
    """Return the algorithm. A ``cohort`` of None is everybody, a number is that many drawn uniformly."""
    if not isinstance(channel, tuple | list):
        raise ConfigurationError(f"channel is a tuple of steps; found {channel!r}. Write channel=({channel!r},).")
    for step in channel:
        if isinstance(step, AdaptiveClip):
            server = FollowQuantile(server, step.quantile)
    return Algorithm(
        name=name, work=work, server=server, aggregator=Mean(), sampler=_sampler(cohort), channel=tuple(channel)
    )


def _sampler(cohort: int | Sampler | None) -> Sampler:
    if cohort is None:
        return All()
    if isinstance(cohort, int | np.integer):
        return Uniform(index(cohort))
    if not hasattr(cohort, "cohort"):
        raise ConfigurationError(
            f"cohort is a number of clients, a sampler, or None for all; found {cohort!r}. "
            "For every client with a probability of its own, use Poisson(probability)."
        )
    return cohort
