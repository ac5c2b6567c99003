"""The updates of a private round are on the disk before their sum is released: its noise is for that very sum."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import koinon as kn
from koinon.core.types import Purpose
from koinon.fleet.coordinator.ledger import Committed
from koinon.fleet.coordinator.machine import Settle
from koinon.fleet.coordinator.members import Member, Members
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.coordinator.stage import OpenStage
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.signatures import digest

UPDATE = b"update"


def synced(folder: Path, monkeypatch: pytest.MonkeyPatch, purpose: Purpose, *channel: Any) -> set[Path]:
    """Return what was synced while the stage of one client was settled."""
    expected = SimpleNamespace(algorithm=kn.fedavg(channel=channel))
    job = SimpleNamespace(purpose=purpose, expected=expected, key=str, cohort=1, secure=None)
    spool = Spool(folder)
    stage = OpenStage(job, "r", Members([Member("c-1", "lyon", 6, 0)]), None, spool, None)  # type: ignore[arg-type]
    upload = spool.open("r", f"1-{purpose.value}", "c-1", Claim(len(UPDATE), len(UPDATE), (digest(UPDATE),)))
    chunk = upload.open_chunk(0)
    chunk.write(UPDATE)
    assert chunk.finish()
    stage.uploads["c-1"], stage.commits["c-1"] = upload, Committed("root", len(UPDATE), 1, "signature")
    seen: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda file: seen.add(os.fstat(file).st_ino))
    assert [part.weight for part in stage.result(Settle(("c-1",), {})).received] == [1]
    return {path for path in (upload.path, upload.path.parent) if path.stat().st_ino in seen}


def test_they_are_synced_with_their_names_where_noise_is_added_to_their_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = synced(tmp_path, monkeypatch, Purpose.TRAIN, kn.Clip(1.0), kn.GaussianNoise(1.0))
    assert {path.name for path in found} == {"1-train", f"c-1.6.6.{Claim(6, 6, (digest(UPDATE),)).root}"}


@pytest.mark.parametrize(
    ("purpose", "channel"),
    [
        (Purpose.EVALUATE, (kn.Clip(1.0), kn.GaussianNoise(1.0))),
        (Purpose.TRAIN, (kn.Clip(1.0), kn.LocalGaussian(8.0))),
        (Purpose.TRAIN, ()),
    ],
)
def test_others_are_not_waited_for(
    purpose: Purpose, channel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert synced(tmp_path, monkeypatch, purpose, *channel) == set()
