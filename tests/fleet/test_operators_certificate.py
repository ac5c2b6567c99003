"""The operator's commands know the coordinator by the certificate that it shows, whoever has signed that and whatever it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from authority import Authority

from fleet.processes import Fleet, Process

APP = Path(__file__).parent / "faults" / "app.py"


def status(fleet: Fleet) -> tuple[int, str]:
    """Return how ``koinon status`` ended, and what it said."""
    asked = Process("status", ["status", str(fleet.store), "--json"], fleet.folder).start()
    try:
        return asked.wait(60), asked.said()
    finally:
        asked.kill()


@pytest.mark.parametrize("chain", [False, True])
def test_a_certificate_of_an_authority_that_the_system_does_not_trust(chain: bool, tmp_path: Path) -> None:
    institution = Authority(tmp_path, "institution")
    certificate, key = institution.client("fed.example.org")
    if chain:
        certificate.write_bytes(certificate.read_bytes() + institution.path.read_bytes())
    own = ("--certificate", str(certificate), "--key", str(key), "--url", "https://fed.example.org:8443")
    with Fleet(tmp_path, APP, tls=True, serve=own) as fleet:
        fleet.serve()
        code, said = status(fleet)
        assert code == 0, said
        assert json.loads(said)["runs"][0]["state"]
        invited = Process("invite", ["invite", str(fleet.store)], tmp_path).start()
        assert invited.wait(60) == 0, invited.said()
        assert "https://fed.example.org:8443/" in invited.said()


def test_another_certificate_gets_no_token(tmp_path: Path) -> None:
    with Fleet(tmp_path, APP, tls=True) as fleet:
        fleet.serve()
        assert status(fleet)[0] == 0
        file = fleet.store / "admin.json"
        found = json.loads(file.read_text())
        file.write_text(json.dumps(found | {"certificate": "ab" * 32}))
        code, said = status(fleet)
        assert code == 1
        assert "does not answer" in said
        assert "ingerprint" in said
        file.write_text(json.dumps({"url": found["url"], "token": found["token"]}))
        code, said = status(fleet)
        assert (code, "started by another version" in said) == (2, True)
