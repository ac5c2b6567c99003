"""What a run knows of its members' rounds is written with the rounds: neither a restart nor a second join changes it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "abuse"), str(HERE)]

import processes
import scene
import sqlalchemy as sa

from koinon.core.events import Checkpoint
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.ledger import Ledger, RoundRow
from koinon.fleet.coordinator.members import Fared, Member
from koinon.fleet.coordinator.store import FleetStore


def rounds_done(fleet: processes.Fleet) -> dict[str, int]:
    return {client["name"]: client["rounds_done"] for client in fleet.run()["clients"]}


def test_the_rounds_that_a_client_has_done_outlive_the_coordinator(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": ":".join([*sys.path, str(HERE.parent)])}
    with processes.Fleet(tmp_path, HERE / "abuse" / "app.py", environment=environment) as fleet:
        fleet.serve()
        stage = scene.Scene.of(fleet)
        for _ in range(3):
            stage.fresh_round()
        before = rounds_done(fleet)
        assert min(before.values()) >= 2
        fleet.coordinator.kill()
        fleet.serve()
        assert rounds_done(fleet) == before
        stage.fresh_round()
        fleet.until("another round counts", lambda: min(rounds_done(fleet).values()) > max(before.values()), 30)


def test_who_joins_again_keeps_how_it_fared(tmp_path: Path) -> None:
    lyon, nice = Member("c-1", "lyon", 4, 0), Member("c-2", "nice", 4, 0)
    with FleetStore.open(tmp_path) as store:
        with store.transaction() as rows:
            for member in (lyon, nice):
                known = {"client": member.client, "name": member.name, "kind": "ed25519", "key": "", "revoked": False}
                rows.execute(sa.insert(tables.clients).values(**known))
        ledger = Ledger(store, "r-1")
        for position, member in enumerate((lyon, nice)):
            ledger.join(member, position)
        for number, nice_counts in ((1, True), (2, False)):
            at = Checkpoint(number, {}, {}, {}, None, {})
            ledger.commit(RoundRow(at, "0" * 64, None, None, {"c-1": True, "c-2": nice_counts}))
        more = Member("c-1", "lyon", 9, 1)
        ledger.join(more, 0)
        assert ledger.members() == [(more, Fared(2, True, 2)), (nice, Fared(2, False, 1))]
