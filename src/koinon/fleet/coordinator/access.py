"""Who may call: one-time invitations, clients with keys, sessions that end. Nothing secret is kept as it is."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from koinon.fleet.coordinator import tables as t
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import Kind, PublicKey, decoded, digest, encoded, signed_text
from koinon.fleet.wire.texts import NAME_RULE, is_name

SESSION_SECONDS = 900.0
_CHALLENGE_SECONDS = 60.0


@dataclass(frozen=True)
class Client:
    """A party that has enrolled."""

    client: str
    name: str
    key: PublicKey
    revoked: bool


@dataclass(frozen=True)
class _Session:
    client: str
    ends: float


class Access:
    """Invitations, clients and sessions of one coordinator. Sessions live in memory: a restart ends them."""

    def __init__(self, store: FleetStore, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)  # a restart voids the challenges
        self._answered: dict[str, float] = {}  # challenge that began a session -> when it ends anyway
        self._sessions: dict[str, _Session] = {}  # SHA-256 of the token -> whose
        self._current: dict[str, str] = {}  # client -> SHA-256 of the token of its one session
        self._superseded: dict[str, str] = {}  # SHA-256 of a token -> client
        with store.transaction() as rows:
            found = rows.execute(sa.select(t.clients)).all()
        self._clients = {row.client: _client(row) for row in found}

    def client(self, client: str) -> Client:
        """Return a client. Raises Refusal for one that does not exist."""
        if client not in self._clients:
            raise Refusal(404, "unknown", f"There is no client {client[:40]!r}.")
        return self._clients[client]

    def clients(self) -> list[Client]:
        """Return all clients by name."""
        return sorted(self._clients.values(), key=lambda client: client.name)

    def keys(self) -> ClientKeys:
        """Return every client's key by identifier, kept up to date."""
        return ClientKeys(self)

    def invite(self, name: str | None, hours: float) -> str:
        """Return a new token that works once, for ``hours``. Only its digest is kept."""
        if name is not None:
            _check_name(name)
        token = secrets.token_urlsafe(24)
        row = {"token": digest(token.encode()), "name": name, "expires": time.time() + 3600 * hours, "client": None}
        with self._store.transaction() as rows:
            rows.execute(sa.insert(t.invitations).values(**row))
        return token

    def invitations_open(self) -> int:
        """Return how many invitations can still be used."""
        unused = t.invitations.c.client.is_(None) & (t.invitations.c.expires > time.time())
        with self._store.transaction() as rows:
            return int(rows.execute(sa.select(sa.func.count()).select_from(t.invitations).where(unused)).scalar_one())

    def invited(self, token: str) -> bool:
        """Return whether an invitation could be used now; it is not used by this."""
        with self._store.transaction() as rows:
            row = rows.execute(sa.select(t.invitations).where(t.invitations.c.token == digest(token.encode()))).first()
        return row is not None and row.client is None and row.expires > time.time()

    def enrol(self, token: str, name: str, key: PublicKey, signature: bytes) -> Client:
        """Take a party in by its invitation, once; the same party asking again gets the same answer."""
        _check_name(name)
        hashed = digest(token.encode())
        if not key.signed(signature, signed_text("enrol", hashed, name, encoded(key.raw))):
            raise Refusal(403, "signature", "The enrolment is not signed by the key it brings.")
        with self._lock:
            with self._store.transaction() as rows:
                row = rows.execute(sa.select(t.invitations).where(t.invitations.c.token == hashed)).first()
                if row is None:
                    raise Refusal(
                        403, "invitation", "This invitation does not exist. Ask the coordinator for a new link."
                    )
                if row.client is not None:
                    known = self._clients.get(row.client)
                    if known is not None and (known.name, known.key, known.revoked) == (name, key, False):
                        return known
                    raise Refusal(403, "invitation", "This invitation was used. Ask the coordinator for a new link.")
                if row.expires <= time.time():
                    raise Refusal(403, "invitation", "This invitation has expired. Ask the coordinator for a new link.")
                if row.name is not None and row.name != name:
                    raise Refusal(403, "invitation", f"This invitation is for {row.name!r}. Join under that name.")
                self._check_free(name)
                client = Client(f"c-{secrets.token_hex(8)}", name, key, False)
                rows.execute(sa.insert(t.clients).values(**_row(client)))
                used = sa.update(t.invitations).where(t.invitations.c.token == hashed)
                rows.execute(used.values(client=client.client))
            self._clients[client.client] = client
        return client

    def revoke(self, client: str) -> None:
        """End a client's sessions and refuse new ones, for good; its name may enrol again."""
        old = self.client(client)
        gone = Client(client, old.name, old.key, True)
        with self._lock:
            with self._store.transaction() as rows:
                left = {"revoked": True, "name": f"{old.name}{t.REVOKED}{client})"}
                rows.execute(sa.update(t.clients).where(t.clients.c.client == client).values(**left))
            self._clients[client] = gone
            self._sessions.pop(self._current.pop(client, ""), None)

    def challenge(self, client: str) -> str:
        """Return what a client has to sign for a session. Nothing of it is kept: strangers may ask for any number."""
        text = f"{self._clock() + _CHALLENGE_SECONDS:.3f}_{secrets.token_urlsafe(24)}"
        return f"{text}.{self._mark(client, text)}"

    def session(self, client: str, challenge: str, signature: bytes) -> str:
        """Return a token for a signed challenge; an older session of the client ends."""
        now = self._clock()
        with self._lock:
            known = self._clients.get(client)
            ends = self._challenge_ends(client, challenge)
            if ends <= now or challenge in self._answered or known is None:
                raise Refusal(403, "challenge", "The challenge is not this client's, was used or is too old. Ask anew.")
            if known.revoked:
                raise revoked()
            if not known.key.signed(signature, signed_text("session", client, challenge)):
                raise Refusal(403, "signature", "The challenge is not signed by this client's key.")
            self._answered = {old: end for old, end in self._answered.items() if end > now} | {challenge: ends}
            token = secrets.token_urlsafe(32)
            hashed, old = digest(token.encode()), self._current.get(client)
            if old is not None and self._sessions.pop(old, None) is not None:
                self._superseded = {gone: who for gone, who in self._superseded.items() if who != client}
                self._superseded[old] = client
            self._current[client] = hashed
            self._sessions[hashed] = _Session(client, now + SESSION_SECONDS)
        return token

    def who(self, token: str) -> Client:
        """Return the client of a session's token. Raises Refusal."""
        hashed = digest(token.encode())
        with self._lock:
            session = self._sessions.get(hashed)
            if session is None and hashed in self._superseded:
                raise Refusal(
                    409,
                    "superseded",
                    "Another process has begun a session with this client's key. Two processes must not use one "
                    "identity: this one has to stop.",
                )
            if session is None or session.ends <= self._clock():
                self._sessions.pop(hashed, None)
                raise Refusal(401, "session", "There is no such session (any more). Begin one.")
            return self._clients[session.client]

    def _mark(self, client: str, text: str) -> str:
        return hmac.new(self._secret, signed_text("challenge", client, text), "sha256").hexdigest()

    def _challenge_ends(self, client: str, challenge: str) -> float:
        """Return when a challenge of ours for this client ends; 0 for anything else."""
        text, _, mark = challenge.rpartition(".")
        ours = hmac.compare_digest(mark.encode(), self._mark(client, text).encode())
        return float(text.partition("_")[0]) if ours else 0.0

    def still(self, client: str) -> None:
        """Raise Refusal if a client was revoked while it waited."""
        if self._clients[client].revoked:
            raise revoked()

    def _check_free(self, name: str) -> None:
        if any(known.name == name and not known.revoked for known in self._clients.values()):
            raise Refusal(
                409, "name", f"A party called {name!r} has enrolled. Choose another name, or have the old one revoked."
            )


class ClientKeys(dict[str, PublicKey]):
    """Clients' keys, looked up when asked for."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access

    def __missing__(self, client: str) -> PublicKey:
        return self._access.client(client).key


def revoked() -> Refusal:
    """Return the refusal of a client that may no longer take part."""
    again = "Who is to take part again needs a new link from the operator, and joins from a new folder (--dir)."
    return Refusal(403, "revoked", f"This client was revoked by the coordinator's operator. {again}")


def _client(row: sa.Row[tuple[str, ...]]) -> Client:
    name = row.name.partition(t.REVOKED)[0]
    return Client(row.client, name, PublicKey(Kind(row.kind), decoded(row.key)), row.revoked)


def _row(client: Client) -> dict[str, object]:
    key = {"kind": client.key.kind.value, "key": encoded(client.key.raw)}
    return {"client": client.client, "name": client.name, "revoked": client.revoked, **key}


def _check_name(name: str) -> None:
    if not is_name(name):
        raise Refusal(422, "malformed", NAME_RULE)
