"""What was checked stays as it was checked: no later, second or other upload reaches a chunk that is there."""

from pathlib import Path

import pytest

from koinon.errors import FormatError
from koinon.fleet.coordinator.spool import Spool, Upload
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.signatures import digest

GOOD, BAD = b"good" * 8, b"evil" * 8


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def claim(*chunks: bytes) -> Claim:
    return Claim(sum(map(len, chunks)), len(chunks[0]), tuple(map(digest, chunks)))


def sent(upload: Upload, number: int, data: bytes) -> bool:
    chunk = upload.open_chunk(number)
    chunk.write(data)
    return chunk.finish()


def test_a_chunk_that_is_there_cannot_be_overwritten(spool: Spool) -> None:
    upload = spool.open("r", "1-train", "c", claim(GOOD))
    assert sent(upload, 0, GOOD)
    assert not sent(upload, 0, BAD)
    assert upload.path.read_bytes() == GOOD
    assert sent(upload, 0, GOOD), "and sending the same again is well"


@pytest.mark.parametrize("first_byte_of_the_bad", [0, 1, 31])
def test_of_two_senders_of_one_chunk_only_the_later_is_kept(spool: Spool, first_byte_of_the_bad: int) -> None:
    upload = spool.open("r", "1-train", "c", claim(GOOD))
    bad, good = upload.open_chunk(0), upload.open_chunk(0)
    good.write(GOOD[:16])
    bad.write(BAD[:first_byte_of_the_bad])
    good.write(GOOD[16:])
    assert good.finish()
    bad.write(BAD[first_byte_of_the_bad:])
    assert not bad.finish()
    assert upload.path.read_bytes() == GOOD


def test_who_was_overtaken_never_counts(spool: Spool) -> None:
    upload = spool.open("r", "1-train", "c", claim(GOOD))
    old = upload.open_chunk(0)
    old.write(GOOD)
    new = upload.open_chunk(0)
    new.write(BAD)
    assert not old.finish() and not new.finish()
    assert not upload.have


def test_a_chunk_of_an_older_claim_does_not_reach_the_newer(spool: Spool) -> None:
    late = spool.open("r", "1-train", "c", claim(BAD)).open_chunk(0)
    upload = spool.open("r", "1-train", "c", claim(GOOD))
    assert sent(upload, 0, GOOD)
    late.write(BAD)
    late.finish()
    assert upload.path.read_bytes() == GOOD
    assert upload.complete


def test_the_same_digests_over_other_lengths_are_another_claim(spool: Spool) -> None:
    digests = (digest(GOOD), digest(GOOD))
    late = spool.open("r", "1-train", "c", Claim(40, 20, digests)).open_chunk(1)
    upload = spool.open("r", "1-train", "c", Claim(64, 32, digests))
    assert sent(upload, 0, GOOD) and sent(upload, 1, GOOD)
    late.write(BAD[:20])
    assert not late.finish()
    assert upload.path.read_bytes() == GOOD * 2


def test_only_the_newest_claim_takes_room(spool: Spool, tmp_path: Path) -> None:
    for i in range(20):
        sent(spool.open("r", "1-train", "c", claim(bytes([i]) * 32)), 0, bytes([i]) * 32)
    spool.open("r", "1-train", "c2", claim(GOOD))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_what_is_there_is_found_again_by_its_digest(spool: Spool) -> None:
    sent(spool.open("r", "1-train", "c", claim(GOOD, BAD)), 0, GOOD)
    assert spool.open("r", "1-train", "c", claim(GOOD, BAD)).have == {0}


@pytest.mark.parametrize(
    ("size", "chunk_bytes", "count"), [(0, 4, 0), (-1, 4, 0), (1, 0, 1), (1, -1, 1), (8, 4, 3), (8, 4, 1)]
)
def test_a_claim_that_cannot_be_is_refused(size: int, chunk_bytes: int, count: int) -> None:
    with pytest.raises(FormatError):
        Claim(size, chunk_bytes, ("0" * 64,) * count)
