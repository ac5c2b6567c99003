"""Differential privacy: what a run costs its clients, counted from what it does.

``epsilon(...)`` and ``noise_multiplier(...)`` answer for one mechanism. They need ``koinon[privacy]``.
"""

from koinon.privacy.accountant import epsilon, noise_multiplier

__all__ = ["epsilon", "noise_multiplier"]
