"""Who a participant takes for a member of a sum: by its key in the roster, whatever the coordinator calls it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from koinon.errors import ProtocolError
from koinon.fleet.participant.secure_sum import SecureSums
from koinon.fleet.wire.signatures import OwnKey, encoded
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Client, Shared
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Cohort, SignedKeys
from koinon.privacy.secure_sum.neighbours import Assumptions, degree
from koinon.privacy.secure_sum.roster import Roster
from koinon.privacy.secure_sum.terms import Floors, Past, Terms

CLIENTS = tuple(f"c-{i}" for i in range(7))
ME = "c-3"


@dataclass
class Told:
    """A coordinator's list of clients, and the folder of the participant that reads it."""

    owners: Mapping[str, OwnKey]
    key: OwnKey

    def call(self, method: str, path: str) -> Any:
        rows = ((c, own.public) for c, own in self.owners.items())
        return {"clients": [{"client": c, "kind": k.kind.value, "key": encoded(k.raw)} for c, k in rows]}


def shared(owners: Mapping[str, OwnKey], members: Mapping[str, OwnKey]) -> half.State:
    """Return a participant after its answer to a cohort of those whom the coordinator lists."""
    roster = Roster(federation="hearts", members={name: own.public.text for name, own in members.items()})
    told = Told(owners, owners[ME])
    sums = SecureSums(told, told, ME, 3, roster)  # type: ignore[arg-type]
    layout = Layout.of_bits(4, 1, bits=32, cohort=7, bound=1.0)
    terms, past = Terms(run="r train", round=1, layout=layout, roster=roster.digest()), Past(run="r train")
    begun = {
        c: half.begin(Client(party=c, floors=Floors(), past=past), terms, os.urandom(32), own.sign)
        for c, own in owners.items()
    }
    keys = tuple(SignedKeys.read(begun[c][1], terms.digest()) for c in sorted(owners))
    cohort = Cohort(tuple(sorted(owners)), keys, degree(len(owners), Assumptions()), terms.digest())
    return half.share(begun[ME][0], cohort.body, sums._verify("r"))[0]


def test_members_of_the_roster_share() -> None:
    own = {client: OwnKey(os.urandom(32)) for client in CLIENTS}
    assert isinstance(shared(own, own), Shared)


def test_a_key_outside_the_roster_is_nobodys() -> None:
    own = {client: OwnKey(os.urandom(32)) for client in CLIENTS}
    with pytest.raises(ProtocolError, match="keys of 'c-5' are not signed"):
        shared(own, {client: key for client, key in own.items() if client != "c-5"})


@pytest.mark.parametrize("times", [2, 6])
def test_one_member_is_not_there_under_several_names(times: int) -> None:
    """Else one member that works with the coordinator is a whole cohort, and every mask of the others is known."""
    own = {client: OwnKey(os.urandom(32)) for client in CLIENTS}
    others = [client for client in CLIENTS if client != ME]
    listed = {**own, **{client: own[others[0]] for client in others[:times]}}
    with pytest.raises(ProtocolError, match=f"keys of '{others[1]}' are not signed"):
        shared(listed, own)
