"""The stage mailbox: signed messages between clients and the coordinator, opaque to both ways of the post.

It carries the handshakes of protocols that need several messages a round. The coordinator checks who sent what and
how much, keeps it until the round is over, and hands it to whom it is addressed and to nobody else.
"""

from __future__ import annotations

import threading
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


class Mailbox:
    """The messages of all runs."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self._numbering = threading.Lock()

    def post(self, at: Address, sender: str, key: PublicKey, letter: Letter) -> int:
        """Keep a message and return its number; the same message again gets the same number. Raises Refusal."""
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
        return int(last) + 1

    def read(self, at: Address, reader: str, since: int) -> list[dict[str, object]]:
        """Return the messages after number ``since`` that are addressed to ``reader``, in order."""
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

    @staticmethod
    def _here(at: Address) -> sa.ColumnElement[bool]:
        m = t.messages.c
        return (m.run == at.run) & (m.round == at.round) & (m.stage == at.stage)
