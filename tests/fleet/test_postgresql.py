"""The coordinator's rows in a real PostgreSQL: the same run, the same crash safety, the same receipts."""

import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from processes import Fleet, Process, free_port, simulated

from koinon.cli.verify import Standing, gather, look
from koinon.core.types import Purpose
from koinon.errors import StoreError
from koinon.fleet.coordinator.ledger import Ledger
from koinon.fleet.coordinator.members import Member
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.wire.claim import Claim

APP = Path(__file__).parent / "faults" / "app.py"
NAMES = ("lyon", "nice", "paris")
SECONDS = 60.0
SLOW = {"STEP_SECONDS": "0.02"}


def programs() -> Path | None:
    """Return where PostgreSQL's programs are."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


def allowed() -> bool:
    """Whether a server can be started here: it refuses to run as root."""
    return os.geteuid() != 0 or any(entry.pw_name == "postgres" for entry in pwd.getpwall())


class Server:
    """A PostgreSQL of our own."""

    def __init__(self, place: Path, folder: Path) -> None:
        self._place, self._folder, self._port, self._databases = place, folder, free_port(), 0
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "koinon")

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        self._run("pg_ctl", "-D", self._data, "-l", str(self._folder / "log"), "-w", "-o", options, "start")

    def die(self) -> None:
        """End it as a crash does: it has to recover when it starts again."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def database(self) -> str:
        """Return the URL of a new, empty database."""
        self._databases += 1
        name, place = f"fleet{self._databases}", f"postgresql+psycopg://koinon@127.0.0.1:{self._port}"
        engine = sa.create_engine(f"{place}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return f"{place}/{name}"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *words: str) -> None:
        become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        line = [*become, str(self._place / program), *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, cwd="/", check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that runs."""
    place = programs()
    if place is None or not allowed():
        pytest.skip("PostgreSQL is not installed (Debian: postgresql), or cannot be started by this user")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="koinon-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    try:
        own = Server(place, folder)
        own.start()
        yield own
        own.die()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_run_in_postgresql_survives_kill_and_can_be_verified(server: Server, tmp_path: Path) -> None:
    database = server.database()
    with Fleet(tmp_path, APP, serve=("--database", database), environment=SLOW) as fleet:
        fleet.serve()
        parties = [fleet.join(name) for name in NAMES]
        fleet.reaches(2, SECONDS)
        fleet.coordinator.kill()
        fleet.serve()
        run = f"/v1/admin/runs/{fleet.run()['run']}"
        fleet.admin("POST", f"{run}/pause")
        another = ["serve", str(APP), "--dir", str(tmp_path / "another"), "--listen", f"127.0.0.1:{free_port()}"]
        second = Process("second", [*another, "--plain-http", "--database", database], tmp_path).start()
        assert second.wait(SECONDS) == 1, second.said()
        assert "Another coordinator uses this database" in second.said()
        fleet.admin("POST", f"{run}/resume")
        for party in parties:
            assert party.wait(SECONDS) == 0, fleet.story()
        assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
        said = fleet.coordinator.said()
    assert f"digest {simulated(APP, tmp_path)}" in said
    assert not (fleet.store / "fleet.sqlite").exists()
    (evidence,) = gather(fleet.store, database)
    assert {point.standing for point in look(evidence)} == {Standing.HOLDS, Standing.UNKNOWN}
    assert (len(evidence.texts), evidence.rounds) == (6, 6)
    with pytest.raises(StoreError, match=r"there is no fleet\.sqlite in it"):
        gather(fleet.store)


@pytest.mark.slow
def test_a_coordinator_whose_database_dies_says_so_and_goes_on_when_it_is_back(server: Server, tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--database", server.database()), environment=SLOW) as fleet:
        fleet.serve()
        parties = [fleet.join(name) for name in NAMES]
        fleet.reaches(2, SECONDS)
        server.die()
        try:
            fleet.until("it is said", lambda: "Start the database" in fleet.coordinator.said(), SECONDS)
            with pytest.raises(urllib.error.HTTPError, match="503") as refused:
                fleet.run()
            refused.value.close()
            assert fleet.coordinator.alive
            assert all(party.alive for party in parties)
        finally:
            server.start()
        for party in parties:
            assert party.wait(SECONDS) == 0, fleet.story()
        assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
        said = fleet.coordinator.said()
    assert f"digest {simulated(APP, tmp_path)}" in said
    assert "Traceback" not in said


def test_numbers_beyond_32_bits_are_kept(server: Server, tmp_path: Path) -> None:
    claim, many = Claim(5 << 32, 5 << 28, ("0" * 64,) * 16), 3 << 31
    with FleetStore.open(tmp_path, server.database()) as store:
        ledger = Ledger(store, "r-1")
        ledger.write_upload(1, Purpose.TRAIN, "c-1", claim)
        ledger.join(Member("c-1", "lyon", many, many), 0)
        assert ledger.uploads(1, Purpose.TRAIN) == {"c-1": (claim, None)}


def test_who_has_lost_the_connection_writes_nothing_while_another_has_the_database(
    server: Server, tmp_path: Path
) -> None:
    database = server.database()
    others = sa.create_engine(database, isolation_level="AUTOCOMMIT")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with FleetStore.open(tmp_path / "first", database) as first:
        first.keep("who", "first")
        with others.connect() as connection:
            connection.exec_driver_sql(end)
        with FleetStore.open(tmp_path / "second", database) as second:
            with pytest.raises(StoreError, match="Another coordinator uses this database"):
                first.keep("who", "first again")
            assert second.value("who") == "first"
        first.keep("who", "first at last")
        assert first.value("who") == "first at last"
    others.dispose()


def test_another_kind_of_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"one of sqlite, and must be one of PostgreSQL"):
        FleetStore.open(tmp_path, "sqlite:///elsewhere.sqlite")


def test_a_database_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    nowhere = f"postgresql+psycopg://koinon@127.0.0.1:{free_port()}/postgres"
    with Fleet(tmp_path, APP, serve=("--database", nowhere)) as fleet:
        assert fleet.coordinator.start().wait(SECONDS) == 1
        assert "The database of" in fleet.coordinator.said()
        assert "Traceback" not in fleet.coordinator.said()
