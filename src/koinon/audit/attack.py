"""Audit a job: train it with canaries, train it on half of its examples, and say what both give away."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from koinon.app import Resolved, evaluate, execute
from koinon.audit.bound import LowerBound, ceiling, lower_bound
from koinon.audit.canaries import CanaryRuntime
from koinon.audit.membership import MembershipScore, halve, membership
from koinon.core.events import Listener
from koinon.core.execution import Runtime
from koinon.core.ranges import whole
from koinon.errors import ModelError
from koinon.metrics import LOSS
from koinon.privacy.accounted import PrivateWork, accounted
from koinon.privacy.mechanism import CentralMechanism
from koinon.privacy.statement import PrivacyStatement

THROWN_AWAY = "the audited models are thrown away and nothing of them is released, so no ledger is charged"
BEFORE_THE_SUM = "canaries enter the sum, so what clients do before it (training, clipping) is not audited"


@dataclass(frozen=True)
class NoiseAudit:
    """What an attack on the canaries found, against what is claimed of the same rounds.

    ``ceiling`` is the bound that so many ``canaries`` would give if every guess were right.
    """

    claim: PrivacyStatement
    bound: LowerBound
    canaries: int
    runs: int
    ceiling: float

    @property
    def passed(self) -> bool:
        """Whether the claim survived: the lower bound is not above it."""
        return self.bound.epsilon <= self.claim.epsilon

    @property
    def could_fail(self) -> bool:
        """Whether there were canaries enough to refute a claim of this size."""
        return self.ceiling > self.claim.epsilon


@dataclass(frozen=True)
class Audit:
    """``noise`` is None where no claim can be audited, ``members`` where no example can be judged; ``notes`` say why."""

    noise: NoiseAudit | None
    members: MembershipScore | None
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool | None:
        """Whether the claim survived; None where none was audited."""
        return None if self.noise is None else self.noise.passed

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        noise = None
        if self.noise is not None:
            found = self.noise
            noise = {"claim": found.claim.to_json(), "lower_bound": found.bound.epsilon, "guesses": found.bound.guesses,
                     "correct": found.bound.correct, "canaries": found.canaries, "runs": found.runs,
                     "ceiling": found.ceiling, "could_fail": found.could_fail}  # fmt: skip
        members = None if self.members is None else asdict(self.members)
        return {"passed": self.passed, "noise": noise, "membership": members, "notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How hard to try: ``canaries`` in each of ``runs`` trainings, and the losses of ``examples`` examples.

    The models are trained as the job says, on its runtime, with fresh noise and a ledger in memory.
    """

    canaries: int = 1000
    runs: int = 1
    examples: int = 4000

    def __post_init__(self) -> None:
        whole(self, "canaries", "runs", "examples")

    def audit(self, job: Resolved, *, listen: Listener) -> Audit:
        """Return what was found. Raises what :func:`koinon.app.execute` raises."""
        budget = None if job.privacy is None else replace(job.privacy, ledger=None)
        kept = replace(job, privacy=budget, privacy_test_mode=False)
        with closing(job.new_runtime()) as runtime:
            noise = self._noise(kept, runtime, listen)
            members = self._membership(kept, runtime, listen)
        return Audit(noise, members, tuple(_notes(job, noise, members)))

    def _noise(self, job: Resolved, runtime: Runtime, listen: Listener) -> NoiseAudit | None:
        job.plan.algorithm.check(runtime.offers)
        own = accounted(job.plan.algorithm, len(job.plan.data))
        if own is None or not isinstance(own.mechanism, CentralMechanism):
            return None
        draw = np.random.default_rng()  # from the operating system: no seed of the job may know the canaries
        attacks, claims = [], []
        for _ in range(self.runs):
            attacks.append(attack := CanaryRuntime(runtime, job.plan, own, self.canaries, draw))
            claim = execute(replace(job, plan=attack.plan), listen=listen, runtime=attack).privacy
            assert claim is not None, "a mechanism without a statement"
            claims.append(claim)
        claim = max(claims, key=lambda claim: claim.epsilon)
        scores, included = (
            np.concatenate(part) for part in zip(*((a.scores, a.included) for a in attacks), strict=True)
        )
        bound = lower_bound(scores, included, claim.delta)
        return NoiseAudit(claim, bound, len(scores), self.runs, ceiling(len(scores), claim.delta))

    def _membership(self, job: Resolved, runtime: Runtime, listen: Listener) -> MembershipScore | None:
        draw = np.random.default_rng(job.seed)
        halves = halve(job.data, draw)
        examples, member = halves.examples(self.examples, draw)
        try:
            job.plan.model.check(examples)
        except ModelError:  # nothing can judge it
            return None
        if member.all():
            return None
        run = execute(replace(job, plan=replace(job.plan, data=halves.training)), listen=listen, runtime=runtime)
        judged = evaluate(run, examples, runtime=runtime)
        losses = np.array([judged.get(name, {}).get(LOSS, np.nan) for name in examples.names])
        return membership(losses, member, draw) if np.isfinite(losses).any() else None


def _notes(job: Resolved, noise: NoiseAudit | None, members: MembershipScore | None) -> list[str]:
    algorithm = job.plan.algorithm
    own = accounted(algorithm, len(job.plan.data))
    notes = [THROWN_AWAY]
    if noise is not None:
        notes.append(BEFORE_THE_SUM)
    elif own is not None:
        notes.append(f"{own.mechanism!r} adds its noise on the clients, where no canary can be put: not audited")
    else:
        notes.append("no step of the channel adds noise, so there is no claim to audit")
    if isinstance(algorithm.work, PrivateWork):
        notes.append(
            f"what {type(algorithm.work).__name__} claims for each example is not audited: canaries are clients"
        )
    if job.privacy_test_mode:
        notes.append("the app runs in a test mode, which guarantees nothing; the audit took fresh keys")
    if members is None:
        notes.append("no membership score: no loss of an example was to be had of members and of others")
    return notes
