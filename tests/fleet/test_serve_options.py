"""What `koinon serve` and `join` are told, and what is refused because less would be protected than was said."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from processes import Fleet, Process, free_port

from koinon.cli.fleet import _served
from koinon.cli.fleet_options import limit_cores, reach, settings
from koinon.errors import ConfigurationError, FleetError
from koinon.fleet.participant.connection import Connection
from koinon.fleet.service.settings import Addresses, Settings

APP = Path(__file__).parent / "faults" / "app.py"
SECONDS = 60.0
PEM = Path("some.pem")
GIVEN: dict[str, Any] = {
    "listen": "127.0.0.1:8443", "url": None, "client_listen": None, "certificate": None, "key": None,
    "client_ca": None, "plain_http": False, "links": 1, "folder": Path("f"), "keyholders": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"client_listen": "127.0.0.1:8444"}, "--client-ca"),
        ({"client_ca": PEM, "plain_http": True}, "--plain-http"),
        ({"certificate": PEM, "key": PEM, "plain_http": True}, "--plain-http"),
        ({"certificate": PEM}, "--key"),
        ({"url": "fed.example.org:8443"}, "https://fed"),
        ({"url": "https://"}, "https://fed"),
        ({"url": "https://fed.example.org/?a"}, "https://fed"),
        ({"url": "https://fed.example.org:port"}, "https://fed"),
        ({"url": "https://[::1"}, "https://fed"),
        ({"url": f"https://{70 * 'ü'}.example.org"}, "https://fed"),
        ({"url": "http://fed.example.org"}, "speaks TLS"),
        ({"proxies": ("127.0.0.1", "proxy.example.org")}, "found 'proxy.example.org'"),
        ({"listen": "8443"}, "HOST:PORT"),
        ({"listen": "here:²"}, "HOST:PORT"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(what)):
        settings(**GIVEN | given)


def test_an_address_may_end_in_a_slash_and_have_a_path() -> None:
    assert settings(**GIVEN | {"url": "https://fed.example.org/koinon/"}).url == "https://fed.example.org/koinon"
    assert settings(**GIVEN | {"url": "http://fed.example.org", "plain_http": True}).url == "http://fed.example.org"


def test_a_name_with_umlauts_is_the_one_that_certificates_and_links_bear() -> None:
    assert settings(**GIVEN | {"url": "https://müller.example:8443"}).url == "https://xn--mller-kva.example:8443"


def test_a_proxy_is_given_with_http_or_without_and_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    link = f"https://fed.example.org:8443/join#token={32 * 'A'}"
    options = {"certificate": None, "key": None, "patience": 1.0}
    assert reach(link, {**options, "proxy": "proxy:3128"}).proxy == "http://proxy:3128"
    monkeypatch.setenv("HTTPS_PROXY", "socks5://lyon:secret@proxy:1080")
    with pytest.raises(FleetError, match="The proxy socks5://proxy:1080 cannot be used") as found:
        Connection(reach(link, {**options, "proxy": None}), print)
    assert "secret" not in str(found.value)


def test_parties_of_one_machine_do_not_all_take_the_same_core(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[set[int]] = []

    def take(process: int, cores: Iterable[int]) -> None:
        taken.append(set(cores))

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", take)
    for _ in range(60):
        limit_cores(1)
    assert {len(cores) for cores in taken} == {1}
    assert set.union(*taken) == {1, 3, 5, 7}
    limit_cores(9)
    assert taken[-1] == {1, 3, 5, 7}


def addresses(*ports: int, **given: Any) -> tuple[str, str, str]:
    """Return where parties, browsers and the operator's commands go."""
    found = Addresses.of(Settings(folder=Path("f"), version="", **given), *ports)
    return found.parties, found.page, found.operator


def test_the_operators_commands_need_no_way_out_of_the_machine() -> None:
    public = "https://fed.example.org"
    assert addresses(8443) == ("https://127.0.0.1:8443",) * 3
    assert addresses(8443, host="0.0.0.0", url=public) == (public, public, "https://localhost:8443")
    assert addresses(80, url=public, plain_http=True) == (public, public, "http://127.0.0.1:80")
    assert addresses(8443, host="::1") == ("https://[::1]:8443",) * 3
    own = addresses(8443, host="0.0.0.0", url=public, certificate=(PEM, PEM))
    assert own == (public, public, "https://localhost:8443"), "the commands know the certificate, whatever it names"


def test_a_network_without_tls_is_not_served_silently() -> None:
    def of(**given: Any) -> bool:
        return Addresses.of(Settings(folder=Path("f"), version="", **given), 8443).read_on_the_way

    assert of(host="0.0.0.0", plain_http=True) and of(url="http://fed.example.org", plain_http=True)
    assert not of(plain_http=True) and not of(host="::1", plain_http=True) and not of(host="0.0.0.0")
    assert not of(host="0.0.0.0", url="https://fed.example.org", plain_http=True), "a proxy in front speaks TLS"


def test_where_certificates_are_asked_for_is_in_the_links_and_browsers_go_elsewhere() -> None:
    assert addresses(8443, 8444) == ("https://127.0.0.1:8444", "https://127.0.0.1:8443", "https://127.0.0.1:8443")
    found = addresses(8443, 8444, host="0.0.0.0", url="https://fed.example.org:444")
    assert found == ("https://fed.example.org:444", "https://fed.example.org:8443", "https://localhost:8443")


def ended(folder: Path, *words: str) -> tuple[int, str]:
    """Return how a command ended, and what it said."""
    process = Process("command", words, folder).start()
    try:
        return process.wait(SECONDS), process.said()
    finally:
        process.kill()


def test_two_apps_of_one_name_are_refused(tmp_path: Path) -> None:
    status, said = ended(tmp_path, "serve", str(APP), str(APP), "--plain-http", "--listen", f"127.0.0.1:{free_port()}")
    assert status == 2
    assert said.startswith("Error: Two of the apps are called app.")


def test_a_certificate_that_cannot_be_used_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    good, other = (Authority(tmp_path, name).client(name) for name in ("fed", "other"))
    for pair in (("no.pem", "no.pem"), (good[0], other[1])):
        words = ("--certificate", str(pair[0]), "--key", str(pair[1]), "--listen", f"127.0.0.1:{free_port()}")
        status, said = ended(tmp_path, "serve", str(APP), *words)
        assert status == 2 and f"TLS cannot be served with {pair[0]}, {pair[1]}" in said, said
        assert "Serving" not in said and "Traceback" not in said
    words = ("--client-ca", "no.pem", "--listen", f"127.0.0.1:{free_port()}")
    assert "TLS cannot be served with no.pem" in ended(tmp_path, "serve", str(APP), *words)[1]


def test_the_operator_calls_from_any_folder_by_the_address_on_this_machine(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    port = free_port()
    with Fleet(tmp_path, APP, tls=True) as fleet:
        url = ("--url", f"https://coordinator.invalid:{port}")
        line = ("serve", str(APP), "--listen", f"127.0.0.1:{port}", "--dir", "coordinator", "--links", "0", *url)
        fleet.coordinator, fleet.url = Process("coordinator", line, tmp_path), f"https://127.0.0.1:{port}"
        fleet.serve()
        status, said = ended(elsewhere, "status", str(fleet.store))
        assert (status, said.splitlines()[0]) == (0, "app: waiting, 0 of 6 rounds"), said
        assert f"https://coordinator.invalid:{port}/join#ca=" in ended(elsewhere, "invite", str(fleet.store))[1]
        fleet.coordinator.kill()
        status, said = ended(elsewhere, "status", str(fleet.store), "--json")
        assert status == 1
        assert said.strip().startswith(f"Error: The coordinator of {fleet.store} does not answer. If koinon serve")
        assert f"https://127.0.0.1:{port}" in said and "refused" in said
        assert "trying again" not in said, "standard output is for the object alone"


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (2, r"Uniform\(size=2\) draws 2 clients a round, and SecureSum\(\) adds up at least 3"),
        (9, r"A round opens when 4 clients are here \(schedule.clients\), and that is too few: .* schedule="),
    ],
)
def test_a_draw_that_makes_no_round_is_refused_before_anything_is_served(tmp_path: Path, drawn: int, said: str) -> None:
    app = f"replace(app, algorithm=replace(app.algorithm, sampler=kn.Uniform({drawn})))"
    lines = ("from dataclasses import replace", "import koinon as kn", "from fleet.void_app import app", f"app = {app}")
    (tmp_path / "few.py").write_text("\n".join(lines))
    with pytest.raises(ConfigurationError, match=said):
        _served(tmp_path / "few.py", [], lambda event: None)


def test_what_an_app_file_raises_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def broken():\n    raise KeyError('age')\n\nbroken()\n")
    status, said = ended(tmp_path, "serve", "broken.py", "--plain-http")
    assert status == 4
    assert said.startswith("Traceback") and said.rstrip().endswith("KeyError: 'age'") and "koinon/cli" not in said
    status, said = ended(tmp_path, "serve", "broken.py", "--plain-http", "--log-json")
    assert status == 4
    assert said.startswith("{") and "KeyError: 'age'" in said and len(said.splitlines()) == 1


def test_with_several_runs_people_read_whose_round_is_done(tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(APP.read_text())
    changes = ("algorithm.schedule.clients=1", "stop.rounds=2")
    with Fleet(tmp_path, APP, serve=(str(other),), changes=changes) as fleet:
        fleet.serve()
        lyon = fleet.join("lyon", options=("--run", "app"))
        fleet.until("app is over", lambda: "app is finished" in fleet.coordinator.said(), SECONDS)
        assert "Without --data it is the app's own examples of 'lyon' that are trained on" in lyon.said()
        said = fleet.coordinator.said()
    assert re.findall(r"\d\d:\d\d:\d\d (app: round [12] of 2)", said) == ["app: round 1 of 2", "app: round 2 of 2"]
    assert "has joined app with" in said and "other: round" not in said
