"""``koinon doctor``: what is wrong between here and a coordinator, and what to do."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from koinon.app import resolve
from koinon.cli.app_file import AppFileError, change, load
from koinon.cli.exit_status import Exit
from koinon.cli.output import print_json, say
from koinon.fleet.doctor import checks, diagnose
from koinon.fleet.examination import Finding, Verdict, Wrong
from koinon.fleet.link import JoinLink
from koinon.fleet.reach import Case
from koinon.fleet.receipts import canonical
from koinon.fleet.signatures import digest
from koinon.identity import agreement


def examine_link(
    link: str, app_file: Path | None, changes: Sequence[str], state: Path, proxy: str | None, *, as_json: bool
) -> None:
    """Print a line a check as soon as it is made; ends the process with Exit.FAILED if anything is wrong."""
    parsed, begun = JoinLink.parse(link), time.monotonic()
    app = None if app_file is None else lambda: _hash(app_file, changes)
    findings = []
    for finding in diagnose(Case(parsed, proxy or _environments_proxy(parsed), state, app)):
        findings.append(finding)
        if not as_json:
            _say(finding)
    healthy = all(finding.verdict is not Verdict.WRONG for finding in findings)
    if as_json:
        rows = [dataclasses.asdict(finding) | {"verdict": finding.verdict.value} for finding in findings]
        # The token stays out of it: people send such output to others.
        print_json({"url": parsed.url, "healthy": healthy, "seconds": time.monotonic() - begun, "checks": rows})
    else:
        say("All is well." if healthy else "Mend what is wrong, from the top, and run the same line again.")
    if not healthy:
        sys.exit(Exit.FAILED)


def _environments_proxy(link: JoinLink) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY ask for, if any."""
    parts = urlsplit(link.url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def _hash(app_file: Path, changes: Sequence[str]) -> str:
    """Return the hash of the file's resolved app."""
    try:
        app, inner = change(load(app_file), changes)
    except AppFileError as error:
        reason = str(error).splitlines()[-1]
        raise Wrong(
            f"{app_file.name} raises {reason}", f"koinon check {app_file} shows where; mend it there."
        ) from error
    resolved = resolve(app, inner)
    agreed = agreement(resolved.plan, resolved.evaluation, resolved.seed, resolved.engine, resolved.stop)
    return digest(canonical(agreed).encode())


def _say(finding: Finding) -> None:
    width = max(len(check.name) for check in checks())
    say(f"{finding.verdict.value:<5}  {finding.check:<{width}}  {finding.found}")
    if finding.fix:
        say(f"{'':<5}  {'':<{width}}  -> {finding.fix}")
    if finding.skipped:
        say(f"{'':<5}  {'':<{width}}  not checked for that: {', '.join(finding.skipped)}")
