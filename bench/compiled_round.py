"""How near to the bare wire a compiled program can bring a round with koinon's guarantees.

``python bench/compiled_round.py --mb 100 [--tls] [--json]`` compiles ``compiled_round.c``, which says what it does and
leaves out, and prints ``raw_seconds`` (two clients' models and updates over plain sockets, or TLS 1.3, as
``bench/fleet.py`` measures it) and for each variant of the program ``seconds`` a round, their ``ratio`` to raw, and
``core_seconds`` of its three processes a round. A variant says how digests are made (OpenSSL's SHA-256, or ``pair``: two
at once by the processor's SHA instructions), what names the model and the total (``flat``: SHA-256; ``tree``: SHA-256 of
the SHA-256 of pieces of 4 MiB), and when the next model is made (``strict``: when all updates are in; ``eager``: piece
by piece, as they come). All take turns, and the least of all turns counts. Each run is checked: the program does its
arithmetic again, and here its files, sum and names are compared with ``koinon.exact`` and ``hashlib``.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fleet
from koinon import exact

SOURCE = Path(__file__).with_name("compiled_round.c")
CLIENTS = 2  # as in the source
VARIANTS = (  # OpenSSL with a tree is not among them: one digest after the other takes as long as a flat name
    ("openssl", "flat", "strict"),
    ("openssl", "flat", "eager"),
    ("pair", "flat", "strict"),
    ("pair", "flat", "eager"),
    ("pair", "tree", "strict"),
    ("pair", "tree", "eager"),
)
ODD = (
    7_194_324,
    7_194_364,
)  # bytes: an odd end beside a whole piece; it leaves its last block room for the length, or none


def build(folder: Path) -> Path:
    """Compile the program; SystemExit says what is missing."""
    if platform.machine() != "x86_64" or "sha_ni" not in Path("/proc/cpuinfo").read_text().split():
        raise SystemExit(
            "two digests at once need a processor with SHA-NI (x86-64), which this one has not: use another"
        )
    if not shutil.which("cc"):
        raise SystemExit(
            "no C compiler is found as `cc`: install one, on Debian and Ubuntu with `apt install gcc libc6-dev`"
        )
    options = ["-Wall", "-Wextra", "-O3", "-march=native", "-pthread"]
    header = subprocess.run(
        ["cc", "-E", "-x", "c", "-"], input="#include <openssl/ssl.h>", capture_output=True, text=True, check=False
    )
    if header.returncode:
        raise SystemExit("OpenSSL's headers are missing: on Debian and Ubuntu `apt install libssl-dev`")
    program = folder / "compiled_round"
    done = subprocess.run(
        ["cc", *options, str(SOURCE), "-o", str(program), "-lssl", "-lcrypto", "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{SOURCE.name} does not compile here:\n{done.stderr}")
    return program


def run(
    program: Path, folder: Path, size: int, rounds: int, tls: bool, variant: tuple[str, str, str]
) -> dict[str, Any]:
    """Run a variant, and check what it says against its files; ``size`` is a model's in bytes."""
    line = [str(program), str(size), str(rounds), str(folder), "tls" if tls else "clear", *variant]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    total = np.zeros(size // 4, np.int64)
    for client in range(CLIENTS):
        exact.accumulate(total, np.fromfile(folder / f"update-{client}", np.float32), 1)
    contents = {"model": (folder / "model").read_bytes(), "total": total.tobytes()}
    for content, value in contents.items():
        if (expected := name(value, variant[1])) != found[content]:
            raise SystemExit(f"{'-'.join(variant)} names the {content} {found[content]}; hashlib says {expected}")
    for file in ("model", *(f"update-{client}" for client in range(CLIENTS))):
        (folder / file).unlink()
    return found


def name(content: bytes, kind: str) -> str:
    """Return what names a content, in hex."""
    if kind == "flat":
        return hashlib.sha256(content).hexdigest()
    pieces = (content[start : start + fleet.CHUNK] for start in range(0, len(content), fleet.CHUNK))
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the module says."""
    size = int(options.mb * 1e6) // 4 * 4
    raw: list[float] = []
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        program = build(folder)
        if options.tls:
            from koinon.fleet.wire.certificates import own_certificate

            own_certificate(folder, ["127.0.0.1"])
        for size_of_check, variant in itertools.product(ODD, VARIANTS):
            run(program, folder, size_of_check, 2, options.tls, variant)
        wire = argparse.Namespace(mb=options.mb, clients=CLIENTS, rounds=options.rounds, tls=options.tls)
        for _ in range(options.turns):
            raw.append(fleet.raw(wire)[0])
            for variant in VARIANTS:
                found[variant].append(run(program, folder, size, options.rounds, options.tls, variant))
        raw.append(fleet.raw(wire)[0])
    result: dict[str, Any] = {"raw_seconds": min(raw), "variants": {}}
    for variant, runs in found.items():
        seconds = min(statistics.median(one["seconds"]) for one in runs)
        result["variants"]["-".join(variant)] = {
            "seconds": seconds,
            "ratio": seconds / min(raw),
            "core_seconds": min(one["core_seconds"] for one in runs),
        }
    return result | {"clients": CLIENTS, "mb": options.mb, "tls": options.tls, "load": os.getloadavg()[0]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=100)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of a run, of which the median counts")
    parser.add_argument("--turns", type=int, default=2, help="runs of each variant, of which the least counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found))
        return
    for variant, figures in found.pop("variants").items():
        print(f"{variant}: " + ", ".join(f"{figure} {value:.3g}" for figure, value in figures.items()))
    print("\n".join(f"{figure}: {value}" for figure, value in found.items()))


if __name__ == "__main__":
    main()
