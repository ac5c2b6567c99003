"""What may be claimed of a run's privacy, computed from what runs, with everything the claim rests on."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from koinon.privacy.accountant import composed, composed_renyi
from koinon.privacy.accounted import CLIENT, EXAMPLE, Accounted
from koinon.privacy.budget import DELTA, usual_delta
from koinon.privacy.ledger import Ledger
from koinon.privacy.mechanism import Event

_FIGURES = (
    "the sums behind the figures (losses, accuracies, examples), which carry no noise, and when to stop and which round is "
    + "best, where they decide it",
    "who took part, who was refused and why, and how long it took",
)
NOT_COVERED = {
    CLIENT: (*_FIGURES, "how many clients there are"),
    EXAMPLE: (
        *_FIGURES,
        "how many examples a client has",
        "a round that a coordinator has the client compute once more, on another model: it is one more",
    ),
}


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """What a run's releases promise each ``unit``, and on what conditions. Without a guarantee, ``why_not`` says why.

    ``epsilon`` is by loss distributions, ``epsilon_renyi`` by Renyi divergences, both at ``delta``, after
    ``rounds`` in which one ``unit`` may have taken part. ``epsilon_seen`` is what is left of it against whoever knows who
    took part, for a unit that did in all of them: more, where sampling is counted.
    """

    guarantee: bool
    why_not: str
    mechanism: str
    unit: str
    epsilon: float
    epsilon_renyi: float
    epsilon_seen: float
    delta: float
    rounds: int
    adjacency: str
    sampling: str
    trust: str
    not_covered: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The claim in one sentence."""
        if not self.guarantee:
            return f"no guarantee: {self.why_not}"
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds:,} rounds"
        return (
            f"epsilon {self.epsilon:.4g} at delta {self.delta:.3g} for each {self.unit} after {rounds} it may be in "
            f"(by Renyi divergences {self.epsilon_renyi:.4g})"
        )

    def lines(self) -> list[str]:
        """Return the claim and its conditions, a line each."""
        return [
            self.sentence,
            f"by {self.mechanism}",
            f"adjacent: {self.adjacency} {self.unit}",
            f"drawn: {self.sampling}",
            *self._seen(),
            f"trust: {self.trust}",
            *(f"not covered: {what}" for what in self.not_covered),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {**asdict(self), "not_covered": list(self.not_covered)}

    def _seen(self) -> list[str]:
        if self.epsilon_seen <= self.epsilon:
            return []
        who = "whoever knows who took part (a fleet's receipts tell every party)"
        return [f"against {who}: epsilon {self.epsilon_seen:.4g} for a {self.unit} that did in every round"]


def statement(
    own: Accounted, rounds: int, delta: float, *, secret: bool = True, ledger: Ledger | None = None
) -> PrivacyStatement:
    """Return what ``rounds`` rounds promise beside all that is in ``ledger``; ``secret`` says whether their keys are."""
    events, before = Counter[Event](), 0
    if ledger is not None:
        events, before, secret = Counter(ledger.spent), len(ledger), secret and ledger.secret
    events[own.event] += own.turns(rounds) * own.times
    seen = Counter[Event]()
    for event, count in events.items():
        seen[replace(event, rate=1.0) if own.unit == CLIENT else event] += count
    spent, renyi, unsampled = composed(events, delta), composed_renyi(events, delta), composed(seen, delta)
    why_not = _why_not(own, spent, renyi, secret=secret and own.secret)
    return PrivacyStatement(
        guarantee=not why_not,
        why_not=why_not,
        mechanism=repr(own.mechanism),
        unit=own.unit,
        epsilon=spent,
        epsilon_renyi=renyi,
        epsilon_seen=max(spent, unsampled),
        delta=delta,
        rounds=before + own.turns(rounds),
        adjacency=own.event.adjacency.value,
        sampling=own.sampling,
        trust=own.trust,
        not_covered=NOT_COVERED[own.unit],
    )


def delta_of(own: Accounted, population: int) -> float:
    """Return the delta of a statement where no budget says one."""
    return usual_delta(population) if own.unit == CLIENT else DELTA


def _why_not(own: Accounted, spent: float, renyi: float, *, secret: bool) -> str:
    if not secret:
        return "a test mode made the keys from a seed, so anybody can take the noise away"
    if not math.isfinite(spent):
        return f"epsilon is beyond what can be counted. Raise the noise of {own.mechanism!r}"
    if renyi < 0.99 * spent - 1e-3:
        return f"two accountants disagree: {spent:.4g} by loss distributions, {renyi:.4g} by Renyi divergences"
    return ""
