"""``koinon serve``, ``join`` and what the operator calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koinon.app import App, Resolved, party, resolve, watching
from koinon.cli.app_file import change, load
from koinon.cli.exit_status import Exit
from koinon.cli.output import print_json, say
from koinon.core.algorithm import Algorithm
from koinon.core.events import Listener, RoundFinished, RunFinished, RunStarted
from koinon.data.dataset import federate
from koinon.engines.catalogue import engine as new_engine
from koinon.errors import CompositionError, ConfigurationError, FleetError
from koinon.fleet.coordinator.members import Members
from koinon.fleet.participant.connection import Connection, Reach, Unreachable
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.participant import Ended, Participation, participate
from koinon.fleet.service.settings import OPERATOR_FILE, ServedApp, Settings
from koinon.fleet.wire.link import JoinLink
from koinon.privacy.hiding import hiding, least_present
from koinon.report.tracking.choose import sinks
from koinon.round.hidden import check_drawn

_OPERATOR_SECONDS = 5.0  # for what is on the same machine


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
    from koinon.fleet.service import log  # with the server and the database, which no other command needs
    from koinon.fleet.service.serving import serve

    _refuse_equal_names(files)
    if log_json:
        log.install(as_json=True)
    with ExitStack() as stack:
        watch = stack.enter_context(watching(not log_json and len(files) == 1))
        apps = [_served(path, changes, _tracked(watch, track, stack)) for path in files]
        if not log_json:  # now: what an app file raises is shown as it is
            log.install(as_json=False, alone=len(apps) == 1)
        if as_json and log_json:
            settings = replace(settings, invitations=0)
        status = serve(settings, apps, say if not as_json else _unsaid if log_json else _aside)
    told = ("name", "state", "stopped", "round", "digest", "privacy")
    runs = [{name: run[name] for name in told} for run in status["runs"]]
    if as_json:
        print_json({"runs": runs})
    else:
        for run in runs:
            say(f"{run['name']}: {run['state']} after {run['round']} rounds: {run['stopped']}")
            for line in run["privacy"] or ():
                say(f"privacy: {line}")
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
    app, inner = change(load(file), changes)
    resolved = resolve(app, inner, party(app, place.name, place.data))
    _require(resolved.plan.algorithm)
    if place.data is None:  # what an app rehearses with may not be what a party means to train on
        say(f"Without --data it is the app's own examples of {place.name!r} that are trained on")
    part = Participation(
        training=resolved.program(),
        engine=new_engine(resolved.engine),
        agreement=resolved.agreement(),
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
        way = Reach(url=own["url"], shown=own["certificate"], patience=_OPERATOR_SECONDS)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{file} cannot be read ({error!r}). Name the folder of a coordinator, as the user who runs it; if it was started by "
            "another version of koinon, start it again."
        ) from error
    connection = Connection(way, _unsaid)
    connection.renew = lambda: str(own["token"])
    try:
        return connection.call(method, path, body)
    except Unreachable as error:
        raise FleetError(
            f"The coordinator of {folder} does not answer. If koinon serve is not running there, start its line again. {error}"
        ) from error
    finally:
        connection.close()


def agreed_app(file: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Return what a file's resolved app asks others to agree on. Raises UnsupportedError where its updates cannot be made."""
    resolved = _without_data(*change(load(file), changes))
    _require(resolved.plan.algorithm)
    return resolved.agreement()


def _require(algorithm: Algorithm) -> None:
    """Raise UnsupportedError now, and not in the first round, where nothing can hide an update here."""
    step = hiding(algorithm)
    if step is not None:
        step.require()


def _served(file: Path, changes: Sequence[str], listen: Listener) -> ServedApp:
    resolved = _without_data(*change(load(file), changes))
    algorithm = resolved.plan.algorithm
    least = least_present(algorithm)
    try:
        algorithm.aggregator.values(algorithm.sampler.largest(least))
    except (ConfigurationError, CompositionError) as error:
        raise ConfigurationError(
            f"A round opens when {least} clients are here (schedule.clients), and that is too few: {error} "
            "Set it: kn.replace(algorithm, schedule=kn.Synchronous(clients=...))."
        ) from error
    check_drawn(algorithm, least)
    return ServedApp(
        name=file.stem,
        agreement=resolved.agreement(),
        training=resolved.program(),
        engine=resolved.engine,
        listen=listen,
        privacy=resolved.privacy,
        privacy_test_mode=resolved.privacy_test_mode,
    )


def _refuse_equal_names(files: Sequence[Path]) -> None:
    names = [file.stem for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(
            f"Two of the apps are called {twice}. A run bears its file's name: rename one, or give each once."
        )


def _without_data(app: App, inner: Callable[[Algorithm], Algorithm]) -> Resolved:
    """Return the app with every choice made where no data is: a Keras model is built from a made-up row."""
    data = Members() if app.example is None else federate({"example": app.example}, label=app.label, holdout=0.0)
    try:
        return resolve(app, inner, data)
    except FleetError as error:
        raise ConfigurationError(
            "A coordinator has no data, so it cannot see what an example looks like, and this model needs to know. Give "
            "the App one made-up row: example=(x, y), arrays with the shapes and types of a party's own."
        ) from error


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
    """Say nothing."""


def _tracked(watch: Listener, track: Sequence[str], stack: ExitStack) -> Listener:
    """Return a listener that tells one run to whoever watches and to trackers of its own, closed with the stack."""
    own = sinks(track)
    for sink in own:
        stack.callback(sink.close)

    def tell(event: RunStarted | RoundFinished | RunFinished) -> None:
        for listen in (watch, *own):
            listen(event)

    return tell
