"""The coordinator's process: store, runs, drivers and the HTTP service, from start to a clean end."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from starlette.applications import Starlette

from koinon.core.events import Listener, RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.core.execution import Plan
from koinon.errors import FleetError, StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.chain import ReceiptChain
from koinon.fleet.coordinator.driver import Driven, Driver
from koinon.fleet.coordinator.mailbox import Mailbox
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.service import client_calls, log, metrics_page, operator_calls, page_calls, probe, uvicorn_server
from koinon.fleet.service.charged import Charged
from koinon.fleet.service.house import House, ServedRun, application
from koinon.fleet.service.log import LoggedAccess, LoggedLedger, LoggedRun
from koinon.fleet.service.status import Histories, status
from koinon.fleet.service.strangers import Strangers
from koinon.fleet.service.uvicorn_server import Listener as Address
from koinon.fleet.service.waiting import Waiting
from koinon.fleet.wire.certificates import ServerCertificate, own_certificate
from koinon.fleet.wire.codecs import codec_of
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.offer import Offer, OfferedRun
from koinon.fleet.wire.receipts import Opening, canonical
from koinon.fleet.wire.signatures import OwnKey, digest, kept_secret, write_secret
from koinon.privacy.budget import PrivacyBudget
from koinon.privacy.random_bits import PrivacyKeys
from koinon.privacy.releases import Releases, releases
from koinon.round.stopping import Stop
from koinon.round.training import Evaluation, FederatedTraining
from koinon.store.run_directory import LEDGER, difference, short

CHUNK_BYTES = 4 << 20
OPERATOR_FILE = "admin.json"
_PRIVACY_KEYS = "privacy.keys"
_INVITATION_HOURS = 24.0 * 7
_GRACE_SECONDS = 30.0  # how long clients have to hear that a run is over
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class ServedApp:
    """An app to serve, with every choice made."""

    name: str
    agreement: Mapping[str, Any]  # what every party must have, too
    plan: Plan  # with whatever data; the run's members take its place
    stop: Stop
    evaluation: Evaluation
    seed: int
    engine: str
    listen: Listener
    privacy: PrivacyBudget | None = None
    privacy_test_mode: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a coordinator serves."""

    folder: Path
    version: str
    host: str = "127.0.0.1"
    port: int = 8443
    url: str | None = None  # as participants reach it; None: from host and port
    database: str | None = None
    blobs: str | None = None  # URL of fsspec where finished models are copied to
    plain_http: bool = False
    certificate: tuple[Path, Path] | None = None  # the user's own, with its key
    client_authority: Path | None = None  # mTLS: who signs the clients' certificates
    client_listen: tuple[str, int] | None = None  # where they are asked for; None: everywhere
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()  # addresses whose word on who calls is taken: X-Forwarded-For
    invitations: int = 1
    stay: bool = False
    chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True)
class Coordinator:
    """What runs in a coordinator's process."""

    settings: Settings
    house: House
    histories: Histories
    drivers: tuple[Driver, ...]
    certificate: ServerCertificate | None
    began: float = field(default_factory=time.monotonic)

    def status(self) -> dict[str, Any]:
        """Return what the operator is shown."""
        return status(self.house, self.histories, self.began)

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint that join links carry."""
        return None if self.certificate is None else self.certificate.fingerprint

    def asgi(self) -> Starlette:
        """Return the application."""
        routes = [
            *client_calls.routes(self.house),
            *operator_calls.routes(self.house, self.fingerprint, self.status),
            *probe.routes(self.house.admitted, self.offer),
            *metrics_page.routes(self.house, self.status),
            *page_calls.routes(),
        ]
        return application(self.house, routes, self.settings.origins)

    async def until_over(self) -> None:
        """Return when every run is over and its clients have what they want of it."""
        self.house.waiting.begin()
        while any(driver.is_alive() for driver in self.drivers) or self.settings.stay:
            await asyncio.sleep(_LOOK_SECONDS)
        ends = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < ends and not all(served.run.all_told for served in self.house.runs.values()):
            await asyncio.sleep(_LOOK_SECONDS)

    def offer(self) -> Offer:
        """Return what an invited party is told."""
        return Offer(client_calls.PROTOCOL, self.status()["version"], tuple(map(_offered, self.house.runs.values())))


def serve(settings: Settings, apps: Sequence[ServedApp], say: Callable[[str], None]) -> dict[str, Any]:
    """Serve until every run is over (for ever with ``stay``); return the last status.

    ``say`` is told the address and the join links. Raises StoreError, FleetError.
    """
    with ExitStack() as undo:
        store = undo.enter_context(FleetStore.open(settings.folder, settings.database))
        bound = undo.enter_context(_socket(settings.host, settings.port))
        coordinator = _coordinator(settings, store, apps, bound.getsockname()[1])
        for mirror in (served.run.ledger.mirror for served in coordinator.house.runs.values()):
            if mirror is not None:
                undo.callback(mirror.close)
        undo.callback(lambda: log.tell(log.Stopped(time.monotonic() - coordinator.began)))
        _announce(coordinator, say)
        for driver in coordinator.drivers:
            driver.start()
        listeners = [Address(bound, coordinator.certificate, settings.client_authority)]
        if settings.client_listen is not None:
            elsewhere = undo.enter_context(_socket(*settings.client_listen))
            listeners = [Address(bound, coordinator.certificate), replace(listeners[0], bound=elsewhere)]
        uvicorn_server.serve(coordinator.asgi(), listeners, coordinator.until_over, settings.proxies)
        return coordinator.status()


@dataclass(frozen=True)
class _Parts:
    store: FleetStore
    access: LoggedAccess
    key: OwnKey
    spool: Spool
    histories: Histories


def _coordinator(settings: Settings, store: FleetStore, apps: Sequence[ServedApp], port: int) -> Coordinator:
    url = settings.url or f"{'http' if settings.plain_http else 'https'}://{_named(settings.host)}:{port}"
    certificate = _certificate(settings, url)
    key = OwnKey.at(settings.folder / "coordinator.key")
    access, waiting = LoggedAccess(store, time.monotonic), Waiting()
    parts = _Parts(store, access, key, Spool(settings.folder / "spool"), Histories())
    drivers, runs = [], {}
    for app in apps:
        served, driver = _run(app, settings, parts)
        runs[served.run.key] = served
        drivers.append(driver)
        served.run.on_change(_waker(waiting, served.run.key))
    house = House(
        url=url,
        version=settings.version,
        access=access,
        mailbox=Mailbox(store),
        runs=runs,
        key=key,
        authority=None if certificate is None else certificate.authority,
        operator=_operator(settings.folder, url, certificate),
        waiting=waiting,
        strangers=Strangers(time.monotonic),
        clock=time.monotonic,
    )
    return Coordinator(settings, house, parts.histories, tuple(drivers), certificate)


def _run(app: ServedApp, settings: Settings, parts: _Parts) -> tuple[ServedRun, Driver]:
    key, hashed = _run_key(parts.store, app)
    ledger = LoggedLedger(parts.store, key, settings.blobs)
    run = LoggedRun(app.name, key, app.plan.algorithm.schedule, ledger, parts.spool, time.monotonic)
    if ledger.mirror is not None:
        ledger.mirror.on_trouble(run.trouble.note)
    found = ledger.load()
    past = () if found is None else found[0].history
    parts.histories.add(key, *past)
    plan = replace(app.plan, data=run.members)
    door = _releases(app, plan, ledger.folder)
    training = FederatedTraining(plan, app.stop, app.evaluation, app.seed, door)
    opening = Opening(key, hashed, parts.key.public)
    keys = parts.access.keys()
    recorder = _Recorder(key, app, parts.histories, past)
    driven = Driven(
        run, training, app.engine, lambda: ReceiptChain(opening, parts.key, ledger, run.members, keys), recorder
    )
    served = ServedRun(
        run=run,
        name=app.name,
        app=hashed,
        description=app.agreement,
        algorithm=app.plan.algorithm.name,
        rounds=app.stop.rounds,
        chunk_bytes=settings.chunk_bytes,
        codec=codec_of(app.plan.algorithm.wires()[-1][1]),
        charged=None if door is None else Charged(door, run.members.__len__),
    )
    return served, Driver(driven)


def _releases(app: ServedApp, plan: Plan, folder: Path) -> Releases | None:
    """Return the run's private releases: their keys and, if the budget names none, their ledger are in its folder."""

    def keys() -> PrivacyKeys:
        new = PrivacyKeys.of_test(app.seed) if app.privacy_test_mode else PrivacyKeys.fresh()
        return PrivacyKeys.from_bytes(kept_secret(folder / _PRIVACY_KEYS, new.to_bytes))

    return releases(plan, keys, app.privacy, folder / LEDGER)


def _run_key(store: FleetStore, app: ServedApp) -> tuple[str, str]:
    """Return the run of an app's name, made if there is none, and the hash of its agreement."""
    text = canonical(app.agreement)
    with store.transaction() as rows:
        row = rows.execute(sa.select(tables.runs).where(tables.runs.c.name == app.name)).first()
        if row is None:
            key = f"r-{secrets.token_hex(8)}"
            rows.execute(sa.insert(tables.runs).values(run=key, name=app.name, identity=text, ended=None, paused=False))
            return key, digest(text.encode())
    different = difference(json.loads(row.identity), app.agreement)
    if different is not None:
        where, found, asked = different
        raise StoreError(
            f"{store.folder} holds a run {app.name!r} with another {where}: it has {short(found)}, and this app has "
            f"{short(asked)}. Go back to what the run was made with, or rename the app's file: a run bears its name."
        )
    return row.run, digest(text.encode())


class _Recorder:
    """Keeps every finished round for the status, logs it, and passes events on with what trackers want to know."""

    def __init__(self, run: str, app: ServedApp, histories: Histories, past: Sequence[RoundRecord]) -> None:
        self._run, self._app, self._histories = run, app, histories
        self._past = list(past)

    def __call__(self, event: RunStarted | RoundFinished | RunFinished) -> None:
        if isinstance(event, RoundFinished):
            record = replace(event.record, rows=None)
            self._histories.add(self._run, record)
            self._past.append(record)
            log.tell(log.Finished.of(self._run, record))
        elif isinstance(event, RunStarted):
            past = tuple(record for record in self._past if record.round <= event.resumed_from)
            event = replace(event, run=self._run, identity=self._app.agreement, past=past)
        self._app.listen(event)


def _waker(waiting: Waiting, run: str) -> Callable[[Sequence[str]], None]:
    return lambda clients: waiting.wake([operator_calls.EVENTS, *((run, client) for client in clients)])


def _certificate(settings: Settings, url: str) -> ServerCertificate | None:
    if settings.plain_http:
        return None
    if settings.certificate is not None:
        return ServerCertificate(*settings.certificate, authority=None)
    host = urlsplit(url).hostname or "localhost"
    hosts = dict.fromkeys(["localhost", "127.0.0.1", socket.gethostname(), host])
    return own_certificate(settings.folder, list(hosts))


def _operator(folder: Path, url: str, certificate: ServerCertificate | None) -> str:
    """Write where and how the operator calls, for the commands on this machine; return the token's digest."""
    path = folder / OPERATOR_FILE
    token = json.loads(path.read_text())["token"] if path.exists() else secrets.token_urlsafe(32)
    authority = None if certificate is None or certificate.authority is None else str(certificate.authority)
    write_secret(path, json.dumps({"url": url, "token": token, "authority": authority}, indent=1).encode())
    return digest(token.encode())


def _announce(coordinator: Coordinator, say: Callable[[str], None]) -> None:
    """Print the address, and on the first start the join links."""
    house, settings = coordinator.house, coordinator.settings
    log.tell(log.Started(house.url, house.version, {key: served.name for key, served in house.runs.items()}))
    say(f"Serving {', '.join(served.name for served in house.runs.values())} at {house.url} from {settings.folder}")
    if not house.access.clients() and not house.access.invitations_open():
        for _ in range(settings.invitations):
            link = JoinLink(house.url, house.access.invite(None, _INVITATION_HOURS), coordinator.fingerprint)
            say(f"One party may join, once, within a week, with: koinon join '{link}' APP_FILE --data PATH")
    say(
        f"More links: koinon invite {settings.folder}. Live page: {house.url}/ with the token in {settings.folder / OPERATOR_FILE}"
    )


def _offered(served: ServedRun) -> OfferedRun:
    _, job, _ = served.run.snapshot()
    size = 0 if job is None else job.model_bytes
    terms = served.run.terms
    state = client_calls.state_of(served)
    return OfferedRun(served.run.key, served.name, served.app, state, size, size, terms.longest, served.description)


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise FleetError(
            f"The coordinator cannot listen on {host}:{port}: {error.strerror}. Choose another --listen HOST:PORT."
        ) from error
    bound.listen(2048)
    bound.set_inheritable(True)
    return bound


def _named(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
