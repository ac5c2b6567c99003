"""The stage mailbox: signed messages between clients and the coordinator, opaque to both ways of the post.

It carries the handshakes of protocols that need several messages a round. The coordinator checks who sent what and
how much, keeps it until the round is over, and hands it to whom it is addressed and to nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from koinon.fleet.coordinator import tables as t
from koinon.fleet.coordinator.store import FleetStore
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey, decoded, digest, encoded, signed_text

MESSAGE_BYTES = 48 << 10
MESSAGES = 64
STAGES = 16
SERVER = "server"
EVERYBODY = "all"


@dataclass(frozen=True)
class Address:
    """Which post office: a stage of a round of a run."""

    run: str
    round: int
    stage: str

    def __post_init__(self) -> None:
        if not (0 < len(self.stage) <= 64 and self.stage.isascii() and self.stage.replace("-", "").isalnum()):
            raise Refusal(422, "malformed", "A stage's name has 1 to 64 letters, digits or hyphens.")


@dataclass(frozen=True)
class Letter:
    """A signed message. ``to`` is a client, ``server`` or ``all``."""

    to: str
    body: str  # base64url
    signature: str  # base64url


@dataclass(frozen=True)
class Received:
    """A letter as the coordinator reads it; ``sender`` is a client, or ``server`` for one of its own."""

    number: int
    sender: str
    to: str
    body: bytes


class Mailbox:
    """The messages of all runs."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._numbering = threading.Lock()
        self._wake: Callable[[Address], None] = lambda at: None
        self._shut: dict[str, set[Address]] = {}  # of a run's last void round

    def shut(self, at: Address) -> None:
        """Take and hand out no message of a stage any more: what it was for is void."""
        shut = {known for known in self._shut.get(at.run, ()) if known.round == at.round}
        self._shut[at.run] = shut | {at}
        self._wake(at)

    def on_letter(self, wake: Callable[[Address], None]) -> None:
        """Call ``wake`` with where a letter has been left, from any thread."""
        self._wake = wake

    def post(self, at: Address, sender: str, key: PublicKey, letter: Letter) -> int:
        """Keep a message and return its number; the same message again gets the same number. Raises Refusal."""
        self._check_open(at)
        body = decoded(letter.body)
        if len(body) > MESSAGE_BYTES:
            raise Refusal(
                413, "too_large", f"A message has at most {MESSAGE_BYTES:,} bytes; this one has {len(body):,}."
            )
        text = signed_text("message", at.run, at.round, at.stage, sender, letter.to, digest(body))
        if not key.signed(decoded(letter.signature), text):
            raise Refusal(
                403, "signature", "The message is not signed by its sender for this round, stage and recipient."
            )
        m = t.messages.c
        here = self._here(at)
        with self._numbering, self._store.transaction() as rows:
            own = rows.execute(sa.select(m.number, m.recipient, m.body).where(here & (m.sender == sender))).all()
            for row in own:
                if (row.recipient, row.body) == (letter.to, body):
                    return int(row.number)
            whole_round = (m.run == at.run) & (m.round == at.round) & (m.sender == sender)
            left = rows.execute(sa.select(sa.func.count()).select_from(t.messages).where(whole_round)).scalar_one()
            if len(own) >= MESSAGES or left >= MESSAGES * STAGES:
                raise Refusal(
                    429, "full", f"A client may leave {MESSAGES} messages in a stage, {STAGES} times in a round."
                )
            last = rows.execute(sa.select(sa.func.max(m.number)).where(here)).scalar() or 0
            values = {"run": at.run, "round": at.round, "stage": at.stage, "number": last + 1, "sender": sender}
            signature = encoded(decoded(letter.signature))
            rows.execute(sa.insert(t.messages).values(**values, recipient=letter.to, body=body, signature=signature))
        self._wake(at)
        return int(last) + 1

    def publish(self, at: Address, letters: Mapping[str, bytes], after: int) -> bool:
        """Leave the coordinator's own messages for a stage, all or none; one that is for all is kept once.

        Nothing is left, and False returned, if there is a message after number ``after``: it is to be read first.
        """
        if len(set(letters.values())) == 1:
            letters = {EVERYBODY: next(iter(letters.values()))}
        values = {"run": at.run, "round": at.round, "stage": at.stage, "sender": SERVER, "signature": ""}
        with self._numbering, self._store.transaction() as rows:
            last = rows.execute(sa.select(sa.func.max(t.messages.c.number)).where(self._here(at))).scalar() or 0
            if last != after:
                return False
            own = [
                {**values, "number": last + i, "recipient": to, "body": body}
                for i, (to, body) in enumerate(letters.items(), 1)
            ]
            if own:
                rows.execute(sa.insert(t.messages), own)
        self._wake(at)
        return True

    def all(self, at: Address, since: int = 0) -> list[Received]:
        """Return every message of a stage after number ``since``, in order."""
        m = t.messages.c
        with self._store.transaction(durable=False) as rows:
            found = rows.execute(sa.select(t.messages).where(self._here(at) & (m.number > since)).order_by(m.number))
            return [Received(row.number, row.sender, row.recipient, row.body) for row in found]

    def stages(self, run: str, round: int) -> set[str]:
        """Return the stages of a round in which the coordinator has left messages: clients may name any."""
        m = t.messages.c
        here = (m.run == run) & (m.round == round) & (m.sender == SERVER)
        with self._store.transaction(durable=False) as rows:
            return set(rows.execute(sa.select(m.stage).where(here).distinct()).scalars())

    def read(self, at: Address, reader: str, since: int) -> list[dict[str, object]]:
        """Return the messages after number ``since`` that are addressed to ``reader``, in order."""
        self._check_open(at)
        m = t.messages.c
        mine = self._here(at) & (m.number > since) & m.recipient.in_([reader, EVERYBODY])
        with self._store.transaction() as rows:
            found = rows.execute(sa.select(t.messages).where(mine).order_by(m.number).limit(MESSAGES * 4)).all()
        return [
            {
                "number": row.number,
                "from": row.sender,
                "to": row.recipient,
                "body": encoded(row.body),
                "signature": row.signature,
            }
            for row in found
        ]

    def _check_open(self, at: Address) -> None:
        if at in self._shut.get(at.run, ()):
            raise Refusal(410, "over", f"Round {at.round} ({at.stage}) is void: too few were left to open its sum.")

    @staticmethod
    def _here(at: Address) -> sa.ColumnElement[bool]:
        m = t.messages.c
        return (m.run == at.run) & (m.round == at.round) & (m.stage == at.stage)
