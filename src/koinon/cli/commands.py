"""``koinon run``, ``check`` and ``report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from koinon import keys, tree
from koinon.app import Resolved, execute, resolve, watching
from koinon.channel.secure_sum import secure_sum_of
from koinon.cli.app_file import change, load
from koinon.cli.exit_status import Exit
from koinon.cli.output import print_json, say
from koinon.core.algorithm import Algorithm
from koinon.core.types import Purpose
from koinon.core.wire import Wire
from koinon.errors import UnsupportedError
from koinon.privacy.forecast import forecast
from koinon.privacy.hiding import hiding, simulated
from koinon.report.figures import number
from koinon.report.history import History
from koinon.report.summary import RunSummary, client_rows
from koinon.report.tracking.choose import sinks
from koinon.round.judges import left_out
from koinon.round.settle import room_bytes
from koinon.run import Run
from koinon.store.run_directory import RunDirectory
from koinon.tree import Tree

_UNCOUNTED = "no statement yet: it is counted when the run ends, from the ledger, which has every round that began"


def run_app(app_file: Path, out: Path | None, changes: Sequence[str], track: Sequence[str], *, as_json: bool) -> None:
    """Train and print the result; ends the process with Exit.DIVERGED if every client was refused."""
    trackers = sinks(track)
    resolved = resolved_app(app_file, changes)
    with watching(True) as listen:
        run = execute(resolved, listen=listen, out=out, track=trackers)
    if as_json:
        print_json(
            {
                "digest": run.digest,
                "rounds": run.rounds,
                "stopped": run.stopped,
                "seconds": run.seconds,
                "metrics": run.metrics,
                "out": None if out is None else str(out),
                **({} if run.privacy is None else {"privacy": run.privacy.to_json()}),
            }
        )
    else:
        _say_run(run, out)
    if run.stopped.startswith("diverged"):
        sys.exit(Exit.DIVERGED)


def check_app(app_file: Path, changes: Sequence[str], *, as_json: bool) -> None:
    """Print what travels, how much of it, and who sees it."""
    resolved = resolved_app(app_file, changes)
    facts = _facts(resolved)
    if as_json:
        print_json(facts)
        return
    width = max(len(step["step"]) for step in facts["wire"])
    say(f"{facts['algorithm']}: {facts['clients']:,} clients, at most {facts['largest_cohort']:,} a round")
    say(f"model: {facts['parameters']:,} numbers, {facts['down_bytes']:,} bytes to each client")
    say("channel:")
    for step in facts["wire"]:
        bound = "unbounded" if step["l2_bound"] is None else f"norm at most {step['l2_bound']:g}"
        sees = "the server sees the sum only" if step["opaque_by"] else "the server sees each update"
        say(f"  {step['step']:<{width}}  {step['bytes']:>12,} bytes  {step['domain']}, {bound}; {sees}")
    say(f"server memory for a round: {facts['server_bytes']:,} bytes")
    for line in (facts["privacy"], *facts["conditions"]):
        say(f"privacy: {line}")
    for line in facts["warnings"]:
        say(f"warning: {line}")


def report_run(folder: Path, *, as_json: bool) -> None:
    """Write the report of a kept run."""
    from koinon.report.page import write_page

    with RunDirectory.read_only(folder) as directory:
        about, saved = directory.about(), directory.load()
        uncounted = [_UNCOUNTED] if directory.private else []
    history = History(() if saved is None else saved.history)
    judged = {} if saved is None else saved.checkpoint.judged
    refused = history[-1].refused if len(history) else {}
    privacy = about.get("privacy") or {"lines": uncounted, "ledger": []}
    summary = RunSummary(
        title=f"{folder.name}: {about['identity']['algorithm']['name']}",
        history=history,
        stopped=about.get("stopped", "still running, or interrupted"),
        digest=about.get("digest", "none yet: the run has not ended"),
        seconds=history.seconds,
        settings=about.get("settings", {}),
        clients=client_rows(judged, refused),
        privacy=tuple(privacy["lines"]),
        ledger=tuple(map(tuple, privacy["ledger"])),
    )
    path = folder / "report.html"
    write_page(path, summary)
    if as_json:
        last = dict(history[-1].figures) if len(history) else {}
        print_json({"report": str(path), "rounds": len(history), "stopped": summary.stopped, "metrics": last})
    else:
        say(f"Wrote {path}: {len(history)} rounds. Open it in a browser; it needs no network.")


def resolved_app(app_file: Path, changes: Sequence[str]) -> Resolved:
    """Return the App of a file with its changes, every choice made. Raises AppFileError, KoinonError."""
    return resolve(*change(load(app_file), changes))


def _say_run(run: Run, out: Path | None) -> None:
    say(f"Stopped after {run.rounds} rounds ({run.seconds:.1f} s): {run.stopped}")
    width = max(map(len, run.metrics), default=0)
    for name, value in run.metrics.items():
        say(f"  {name:<{width}}  {number(value)}")
    for line in run.promises:
        say(f"privacy: {line}")
    say(f"digest {run.digest}")
    if out is not None:
        say(f"Kept in {out}. A page to look at: koinon report {out}")


def _facts(resolved: Resolved) -> dict[str, Any]:
    """Return what is known before anything runs."""
    plan = resolved.plan
    with_runtime = resolved.new_runtime()
    try:
        plan.algorithm.check(with_runtime.offers)
        variables = with_runtime.initial(plan, keys.fold(keys.root(resolved.seed), keys.Purpose.INITIAL.value))
    finally:
        with_runtime.close()
    claims, allowed = forecast(plan, resolved.stop.rounds, resolved.privacy, secret=not resolved.privacy_test_mode)
    broadcast = plan.algorithm.server.broadcast(plan.algorithm.server.init(variables))
    sizes = {name: int(leaf.size) for name, leaf in tree.items(broadcast)}  # an update has the same shape
    largest = plan.algorithm.sampler.largest(len(plan.data))
    payload, steps = 4 * sum(sizes.values()), []
    for place, (name, wire) in enumerate(plan.algorithm.wires()):
        if place:
            payload = plan.algorithm.channel[place - 1].payload_bytes(sizes, payload)
        if wire.opaque_by == name:
            payload = _masked_bytes(plan.algorithm, broadcast, largest) or payload
        steps.append({"step": name, "bytes": payload, **_wire(wire)})
    return {
        "algorithm": plan.algorithm.name,
        "clients": len(plan.data),
        "largest_cohort": largest,
        "parameters": tree.size({name: broadcast[name] for name in ("params", "state")}),
        "down_bytes": tree.size_bytes(broadcast),
        "wire": steps,
        "server_bytes": room_bytes(plan.algorithm.aggregator, largest, sum(sizes.values()))
        + tree.size_bytes(broadcast),
        "privacy": claims[0].sentence if claims else _privacy(plan.algorithm.wires()[-1][1]),
        "conditions": [line for claim in claims for line in claim.lines()][1:] + allowed + _hidden(plan.algorithm),
        "statements": [claim.to_json() for claim in claims],
        "warnings": list(
            filter(None, [left_out(plan.algorithm, plan.data, resolved.evaluation.clients), _missing(plan.algorithm)])
        ),
    }


def _masked_bytes(algorithm: Algorithm, broadcast: Tree, cohort: int) -> int | None:
    """Return what a masked update takes in a round of this cohort; None without a secure sum, or what it needs."""
    if secure_sum_of(algorithm) is None or not cohort:
        return None
    try:
        from koinon.round.masked import terms_of
    except ModuleNotFoundError:
        return None
    return terms_of(algorithm, "check", 1, Purpose.TRAIN, 0, value=broadcast, cohort=cohort).layout.body_bytes


def _hidden(algorithm: Algorithm) -> list[str]:
    step = hiding(algorithm)
    return [] if step is None else [*simulated(algorithm), f"between institutions: {step.protection(roster=False)}"]


def _missing(algorithm: Algorithm) -> str | None:
    """Return what a party on this machine lacks; a coordinator may not need it."""
    step = hiding(algorithm)
    try:
        if step is not None:
            step.require()
    except UnsupportedError as error:
        return f"nobody can take part from this machine: {error}"
    return None


def _wire(wire: Wire) -> dict[str, Any]:
    return {
        "domain": wire.domain.value,
        "l2_bound": wire.l2_bound,
        "additive": wire.additive,
        "opaque_by": wire.opaque_by,
        "noise_by": wire.noise_by,
        "stateful_by": wire.stateful_by,
    }


def _privacy(wire: Wire) -> str:
    sees = (
        f"the server sees only sums ({wire.opaque_by})" if wire.opaque_by else "the server sees every client's update"
    )
    noise = (
        f"no guarantee: nothing can account {wire.noise_by}"
        if wire.noise_by
        else "no differential privacy: no noise is added"
    )
    return f"{sees}; {noise}. Records stay with their clients; updates can still tell something about them."
