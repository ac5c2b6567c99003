"""``koinon demo``: four hospitals train a model of heart disease, each alone, all together, and all pooled."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from koinon.algorithms.fedavg import fedavg
from koinon.app import App, Resolved, evaluate, execute, of_clients, resolve, watching
from koinon.cli.output import print_json, say
from koinon.core.events import Listener
from koinon.core.execution import Runtime
from koinon.data.dataset import FederatedDataset
from koinon.data.heart import HOSPITALS, INPUTS, heart
from koinon.models.jax_logistic import logistic_regression
from koinon.report.page import write_page
from koinon.report.summary import (
    Comparison,
    ComparisonRow,
    DataSource,
    Judgement,
    Kind,
    RunSummary,
    Spread,
    client_rows,
)
from koinon.report.table import comparison_table, comparison_text
from koinon.round.stopping import Stop
from koinon.run import Run
from koinon.work.optimizers import sgd

Figures = Mapping[str, float]

STOP = Stop(rounds=200, patience=10, minimum_change=5e-4)
SOURCE = DataSource(
    name="Heart Disease, UCI Machine Learning Repository",
    authors="A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano, 1988",
    licence="CC BY 4.0",
    address="https://doi.org/10.24432/C52P4X",
    party="hospital",
)
NOTES = (
    (
        "740 patients: those whose age, sex, chest pain, blood pressure, cholesterol, blood sugar, resting ECG, heart "
        "rate and exercise test are all known. The model is a logistic regression of 13 inputs."
    ),
    "Every seed draws anew which third of each hospital's patients is held out for judging, and the first weights.",
    (
        "The inputs are standardised: for a model trained alone by that hospital's training patients, for the shared "
        "models by all, from three sums that each hospital sends instead of records (patients, inputs, squares)."
    ),
)


@dataclass(frozen=True)
class _Judged:
    """One trained model: how it does at each hospital that uses it, and on all hospitals' held-out patients."""

    run: Run
    own: Mapping[str, Figures]
    everyone: Figures


@dataclass(frozen=True)
class _Seed:
    """Everything trained with one seed."""

    alone: Mapping[str, _Judged]
    together: _Judged
    pooled: _Judged


def run_demo(out: Path, seeds: int, *, as_json: bool) -> None:
    """Train, print the table, write the page."""
    began = time.perf_counter()
    model, algorithm = logistic_regression(INPUTS), fedavg(sgd(0.1), batch_size=16)

    def app(seed: int, scaled_by: Sequence[str] = HOSPITALS) -> Resolved:
        clients = heart(seed=seed, scaled_by=scaled_by)
        return resolve(App(model=model, clients=clients, algorithm=algorithm, stop=STOP, seed=seed))

    with closing(app(0).new_runtime()) as runtime, watching(True) as listen:
        results = [_one_seed(partial(app, seed), runtime, listen) for seed in range(seeds)]
    comparison = _comparison(results, time.perf_counter() - began)
    report = out / "report.html"
    out.mkdir(parents=True, exist_ok=True)
    write_page(report, comparison)
    if as_json:
        print_json(_as_json(results, comparison, report))
        return
    _show(comparison)
    say(f"\nA page to look at, also without a network: {report}")


def _one_seed(app: Callable[[Sequence[str]], Resolved], runtime: Runtime, listen: Listener) -> _Seed:
    """Train alone with one's own scale of the inputs, together and pooled with the scale of all."""

    def judged(whole: Resolved, chosen: FederatedDataset, own: Sequence[str], name: str) -> _Judged:
        run = execute(of_clients(whole, chosen, f"{name}, seed {whole.seed}"), listen=listen, runtime=runtime)
        everywhere = evaluate(run, whole.data, runtime=runtime)
        everyone = evaluate(run, whole.data.pooled(), runtime=runtime)["pooled"]
        return _Judged(run, {name: everywhere[name] for name in own}, everyone)

    alone = {name: app([name]) for name in HOSPITALS}
    whole = app(HOSPITALS)
    return _Seed(
        {name: judged(own, own.data.subset([name]), [name], f"{name} alone") for name, own in alone.items()},
        judged(whole, whole.data, HOSPITALS, "together"),
        judged(whole, whole.data.pooled(), HOSPITALS, "pooled"),
    )


def _comparison(results: Sequence[_Seed], seconds: float) -> Comparison:
    rows = [
        *(_row(name, Kind.ALONE, [seed.alone[name] for seed in results]) for name in HOSPITALS),
        _row("together", Kind.TOGETHER, [seed.together for seed in results]),
        _row("pooled", Kind.POOLED, [seed.pooled for seed in results]),
    ]
    return Comparison(
        title="Four hospitals, one model of heart disease",
        rows=tuple(rows),
        seeds=tuple(seed.together.run.seed for seed in results),
        runs=tuple(_summary(seed.together.run) for seed in results),
        source=SOURCE,
        seconds=seconds,
        notes=NOTES,
    )


def _row(name: str, kind: Kind, every: Sequence[_Judged]) -> ComparisonRow:
    own = {party: _judgement([judged.own[party] for judged in every]) for party in every[0].own}
    return ComparisonRow(name=name, kind=kind, own=own, everyone=_judgement([judged.everyone for judged in every]))


def _judgement(figures: Sequence[Figures]) -> Judgement:
    return Judgement(
        accuracy=Spread(tuple(each["accuracy"] for each in figures)), auc=Spread(tuple(each["auc"] for each in figures))
    )


def _summary(run: Run) -> RunSummary:
    return RunSummary(
        title=f"together, seed {run.seed}",
        history=run.history,
        stopped=run.stopped,
        digest=run.digest,
        seconds=run.seconds,
        settings=run.settings,
        clients=client_rows(run.clients, {}),
    )


def _as_json(results: Sequence[_Seed], comparison: Comparison, report: Path) -> dict[str, Any]:
    """Return the result: the federated run of every seed, the first one in front.

    Accuracies are means over the seeds, on all hospitals' held-out patients.
    """
    accuracy = {row.name: row.everyone.accuracy.mean for row in comparison.rows}
    runs = [
        {"seed": run.seed, "digest": run.digest, "rounds": run.rounds, "stopped": run.stopped}
        for run in (seed.together.run for seed in results)
    ]
    return {
        **runs[0],
        "seconds": comparison.seconds,
        "runs": runs,
        "accuracy": {
            "alone": {name: accuracy[name] for name in HOSPITALS},
            "together": accuracy["together"],
            "pooled": accuracy["pooled"],
        },
        "report": str(report),
    }


def _show(comparison: Comparison) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(comparison_table(comparison))
    else:
        say(comparison_text(comparison))
