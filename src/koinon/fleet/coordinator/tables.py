"""What a coordinator writes down, as tables of SQLite or PostgreSQL."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

FORMAT = 1

METADATA = MetaData()


def _key(name: str) -> Column[str]:
    return Column(name, String(128), primary_key=True)


about = Table("about", METADATA, _key("name"), Column("value", Text, nullable=False))

invitations = Table(
    "invitations",
    METADATA,
    _key("token"),  # SHA-256 of the token
    Column("name", String(128)),  # whom it is for; NULL for anybody
    Column("expires", Float, nullable=False),  # seconds since 1970
    Column("client", String(128)),  # who used it
)

REVOKED = (
    " (revoked "  # stands between the name of a client that was revoked and its identifier: the name is free again
)

clients = Table(
    "clients",
    METADATA,
    _key("client"),
    Column("name", String(128), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("key", String(256), nullable=False),
    Column("revoked", Boolean, nullable=False),
)

runs = Table(
    "runs",
    METADATA,
    _key("run"),
    Column("name", String(128), nullable=False, unique=True),
    Column("identity", Text, nullable=False),
    Column("ended", Text),  # JSON once the run is over: why, and the digest
    Column("paused", Boolean, nullable=False),
)

members = Table(
    "members",
    METADATA,
    _key("run"),
    _key("client"),
    Column("position", Integer, nullable=False),  # among the run's members, from 0
    Column("train", BigInteger, nullable=False),
    Column("held_out", BigInteger, nullable=False),
    Column("last_round", Integer, nullable=False),  # the last committed round that asked it; 0: none
    Column("last_accepted", Boolean, nullable=False),
    Column("rounds_done", Integer, nullable=False),  # whose sum its update was in
)

rounds = Table(
    "rounds",
    METADATA,
    _key("run"),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("record", Text),
    Column("server", String(64), nullable=False),  # blob
    Column("best", String(64)),
    Column("watch", Text, nullable=False),
    Column("judged", Text, nullable=False),
    Column("receipt", Text),
)

stages = Table(
    "stages",
    METADATA,
    _key("run"),
    Column("round", Integer, primary_key=True, autoincrement=False),
    _key("purpose"),
    Column("model", String(64), nullable=False),  # blob of what is broadcast
    Column("asked", Text, nullable=False),  # JSON: clients
    Column("target", Integer, nullable=False),
    Column("settled", Text),  # JSON once settled: whose updates, and who was lost
)

uploads = Table(
    "uploads",
    METADATA,
    _key("run"),
    Column("round", Integer, primary_key=True, autoincrement=False),
    _key("purpose"),
    _key("client"),
    Column("bytes", BigInteger, nullable=False),
    Column("chunk_bytes", Integer, nullable=False),
    Column("digests", Text, nullable=False),  # JSON
    Column("commit", Text),  # JSON once committed: root, weight, signature, the verdict of each leaf
)

messages = Table(
    "messages",
    METADATA,
    _key("run"),
    Column("round", Integer, primary_key=True, autoincrement=False),
    _key("stage"),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sender", String(128), nullable=False),
    Column("recipient", String(128), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", String(128), nullable=False),
)
