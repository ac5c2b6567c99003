"""A party's folder belongs to one coordinator, and says so to who brings another's link."""

from contextlib import closing
from pathlib import Path

import pytest

from koinon.cli.fleet_options import place
from koinon.errors import ConfigurationError, FleetError
from koinon.fleet.participant.connection import Reach
from koinon.fleet.participant.doctor import _invitation
from koinon.fleet.participant.enrolment import enrolled_party
from koinon.fleet.participant.examination import Wrong
from koinon.fleet.participant.keep import Enrolled, Keep
from koinon.fleet.participant.reach import Case
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


def test_the_doctor_says_so_before_the_link_is_tried(tmp_path: Path) -> None:
    own, other = (own_certificate(tmp_path / name, ["localhost"]) for name in ("own", "other"))
    assert own.authority is not None
    with closing(Keep(tmp_path / "party")) as keep:
        keep.enrol(Enrolled(OLD, own.authority.read_text(), "c-1", "paris", "key"))
    with pytest.raises(Wrong, match="belongs to the coordinator at https://localhost:8443") as found:
        _invitation(Case(JoinLink(NEW, "token", other.fingerprint), None, tmp_path / "party"))
    assert "another folder (--dir)" in found.value.fix


def test_a_name_that_no_coordinator_takes_makes_no_folder() -> None:
    for name in ("../lyon", "St. Anne", "müller", 65 * "a"):
        with pytest.raises(ConfigurationError, match="A name has 1 to 64 letters"):
            place({"name": name, "data": None, "folder": None})
    assert place({"name": "lyon-2.example", "data": None, "folder": None}).name == "lyon-2.example"
