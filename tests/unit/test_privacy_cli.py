"""`koinon check` says beforehand what a private run will promise, and the run says it afterwards; the report has it."""

import html
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import koinon as kn
from koinon import privacy

APP = """
import koinon as kn
from koinon.data.heart import INPUTS, heart
from koinon.models.jax_logistic import logistic_regression

app = kn.App(
    model=logistic_regression(INPUTS),
    clients=heart,
    algorithm=kn.fedavg(kn.sgd(0.1), cohort=kn.Poisson(0.5), channel=(kn.Clip(1.0), kn.GaussianNoise(3.0))),
    stop=kn.Stop(rounds=8),
    privacy=kn.PrivacyBudget(epsilon=2.0, ledger="ledger.jsonl"),
)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def koinon(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "from koinon.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(kn.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=here, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_check_foretells_and_the_run_spends(here: Path) -> None:
    done = koinon(here, "check", "app.py", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    rate = kn.Poisson(0.5).participation(4).rate
    wanted = privacy.epsilon(noise_multiplier=3.0, sampling_rate=rate, rounds=8, delta=1e-5)
    assert facts["statements"][0]["epsilon"] == pytest.approx(wanted)
    assert facts["privacy"].startswith(f"epsilon {wanted:.4g} at delta 1e-05 for each client after 8 rounds")
    assert any(line.startswith("budget: epsilon 2 at delta 1e-05 allows") for line in facts["conditions"])
    assert not (here / "ledger.jsonl").exists(), "to look costs nothing"
    run = koinon(here, "run", "app.py", "--out", "kept", "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["privacy"]["guarantee"]
    assert 0 < result["rounds"] < 8
    assert result["privacy"]["epsilon"] <= 2.0
    assert result["stopped"].startswith("budget: one more round")
    again = json.loads(koinon(here, "check", "app.py", "--json").stdout)
    assert "allows 0 of 8 rounds" in again["conditions"][-1], "what was spent stays spent"
    assert again["statements"][0]["rounds"] == result["rounds"] + 8, "and the claim is beside it"
    koinon(here, "report", "kept")
    page = html.unescape((here / "kept" / "report.html").read_text(encoding="utf-8"))
    claim = kn.PrivacyStatement(**{**result["privacy"], "not_covered": tuple(result["privacy"]["not_covered"])})
    assert len(claim.lines()) >= 8
    assert all(line[1:] in page for line in claim.lines()), "the statement in full"
    assert f">{result['rounds']}</th><td>3</td><td>0.5</td>" in page, "and what it was counted from"


def test_what_the_clients_own_work_promises_is_said_too(here: Path) -> None:
    text = (here / "app.py").read_text()
    (here / "app.py").write_text(
        text.replace("app = ", "made = ")
        + """
work = kn.PrivateTraining(norm=1.0, multiplier=2.0)
app = kn.replace(made, algorithm=kn.replace(made.algorithm, work=work))
"""
    )
    done = koinon(here, "check", "app.py", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["unit"] for each in json.loads(done.stdout)["statements"]] == ["client", "example"]


def test_what_cannot_be_accounted_is_refused_or_said_to_be_no_guarantee(here: Path) -> None:
    text = koinon(here, "check", "app.py", "--set", "privacy_test_mode=True").stdout
    assert "privacy: no guarantee: a test mode made the keys from a seed" in text
    text = (here / "app.py").read_text()
    (here / "app.py").write_text(text.replace("(kn.Clip(1.0), kn.GaussianNoise(3.0))", "(kn.GaussianNoise(3.0),)"))
    refused = koinon(here, "check", "app.py")
    assert refused.returncode == 1
    assert "needs a bounded update. Put Clip before it" in refused.stderr
