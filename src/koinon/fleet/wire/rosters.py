"""Rosters as files: drafts that are edited, and signed ones that are trusted."""

from __future__ import annotations

from pathlib import Path

from koinon.errors import FormatError
from koinon.fleet.wire.signatures import PublicKey
from koinon.privacy.secure_sum.roster import Roster


def draft(file: Path) -> Roster:
    """Return the roster of a file, signed or not, whoever has signed it. Raises FormatError."""
    try:
        return Roster.parse(file.read_bytes())
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error.strerror}). Begin one with koinon roster new.") from error


def shown(file: Path) -> Roster:
    """Return the roster of a file that bears a signature: whose it is, each party finds out. Raises FormatError."""
    roster = draft(file)
    if not file.read_bytes()[:-1].rpartition(b"\n")[2].startswith(b"signature "):
        raise FormatError(
            f"{file} is not signed, so no party would take part by it, and what is said of a signed roster would be wrong. "
            "Have whoever answers for it sign it: koinon roster sign."
        )
    return roster


def trusted(file: Path, key: str) -> Roster:
    """Return the roster of a file that a key has signed. Raises FormatError, ProtocolError."""
    signer = PublicKey.parse(key)
    return Roster.read(file.read_bytes(), lambda text, signature: signer.signed(signature, text))
