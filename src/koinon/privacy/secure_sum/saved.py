"""A client's record as bytes, for whoever keeps it on a disk between two messages. It holds secrets: for its owner only."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from koinon.errors import FormatError, KoinonError
from koinon.privacy.secure_sum.client import Advertised, Client, Masked, Ready, Shared, State
from koinon.privacy.secure_sum.keys import Own, StandingKey
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Cohort, Survivors
from koinon.privacy.secure_sum.neighbours import Assumptions
from koinon.privacy.secure_sum.terms import Floors, Past, Terms
from koinon.privacy.secure_sum.wire import Kind, header

_START = header(Kind.STATE)


def to_bytes(record: Client | State) -> bytes:
    """Return the record as it is written down."""
    client = record if isinstance(record, Client) else record.client
    found: dict[str, Any] = {"record": type(record).__name__, "client": asdict(client)}
    if isinstance(record, Advertised | Shared | Ready):
        found |= {"terms": asdict(record.terms), "entropy": record.own.entropy}
    if isinstance(record, Shared | Ready | Masked):
        found |= {"cohort": record.cohort.body, "belongs_to": record.cohort.terms}
    if isinstance(record, Ready | Masked):
        found |= {"sharers": sorted(record.sharers), "held": {str(owner): s for owner, s in record.held.items()}}
    if isinstance(record, Masked) and record.agreed is not None:
        found |= {"active": sorted(record.agreed.active), "dead": sorted(record.agreed.dead)}
    return _START + json.dumps(found, default=lambda raw: b64encode(raw).decode(), sort_keys=True).encode()


def from_bytes(raw: bytes) -> Client | State:
    """Return the record of :func:`to_bytes`. Raises FormatError for anything else."""
    try:
        if not raw.startswith(_START):
            raise ValueError(f"begins with {raw[:8].hex()}")
        return _record(json.loads(raw[len(_START) :]))
    except (ValueError, KeyError, TypeError, AttributeError, KoinonError) as error:
        raise FormatError(
            f"This is no record of a client in a secure sum ({error}). Stay out of this run's sums: the others go on without "
            "this client. An older copy of the record is none: it has forgotten what this client has given since."
        ) from error


def _record(found: Mapping[str, Any]) -> Client | State:
    client = _client(found["client"])
    kinds = {kind.__name__: kind for kind in (Client, Advertised, Shared, Ready, Masked)}
    kind = kinds[found["record"]]
    if kind is Client:
        return client
    if kind is Masked:
        agreed = Survivors(frozenset(found["active"]), frozenset(found["dead"])) if "active" in found else None
        return Masked(client=client, cohort=_cohort(found), **_shares(found), agreed=agreed)
    terms = _terms(found["terms"])
    own = Own(b64decode(found["entropy"]), terms.digest())
    if kind is Advertised:
        return Advertised(client=client, terms=terms, own=own)
    if kind is Shared:
        return Shared(client=client, terms=terms, own=own, cohort=_cohort(found))
    return Ready(client=client, terms=terms, own=own, cohort=_cohort(found), **_shares(found))


def _client(found: Mapping[str, Any]) -> Client:
    floors = dict(found["floors"])
    if floors["roster"] is not None:
        floors["roster"] = b64decode(floors["roster"])
    key = found["standing"]
    standing = None if key is None else StandingKey(b64decode(key["secret"]), b64decode(key["signature"]), key["born"])
    return Client(party=found["party"], floors=Floors(**floors), past=Past(**found["past"]), standing=standing)


def _terms(found: Mapping[str, Any]) -> Terms:
    parts = {"layout": Layout(**found["layout"]), "assumptions": Assumptions(**found["assumptions"])}
    digests = {name: b64decode(found[name]) for name in ("roster", "model", "app")}
    return Terms(**{**found, **parts, **digests})


def _cohort(found: Mapping[str, Any]) -> Cohort:
    return Cohort.read(b64decode(found["cohort"]), b64decode(found["belongs_to"]))


def _shares(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sharers": frozenset(found["sharers"]),
        "held": {int(owner): b64decode(share) for owner, share in found["held"].items()},
    }
