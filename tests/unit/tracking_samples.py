"""A small run to be tracked: no framework, a few milliseconds a round, and a second session of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import koinon as kn
from koinon.core.events import RoundFinished, RunFinished, RunStarted
from koinon.report.tracking.sink import Sink, figures


def fit(track: Sequence[Sink], out: Path | None = None, rounds: int = 3, pace: float = 0.5) -> kn.Run:
    """Train a mean; ``pace`` changes who the run is, ``rounds`` does not."""

    def train(params, data, task):
        x = data[0]
        figures = {"loss": float(abs(x).mean()), "low": float(x.min()), "high": float(x.max())}
        return {"mean": (1 - pace) * params["mean"] + pace * x.mean(axis=0)}, len(x), figures

    draw = np.random.default_rng(0)
    clients = {name: (draw.normal(size=(20, 2)), np.zeros(20)) for name in ("paris", "lyon")}
    loop = kn.OwnLoop(params={"mean": np.zeros(2)}, train=train)
    return kn.fit(loop, clients, stop=kn.Stop(rounds=rounds), progress=False, out=out, track=track)


def logged(run: kn.Run) -> dict[str, list[tuple[int, float]]]:
    """Return what a tracker must hold of the run: each figure's rounds and values, in order."""
    out: dict[str, list[tuple[int, float]]] = {}
    for record in run.history:
        for name, value in figures(record).items():
            out.setdefault(name, []).append((record.round, value))
    return out


class Cut(Exception):
    """The session ends here, as if somebody had pressed Ctrl-C."""


def fit_cut_short(track: Sequence[Sink], out: Path, after: int) -> None:
    """Train as :func:`fit` does, until a round is committed that no tracker hears of; then the session ends."""

    class Cutting:
        """Stands where a tracker could, before the others."""

        def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
            """End the session at the round."""
            if isinstance(event, RoundFinished) and event.record.round == after:
                raise Cut

        def close(self) -> None:
            """Hold nothing."""

    try:
        fit([Cutting(), *track], out, rounds=100)  # type: ignore[list-item]
    except Cut:
        return
    raise AssertionError("the session was not cut short")
