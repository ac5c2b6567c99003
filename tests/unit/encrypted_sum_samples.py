"""A round of encrypted sums: three clients, their signatures, a key holder that is made once."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon.privacy.encrypted_sum.ciphertexts import Blinded, EncryptedSum
from koinon.privacy.encrypted_sum.client import Sent, encrypted
from koinon.privacy.encrypted_sum.holder import Answered, KeyHolder, Request
from koinon.privacy.encrypted_sum.keys import SecretKey
from koinon.privacy.encrypted_sum.packing import Totals
from koinon.privacy.encrypted_sum.pads import Round
from koinon.privacy.encrypted_sum.parameters import Parameters
from koinon.privacy.encrypted_sum.shares import together
from koinon.tree import Array

CLIENTS = ("amiens", "brest", "caen")
PARAMETERS = Parameters.fitting(cohort=4, bound=1.0, largest_weight=50, values=10_000, figures=2)  # two ciphertexts
SECRET = bytes(range(32))  # of the coordinator's blinds
WEIGHTS = {"amiens": 50, "brest": 1, "caen": 33, "dijon": 2}


def secret_key(which: int = 0) -> SecretKey:
    """Return one of some key holders' keys, always the same."""
    return _made(which)


def sent_by(client: str, number: int = 7, holders: tuple[int, ...] = (0,)) -> Sent:
    """Return what a client sends in a round, always the same."""
    return _sent(client, number, holders)


def the_round(number: int = 7, holders: tuple[int, ...] = (0,)) -> Round:
    """Return a round of the run."""
    keys = tuple(secret_key(which).public.fingerprint for which in holders)
    return Round(run="hearts", number=number, parameters=PARAMETERS, keys=keys)


def update(client: str) -> Array:
    """Return a client's update."""
    seed = int.from_bytes(client.encode(), "big")
    return np.random.default_rng(seed).uniform(-1, 1, PARAMETERS.values).astype(np.float32)


def whole(client: str) -> Array:
    """Return a client's update, weighted and rounded."""
    return np.rint(update(client) * (np.float32(WEIGHTS[client]) * np.float32(2.0**PARAMETERS.scale))).astype(np.int64)


def signer(client: str) -> Any:
    """Return a signature that is easy to make and to check; who is on the list is all that matters here."""
    return lambda text: hashlib.sha512(client.encode() + b"'s secret" + text).digest()


def verify(client: str, text: bytes, signature: bytes) -> bool:
    """Return whether a member of the list has signed."""
    return client in WEIGHTS and signer(client)(text) == signature


def holder(which: int = 0) -> KeyHolder:
    """Return a key holder with the list."""
    return KeyHolder(secret=secret_key(which), verify=verify)


@dataclass(frozen=True)
class Kept:
    """Where a key holder keeps what it has answered."""

    states: list[bytes]

    def __call__(self, answered: Any) -> None:
        self.states.append(answered.to_bytes())


def total_of(*clients: str, number: int = 7, holders: tuple[int, ...] = (0,)) -> EncryptedSum:
    """Return the coordinator's sum."""
    total = EncryptedSum(the_round(number, holders))
    for client in clients:
        total.add(sent_by(client, number, holders).update)
    return total


def blinded(*clients: str, number: int = 7, holders: tuple[int, ...] = (0,)) -> Blinded:
    """Return the coordinator's sum as a key holder sees it, and the coordinator's share."""
    return total_of(*clients, number=number, holders=holders).blinded(SECRET)


def answer(asked: Request, answered: Answered | None = None, keep: Any = None, by: KeyHolder | None = None) -> Totals:
    """Return what a coordinator makes of a single key holder's answer."""
    share = (by or holder()).share(asked, answered or Answered(), keep or Kept([]))
    own = blinded(*(pad.client for pad in asked.pads), number=asked.round.number).share
    return together(asked.round, len(asked.pads), own, [share])


def request(*, named: tuple[str, ...] = CLIENTS, total: bytes | None = None, number: int = 7) -> Request:
    """Return what a coordinator asks; an honest one unless told otherwise."""
    body = blinded(*named, number=number).total if total is None else total
    return Request(the_round(number), tuple(sent_by(client, number).pads[0] for client in named), body)


@functools.cache
def _made(which: int) -> SecretKey:
    return SecretKey.generate(floor=3)


@functools.cache
def _sent(client: str, number: int, holders: tuple[int, ...]) -> Sent:
    own = (update(client), WEIGHTS[client], (1.5, -250.25))
    keys = [secret_key(which).public for which in holders]
    return encrypted(the_round(number, holders), keys, client, own, signer(client))


def shared_request(place: int, holders: tuple[int, ...], named: tuple[str, ...] = CLIENTS) -> Request:
    """Return what the holder at ``place`` among several is asked."""
    pads = tuple(sent_by(client, 7, holders).pads[place] for client in named)
    body = blinded(*named, holders=holders).total if place == 0 else b""
    return Request(the_round(7, holders), pads, body)
