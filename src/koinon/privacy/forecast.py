"""What a run would promise, before it runs: nothing is spent and nothing is written."""

from __future__ import annotations

from pathlib import Path

from koinon.core.execution import Plan
from koinon.privacy.accountant import rounds_within
from koinon.privacy.accounted import Accounted, all_accounted
from koinon.privacy.budget import PrivacyBudget
from koinon.privacy.ledger import Ledger
from koinon.privacy.releases import scope
from koinon.privacy.statement import PrivacyStatement, delta_of, statement


def forecast(
    plan: Plan, rounds: int, budget: PrivacyBudget | None, *, secret: bool
) -> tuple[list[PrivacyStatement], list[str]]:
    """Return what may be claimed after all ``rounds`` of an algorithm that was checked, and what its budget allows.

    One statement for the noise of the channel and one for that of the clients' own work, as far as there is any. The first
    is beside all that is in the budget's ledger.
    """
    claims: list[PrivacyStatement] = []
    allowed: list[str] = []
    for own in all_accounted(plan.algorithm, len(plan.data)):
        delta = delta_of(own, len(plan.data))
        if claims or budget is None:
            claims.append(statement(own, rounds, delta, secret=secret))
            continue
        ledger = Ledger(None if budget.ledger is None else Path(budget.ledger), scope(plan.data, own))
        ledger.refresh()
        claims.append(statement(own, rounds, budget.delta, secret=secret, ledger=ledger))
        room = min(rounds, _room(own, rounds, budget, ledger))
        allowed = [
            f"budget: epsilon {budget.epsilon:g} at delta {budget.delta:.3g} allows {room:,} of {rounds:,} rounds"
        ]
    return claims, allowed


def _room(own: Accounted, rounds: int, budget: PrivacyBudget, ledger: Ledger) -> int:
    most = own.turns(rounds) * own.times
    room = rounds_within(ledger.spent, own.event, budget.epsilon, budget.delta, most)
    return room // own.times * own.participation.separation
