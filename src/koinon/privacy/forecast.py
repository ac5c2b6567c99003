"""What a run would promise, before it runs: nothing is spent and nothing is written."""

from __future__ import annotations

from pathlib import Path

from koinon.core.execution import Plan
from koinon.privacy.accountant import rounds_within
from koinon.privacy.budget import PrivacyBudget, usual_delta
from koinon.privacy.ledger import Ledger, Scope
from koinon.privacy.statement import PrivacyStatement, accounted, statement


def forecast(
    plan: Plan, rounds: int, budget: PrivacyBudget | None, *, secret: bool
) -> tuple[PrivacyStatement, list[str]] | None:
    """Return the statement after all ``rounds`` and what is in the budget's ledger, and how many rounds the budget allows.

    None where no step of the channel adds noise that can be counted. The algorithm has been checked.
    """
    own = accounted(plan.algorithm, len(plan.data))
    if own is None:
        return None
    named = None if budget is None or budget.ledger is None else Path(budget.ledger)
    ledger = Ledger(named, Scope(plan.data.fingerprint(), own.event.adjacency))
    ledger.refresh()
    delta = usual_delta(len(plan.data)) if budget is None else budget.delta
    planned = statement(own, rounds, delta, secret=secret and ledger.secret, before=ledger.spent)
    if budget is None:
        return planned, []
    room = rounds_within(ledger.spent, own.event, budget.epsilon, delta, own.charges(rounds))
    room = min(rounds, room * own.participation.separation)
    return planned, [f"budget: epsilon {budget.epsilon:g} at delta {delta:.3g} allows {room:,} of {rounds:,} rounds"]
