"""``koinon roster``: who may take part in secure sums, signed by a key that no coordinator holds."""

from __future__ import annotations

from pathlib import Path

from koinon.cli.output import say
from koinon.errors import ConfigurationError, FormatError
from koinon.fleet.wire.rosters import draft, trusted
from koinon.fleet.wire.signatures import OwnKey
from koinon.privacy.secure_sum.roster import Roster

_IDENTITY = "identity.key"


def new_roster(file: Path, federation: str) -> None:
    """Begin a roster without members."""
    if file.exists():
        raise ConfigurationError(f"{file} exists. Add members to it (koinon roster add), or name another file.")
    file.write_text(Roster(federation=federation).text())
    say(f"Began {file}. Add each party with: koinon roster add {file} NAME KEY")


def own_key(folder: Path) -> None:
    """Print a party's key as a roster writes it; it is made if the folder has none."""
    folder.mkdir(parents=True, exist_ok=True)
    say(OwnKey.at(folder / _IDENTITY).public.text)


def add_member(file: Path, name: str, key: str) -> None:
    """Add a party; the file then wants signing."""
    roster = draft(file).add(name, key)
    _keep_draft(file, roster)


def remove_member(file: Path, name: str) -> None:
    """Strike a party out; the file then wants signing."""
    roster = draft(file).remove(name)
    _keep_draft(file, roster)


def _keep_draft(file: Path, roster: Roster) -> None:
    file.write_text(roster.text())
    count = len(roster.members)
    members = f"{count} member{'' if count == 1 else 's'}"
    say(f"{file} has {members} (serial {roster.serial}). Sign it with: koinon roster sign {file}")


def sign_roster(file: Path, key_file: Path) -> None:
    """Sign a roster with the key in ``key_file``, which is made if there is none."""
    roster, key = draft(file), OwnKey.at(key_file)
    file.write_bytes(roster.signed(key.sign))
    say(f"Signed {file}: {roster.federation}, serial {roster.serial}, {len(roster.members)} members")
    for name in sorted(roster.members):
        say(f"  {name}  {roster.members[name]}")
    say(f"Tell every party, by another way than the coordinator: --roster-key {key.public.text}")
    say(f"{key_file} is secret, and must not be on the coordinator's machine.")


def pinned(file: Path | None, key: str | None) -> Roster | None:
    """Return the roster that a participant insists on, or None. Raises ConfigurationError for half of the two."""
    if file is None and key is None:
        return None
    if file is None or key is None:
        raise ConfigurationError(
            "--roster FILE and --roster-key KEY go together: without the key, who signed is not known."
        )
    try:
        return trusted(file, key)
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error.strerror}).") from error
