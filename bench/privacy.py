"""What privacy costs: ``python bench/privacy.py channel|ledger|he|secure-sum --json``.

``channel``: a round of W1 (`simulation.py`) with Clip, GaussianNoise, secret draws and a ledger on disk, beside the same
round without, in turns; the minimum of all turns counts. ``ledger``: epsilon of 10,000 rounds by loss distributions and by
Renyi divergences, one synced entry, and the noise multiplier of an epsilon. ``he``: `encrypted_sum.py`;
``secure-sum``: `secure_sum.py`. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import workloads
from simulation import Rounds, interleaved

import koinon as kn
from koinon import privacy
from koinon.core.execution import Plan
from koinon.privacy.accountant import composed, composed_renyi
from koinon.privacy.ledger import Entry, Ledger, Scope
from koinon.privacy.mechanism import Adjacency, Event
from koinon.privacy.random_bits import PrivacyKeys
from koinon.privacy.releases import releases
from koinon.runtimes.local import Local


class PrivateRounds(Rounds):
    """The rounds of a private run, with a ledger in a folder."""

    def __init__(self, work: workloads.Workload, runtime: Local, folder: Path) -> None:
        super().__init__(work, runtime)
        plan = Plan(work.algorithm, self.model, work.data)
        plan.algorithm.check(runtime.offers)
        door = releases(plan, PrivacyKeys.fresh, None, folder / "ledger.jsonl")
        self._program = replace(self._program, releases=door)


def channel(rounds: int) -> dict[str, Any]:
    """Return the round with and without privacy, and with single parts of it."""
    work, runtime = workloads.workload("W1", None), Local("jax")

    def with_channel(*steps: Any) -> workloads.Workload:
        return replace(work, algorithm=replace(work.algorithm, channel=steps))

    with tempfile.TemporaryDirectory() as folder:
        turns: dict[str, Callable[[], None]] = {
            "plain": Rounds(work, runtime),
            "clip": Rounds(with_channel(kn.Clip(1.0)), runtime),
            "private": PrivateRounds(with_channel(kn.Clip(1.0), kn.GaussianNoise(1.1)), runtime, Path(folder)),
        }
        for turn in (*turns.values(), *turns.values()):
            turn()
        best, busy = interleaved(turns, rounds)
    return {
        "seconds_per_round": best,
        "ratio": best["private"] / best["plain"],
        "cpu_ratio": busy["private"] / busy["plain"],
        "clip_ratio": best["clip"] / best["plain"],
        "load": os.getloadavg()[0],
    }


def ledger(rounds: int) -> dict[str, Any]:
    """Return the seconds of counting, and of writing one entry down."""
    began = time.perf_counter()
    composed({Event(8.0, 0.5, Adjacency.ADD_OR_REMOVE): 1}, 1e-5)
    out: dict[str, Any] = {"import_seconds": time.perf_counter() - began}
    for multiplier in (1.0, 4.0):
        events = {Event(multiplier, 0.01, Adjacency.ADD_OR_REMOVE): 10_000}
        for name, count in (("loss", composed), ("renyi", composed_renyi)):
            seconds, found = _best(lambda count=count, events=events: count(events, 1e-5), 3)
            out[f"{name}, multiplier {multiplier:g}"] = {"seconds": seconds, "epsilon": found}
    out["noise_multiplier_seconds"], _ = _best(
        lambda: privacy.noise_multiplier(epsilon=2.0, sampling_rate=0.01, rounds=1000, delta=1e-5), 1
    )
    with tempfile.TemporaryDirectory() as folder:
        book = Ledger(Path(folder) / "ledger.jsonl", Scope("data", Adjacency.ADD_OR_REMOVE, "client"))
        event = Event(1.0, 0.01, Adjacency.ADD_OR_REMOVE)
        turns = iter(range(rounds))
        out["entry_seconds"], _ = _best(lambda: book.spend(Entry("run", next(turns), event), lambda _: None), rounds)
    return {**out, "load": os.getloadavg()[0]}


def he(clients: int, parameters: int, turns: int) -> dict[str, Any]:
    """Return what `encrypted_sum.py` finds; it needs ``koinon[he]``."""
    import encrypted_sum

    return encrypted_sum.measure(clients, parameters, turns)


def secure_sum(clients: int, dropped: float, parameters: int, bits: int, turns: int) -> dict[str, Any]:
    """Return what `secure_sum.py` finds."""
    import secure_sum

    return secure_sum.measure(clients, dropped, parameters, bits, turns)


def _best(call: Callable[[], Any], times: int) -> tuple[float, Any]:
    seconds, found = float("inf"), None
    for _ in range(times):
        began = time.perf_counter()
        found = call()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("channel", "ledger", "he", "secure-sum"))
    parser.add_argument("--rounds", type=int, default=15, help="turns each, at least 5")
    parser.add_argument("--clients", type=int, default=10, help="of one sum")
    parser.add_argument("--parameters", type=int, default=1_000_000, help="numbers of an update")
    parser.add_argument("--dropped", type=float, default=0.1, help="share of clients whose vector does not come")
    parser.add_argument("--bits", type=int, default=32, help="of the ring: 16, 32 or 64")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")
    chosen = parser.parse_args()
    measure: dict[str, Callable[[int], dict[str, Any]]] = {
        "channel": channel,
        "ledger": ledger,
        "he": lambda turns: he(chosen.clients, chosen.parameters, turns),
        "secure-sum": lambda turns: secure_sum(chosen.clients, chosen.dropped, chosen.parameters, chosen.bits, turns),
    }
    print(json.dumps(measure[chosen.what](max(5, chosen.rounds)), indent=2))


if __name__ == "__main__":
    main()
