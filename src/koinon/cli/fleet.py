"""``koinon serve``, ``join`` and what the operator calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koinon.app import App, Resolved, held_out, resolve, watching
from koinon.cli.app_file import AppFileError, change, load
from koinon.cli.exit_status import Exit
from koinon.cli.output import print_json, say
from koinon.core.events import Listener, RoundFinished, RunFinished, RunStarted
from koinon.data.dataset import FederatedDataset, federate
from koinon.engines.catalogue import engine as new_engine
from koinon.errors import CompositionError, ConfigurationError, FleetError
from koinon.fleet.coordinator.members import Members
from koinon.fleet.participant.connection import Connection, Reach
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.participant import Ended, Participation, participate
from koinon.fleet.service import log
from koinon.fleet.service.serving import OPERATOR_FILE, ServedApp, Settings, serve
from koinon.fleet.wire.link import JoinLink
from koinon.identity import agreement
from koinon.report.tracking.choose import sinks


@dataclass(frozen=True, kw_only=True)
class Place:
    """Whose data a participant trains on, and where it keeps what is its own."""

    name: str
    data: str | None
    folder: Path | None


def serve_apps(
    files: Sequence[Path], changes: Sequence[str], track: Sequence[str], settings: Settings, *,
    as_json: bool, log_json: bool,
) -> None:  # fmt: skip
    """Serve until every run is over; ends the process with Exit.DIVERGED or FAILED if a run did.

    With ``log_json`` standard error holds the log and nothing else: join links, which are secret, only go to
    standard output, and with ``as_json`` nowhere.
    """
    log.install(as_json=log_json)
    with ExitStack() as stack:
        watch = stack.enter_context(watching(not log_json and len(files) == 1))
        apps = [_served(path, changes, _tracked(watch, track, stack)) for path in files]
        if as_json and log_json:
            settings = replace(settings, invitations=0)
        status = serve(settings, apps, say if not as_json else _unsaid if log_json else _aside)
    runs = [{name: run[name] for name in ("name", "state", "stopped", "round", "digest")} for run in status["runs"]]
    if as_json:
        print_json({"runs": runs})
    else:
        for run in runs:
            say(f"{run['name']}: {run['state']} after {run['round']} rounds: {run['stopped']}")
            if run["digest"]:
                say(f"digest {run['digest']}")
    if any(str(run["stopped"]).startswith("diverged") for run in runs):
        sys.exit(Exit.DIVERGED)
    if any(run["state"] == "failed" for run in runs):
        sys.exit(Exit.FAILED)


def join_app(
    link: str,
    file: Path,
    changes: Sequence[str],
    place: Place,
    reach: Reach,
    *,
    floors: Floors,
    once: bool,
    run: str | None,
) -> None:
    """Take part until the run is over."""
    app, inner = _loaded(file, changes)
    data = _site(app, place)
    resolved = resolve(app, inner, data)
    part = Participation(
        training=resolved.program(),
        engine=new_engine(resolved.engine),
        agreement=_agreed(resolved),
        name=place.name,
        link=JoinLink.parse(link),
        floors=floors,
        reach=reach,
        run=run,
        once=once,
    )
    _tell(participate(part, place.folder or Path(f"koinon-{place.name}"), say))


def operate(folder: Path, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call a coordinator as its operator: the token lies in its folder."""
    file = folder / OPERATOR_FILE
    try:
        own = json.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read ({error.strerror}). Name the folder of a coordinator that is running, as its operator."
        ) from error
    authority = None if own["authority"] is None else Path(own["authority"]).read_text()
    connection = Connection(Reach(url=own["url"], authority=authority, patience=10.0), say)
    connection.renew = lambda: str(own["token"])
    try:
        return connection.call(method, path, body)
    finally:
        connection.close()


def agreed_app(file: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Return what a file's resolved app asks others to agree on."""
    app, inner = _loaded(file, changes)
    return _agreed(_without_data(app, inner))


def _served(file: Path, changes: Sequence[str], listen: Listener) -> ServedApp:
    app, inner = _loaded(file, changes)
    resolved = _without_data(app, inner)
    least = resolved.plan.algorithm.schedule.clients
    try:
        resolved.plan.algorithm.aggregator.values(resolved.plan.algorithm.sampler.largest(least))
    except (ConfigurationError, CompositionError) as error:
        raise ConfigurationError(
            f"A round opens when {least} clients are here (schedule.clients), and that is too few: {error} "
            "Set schedule=kn.Synchronous(clients=...) in the algorithm."
        ) from error
    return ServedApp(
        name=file.stem,
        agreement=_agreed(resolved),
        plan=resolved.plan,
        stop=resolved.stop,
        evaluation=resolved.evaluation,
        seed=resolved.seed,
        engine=resolved.engine,
        listen=listen,
        privacy=resolved.privacy,
        privacy_test_mode=resolved.privacy_test_mode,
    )


def _agreed(resolved: Resolved) -> dict[str, Any]:
    return agreement(
        resolved.plan,
        resolved.evaluation,
        resolved.seed,
        resolved.engine,
        resolved.stop,
        resolved.privacy,
        secret=not resolved.privacy_test_mode,
    )


def _loaded(file: Path, changes: Sequence[str]) -> Any:
    try:
        return change(load(file), changes)
    except AppFileError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(Exit.APP)


def _without_data(app: App, inner: Any) -> Resolved:
    """Return the app with every choice made where no data is: a Keras model is built from a made-up row."""
    data = Members() if app.example is None else federate({"example": app.example}, label=app.label, holdout=0.0)
    try:
        return resolve(app, inner, data)
    except FleetError as error:
        raise ConfigurationError(
            "A coordinator has no data, so it cannot see what an example looks like, and this model needs to know. Give "
            "the App one made-up row: example=(x, y), arrays with the shapes and types of a party's own."
        ) from error


def _site(app: App, place: Place) -> FederatedDataset:
    """Return one party's examples."""
    if place.data is not None:
        if app.data is None:
            raise ConfigurationError(
                "--data was given, but the App has no data=: a function that loads a party's examples from a path."
            )
        own = app.data(place.data)
    else:
        clients = app.clients() if callable(app.clients) else app.clients
        if not isinstance(clients, dict) or place.name not in clients:
            raise ConfigurationError(
                f"Say where the data is: --data PATH. (The App has no client {place.name!r} of its own.)"
            )
        own = clients[place.name]
        own = app.data(str(own)) if app.data is not None and isinstance(own, str | Path) else own
    model = app.model() if callable(app.model) and hasattr(app.model, "__code__") else app.model
    return federate({place.name: own}, label=app.label, holdout=held_out(app, model), seed=app.seed)


def _tell(ended: Ended) -> None:
    say(f"The run is {ended.state}: {ended.stopped}" if ended.state != "once" else f"Done: {ended.stopped}")
    if ended.digest:
        say(f"digest {ended.digest}")
    if ended.model is not None:
        say(f"The model is in {ended.model}")
    if ended.state in ("failed", "cancelled"):
        raise FleetError(f"The run was {ended.state} by the coordinator: {ended.stopped}.")


def _aside(line: str) -> None:
    sys.stderr.write(line + "\n")


def _unsaid(line: str) -> None:
    """Say nothing: the log has the address."""


def _tracked(watch: Listener, track: Sequence[str], stack: ExitStack) -> Listener:
    """Return a listener that tells one run to whoever watches and to trackers of its own, closed with the stack."""
    own = sinks(track)
    for sink in own:
        stack.callback(sink.close)

    def tell(event: RunStarted | RoundFinished | RunFinished) -> None:
        for listen in (watch, *own):
            listen(event)

    return tell
