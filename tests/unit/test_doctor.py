"""Every illness that ``koinon doctor`` knows is named with its cure, within its time, and healthy links pass."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from doctor_servers import (
    APP,
    HEART,
    OFFER,
    PARTY,
    TOKEN,
    USED,
    Behaviour,
    Served,
    certificate,
    coordinator,
    listening,
    party_certificate,
    slow_line,
)

import koinon
from fleet.connect_proxy import connect_proxy
from koinon.fleet.participant.doctor import checks, diagnose
from koinon.fleet.participant.examination import Answer, Check, Finding, Verdict, examine
from koinon.fleet.participant.keep import Enrolled, Keep
from koinon.fleet.participant.reach import Case
from koinon.fleet.wire.certificates import ServerCertificate
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.offer import Offer

NAMES = [check.name for check in checks()]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def well(tls: ServerCertificate) -> Iterator[Served]:
    with coordinator(tls=tls) as served:
        yield served


def seen(
    link: JoinLink, *, folder: Path = Path(), proxy: str | None = None, app: Mapping[str, object] | None = None
) -> list[Finding]:
    begun = time.monotonic()
    found = list(diagnose(Case(link, proxy, folder, None if app is None else lambda: app)))
    assert time.monotonic() - begun < 30
    return found


def wrong(found: list[Finding]) -> Finding:
    """Return the one finding that is wrong: everything before it is well, what needs it is named as skipped."""
    ill = [finding for finding in found if finding.verdict is Verdict.WRONG]
    assert len(ill) == 1, ill
    made = {finding.check for finding in found}
    assert made.isdisjoint(ill[0].skipped)
    assert made | set(ill[0].skipped) == set(NAMES)
    assert ill[0].fix
    return ill[0]


def test_a_healthy_coordinator_passes_every_check(well: Served, tmp_path: Path) -> None:
    found = seen(well.link(), folder=tmp_path, app=APP)
    assert [finding.check for finding in found] == NAMES
    assert {finding.verdict for finding in found} == {Verdict.OK}, found


def test_the_token_is_sent_only_to_the_coordinator_that_the_link_names(tls: ServerCertificate, tmp_path: Path) -> None:
    stranger = certificate(tmp_path)
    with coordinator(tls=stranger) as served:
        wrong(seen(replace(served, authority=tls.fingerprint).link()))
        assert served.calls
        assert all(said is None for _, said in served.calls)


def test_an_invitation_is_not_used_up(well: Served) -> None:
    seen(well.link())
    assert next(f for f in seen(well.link()) if f.check == "invitation").verdict is Verdict.OK
    assert {path for path, said in well.calls if said} == {"/v1/probe", "/v1/probe/bytes"}


def test_a_closed_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = wrong(seen(JoinLink(f"https://127.0.0.1:{port}", TOKEN, None)))
    assert (found.check, str(port) in found.found) == ("TCP port", True)
    assert "koinon serve" in found.fix


def test_a_port_whose_packets_are_dropped() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(3):  # Linux drops who comes to a full queue
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    found = wrong(seen(JoinLink(f"https://127.0.0.1:{listener.getsockname()[1]}", TOKEN, None)))
    for each in (listener, *fillers):
        each.close()
    assert found.check == "TCP port"
    assert "firewall" in found.fix


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_port_that_speaks_something_else(says: bytes) -> None:
    with listening(says) as port:
        found = wrong(seen(JoinLink(f"https://127.0.0.1:{port}", TOKEN, "0" * 64)))
    assert found.check == "TLS"


def test_a_port_that_accepts_and_never_answers() -> None:
    with listening(None) as port:
        found = wrong(seen(JoinLink(f"https://127.0.0.1:{port}", TOKEN, "0" * 64)))
    assert found.check == "TLS"
    assert "says nothing" in found.found


def test_a_coordinator_that_hangs(tls: ServerCertificate) -> None:
    with coordinator(Behaviour(hangs=True), tls) as served:
        found = wrong(seen(served.link()))
    assert found.check == "clock"
    assert "koinon serve" in found.fix


def test_a_wrong_fingerprint(well: Served) -> None:
    found = wrong(seen(replace(well, authority="0" * 64).link()))
    assert found.check == "CA fingerprint"
    assert "telephone" in found.fix


def test_a_proxy_that_opens_encrypted_connections(tls: ServerCertificate, tmp_path: Path) -> None:
    """It shows a certificate of its own, and passes the coordinator's authority on as it is."""
    inspector = certificate(tmp_path)
    assert tls.authority is not None
    with coordinator(Behaviour(authority=tls.authority.read_bytes()), inspector) as served:
        found = wrong(seen(replace(served, authority=tls.fingerprint).link()))
    assert found.check == "certificate"
    assert "exempt" in found.fix


@pytest.mark.parametrize("days", [(-90.0, -1.0), (1.0, 90.0)])
def test_a_certificate_that_is_not_valid_today(days: tuple[float, float], tmp_path: Path) -> None:
    with coordinator(tls=certificate(tmp_path, days=days)) as served:
        found = wrong(seen(served.link()))
    assert found.check == "certificate"
    assert "start koinon serve again" in found.fix


def test_a_certificate_that_ends_soon(tmp_path: Path) -> None:
    with coordinator(tls=certificate(tmp_path, days=(-1, 3))) as served:
        found = {finding.check: finding for finding in seen(served.link())}
    assert found["certificate"].verdict is Verdict.NOTE
    assert "renews" in found["certificate"].fix


def test_a_clock_that_makes_a_certificate_invalid_is_blamed(tmp_path: Path) -> None:
    behaviour = Behaviour(date="Sat, 01 Jan 2000 00:00:00 GMT")
    with coordinator(behaviour, certificate(tmp_path, days=(-90, -1))) as served:
        found = {finding.check: finding for finding in seen(served.link())}
    assert found["clock"].verdict is Verdict.NOTE
    assert "years" in found["clock"].found or "days ahead" in found["clock"].found
    assert "2000-01-01" in found["certificate"].found
    assert "clock" in found["certificate"].fix


def test_a_coordinator_that_asks_for_a_certificate(tls: ServerCertificate, tmp_path: Path) -> None:
    ours, strange = (party_certificate(tmp_path / name) for name in ("ours", "strange"))
    with coordinator(Behaviour(clients=tmp_path / "ours" / "ca.pem"), tls) as served:
        for pair in (None, strange):
            found = wrong(list(diagnose(Case(served.link(), None, tmp_path, None, pair))))
            assert "--certificate and --key" in found.fix
        known = list(diagnose(Case(served.link(), None, tmp_path, None, ours)))
    assert {finding.verdict for finding in known} == {Verdict.OK}, known


def test_another_host_name(well: Served) -> None:
    found = wrong(seen(well.link(host="localhost")))
    assert found.check == "certificate"
    assert "127.0.0.1" in found.found


def test_an_authority_that_this_machine_does_not_know(well: Served) -> None:
    found = wrong(seen(replace(well, authority=None).link()))
    assert found.check == "certificate"
    assert "ca=" in found.fix


def test_a_link_without_encryption_is_noted() -> None:
    with coordinator() as served:
        found = {finding.check: finding for finding in seen(served.link(scheme="http"))}
    assert found["TLS"].verdict is Verdict.NOTE
    assert all(finding.verdict is not Verdict.WRONG for finding in found.values())


def test_a_server_that_is_no_coordinator(tls: ServerCertificate) -> None:
    with coordinator(Behaviour(offer=Offer((1,), "", ())), tls) as served:
        found = wrong(seen(served.link()))
    assert found.check == "coordinator"


def test_another_version_of_koinon_is_noted(tls: ServerCertificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koinon.fleet.participant.doctor.versions", lambda: {"koinon": "0.1.0"})  # a checkout has none
    with coordinator(Behaviour(offer=Offer((1,), "99.0", (HEART,))), tls) as served:
        found = {finding.check: finding for finding in seen(served.link())}
    assert found["coordinator"].verdict is Verdict.NOTE
    assert "99.0" in found["coordinator"].found


def test_another_protocol(tls: ServerCertificate) -> None:
    with coordinator(Behaviour(offer=Offer((2,), koinon.__version__, ())), tls) as served:
        found = wrong(seen(served.link()))
    assert found.check == "invitation"
    assert "protocol 2" in found.found


@pytest.mark.parametrize(("token", "reason"), [("never-issued", "no such"), (USED, "used")])
def test_a_token_that_opens_nothing(well: Served, token: str, reason: str) -> None:
    found = wrong(seen(well.link(token=token)))
    assert found.check == "invitation"
    assert reason in found.found
    assert token not in found.found + found.fix


def test_another_app(well: Served) -> None:
    found = wrong(seen(well.link(), app={"algorithm": {"name": "fedavg", "rate": 0.5}, "seed": 0}))
    assert found.check == "app"
    assert found.found == "heart has another algorithm.rate: 0.1, and this app has 0.5"


def test_a_line_too_slow_for_any_update(well: Served) -> None:
    with slow_line(well.port, 15_000) as port:
        found = wrong(seen(replace(well, port=port).link()))
    assert found.check == "download"
    assert "slower than" in found.fix


def test_a_line_that_is_nearly_dead(well: Served) -> None:
    with slow_line(well.port, 500) as port:
        assert wrong(seen(replace(well, port=port).link())).check in ("TLS", "clock")


def test_a_slow_line_is_measured(well: Served) -> None:
    with slow_line(well.port, 400_000) as port:
        found = {finding.check: finding for finding in seen(replace(well, port=port).link())}
    for way in ("download", "upload"):
        number, unit = found[way].found.split()
        assert unit == "kB/s"
        assert 250 < float(number) < 480


def test_a_model_that_no_round_can_wait_for(tls: ServerCertificate) -> None:
    run = replace(HEART, model_bytes=10**15)
    with coordinator(Behaviour(offer=Offer((1,), koinon.__version__, (run,))), tls) as served:
        found = {finding.check: finding for finding in seen(served.link())}
    assert found["model transfer"].verdict is Verdict.WRONG
    assert "heart (600 s)" in found["model transfer"].fix
    assert found["disk"].verdict is found["memory"].verdict is Verdict.WRONG


def test_a_reverse_proxy_that_refuses_large_bodies(tls: ServerCertificate) -> None:
    with coordinator(Behaviour(largest_body=100_000), tls) as served:
        found = wrong(seen(served.link()))
    assert found.check == "upload"
    assert "4 MiB" in found.fix


def test_an_unknown_host(well: Served) -> None:
    """In a network namespace of its own, where no question leaves this machine."""
    code = "from koinon.cli.main import main; main()"
    line = ["unshare", "--net", sys.executable, "-c", code, "doctor", str(well.link(host="no.such.host")), "--json"]
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not permitted here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert [(check["check"], check["verdict"]) for check in said["checks"]] == [("proxy", "ok"), ("DNS", "wrong")]
    assert "typing error" in said["checks"][1]["fix"]


@contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a small file system on a folder, or skip."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(("size=1m", *options)), "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(tls: ServerCertificate, tmp_path: Path) -> None:
    run = replace(HEART, model_bytes=300_000)
    with small_disk(tmp_path / "small") as small, coordinator(Behaviour(replace(OFFER, runs=(run,))), tls) as served:
        room = {finding.check: finding for finding in seen(served.link(), folder=small / "state")}
        (small / "filling").write_bytes(bytes(200_000))
        found = wrong(seen(served.link(), folder=small / "state"))
    assert room["disk"].verdict is Verdict.OK
    assert found.check == "disk"
    assert "1 MB may be needed" in found.found


def test_a_disk_without_any_room_is_seen_before_there_is_a_model(well: Served, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as small:
        (small / "filling").write_bytes(bytes((1 << 20) - 8192))
        found = wrong(seen(well.link(), folder=small / "state"))
    assert (found.check, found.fix) == ("disk", "Make room there, or choose another folder with --dir.")


def test_a_run_that_is_over_is_worth_a_word(tls: ServerCertificate) -> None:
    over = replace(OFFER, runs=(replace(HEART, state="finished"),))
    with coordinator(Behaviour(over), tls) as served:
        found = {finding.check: finding for finding in seen(served.link())}
    assert found["invitation"].verdict is Verdict.NOTE and "No run goes on" in found["invitation"].fix


def test_a_proxy_that_is_not_there_is_not_told_how_to_listen(well: Served, tmp_path: Path) -> None:
    found = wrong(seen(well.link(), folder=tmp_path, proxy="http://127.0.0.1:1"))
    assert found.check == "TCP port"
    assert "--listen" not in found.fix and "HTTPS_PROXY" in found.fix


def test_a_disk_that_cannot_be_written_to(well: Served, tmp_path: Path) -> None:
    with small_disk(tmp_path / "fixed", "ro") as fixed:
        assert wrong(seen(well.link(), folder=fixed / "state")).check == "disk"


@pytest.mark.parametrize("credentials", [None, "lyon:secret"])
def test_through_a_proxy(well: Served, credentials: str | None) -> None:
    with connect_proxy(credentials) as proxy:
        found = seen(well.link(), proxy=proxy.url(credentials or ""))
        assert {finding.verdict for finding in found} == {Verdict.OK}, found
        assert {target for target, _ in proxy.asked} == {f"127.0.0.1:{well.port}"}
    assert "secret" not in "".join(finding.found for finding in found)


def test_a_proxy_that_wants_a_password(well: Served) -> None:
    with connect_proxy("lyon:secret") as proxy:
        found = wrong(seen(well.link(), proxy=proxy.url()))
    assert found.check == "TLS"
    assert "NAME:PASSWORD" in found.fix


def test_a_proxy_that_forbids_the_coordinator(well: Served) -> None:
    with connect_proxy() as proxy:
        found = wrong(seen(well.link(host="elsewhere.example"), proxy=proxy.url()))
    assert found.check == "TLS"
    assert "allow CONNECT" in found.fix


def test_a_proxy_that_is_not_there(well: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    found = wrong(seen(well.link(), proxy=address))
    assert found.check == "TCP port"
    assert "the proxy" in found.fix


def test_a_proxy_that_is_no_address(well: Served) -> None:
    assert wrong(seen(well.link(), proxy="socks5://127.0.0.1:1")).check == "proxy"


def test_a_check_that_never_ends_is_left() -> None:
    def sleeps(seen: int) -> Answer[int]:
        time.sleep(30)
        return Answer(seen, "")

    order = [
        Check[int]("first", None, 5.0, lambda seen: Answer(seen + 1, f"{seen}")),
        Check("endless", "first", 0.2, sleeps),
        Check("after it", "endless", 5.0, lambda seen: Answer(seen, "never")),
        Check("after that", "after it", 5.0, lambda seen: Answer(seen, "never")),
        Check("beside it", "first", 5.0, lambda seen: Answer(seen, f"{seen}")),
    ]
    begun = time.monotonic()
    first, endless, beside = examine(order, 0, seconds=10)
    assert time.monotonic() - begun < 5
    assert (first.found, beside.found) == ("0", "1")
    assert endless.verdict is Verdict.WRONG
    assert endless.skipped == ("after it", "after that")


def test_all_checks_together_are_bounded() -> None:
    def sleeps(seen: int) -> Answer[int]:
        time.sleep(30)
        return Answer(seen, "")

    begun = time.monotonic()
    found = list(examine([Check(str(i), None, 1.0, sleeps) for i in range(20)], 0, seconds=0.5))
    assert time.monotonic() - begun < 5
    assert len(found) == 20


def doctor(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from koinon.cli.main import main; main()", "doctor", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_a_line_a_check_and_keeps_the_token_to_itself(well: Served, tmp_path: Path) -> None:
    done = doctor(well.link(), "--dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[7 : 7 + 14].strip() for line in done.stdout.splitlines()[:-1]] == NAMES
    assert TOKEN not in done.stdout + done.stderr
    failed = doctor(replace(well, authority="0" * 64).link(), "--json")
    assert failed.returncode == 1
    said = json.loads(failed.stdout)
    assert (said["healthy"], said["checks"][-1]["check"]) == (False, "CA fingerprint")
    assert TOKEN not in failed.stdout + failed.stderr


def test_the_environments_proxy_is_seen_and_no_proxy_is_honoured(well: Served) -> None:
    with connect_proxy() as proxy:
        through = json.loads(doctor(well.link(), "--json", HTTPS_PROXY=proxy.url()).stdout)
        asked = len(proxy.asked)
        direct = json.loads(doctor(well.link(), "--json", HTTPS_PROXY=proxy.url(), NO_PROXY="127.0.0.1").stdout)
        assert len(proxy.asked) == asked > 0
    assert through["healthy"]
    assert direct["healthy"]
    assert str(proxy.port) in through["checks"][0]["found"]


def test_what_is_no_link_is_a_usage_error() -> None:
    done = doctor("https://127.0.0.1:1/join")
    assert done.returncode == 2
    assert "no join link" in done.stderr


def test_a_party_that_has_enrolled_is_known_by_its_key(tls: ServerCertificate, tmp_path: Path) -> None:
    with closing(Keep(tmp_path / "lyon")) as keep, coordinator(Behaviour(party=keep.key.public), tls) as served:
        link = served.link(token=USED)
        assert "--dir" in wrong(seen(link, folder=keep.folder)).fix  # it has a key, and has not enrolled
        assert tls.authority is not None
        enrolled = Enrolled(link.url, tls.authority.read_text(), PARTY, "lyon", "")
        keep.enrol(enrolled)
        at_work = wrong(seen(link, folder=keep.folder))
        keep.close()
        found = seen(link, folder=keep.folder, app=APP)
        stranger = tmp_path / "stranger"
        with closing(Keep(stranger)) as other:
            other.enrol(enrolled)
        assert "signed" in wrong(seen(link, folder=stranger)).found
    assert at_work.check == "invitation"
    assert "as it should be" in at_work.fix
    assert {finding.verdict for finding in found} == {Verdict.OK}, found


def test_a_machine_without_the_extra_is_told_which(tmp_path: Path) -> None:
    (tmp_path / "urllib3.py").write_text("raise ModuleNotFoundError(name='urllib3')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from koinon.cli.main import main; main()"
    line = [sys.executable, "-c", code, "doctor", "https://127.0.0.1:1/join#token=x"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "koinon[fleet,jax]" in done.stderr
    assert "Traceback" not in done.stderr
