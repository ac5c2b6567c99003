"""Who was not here when a run ended: said before the coordinator ends, because such a party would wait for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from koinon.fleet.service import log
from koinon.fleet.service.house import ServedRun

_NAMED = 5


def tell_who_is_missing(runs: Iterable[ServedRun]) -> None:
    """Log which parties have not come for the end of their run, and how they get it."""
    for served in runs:
        run, revoked = served.run, served.run.snapshot()[0].revoked
        names = [m.name for m in run.members if m.client not in revoked and not run.all_told([m.client])]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            line = (
                f"{served.name}: {', '.join(names[:_NAMED])}{more} did not come for its end since this coordinator started. Who "
                "lacks the result gets it from the same line with --stay"
            )
            log.tell("absent", line, level=logging.WARNING, run=run.key, name=served.name, parties=names)
