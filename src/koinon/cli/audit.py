"""``koinon audit``: attack a job before others do."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from koinon.app import watching
from koinon.audit.attack import Attack, Audit, NoiseAudit
from koinon.audit.bound import canaries_for
from koinon.audit.membership import MembershipScore
from koinon.cli.commands import resolved_app
from koinon.cli.exit_status import Exit
from koinon.cli.output import print_json, say


def audit_app(app_file: Path, changes: Sequence[str], *, canaries: int, runs: int, as_json: bool) -> None:
    """Attack and print what was found; ends the process with Exit.FAILED if the claim did not survive."""
    job = resolved_app(app_file, changes)
    with watching(True) as listen:
        audit = Attack(canaries=canaries, runs=runs).audit(job, listen=listen)
    if as_json:
        print_json(audit.to_json())
    else:
        for name, what in _table(audit):
            say(f"{name:<16}  {what}")
    if audit.passed is False:
        sys.exit(Exit.FAILED)


def _table(audit: Audit) -> Iterator[tuple[str, str]]:
    if audit.noise is not None:
        yield from _noise(audit.noise)
    else:
        yield "verdict", "none: no claim was audited"
    if audit.members is not None:
        yield from _membership(audit.members)
    for note in audit.notes:
        yield "note", note


def _noise(noise: NoiseAudit) -> Iterator[tuple[str, str]]:
    claim, bound = noise.claim, noise.bound
    yield "claimed epsilon", claim.sentence
    yield "lower bound", f"{bound.epsilon:.4g}, with 95 % confidence: {bound.correct} of {bound.guesses} guesses right"
    runs = "1 run" if noise.runs == 1 else f"{noise.runs} runs"
    yield "canaries", f"{noise.canaries:,} in {runs}; all guesses right would give {noise.ceiling:.4g}"
    if not noise.passed:
        yield "verdict", f"FAILED: no noise that keeps epsilon {claim.epsilon:.4g} gives so much away"
    elif noise.could_fail:
        yield "verdict", "passed: this attack does not refute the claim, which proves nothing more"
    else:
        yield "verdict", f"passed, but could not have failed: {_more(noise)}"


def _more(noise: NoiseAudit) -> str:
    needed = canaries_for(noise.claim.epsilon, noise.claim.delta) if math.isfinite(noise.claim.epsilon) else None
    if needed is None:
        return "by this bound no number of canaries refutes so large an epsilon"
    each = noise.canaries // noise.runs
    return f"so large an epsilon takes about {needed:,} canaries. Use --canaries {each} --runs {-(-needed // each)}"


def _membership(score: MembershipScore) -> Iterator[tuple[str, str]]:
    low, high = score.auc_interval
    yield "membership AUC", f"{score.auc:.3f} ({low:.3f} to {high:.3f}; chance is 0.5), by losses of the final model"
    low, high = score.found_interval
    alarms = "1 % false alarms" if score.non_members >= 100 else "no false alarm: fewer than 100 others"
    shown = f"{score.found:.1%} ({low:.1%} to {high:.1%}) at {alarms}"
    yield "members found", f"{shown}; {score.members:,} members, {score.non_members:,} others"
