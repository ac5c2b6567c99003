"""A party's folder belongs to one coordinator, and says so to who brings another's link."""

from contextlib import closing
from pathlib import Path

import pytest

from koinon.errors import FleetError
from koinon.fleet.participant.connection import Reach
from koinon.fleet.participant.enrolment import enrolled_party
from koinon.fleet.participant.keep import Enrolled, Keep
from koinon.fleet.wire.certificates import own_certificate
from koinon.fleet.wire.link import JoinLink

OLD, NEW = "https://localhost:8443", "https://localhost:9443"


def test_the_link_of_another_coordinator_is_not_tried_for_ever(tmp_path: Path) -> None:
    own, other = (own_certificate(tmp_path / name, ["localhost"]) for name in ("own", "other"))
    assert own.authority is not None
    with closing(Keep(tmp_path / "party")) as keep:
        keep.enrol(Enrolled(OLD, own.authority.read_text(), "c-1", "paris", "key"))

        def come(authority: str | None) -> Enrolled:
            return enrolled_party("paris", JoinLink(NEW, "token", authority), Reach(url=NEW), keep, print)

        assert come(own.fingerprint).url == come(None).url == NEW, "it may have moved"
        with pytest.raises(FleetError, match=r"belongs to the coordinator at https://localhost:8443, .*--dir"):
            come(other.fingerprint)
