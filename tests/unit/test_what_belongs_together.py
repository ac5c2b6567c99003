"""A coordinator's folder, rows, keys and certificates belong together; what is lost or damaged is named, and nothing is made anew for it."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from koinon.errors import FleetError, StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.belonging import refuse_what_is_apart
from koinon.fleet.coordinator.store import DATABASE, FleetStore
from koinon.fleet.participant.keep import ENROLLED, Keep
from koinon.fleet.service.serving import _operator
from koinon.fleet.wire.certificates import own_certificate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A coordinator's folder that has served one run."""
    with FleetStore.open(tmp_path) as store, store.transaction() as rows:
        rows.execute(sa.insert(tables.runs).values(run="r-1", name="heart", identity="{}", ended=None, paused=False))
    (tmp_path / "runs" / "r-1" / "blobs").mkdir(parents=True)
    (tmp_path / "coordinator.key").write_text("00" * 32)
    return tmp_path


def look(folder: Path) -> None:
    with FleetStore.open(folder) as store:
        refuse_what_is_apart(store, folder / "coordinator.key")


def test_what_belongs_together_is_served(folder: Path, tmp_path: Path) -> None:
    look(folder)
    look(tmp_path / "new")


def test_a_folder_without_its_rows_is_refused(folder: Path) -> None:
    """As it is when --database is forgotten: every party would be a stranger, and the run would begin anew."""
    (folder / DATABASE).rename(folder / "elsewhere")
    for _ in range(2):
        with pytest.raises(StoreError, match="r-1 is of a run that the rows do not know. Give the --database"):
            look(folder)


def test_rows_without_the_key_are_refused(folder: Path) -> None:
    (folder / "coordinator.key").unlink()
    with pytest.raises(StoreError, match="coordinator.key is missing: it signs the receipts"):
        look(folder)


@pytest.mark.parametrize("lost", ["ca.pem", "ca.key"])
def test_half_an_authority_is_not_replaced_by_a_new_one(tmp_path: Path, lost: str) -> None:
    own_certificate(tmp_path, ["localhost"])
    (tmp_path / lost).unlink()
    with pytest.raises(FleetError, match=f"{lost} is missing, one half of the authority"):
        own_certificate(tmp_path, ["localhost"])
    for name in ("ca.pem", "ca.key"):
        (tmp_path / name).unlink(missing_ok=True)
    assert own_certificate(tmp_path, ["localhost"]).fingerprint


def test_a_start_that_was_cut_short_begins_again(tmp_path: Path) -> None:
    own_certificate(tmp_path, ["localhost"])
    for name in ("ca.pem", "server.pem", "server.key"):
        (tmp_path / name).unlink()
    assert own_certificate(tmp_path, ["localhost"]).fingerprint


@pytest.mark.parametrize("damaged", ["ca.pem", "server.pem"])
def test_a_damaged_certificate_is_named(tmp_path: Path, damaged: str) -> None:
    own_certificate(tmp_path, ["localhost"])
    (tmp_path / damaged).write_text("-----BEGIN")
    with pytest.raises(FleetError, match=f"{damaged}.* is damaged"):
        own_certificate(tmp_path, ["localhost"])


def test_a_damaged_operators_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "admin.json").write_text("{")
    _operator(tmp_path, "https://localhost:8443", None)
    token = json.loads((tmp_path / "admin.json").read_text())["token"]
    _operator(tmp_path, "https://localhost:8443", None)
    assert json.loads((tmp_path / "admin.json").read_text())["token"] == token


def test_a_participants_damaged_enrolment_is_named(tmp_path: Path) -> None:
    keep = Keep(tmp_path)
    (tmp_path / ENROLLED).write_text("{")
    with pytest.raises(StoreError, match="coordinator.json is damaged"):
        keep.enrolled()
    keep.close()
