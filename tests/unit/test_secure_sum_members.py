"""What a participant goes by in a sum, whatever the coordinator says: members' keys, the model, what it has begun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import koinon as kn
import linear
from koinon.app import App, resolve
from koinon.core.types import Purpose
from koinon.data.dataset import federate
from koinon.errors import ProtocolError
from koinon.fleet.participant.keep import Keep
from koinon.fleet.participant.making import Maker
from koinon.fleet.participant.secure_sum import Place, SecureSums
from koinon.fleet.wire.signatures import OwnKey, encoded
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Advertised, Client, Shared
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Cohort, SignedKeys
from koinon.privacy.secure_sum.neighbours import Assumptions, degree
from koinon.privacy.secure_sum.roster import Roster
from koinon.privacy.secure_sum.saved import from_bytes
from koinon.privacy.secure_sum.terms import Floors, Past, Terms

CLIENTS = tuple(f"c-{i}" for i in range(7))
ME = "c-3"


@dataclass
class Told:
    """A coordinator's list of clients, and the folder of the participant that reads it."""

    owners: Mapping[str, OwnKey]
    key: OwnKey

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if not path.endswith("/clients"):
            return {"messages": [], "next": 0}
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
    with pytest.raises(ProtocolError, match="key of 'c-5' is not signed"):
        shared(own, {client: key for client, key in own.items() if client != "c-5"})


@pytest.mark.parametrize("times", [2, 6])
def test_one_member_is_not_there_under_several_names(times: int) -> None:
    """Else one member that works with the coordinator is a whole cohort, and every mask of the others is known."""
    own = {client: OwnKey(os.urandom(32)) for client in CLIENTS}
    others = [client for client in CLIENTS if client != ME]
    listed = {**own, **{client: own[others[0]] for client in others[:times]}}
    with pytest.raises(ProtocolError, match=f"key of '{others[1]}' is not signed"):
        shared(listed, own)


def test_nobody_is_there_beside_itself() -> None:
    """As under a name from before it was enrolled anew, with a key that it signed then."""
    own = {client: OwnKey(os.urandom(32)) for client in CLIENTS}
    with pytest.raises(ProtocolError, match="key of 'c-5' is not signed"):
        shared({**own, "c-5": own[ME]}, own)


class Asked:
    """Secure sums that remember what they were asked for."""

    def __init__(self) -> None:
        self.terms: list[Terms] = []

    def prepared(self, place: Place, terms: Terms, still: Any) -> None:
        self.terms.append(terms)


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_the_terms_name_the_model_that_was_sent(purpose: str, tmp_path: Path) -> None:
    """Who is sent another model than the rest has keys that fit no cohort: it cannot be read out of a sum of zeros."""
    algorithm = kn.fedavg(kn.sgd(0.05), channel=(kn.Clip(1.0), kn.SecureSum()))
    app = App(model=linear.LinearModel(), clients=linear.clients((6,)), algorithm=algorithm, holdout=0.0)
    value = {"params": {"w": np.zeros(2, np.float32), "b": np.float32(0)}, "state": {"batches": np.float32(0)}}
    asked, work = Asked(), {"round": 1, "purpose": purpose, "cohort": 4, "bytes": 0, "attempt": 0, "roster": "00" * 32}
    with closing(Keep(tmp_path)) as keep:
        maker = Maker(
            resolve(app, data=federate(app.clients, holdout=0.0)).program(),
            SimpleNamespace(),
            keep,
            SimpleNamespace(),
            asked,
            "r-1",
        )  # type: ignore[arg-type]
        for model in ("a" * 64, "b" * 64):
            maker._model = (model, value)
            assert maker.made({**work, "model": model}, lambda: True) is None
    assert [terms.model for terms in asked.terms] == [bytes.fromhex("a" * 64), bytes.fromhex("b" * 64)]
    assert len({terms.digest() for terms in asked.terms}) == 2


def test_what_was_begun_is_not_gone_on_with_for_another_model(tmp_path: Path) -> None:
    terms = Terms(run="r train", round=1, layout=Layout.of_bits(4, 1, bits=32, cohort=7, bound=1.0))
    place = Place("r", 1, Purpose.TRAIN, 0)
    with closing(Keep(tmp_path)) as keep:
        sums = SecureSums(Told({}, keep.key), keep, ME, 3, None, b"a" * 32)  # type: ignore[arg-type]
        for _ in range(2):
            assert sums.prepared(place, terms, lambda: False) is None, "nobody waits for more"
        with pytest.raises(ProtocolError, match="begun here for another model, roster or cohort"):
            sums.prepared(place, replace(terms, model=b"m" * 32), lambda: False)
        with pytest.raises(ProtocolError, match="begun here for another model, roster or cohort"):
            sums.prepared(place, replace(terms, roster=b"r" * 32), lambda: False)
        kept = keep.secure_sum("r", "train")
        assert kept is not None
        begun = from_bytes(kept)
        assert isinstance(begun, Advertised) and begun.terms == replace(terms, app=b"a" * 32), "by its own app"
