"""What every factory shares: the meaning of ``cohort``."""

from __future__ import annotations

from koinon.core.protocols import Sampler
from koinon.sample.samplers import All, Uniform


def sampler(cohort: int | Sampler | None) -> Sampler:
    """Return who takes part: None is everybody, a number is that many drawn uniformly."""
    if cohort is None:
        return All()
    return Uniform(cohort) if isinstance(cohort, int) else cohort
