"""``koinon keyholder``: decrypts the sums of encrypted rounds for one coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koinon.cli.fleet_options import address
from koinon.cli.output import say
from koinon.cli.roster import pinned


def hold_keys(folder: Path, listen: str, roster: Path | None, roster_key: str | None, **same: Any) -> None:
    """Serve until told to end."""
    from koinon.fleet.keyholder.serving import Settings, serve

    host, port = address(listen)
    serve(Settings(folder=folder, host=host, port=port, roster=pinned(roster, roster_key), **same), say)
