"""The face: an App says what is trained on whose data and how; ``fit`` runs one at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from koinon.aggregate.mean import Mean
from koinon.algorithms.fedavg import fedavg
from koinon.core.algorithm import Algorithm
from koinon.core.events import Checkpoint, Listener, RoundFinished, RunFinished, RunStarted
from koinon.core.execution import Plan, Runtime
from koinon.core.protocols import Dataset, Model
from koinon.core.types import Purpose
from koinon.data.dataset import FederatedDataset, federate
from koinon.data.loading import loaded
from koinon.errors import ConfigurationError
from koinon.identity import agreement, identity
from koinon.models.adapt import adapt
from koinon.models.own_loop import OwnLoop, OwnLoopModel
from koinon.privacy.budget import PrivacyBudget
from koinon.privacy.hiding import Hiding
from koinon.privacy.mechanism import Mechanism
from koinon.privacy.random_bits import PrivacyKeys
from koinon.privacy.releases import Releases, releases
from koinon.report.tracking.sink import Sink, new_run
from koinon.round.driver import Outcome, Surroundings, drive, resumed
from koinon.round.evaluation import client_figures
from koinon.round.judges import check_watched
from koinon.round.settle import ready
from koinon.round.stopping import Stop
from koinon.round.training import Evaluation, FederatedTraining
from koinon.run import Run
from koinon.runtimes.choose import runtime as new_runtime
from koinon.sample.samplers import All
from koinon.store.client_states import MemoryStates
from koinon.store.run_directory import LEDGER, RunDirectory


@dataclass(frozen=True, kw_only=True)
class App:
    """What is trained, on whose data, how, and until when.

    ``model``: a compiled Keras model, FunctionModel, OwnLoop or any Model. ``clients``: a FederatedDataset,
    ``{name: (x, y)}``, or ``{name: frame}`` with the column ``label``; of the latter two every client holds
    the share ``holdout`` out. ``test``: ``(x, y)`` that the server itself holds, if any. Each of the three may
    be a function of no arguments that returns it. ``data``: a function that loads one party's examples from a path
    or URL; ``clients`` is then ``{name: path}``, and ``koinon join --data PATH`` gives a party's own. ``example``:
    ``(x, y)`` of a made-up row or more, from which a coordinator that has no data builds a Keras model.
    ``algorithm=None`` is FedAvg of all clients with the model's own optimiser. ``engine=None`` is ``"jax"`` wherever the
    model can be compiled. ``privacy`` ends the run before its clients are charged more. ``privacy_test_mode`` makes the
    keys of noise and cohorts from the seed: the same bits every time, and no guarantee.
    """

    model: Any
    clients: Any = None
    data: Callable[[str], Any] | None = None
    example: Any = None
    algorithm: Algorithm | None = None
    test: Any = None
    stop: Stop = field(default_factory=Stop)
    evaluation: Evaluation = field(default_factory=Evaluation)
    label: str | None = None
    holdout: float = 0.2
    engine: str | None = None
    runtime: str = "local"
    workers: int | None = None
    seed: int = 0
    privacy: PrivacyBudget | None = None
    privacy_test_mode: bool = False


@dataclass(frozen=True)
class Resolved:
    """An App with every choice made: what is checked, identified and run."""

    plan: Plan
    stop: Stop
    evaluation: Evaluation
    engine: str
    runtime: str
    workers: int | None
    seed: int
    privacy: PrivacyBudget | None = None
    privacy_test_mode: bool = False

    @property
    def data(self) -> FederatedDataset:
        """The clients."""
        data = self.plan.data
        assert isinstance(data, FederatedDataset), "resolve() makes nothing else"
        return data

    def program(self) -> FederatedTraining:
        """Return the loop."""
        return FederatedTraining(self.plan, self.stop, self.evaluation, self.seed)

    def agreement(self) -> dict[str, Any]:
        """Return what all parties of a fleet must have, too."""
        own = (self.plan, self.evaluation, self.seed, self.engine, self.stop, self.privacy)
        return agreement(*own, secret=not self.privacy_test_mode)

    def new_runtime(self) -> Runtime:
        """Return where it runs, to be closed by the caller."""
        return new_runtime(self.runtime, engine=self.engine, workers=self.workers, model=self.plan.model)


def resolve(app: App, change: Callable[[Algorithm], Algorithm] | None = None, data: Dataset | None = None) -> Resolved:
    """Make every choice an App leaves open, and check that its parts fit.

    ``change`` is applied to the algorithm before it is checked. ``data`` takes the place of the App's clients where
    only some of them are here. Raises a KoinonError that says what does not fit.
    """
    given = _made(app.model)
    everybody = data is None
    if data is None:
        data = federate(_clients(app), label=app.label, holdout=_held_out(app, given), seed=app.seed)
    test = _test_data(_made(app.test))
    model = adapt(given, data)
    algorithm = app.algorithm or fedavg(_optimizer(model))
    if change is not None:
        algorithm = change(algorithm)
    if isinstance(model, OwnLoopModel):
        algorithm = model.fitted(algorithm)
    if everybody:
        ready(algorithm, data.names)
        check_watched(algorithm, data, app.evaluation.clients, app.stop)
    for examples in filter(None, (data, test)):
        model.check(examples)
    engine = app.engine or ("jax" if model.compiled else "reference")
    plan = Plan(algorithm, model, data, test)
    run = (engine, app.runtime, app.workers, app.seed, app.privacy, app.privacy_test_mode)
    return Resolved(plan, app.stop, app.evaluation, *run)


def party(app: App, name: str, place: str | None) -> FederatedDataset:
    """Return one party's examples: those at a place, or those that the App has under its name.

    Raises ConfigurationError if there are none.
    """
    if place is not None and app.data is None:
        raise ConfigurationError(
            f"The App has no data= to load {place!r} with: a function from a path to a party's examples. Give it one, or "
            "leave --data out if the App has clients of its own."
        )
    clients = _made(app.clients) if place is None else {name: place}
    if isinstance(clients, FederatedDataset) and name in clients.names:
        return clients.subset([name])
    known = list(clients) if isinstance(clients, Mapping) else []
    if name not in known:
        raise ConfigurationError(
            f"Say where the data is: --data PATH. (The App has no client {name!r} of its own, but "
            f"{', '.join(map(str, known[:8])) or 'none'}: --name says which one this is.)"
        )
    own = loaded(app.data, name, clients[name])
    return federate({name: own}, label=app.label, holdout=_held_out(app, _made(app.model)), seed=app.seed)


def execute(
    resolved: Resolved,
    *,
    listen: Listener,
    out: Path | None = None,
    runtime: Runtime | None = None,
    track: Sequence[Sink] = (),
) -> Run:
    """Run to the end, from the start or from the last round committed in ``out``."""
    program, states = resolved.program(), MemoryStates()
    with ExitStack() as stack:
        directory, past, own = None, None, {}
        if out is not None or track:
            own = identity(resolved.plan, resolved.evaluation, resolved.seed, resolved.engine)
        if out is not None:
            directory = stack.enter_context(RunDirectory.open(out, own))
            past = _past(directory, resolved.stop, states)
        for sink in track:
            stack.callback(sink.close)
        if track:
            started = partial(replace, run=_run(directory), identity=own, past=() if past is None else past.history)
            listen = _both(listen, track, started)
        if runtime is None:
            runtime = resolved.new_runtime()
            stack.callback(runtime.close)
        program = replace(program, releases=_releases(resolved, runtime, directory))
        around = Surroundings(runtime, directory or _Unkept(), states, listen, time.perf_counter)
        run = Run(resolved.plan, drive(program, around, past), resolved.seed, resolved.engine, program.releases)
        if directory is not None:
            privacy = {"lines": run.promises, "ledger": run.charged} if run.promises else None
            directory.describe(stopped=run.stopped, digest=run.digest, settings=run.settings, privacy=privacy)
    return run


class Fields(TypedDict, total=False):
    """The fields of an App that ``fit``, ``alone`` and ``pooled`` take by name."""

    test: Any
    stop: Stop
    evaluation: Evaluation
    label: str | None
    holdout: float
    engine: str | None
    runtime: str
    workers: int | None
    seed: int
    privacy: PrivacyBudget | None
    privacy_test_mode: bool


def fit(
    model: Any,
    clients: Any,
    algorithm: Algorithm | None = None,
    *,
    out: str | Path | None = None,
    progress: bool | Listener = True,
    track: Sequence[Sink] = (),
    **fields: Unpack[Fields],
) -> Run:
    """Train ``model`` on ``clients`` together.

    ``fields`` are those of :class:`App`. With ``out``, every round is kept in that folder, and the same call
    after a crash goes on from the last one. ``progress=False`` is silent; a function gets every event.
    ``track`` takes trackers: ``[kn.TensorBoard("runs")]``.

    >>> run = fit(model, {"paris": (x1, y1), "lyon": (x2, y2)})  # doctest: +SKIP
    """
    resolved = resolve(App(model=model, clients=clients, algorithm=algorithm, **fields))
    with watching(progress) as listen:
        return execute(resolved, listen=listen, out=None if out is None else Path(out), track=track)


def alone(
    model: Any,
    clients: Any,
    algorithm: Algorithm | None = None,
    *,
    progress: bool | Listener = False,
    track: Sequence[Sink] = (),
    **fields: Unpack[Fields],
) -> dict[str, Run]:
    """Train a model at each client on its own data only: the baseline that federation must beat.

    The fields are those of :class:`App`. Returns every client's run, by name.
    """
    whole = resolve(App(model=model, clients=clients, algorithm=algorithm, **fields))
    each = {name: of_clients(whole, whole.data.subset([name]), f"{name} alone") for name in whole.data.names}
    with closing(whole.new_runtime()) as runtime, watching(progress) as listen:
        return {name: execute(own, listen=listen, runtime=runtime, track=track) for name, own in each.items()}


def pooled(
    model: Any,
    clients: Any,
    algorithm: Algorithm | None = None,
    *,
    progress: bool | Listener = False,
    track: Sequence[Sink] = (),
    **fields: Unpack[Fields],
) -> Run:
    """Train one model on everybody's examples in one place: the upper bound that nobody may have.

    The fields are those of :class:`App`.
    """
    whole = resolve(App(model=model, clients=clients, algorithm=algorithm, **fields))
    with watching(progress) as listen:
        return execute(of_clients(whole, whole.data.pooled(), "pooled"), listen=listen, track=track)


def evaluate(
    run: Run, clients: Any, *, label: str | None = None, runtime: Runtime | None = None
) -> dict[str, dict[str, float]]:
    """Return each client's figures under the final model of ``run``, by name.

    ``clients`` is what :func:`fit` takes. A client that holds examples out is judged on these, one of a plain
    dict on all it gives. ``runtime`` is one that is already open, else a new one is used.
    """
    data = federate(clients, label=label, holdout=0.0)
    plan = replace(run.plan, data=data, test=data)
    purpose = Purpose.EVALUATE if data.has_held_out else Purpose.TEST
    program = FederatedTraining(plan, Stop(), Evaluation(clients=None), run.seed)
    state = replace(run.outcome.state, phase=purpose)
    with ExitStack() as stack:
        if runtime is None:
            runtime = new_runtime("local", engine=run.engine, workers=None, model=plan.model)
            stack.callback(runtime.close)
        rows = runtime.round(plan, program.judge(state), {}).rows
    return {data.names[i]: own for i, own in client_figures(plan.model, rows).items()}


def of_clients(whole: Resolved, data: FederatedDataset, name: str) -> Resolved:
    """Return the same training of other clients, all of them in every round, under another name.

    What one party trains alone, or nobody could train, is not sent to anybody: no step adds noise or hides.
    """
    channel = tuple(step for step in whole.plan.algorithm.channel if not isinstance(step, Mechanism | Hiding))
    algorithm = replace(whole.plan.algorithm, aggregator=Mean(), sampler=All(), name=name, channel=channel)
    return replace(whole, plan=replace(whole.plan, algorithm=algorithm, data=data), privacy=None)


@contextmanager
def watching(progress: bool | Listener) -> Iterator[Listener]:
    """Give whoever watches a run: True is a live line on a terminal and plain lines elsewhere, False is nobody."""
    if callable(progress):
        yield progress
        return
    from koinon.report.progress import Silent, choose_progress

    with closing(choose_progress() if progress else Silent()) as listen:
        yield listen


def _made(value: Any) -> Any:
    """Return the value, or what a function of no arguments makes of it. (A Keras model is callable too.)"""
    return value() if callable(value) and hasattr(value, "__code__") else value


def _clients(app: App) -> Any:
    """Return the clients with their examples, loaded if only their places are given."""
    clients = _made(app.clients)
    if clients is None:
        raise ConfigurationError(
            "The App has no clients to simulate. Give it clients={name: (x, y)}, or {name: path} with data=."
        )
    if not isinstance(clients, Mapping):
        return clients
    return {name: loaded(app.data, name, own) for name, own in clients.items()}


def _held_out(app: App, model: Any) -> float:
    """Return the share that every client holds out: nothing where nothing can judge it."""
    return 0.0 if isinstance(model, OwnLoop) and model.evaluate is None else app.holdout


def _test_data(test: Any) -> FederatedDataset | None:
    known = test is None or isinstance(test, FederatedDataset)
    return test if known else federate({"server": test}, holdout=0.0)


def _optimizer(model: Model) -> Any:
    """Return the optimiser a model was compiled with, if it has one."""
    own: Callable[[], Any] | None = getattr(model, "optimizer", None)
    return None if own is None else own()


def _past(directory: RunDirectory, stop: Stop, states: MemoryStates) -> Outcome | None:
    """Return where the directory's run stands, and load its clients' states."""
    saved = directory.load()
    if saved is None:
        return None
    for client, state in directory.client_states():
        states.put(client, state)
    return resumed(saved.checkpoint, saved.history, stop)


def _releases(resolved: Resolved, runtime: Runtime, directory: RunDirectory | None) -> Releases | None:
    """Return the run's private releases, with keys that a run that is kept goes on with."""
    plan = resolved.plan
    plan.algorithm.check(runtime.offers)

    def keys() -> PrivacyKeys:
        new = PrivacyKeys.of_test(resolved.seed) if resolved.privacy_test_mode else PrivacyKeys.fresh()
        return new if directory is None else PrivacyKeys.from_bytes(directory.secret("privacy keys", new.to_bytes))

    return releases(plan, keys, resolved.privacy, None if directory is None else directory.folder / LEDGER)


def _run(directory: RunDirectory | None) -> str:
    """Return what a tracker knows the run by: kept with a run that is kept."""
    if directory is None:
        return new_run()
    if (known := directory.about().get("run")) is None:
        directory.describe(run=(known := new_run()))
    return str(known)


def _both(listen: Listener, track: Sequence[Sink], started: Callable[[RunStarted], RunStarted]) -> Listener:
    """Return a listener that tells ``listen``, and the trackers with what ``started`` adds."""

    def tell(event: RunStarted | RoundFinished | RunFinished) -> None:
        listen(event)
        for sink in track:
            sink(started(event) if isinstance(event, RunStarted) else event)

    return tell


class _Unkept:
    """The journal of a run that nobody asked to keep."""

    def commit(self, checkpoint: Checkpoint) -> None:
        """Keep nothing."""
