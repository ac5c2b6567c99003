"""A participant behind an institution's proxy, and a coordinator that asks its clients for certificates."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from authority import Authority
from connect_proxy import ConnectProxy, connect_proxy
from processes import Fleet, Process, free_port, through

APP = Path(__file__).parent / "faults" / "app.py"
ALONE = ("algorithm.schedule.clients=1", "stop.rounds=2")
NOWHERE = "coordinator.invalid"
SECONDS = 60.0
PASSWORD = "p@ss:w/rd%41 é"


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[Fleet]:
    """A coordinator that calls itself by a name which the proxy alone can resolve."""
    with Fleet(tmp_path, APP, tls=True, changes=ALONE) as fleet:
        url = ("--url", f"https://{NOWHERE}:{fleet.port}")
        line = ("serve", str(APP), "--listen", f"127.0.0.1:{fleet.port}", "--dir", str(fleet.store), "--links", "0")
        fleet.coordinator = Process("coordinator", [*line, *url, *fleet.changes], tmp_path)
        fleet.serve()
        yield fleet


def finished(fleet: Fleet, party: Process) -> None:
    assert party.wait(SECONDS) == 0, fleet.story()
    assert fleet.coordinator.wait(SECONDS) == 0, fleet.story()
    assert "finished after 2 rounds" in fleet.coordinator.said()


def named(fleet: Fleet, variable: str, value: str) -> None:
    """Set a variable of the parties to come, also in small letters, which count more where this runs."""
    fleet.environment |= {variable: value, variable.lower(): value}


def went_through(proxy: ConnectProxy, fleet: Fleet) -> bool:
    return {target for target, status in proxy.asked if status == 200} == {f"{NOWHERE}:{fleet.port}"}


def test_a_participant_works_through_a_proxy(hidden: Fleet) -> None:
    with connect_proxy() as proxy:
        finished(hidden, hidden.join("lyon", options=("--proxy", proxy.url())))
    assert went_through(proxy, hidden)


def test_the_environment_names_a_proxy_that_wants_a_password(hidden: Fleet) -> None:
    with connect_proxy(f"lyon:{PASSWORD}") as proxy:
        named(hidden, "HTTPS_PROXY", proxy.url(f"lyon:{quote(PASSWORD, safe='')}"))
        finished(hidden, hidden.join("lyon"))
    assert went_through(proxy, hidden)
    assert 407 not in {status for _, status in proxy.asked}


def test_a_wrong_password_ends_with_what_to_do(hidden: Fleet) -> None:
    with connect_proxy("lyon:secret") as proxy:
        party = hidden.join("lyon", options=("--proxy", proxy.url("lyon:wrong")))
        assert party.wait(SECONDS) == 1, hidden.story()
    assert "407" in party.said()
    assert "--proxy http://USER:PASSWORD@HOST:PORT" in party.said()
    assert "wrong" not in party.said(), "a password is not written to a log"


def test_the_environment_names_a_place_to_reach_without_its_proxy(tmp_path: Path) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    with Fleet(tmp_path, APP, tls=True, changes=ALONE) as fleet:
        fleet.serve()
        named(fleet, "HTTPS_PROXY", closed)
        named(fleet, "NO_PROXY", "127.0.0.1")
        finished(fleet, fleet.join("lyon"))


@pytest.fixture
def institution(tmp_path: Path) -> Authority:
    """Who signs the clients' certificates."""
    return Authority(tmp_path, "institution")


@pytest.fixture
def guarded(tmp_path: Path, institution: Authority) -> Iterator[tuple[Fleet, str]]:
    """A coordinator and a link to its second place, where clients must show a certificate."""
    port = free_port()
    ask = ("--client-ca", str(institution.path), "--client-listen", f"127.0.0.1:{port}")
    with Fleet(tmp_path, APP, tls=True, changes=ALONE, serve=ask) as fleet:
        fleet.serve()
        yield fleet, through(fleet.invite("lyon"), port)


def test_a_participant_shows_its_certificate(guarded: tuple[Fleet, str], institution: Authority) -> None:
    fleet, link = guarded
    certificate, key = map(str, institution.client("lyon"))
    finished(fleet, fleet.join("lyon", link=link, options=("--certificate", certificate, "--key", key)))


@pytest.mark.parametrize("shown", ["none", "of another authority"])
def test_without_the_right_certificate_nothing_is_answered(
    guarded: tuple[Fleet, str], tmp_path: Path, shown: str
) -> None:
    fleet, link = guarded
    options = ["--patience", "2"]
    if shown != "none":
        certificate, key = map(str, Authority(tmp_path, "stranger").client("mallory"))
        options += ["--certificate", certificate, "--key", key]
    party = fleet.join("lyon", link=link, options=options)
    assert party.wait(SECONDS) == 1, fleet.story()
    assert "certificate" in party.said()
    assert fleet.admin("GET", "/v1/admin/status")["clients"] == []


def test_certificates_may_be_asked_for_everywhere(tmp_path: Path, institution: Authority) -> None:
    ask = ("--client-ca", str(institution.path), "--links", "1")
    with Fleet(tmp_path, APP, tls=True, changes=ALONE, serve=ask) as fleet:
        fleet.coordinator.start()
        told = fleet.until("a join link", lambda: re.search(r"koinon join '(\S+)'", fleet.coordinator.said()), 30)
        certificate, key = map(str, institution.client("lyon"))
        finished(fleet, fleet.join("lyon", link=told[1], options=("--certificate", certificate, "--key", key)))
