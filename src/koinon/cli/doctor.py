"""``koinon doctor``: what is wrong between here and a coordinator, and what to do."""

from __future__ import annotations

import dataclasses
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from koinon.cli.exit_status import AppFileError, Exit
from koinon.cli.fleet import agreed_app
from koinon.cli.fleet_options import reach
from koinon.cli.output import print_json, say
from koinon.fleet.participant.doctor import SECONDS, checks, diagnose
from koinon.fleet.participant.examination import Finding, Verdict, Wrong
from koinon.fleet.participant.reach import Case
from koinon.fleet.wire.link import JoinLink


def examine_link(link: str, app_file: Path | None, changes: Sequence[str], *, as_json: bool, **options: Any) -> None:
    """Print a line a check as soon as it is made; ends the process with Exit.FAILED if anything is wrong.

    ``options`` are those of ``koinon join`` that say how the coordinator is reached, and where state is kept.
    """
    parsed, begun = JoinLink.parse(link), time.monotonic()
    app = None if app_file is None else lambda: _described(app_file, changes)
    way = reach(link, {**options, "patience": SECONDS})
    folder = options["folder"] or Path(f"koinon-{socket.gethostname()}")
    case = Case(parsed, way.proxy, folder, app, way.certificate)
    findings = []
    for finding in diagnose(case):
        findings.append(finding)
        if not as_json:
            _say(finding)
    healthy = all(finding.verdict is not Verdict.WRONG for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) | {"verdict": finding.verdict.value} for finding in findings]
        # The token stays out of it: people send such output to others.
        print_json({"url": parsed.url, "healthy": healthy, "seconds": time.monotonic() - begun, "checks": rows})
    else:
        say(_conclusion(findings))
    if not healthy:
        sys.exit(Exit.FAILED)


def _described(app_file: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Return the file's resolved app. What the file itself raises is shown as it is."""
    try:
        return agreed_app(app_file, changes)
    except AppFileError as error:
        sys.stderr.write(f"{error}\n")
        raise Wrong(f"{app_file} cannot be loaded: its own traceback is shown", "Mend the file.") from error


def _conclusion(findings: Sequence[Finding]) -> str:
    verdicts = {finding.verdict for finding in findings}
    if Verdict.WRONG in verdicts:
        return "Mend what is wrong, from the top, and run the same line again."
    return "It works; something is worth a look." if Verdict.NOTE in verdicts else "All is well."


def _say(finding: Finding) -> None:
    width = max(len(check.name) for check in checks())
    say(f"{finding.verdict.value:<5}  {finding.check:<{width}}  {finding.found}")
    if finding.fix:
        say(f"{'':<5}  {'':<{width}}  -> {finding.fix}")
    if finding.skipped:
        say(f"{'':<5}  {'':<{width}}  not checked for that: {', '.join(finding.skipped)}")
