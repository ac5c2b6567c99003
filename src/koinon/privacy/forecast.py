"""What a run would promise, before it runs: nothing is spent and nothing is written."""

from __future__ import annotations

from pathlib import Path

from koinon.core.execution import Plan
from koinon.privacy.accountant import rounds_within
from koinon.privacy.budget import PrivacyBudget, usual_delta
from koinon.privacy.ledger import Ledger, Scope
from koinon.privacy.statement import PrivacyStatement, accounted, statement, statement_of_work


def forecast(
    plan: Plan, rounds: int, budget: PrivacyBudget | None, *, secret: bool
) -> tuple[list[PrivacyStatement], list[str]]:
    """Return what may be claimed after all ``rounds`` of an algorithm that was checked, and what its budget allows.

    One statement for the noise of the channel, beside all that is in the budget's ledger, and one for that of the
    clients' own work, as far as there is any.
    """
    claims, allowed = [], []
    if (own := accounted(plan.algorithm, len(plan.data))) is not None:
        named = None if budget is None or budget.ledger is None else Path(budget.ledger)
        ledger = Ledger(named, Scope(plan.data.fingerprint(), own.event.adjacency))
        ledger.refresh()
        delta = usual_delta(len(plan.data)) if budget is None else budget.delta
        claims.append(statement(own, rounds, delta, secret=secret and ledger.secret, before=ledger.spent))
        if budget is not None:
            room = rounds_within(ledger.spent, own.event, budget.epsilon, delta, own.charges(rounds))
            room = min(rounds, room * own.participation.separation)
            allowed = [f"budget: epsilon {budget.epsilon:g} at delta {delta:.3g} allows {room:,} of {rounds:,} rounds"]
    if (work := statement_of_work(plan.algorithm, rounds)) is not None:
        claims.append(work)
    return claims, allowed
