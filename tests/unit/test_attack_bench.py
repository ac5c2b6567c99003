"""The bench of attacks in its short form: what it prints is what it measured, and the known orders hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "attacks.py"


@pytest.mark.slow
def test_the_short_bench_shows_what_attacks_do_and_defences_prevent() -> None:
    command = [sys.executable, str(BENCH), "--short", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    found = json.loads(done.stdout)
    met = {(row["attack"], row["defence"]): row for row in found["attacks"]}
    assert len(met) == 9 and all(row["rounds"] == 10 for row in met.values())
    assert met["none", "Mean"]["accuracy"] > 0.7 and met["none", "Mean"]["success"] == 0
    assert met["sign flip", "Mean"]["accuracy"] < 0.6
    assert min(met["sign flip", rule]["accuracy"] for rule in ("Median", "Krum")) > 0.7
    assert met["backdoor", "Mean"]["success"] > 0.9
    assert max(met["backdoor", rule]["success"] for rule in ("Median", "Krum")) < 0.5
    psnr = {row["sent"]: row for row in found["gradient_inversion"]}
    assert psnr["the gradient"]["psnr"] > 25 > psnr["the gradient"]["psnr_blind"] + 5
    assert psnr["clipped, noise 1"]["psnr"] < psnr["clipped, noise 1"]["psnr_blind"]
