"""What it costs to start: ``python bench/startup.py [--rounds N]``.

Beside an empty interpreter, in turns: ``import koinon``, ``koinon --help``, and the first round of W1 with a cold
and with a warm cache of compiled programs (a new cache folder each time). Bytecode is compiled first. Prints one
JSON object of minima in seconds.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import koinon

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from koinon.cli.main import main; main()", "--help"]


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def first_round(cache: str) -> float:
    """Return the seconds of W1's first round in a new process, compilation included."""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, str(HERE / "simulation.py"), "W1", "--rounds", "5"]
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(json.loads(out.stdout)["first_round_seconds"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    compileall.compile_dir(Path(koinon.__file__).parent, quiet=1)
    ways = {
        "empty interpreter": [sys.executable, "-c", "pass"],
        "import koinon": [sys.executable, "-c", "import koinon"],
        "koinon --help": COMMAND,
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(chosen.rounds):
        for name, command in ways.items():
            best[name] = min(best[name], seconds(command, dict(os.environ)))
    with tempfile.TemporaryDirectory() as cache:
        best["first round of W1, cold"] = first_round(cache)
        best["first round of W1, warm"] = min(first_round(cache) for _ in range(2))
    print(json.dumps({**best, "load": os.getloadavg()[0]}, indent=2))


if __name__ == "__main__":
    main()
