"""Who lacks what hides an update hears so at once, and not in the first round; the invitation is not used up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import koinon as kn
from fleet.processes import Fleet
from koinon.errors import UnsupportedError

FOLDER = Path(__file__).parent
KEYS = {"HOLDER": "ab" * 32}
NEEDS = "pip install 'koinon[he]'"


def without_tenseal(*arguments: object, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of koinon where TenSEAL is not installed."""
    code = "import sys; sys.modules['tenseal'] = None; from koinon.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **KEYS, **variables}
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_check_warns(tmp_path: Path) -> None:
    done = without_tenseal("check", FOLDER / "encrypted_app.py", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in json.loads(done.stdout)["warnings"] if "take part" in line)
    assert NEEDS in warning


def test_join_and_doctor_refuse_before_the_invitation_is_used(tmp_path: Path) -> None:
    app = FOLDER / "secure_app.py"  # whose coordinator needs no key holder
    with Fleet(tmp_path, app, tls=True) as fleet:
        fleet.serve()
        link = fleet.invite("lyon")
        joined = without_tenseal("join", link, FOLDER / "encrypted_app.py", "--name", "lyon", folder=tmp_path)
        assert joined.returncode == 1
        assert NEEDS in joined.stderr
        assert not (tmp_path / "koinon-lyon").exists()
        told = without_tenseal("doctor", link, FOLDER / "encrypted_app.py", "--json", folder=tmp_path)
        assert told.returncode == 1
        (wrong,) = (row for row in json.loads(told.stdout)["checks"] if row["verdict"] == "wrong")
        assert (wrong["check"], NEEDS in wrong["found"]) == ("app", True)
        healthy = without_tenseal("doctor", link, app, "--json", folder=tmp_path)
        assert healthy.returncode == 0, "a secure sum needs no TenSEAL, and the link is as good as new"


def test_a_secure_sum_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    kn.SecureSum().require()
    monkeypatch.setattr("koinon.channel.hidden_sum.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"SecureSum\(\) .*koinon\[privacy\]"):
        kn.SecureSum().require()


def test_seals_need_a_new_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tenseal", reason="needs koinon[he]")
    kn.Encrypted(key="ab" * 32).require()
    monkeypatch.delattr("cryptography.hazmat.primitives.hpke")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hpke", None)
    with pytest.raises(UnsupportedError, match="from 47 on"):
        kn.Encrypted(key="ab" * 32).require()
