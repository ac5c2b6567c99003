"""The coordinator's rows in a real PostgreSQL: the same run, the same crash safety, the same receipts."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Fleet, Process, free_port, simulated

from koinon.cli.verify import Standing, gather, look
from koinon.errors import StoreError

APP = Path(__file__).parent / "faults" / "app.py"
NAMES = ("lyon", "nice", "paris")
SECONDS = 60.0


def programs() -> Path | None:
    """Return where PostgreSQL's programs are."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


def allowed() -> bool:
    """Whether a server can be started here: it refuses to run as root."""
    return os.geteuid() != 0 or any(entry.pw_name == "postgres" for entry in pwd.getpwall())


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty database of a server of our own."""
    place = programs()
    if place is None or not allowed():
        pytest.skip("PostgreSQL is not installed (Debian: postgresql), or cannot be started by this user")
    pytest.importorskip("psycopg")
    folder, port = Path(tempfile.mkdtemp(prefix="koinon-")), free_port()
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if become:
        shutil.chown(folder, "postgres")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"

    def run(*words: str) -> None:
        done = subprocess.run([*become, *words], capture_output=True, text=True, timeout=SECONDS, cwd="/", check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    data, log = str(folder / "data"), str(folder / "log")
    try:
        run(str(place / "initdb"), "-D", data, "-A", "trust", "-U", "koinon")
        run(str(place / "pg_ctl"), "-D", data, "-l", log, "-w", "-o", options, "start")
        yield f"postgresql+psycopg://koinon@127.0.0.1:{port}/postgres"
        run(str(place / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_run_in_postgresql_survives_kill_and_can_be_verified(database: str, tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, serve=("--database", database), environment={"STEP_SECONDS": "0.02"}) as fleet:
        fleet.serve()
        parties = [fleet.join(name) for name in NAMES]
        fleet.reaches(2, SECONDS)
        fleet.coordinator.kill()
        fleet.serve()
        another = ["serve", str(APP), "--dir", str(tmp_path / "another"), "--listen", f"127.0.0.1:{free_port()}"]
        second = Process("second", [*another, "--plain-http", "--database", database], tmp_path).start()
        assert second.wait(SECONDS) == 1, second.said()
        assert "Another coordinator uses this database" in second.said()
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


def test_a_database_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    nowhere = f"postgresql+psycopg://koinon@127.0.0.1:{free_port()}/postgres"
    with Fleet(tmp_path, APP, serve=("--database", nowhere)) as fleet:
        assert fleet.coordinator.start().wait(SECONDS) == 1
        assert "The database of" in fleet.coordinator.said()
        assert "Traceback" not in fleet.coordinator.said()
