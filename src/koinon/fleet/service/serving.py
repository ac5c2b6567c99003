"""The coordinator's process: store, runs, drivers and the HTTP service, from start to a clean end."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from starlette.applications import Starlette

from koinon.channel.encrypted import encrypted_of
from koinon.core.events import Listener, RoundFinished, RoundRecord, RunFinished, RunStarted
from koinon.core.execution import Plan
from koinon.errors import ConfigurationError, StoreError
from koinon.fleet.coordinator import tables
from koinon.fleet.coordinator.belonging import refuse_what_is_apart
from koinon.fleet.coordinator.chain import ReceiptChain
from koinon.fleet.coordinator.driver import Driven, Driver
from koinon.fleet.coordinator.key_holder import KeyHolder
from koinon.fleet.coordinator.mailbox import Address, Mailbox
from koinon.fleet.coordinator.secure_sum import Office
from koinon.fleet.coordinator.spool import Spool
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.service import client_calls, log, metrics_page, operator_calls, page_calls, probe, uvicorn_server
from koinon.fleet.service.absent import tell_who_is_missing
from koinon.fleet.service.charged import Charged
from koinon.fleet.service.house import House, ServedRun, application
from koinon.fleet.service.listening import listening
from koinon.fleet.service.log import LoggedAccess, LoggedLedger, LoggedRun
from koinon.fleet.service.rests import Rests
from koinon.fleet.service.rounds import Rounds
from koinon.fleet.service.settings import OPERATOR_FILE, Addresses, ServedApp, Settings
from koinon.fleet.service.status import state_of, status
from koinon.fleet.service.strangers import Strangers
from koinon.fleet.service.uvicorn_server import Door
from koinon.fleet.service.waiting import Waiting
from koinon.fleet.wire.certificates import ServerCertificate, own_certificate
from koinon.fleet.wire.codecs import codec_of
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.offer import Offer, OfferedRun
from koinon.fleet.wire.receipts import Opening, canonical
from koinon.fleet.wire.rosters import shown
from koinon.fleet.wire.signatures import OwnKey, digest, kept_secret, remembering, write_secret
from koinon.privacy.hiding import hiding, least_present
from koinon.privacy.random_bits import KEY_BYTES, PrivacyKeys
from koinon.privacy.releases import Releases, releases
from koinon.report.progress import describe
from koinon.store.blobs import sync_folder
from koinon.store.run_directory import LEDGER, difference, short

_PRIVACY_KEYS = "privacy.keys"
_BLINDS = "blinds.key"
_INVITATION_HOURS = 24.0 * 7
_GRACE_SECONDS = 30.0  # how long clients have to hear that a run is over
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Coordinator:
    """What runs in a coordinator's process."""

    settings: Settings
    addresses: Addresses
    house: House
    drivers: tuple[Driver, ...]
    certificate: ServerCertificate | None
    began: float = field(default_factory=time.monotonic)

    def status(self) -> dict[str, Any]:
        """Return what the operator is shown."""
        return status(self.house, self.began)

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
        rests = Rests(self.house.runs)
        while any(driver.is_alive() for driver in self.drivers) or self.settings.stay:
            rests.look()
            for served in self.house.runs.values():
                served.count_the_last()
            await asyncio.sleep(_LOOK_SECONDS)
        rests.look()
        ends = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < ends and not all(served.run.all_told() for served in self.house.runs.values()):
            await asyncio.sleep(_LOOK_SECONDS)
        tell_who_is_missing(self.house.runs.values())

    def offer(self) -> Offer:
        """Return what an invited party is told."""
        return Offer(client_calls.PROTOCOL, self.house.version, tuple(map(_offered, self.house.runs.values())))


def serve(settings: Settings, apps: Sequence[ServedApp], say: Callable[[str], None]) -> dict[str, Any]:
    """Serve until every run is over (for ever with ``stay``); return the last status.

    ``say`` is told the address and the join links. Raises StoreError, FleetError.
    """
    with ExitStack() as undo:
        store = undo.enter_context(FleetStore.open(settings.folder, settings.database))
        places = [(settings.host, settings.port)] + ([settings.client_listen] if settings.client_listen else [])
        bound = [undo.enter_context(listening(*place, "The coordinator")) for place in places]
        addresses = Addresses.of(settings, *(own.getsockname()[1] for own in bound))
        coordinator = _coordinator(settings, store, apps, addresses)
        for mirror in (served.run.ledger.mirror for served in coordinator.house.runs.values()):
            if mirror is not None:
                undo.callback(mirror.close)
        undo.callback(_tell_the_end, coordinator.began)
        _announce(coordinator, say)
        for driver in coordinator.drivers:
            driver.start()
        doors = [Door(own, coordinator.certificate) for own in bound]
        doors[-1] = replace(doors[-1], client_authority=settings.client_authority)  # the other is for browsers
        uvicorn_server.serve(coordinator.asgi(), doors, coordinator.until_over, settings.proxies)
        for served in coordinator.house.runs.values():
            if served.charged is not None:
                served.charged.wait()
        return coordinator.status()


@dataclass(frozen=True)
class _Parts:
    store: FleetStore
    access: LoggedAccess
    key: OwnKey
    spool: Spool
    mailbox: Mailbox


def _coordinator(
    settings: Settings, store: FleetStore, apps: Sequence[ServedApp], addresses: Addresses
) -> Coordinator:  # fmt: skip
    refuse_what_is_apart(store, settings.folder / "coordinator.key")
    certificate = _certificate(settings, addresses)
    key = OwnKey.at(settings.folder / "coordinator.key")
    access, waiting = LoggedAccess(store, time.monotonic), Waiting()
    parts = _Parts(store, access, key, Spool(settings.folder / "spool"), Mailbox(store))
    drivers, runs = [], {}
    for app in apps:
        served, driver = _run(app, settings, parts)
        runs[served.run.key] = served
        drivers.append(driver)
        served.run.on_change(_waker(waiting, served.run.key))
    parts.mailbox.on_letter(_postman(waiting, runs))
    house = House(
        url=addresses.parties,
        version=settings.version,
        access=access,
        mailbox=parts.mailbox,
        runs=runs,
        key=key,
        authority=None if certificate is None else certificate.authority,
        operator=_operator(settings.folder, addresses.operator, certificate),
        waiting=waiting,
        strangers=Strangers(time.monotonic),
        clock=time.monotonic,
    )
    return Coordinator(settings, addresses, house, tuple(drivers), certificate)


def _run(app: ServedApp, settings: Settings, parts: _Parts) -> tuple[ServedRun, Driver]:
    key, hashed = _run_key(parts.store, app)
    ledger = LoggedLedger(parts.store, key, settings.blobs)
    algorithm = app.training.plan.algorithm
    schedule = replace(algorithm.schedule, clients=least_present(algorithm))
    run = LoggedRun(app.name, key, schedule, ledger, parts.spool, time.monotonic)
    if ledger.mirror is not None:
        ledger.mirror.on_trouble(partial(run.trouble.note, stops=False))
    found = ledger.load()
    rounds = Rounds(() if found is None else found[0].history)
    plan = replace(app.training.plan, data=run.members)
    door = _releases(app, plan, ledger.folder)
    training = replace(app.training, plan=plan, releases=door)
    opening = Opening(key, hashed, parts.key.public)
    keys = parts.access.keys()
    chain = partial(ReceiptChain, opening, parts.key, ledger, run.members, keys)
    roster = None if settings.roster is None else shown(settings.roster)
    holders = _holders(app, settings)
    blinds = _blinds(ledger.folder) if holders else b""
    signed = remembering()
    office = partial(Office, parts.mailbox, keys, key, signed=signed, roster=roster, holders=holders, blinds=blinds)
    driven = Driven(run, training, app.engine, chain, office, _recorder(key, app, rounds))
    served = ServedRun(
        run=run,
        name=app.name,
        app=hashed,
        description=app.agreement,
        algorithm=algorithm.name,
        finished=rounds,
        rounds=training.stop.rounds,
        chunk_bytes=settings.chunk_bytes,
        at_once=parts.store.is_near and not algorithm.channel,
        codec=codec_of(algorithm.wires()[-1][1]),
        charged=None if door is None else Charged(door, run.members.__len__),
        hidden=None if (step := hiding(algorithm)) is None else step.protection(roster=roster is not None),
        roster=roster,
    )
    return served, Driver(driven)


def _holders(app: ServedApp, settings: Settings) -> tuple[KeyHolder, ...]:
    """Return who decrypts the app's sums. Raises ConfigurationError where nobody would."""
    step = encrypted_of(app.training.plan.algorithm)
    if step is None:
        return ()
    if len(settings.keyholders) < len(step.keys):
        raise ConfigurationError(
            f"{app.name} encrypts its updates, and of those who decrypt their sums --keyholder names {len(settings.keyholders)} of "
            f"{len(step.keys)}. Give --keyholder LINK for each, which koinon keyholder prints at another institution."
        )
    return tuple(map(KeyHolder, settings.keyholders))


def _blinds(folder: Path) -> bytes:
    """Return the secret of a run's blinds, made if there is none: without it no sum would be asked for in the same way again."""
    secret = kept_secret(folder / _BLINDS, lambda: secrets.token_bytes(KEY_BYTES))
    sync_folder(folder)
    return secret


def _releases(app: ServedApp, plan: Plan, folder: Path) -> Releases | None:
    """Return the run's private releases: their keys and, if the budget names none, their ledger are in its folder."""

    def keys() -> PrivacyKeys:
        new = PrivacyKeys.of_test(app.training.seed) if app.privacy_test_mode else PrivacyKeys.fresh()
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


def _recorder(key: str, app: ServedApp, rounds: Rounds) -> Listener:
    """Return a listener that keeps and logs every round, and passes events on with what trackers want to know."""

    def record(event: RunStarted | RoundFinished | RunFinished) -> None:
        if isinstance(event, RoundFinished):
            finished = replace(event.record, rows=None)
            if (reason := rounds.add(finished)) is not None:
                line = f"{app.name}: nobody judges the model of round {finished.round}: {reason}"
                log.tell("unjudged", line, level=logging.WARNING, run=key, round=finished.round, reason=reason)
            _tell(key, app, finished)
        elif isinstance(event, RunStarted):
            past = rounds.until(event.resumed_from)
            event = replace(event, name=app.name, run=key, identity=app.agreement, past=past)
        app.listen(event)

    return record


def _tell(key: str, app: ServedApp, record: RoundRecord) -> None:
    line = f"{app.name}: round {record.round} of {app.training.stop.rounds}  {describe(record.figures)}"
    log.tell(
        "finished",
        line.rstrip(),
        run=key,
        round=record.round,
        cohort=record.cohort,
        refused=len(record.refused),
        lost=len(record.lost),
        seconds=record.seconds,
        figures=record.figures,
        void=record.void,
    )


def _tell_the_end(began: float) -> None:
    seconds = time.monotonic() - began
    log.tell("stopped", f"the coordinator ends after {seconds:.0f} s", seconds=seconds)


def _waker(waiting: Waiting, run: str) -> Callable[[Sequence[str]], None]:
    return lambda clients: waiting.wake([operator_calls.EVENTS, *((run, client) for client in clients)])


def _postman(waiting: Waiting, runs: Mapping[str, ServedRun]) -> Callable[[Address], None]:
    def deliver(at: Address) -> None:
        waiting.wake([at])
        runs[at.run].run.stir()

    return deliver


def _certificate(settings: Settings, addresses: Addresses) -> ServerCertificate | None:
    """Return what TLS is served with. Raises ConfigurationError for files of the user's that cannot be."""
    if settings.plain_http:
        return None
    own = settings.certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        if own is not None:
            context.load_cert_chain(*own, password=lambda: "")  # nobody is asked for one
        if settings.client_authority is not None:
            context.load_verify_locations(settings.client_authority)
    except OSError as error:
        files = ", ".join(str(file) for file in (*(own or ()), settings.client_authority) if file is not None)
        raise ConfigurationError(
            f"TLS cannot be served with {files}: {error}. Give certificates in PEM, the server's own first, and its key "
            "without a password."
        ) from error
    if own is not None:
        return ServerCertificate(*own, authority=None)
    return own_certificate(settings.folder, addresses.hosts())


def _operator(folder: Path, url: str, certificate: ServerCertificate | None) -> str:
    """Write where and how the operator calls, for the commands on this machine; return the token's digest."""
    path = folder / OPERATOR_FILE
    try:
        token = str(json.loads(path.read_text())["token"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # lost or damaged: who was told it reads it anew
        token = secrets.token_urlsafe(32)
    shown = None if certificate is None else certificate.shown
    write_secret(path, json.dumps({"url": url, "token": token, "certificate": shown}, indent=1).encode())
    return digest(token.encode())


def _announce(coordinator: Coordinator, say: Callable[[str], None]) -> None:
    """Print the address, and on the first start the join links."""
    house, settings = coordinator.house, coordinator.settings
    names = {key: served.name for key, served in house.runs.items()}
    line = f"Serving {', '.join(names.values())} at {house.url} from {settings.folder}"
    log.tell("started", line, url=house.url, version=house.version, runs=names)
    say(line)
    if not house.access.clients() and not house.access.invitations_open():
        for _ in range(settings.invitations):
            link = JoinLink(house.url, house.access.invite(None, _INVITATION_HOURS), coordinator.fingerprint)
            say(f"One party may join, once, within a week, with: koinon join '{link}' APP_FILE --data PATH")
    if coordinator.addresses.read_on_the_way:
        say("Without TLS whoever is on the way reads models and tokens: serve without --plain-http, or behind a proxy.")
    for served in house.runs.values():
        if served.run.ended is None and served.run.snapshot()[0].paused:
            say(f"{served.name} is still paused: koinon resume {settings.folder} {served.name} lets it go on")
    token = settings.folder / OPERATOR_FILE
    if settings.client_authority is not None and settings.client_listen is None:
        say(
            "Only who shows a certificate gets in here, so koinon invite, koinon status and browsers cannot: add --client-listen "
            "HOST:PORT for the parties, and keep --listen for them."
        )
        return
    say(
        f"More links: koinon invite {settings.folder}. Live page: {coordinator.addresses.page}/ with the token in {token}"
    )


def _offered(served: ServedRun) -> OfferedRun:
    _, job, _ = served.run.snapshot()
    size = 0 if job is None else job.model_bytes
    terms = served.run.terms
    state = state_of(served)
    return OfferedRun(served.run.key, served.name, served.app, state, size, size, terms.longest, served.description)
