"""FLTrust: updates count as far as they point where a trusted client's does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from koinon.aggregate.coordinates import products, weighted_sum
from koinon.aggregate.enough import enough
from koinon.core.protocols import Needs
from koinon.errors import CompositionError
from koinon.tree import Tree


@dataclass(frozen=True)
class FLTrust:
    """The mean of the updates, scaled to the trusted one's length and weighted by ``max(0, cosine)`` with it.

    ``trusted`` is the name of a client whose update is the root ``x_0``: one whose examples were gathered with care, run by
    whoever runs the server. It takes part in every round and is itself not added:
    ``sum(t_k * x_k * |x_0| / |x_k|) / sum(t_k)``, with ``t_k = max(0, x_k . x_0 / (|x_k| |x_0|))``, and 0 if nobody is
    trusted. Any number of the others may be dishonest. Cosine and norms are over all that clients send.
    Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.
    """

    trusted: str

    needs: ClassVar[Needs] = Needs.EACH

    def values(self, cohort: int) -> int:
        """Return the cohort; refuse one of the trusted client alone."""
        return enough(self, cohort, 2, instead="Let others take part too.")

    def place(self, names: Sequence[str]) -> int:
        """Return where the trusted client stands among ``names``, the last so called; raises CompositionError if none is."""
        if self.trusted not in names:
            shown = ", ".join(repr(name) for name in list(names)[:5]) + (", ..." if len(names) > 5 else "")
            raise CompositionError(f"{self!r} names a client that there is not. The clients are {shown}.")
        return max(i for i, name in enumerate(names) if name == self.trusted)  # who was sent away left it to another

    def finish(self, total: Tree, weight: Any) -> Tree:
        """Return the aggregate in float64 from updates ``[clients, ...]``, the trusted client's first."""
        self.values(len(weight))
        norms = np.sqrt(products(total))
        lengths = np.where(norms > 0, norms, 1)  # an update of zeros points nowhere: its product is 0
        trust = np.maximum(products(total, 0) / lengths / lengths[0], 0)
        trust[0] = 0
        sum_of_trust = trust.sum()
        factors = trust * (norms[0] / lengths) / sum_of_trust if sum_of_trust else np.zeros_like(trust)
        return weighted_sum(total, factors)
