"""Faults of a participant's own app: told to its coordinator in a line, and here in full."""

from __future__ import annotations

import logging

from koinon.errors import ClientError, KoinonError

_LOG = logging.getLogger(__name__)


def reason_of(error: Exception, round: int) -> str:
    """Return why a round cannot be computed; what the app's own code raised is logged with its traceback."""
    own = (error.__cause__ or error) if isinstance(error, ClientError) else error
    if isinstance(own, KoinonError):
        return str(own)
    _LOG.error("Round %d cannot be computed here", round, exc_info=own)
    return f"{type(own).__name__}: {own}"
