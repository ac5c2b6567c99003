"""What a secure sum costs beside the cipher that masks: the real protocol among clients in memory.

The floor is AES-256-CTR: the bytes that a side has to expand over the rate at which as many threads expand them, in the
same blocks and in turns with the side itself. ``ratio`` is processor time on one thread, ``ratio_two_threads`` time on two
of both. A client's time is all it does in a round but converting its update into integers, which a plain sum needs as
well; the coordinator's is all but adding vectors up, for the same reason.

Members verify and agree with each other's standing keys in the first round of a run; ratios are means over a run of ten
rounds, and those of its first round and of a later one stand beside them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Advertised, Client, Shared
from koinon.privacy.secure_sum.keys import StandingKey
from koinon.privacy.secure_sum.layout import Layout
from koinon.privacy.secure_sum.messages import Verify
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Server, Stage, arrived, close, take, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Past, Terms

_FULL = 100  # clients up to which everybody masks a whole vector; beyond, a short one of the same masks
_SHORT = 4096
_CHUNK = 1 << 17
_RUN = 10  # rounds


@dataclass(frozen=True)
class Round:
    """A round that has come to its last answer, and all that was said in it."""

    room: Room
    said: Mapping[Stage, Mapping[str, bytes]]
    told: Mapping[Stage, Mapping[str, bytes]]
    total: Vector  # masked
    wanted: Vector
    entropy: Mapping[str, bytes]
    verify: Verify


class Recorded(Room):
    """A room that writes down what is said in it."""

    def begin(self, parties: Any) -> None:
        """Begin, and keep everybody's entropy."""
        self.said: dict[Stage, dict[str, bytes]] = {stage: {} for stage in Stage}
        self.told: dict[Stage, dict[str, bytes]] = {}
        super().begin(parties)

    def step(self, stage: Stage) -> tuple[str, ...]:
        """Go on, and keep what the coordinator sends."""
        self.told[stage] = close(self.server)[1]
        return super().step(stage)

    def _post(self, party: str, body: bytes) -> None:
        self.said[self.server.stage][party] = body
        super()._post(party, body)


def measure(clients: int, dropped: float, parameters: int, bits: int, turns: int) -> dict[str, Any]:
    """Return the ratios of client and coordinator to the floor."""
    layout = Layout.of_bits(parameters, 4, bits=bits, cohort=clients, bound=1.0, largest_weight=100)
    done = _round(layout, clients, dropped)
    member = min(done.said[Stage.UNMASKING])
    masks = {"client": _client_masks(done, member), "server": _server_masks(done)}
    out: dict[str, Any] = {
        "clients": clients,
        "dropped": clients - len(done.room.server.active),
        "parameters": parameters,
        "bits": bits,
        "neighbours": done.room.server.known.degree.neighbours,
        "threshold": done.room.server.known.degree.threshold,
        "masks": masks,
        "bytes": {
            "vector": layout.nbytes,
            "messages": done.room.sent[member],
            "cohort": len(done.room.server.known.body),
        },
    }
    scratch = done.total.copy()
    known = done.room.states[member].client.key
    later = replace(done, verify=lru_cache(None)(done.verify))
    sides: dict[str, dict[str, Callable[[int], Any]]] = {
        "client": {
            "first": lambda threads: _client(done, member, None, scratch, threads),
            "later": lambda threads: _client(later, member, known, scratch, threads),
        },
        "server": {
            "first": lambda threads: _server(done, scratch, threads),
            "later": lambda threads: _server(later, scratch, threads),
        },
    }
    for side, rounds in sides.items():
        for work in rounds.values():
            work(1)
        out |= _ratios(side, rounds, masks[side] * layout.nbytes, turns if masks[side] < 2000 else 1)
    out["exact"] = _exact(done)
    out["expanded_per_second"] = {
        "counter mode": _rate(modes.CTR(os.urandom(16))),
        "GCM": _rate(modes.GCM(os.urandom(12))),
    }
    return {**out, "load": os.getloadavg()[0]}


def _ratios(side: str, rounds: Mapping[str, Callable[[int], Any]], expanded: int, turns: int) -> dict[str, Any]:
    """Take turns between the floor and a side's rounds, on one thread and on two; the minimum of each counts."""
    wall: dict[str, float] = {}
    busy: dict[str, float] = {}
    sample = min(expanded, 256 << 20)
    for _ in range(turns):
        for name, call in {"floor": partial(_expand, sample), **rounds}.items():
            for threads in (1, 2):
                began, used = time.perf_counter(), time.process_time()
                call(threads)
                took = (time.perf_counter() - began, time.process_time() - used)
                key = f"{name} {threads}"
                wall[key], busy[key] = min(wall.get(key, took[0]), took[0]), min(busy.get(key, took[1]), took[1])
    times = expanded / sample
    first, later = (busy[f"{name} 1"] / (times * busy["floor 1"]) for name in ("first", "later"))
    two = (wall["first 2"] + (_RUN - 1) * wall["later 2"]) / _RUN
    return {
        f"{side}_ratio": (first + (_RUN - 1) * later) / _RUN,
        f"{side}_ratio_first_round": first,
        f"{side}_ratio_later_round": later,
        f"{side}_ratio_two_threads": two / (times * wall["floor 2"]),
        f"{side}_seconds": wall["later 1"],
        f"{side}_seconds_two_threads": wall["later 2"],
        f"{side}_floor_seconds": times * wall["floor 1"],
    }


def _expand(count: int, threads: int) -> None:
    """Expand so many bytes in all."""
    if threads == 1:
        _expand_one(count)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_expand_one, [count // threads] * threads))


def _rate(mode: modes.Mode) -> float:
    """Return the bytes a second that one thread expands in a mode, the best of some times."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        _expand_one(64 << 20, mode)
        best = min(best, time.process_time() - began)
    return (64 << 20) / best


def _expand_one(count: int, mode: modes.Mode | None = None) -> None:
    zeros, room = bytes(_CHUNK), bytearray(_CHUNK)
    cipher: Any = Cipher(algorithms.AES(os.urandom(32)), mode or modes.CTR(os.urandom(16)))
    cipher = cipher.encryptor()
    for _ in range(count // _CHUNK):
        cipher.update_into(zeros, room)


def _round(layout: Layout, clients: int, dropped: float) -> Round:
    """Run everything once. Vectors are random; above 100 clients only their first numbers are masked."""
    names = [f"site{i:05d}" for i in range(clients)]
    identities = Identities.of(names)
    missing = dict.fromkeys(names[1 :: round(1 / dropped)] if dropped else [], Stage.VECTORS)
    terms = Terms(run="bench", round=1, layout=layout)
    room = Recorded(terms, Floors(), identities, missing)
    room.begin(names)
    room.step(Stage.SHARES)
    total, wanted, rng = layout.zero(), layout.zero(), np.random.default_rng(0)
    entropy = {name: state.own.entropy for name, state in room.states.items() if isinstance(state, Shared)}
    short = layout if clients <= _FULL else replace(layout, numbers=min(_SHORT, layout.numbers))
    for party in room.step(Stage.VECTORS):
        state = room.states[party]
        assert not isinstance(state, Advertised | half.Masked)
        room.states[party] = replace(state, terms=replace(terms, layout=short))
        update = rng.uniform(-1, 1, short.numbers).astype(np.float32)
        vector = short.encode(update, int(rng.integers(1, 101)), rng.uniform(0, 100, 4))
        beginning = Vector(wanted.body[: short.numbers], wanted.tail)
        beginning += vector
        room.mask(party, vector)
        beginning = Vector(total.body[: short.numbers], total.tail)
        beginning += vector
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    keys = {name: key.public_key() for name, key in identities.keys.items()}

    def verify(party: str, text: bytes, signature: bytes) -> bool:
        try:
            keys[party].verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return Round(room, room.said, room.told, total, wanted, entropy, verify)


def _client(done: Round, member: str, known: StandingKey | None, vector: Vector, threads: int) -> None:
    """Do all that one client does in the round; a key that is ``known`` is so to everybody, with all it has agreed on."""
    sign = done.room._identities.keys[member].sign
    client = Client(party=member, floors=Floors(), past=Past(run="bench"), standing=known)
    advertised, _ = half.begin(client, done.room.server.terms, done.entropy[member], sign)
    shared, said = half.share(advertised, done.told[Stage.SHARES][member], done.verify)
    assert said == done.said[Stage.SHARES][member]
    ready = half.receive(shared, done.told[Stage.VECTORS][member])
    masked = half.mask(ready, vector, threads)
    masked, _ = half.agree(masked, done.told[Stage.AGREEMENT][member])
    masked, said = half.reveal(masked, done.told[Stage.UNMASKING][member])
    assert said == done.said[Stage.UNMASKING][member]


def _server(done: Round, total: Vector, threads: int) -> None:
    """Do all that the coordinator does in the round, and unmask the sum in place."""
    server = Server(terms=done.room.server.terms)
    for stage in Stage:
        if stage is Stage.VECTORS:
            for member in done.said[Stage.AGREEMENT]:
                server = arrived(server, member)
        for member, body in done.said[stage].items():
            server = take(server, member, body, done.verify)
        if stage is not Stage.UNMASKING:
            server, _ = close(server)
    unmask(server, total, threads)


def _exact(done: Round) -> bool:
    found, masked = done.total.copy(), len(done.room.server.known) <= _FULL
    _server(done, found, 2)
    numbers = found.body.size if masked else min(_SHORT, found.body.size)
    same = np.array_equal(found.body[:numbers], done.wanted.body[:numbers])
    return same and np.array_equal(found.tail, done.wanted.tail)


def _client_masks(done: Round, member: str) -> int:
    server, me = done.room.server, done.room.server.known.places[member]
    others = server.shares.keys() - {me}
    return 1 + sum(other in server.shares[me].sealed or me in server.shares[other].sealed for other in others)


def _server_masks(done: Round) -> int:
    server = done.room.server
    dead = server.shares.keys() - server.active
    pairs = ((owner, other) for owner in dead for other in server.active)
    return len(server.active) + sum(o in server.shares[d].sealed or d in server.shares[o].sealed for d, o in pairs)
