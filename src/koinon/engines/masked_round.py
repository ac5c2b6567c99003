"""A simulated round in which clients mask for one another as they do between institutions, message by message."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from koinon import exact, tree
from koinon.channel.secure_sum import SecureSum, secure_sum_of
from koinon.core.algorithm import Algorithm
from koinon.core.execution import Engine, Plan
from koinon.core.types import Job, Partial, Payload, Rows
from koinon.errors import ProtocolError
from koinon.privacy.secure_sum.layout import Total
from koinon.privacy.secure_sum.primitives import KEY_BYTES
from koinon.privacy.secure_sum.server import Stage, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors, Terms
from koinon.round.hidden import hidden
from koinon.round.masked import Encoding, flat, flat_figures, noise_of, summed, terms_of
from koinon.tree import Tree


def masked_round(engine: Engine, plan: Plan, job: Job, states: Tree) -> Partial:
    """Compute every task with ``engine``, one by one, and add up by the messages of the algorithm's secure sum."""
    algorithm, step = plan.algorithm, secure_sum_of(plan.algorithm)
    assert step is not None, "the caller has seen it"
    terms = terms_of(algorithm, "simulation", job.round, job.purpose, 0, value=job.broadcast, cohort=job.cohort)
    sent, kept, added = [], [], []
    for i in range(len(job.tasks)):
        before = _row(states, i)
        payload, after = engine.send(plan, job.chunk(np.array([i])), before)
        sent.append(payload)
        added.append(_can_be_added(algorithm, terms, payload, step))
        kept.append(after if added[i] else before)
    found = _summed(algorithm, terms, {f"client {i:08}": payload for i, payload in enumerate(sent) if added[i]})
    rows = _rows(job, sent, np.array(added))
    new = tree.map(lambda *rows: np.concatenate(rows), *kept) if tree.leaves(kept[0]) else {}
    whole = Partial(summed(found, exact.FRACTION_BITS, job.broadcast), found.weight, rows, new)
    return hidden(step, job.purpose, whole, plan.data.names)


def _summed(algorithm: Algorithm, terms: Terms, sent: Mapping[str, Payload]) -> Total:
    """Return the sum of what is sent as the protocol makes it."""
    room, total = Room(terms, Floors(), Identities.of(sent), {}), terms.layout.zero()
    room.begin(sent)
    room.step(Stage.SHARES)
    encoding = Encoding(algorithm, terms, room.server.known)
    for party in room.step(Stage.VECTORS):
        vector = encoding.vector(sent[party], os.urandom(KEY_BYTES))
        room.mask(party, vector)
        total += vector
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    unmask(room.server, total)
    return encoding.total(total)


def _row(states: Tree, i: int) -> Tree:
    return tree.map(lambda x: x[i : i + 1], states)


def _can_be_added(algorithm: Algorithm, terms: Terms, sent: Payload, step: SecureSum) -> bool:
    """Return whether a client masks its update, or refuses itself, as it would between institutions."""
    numbers, noise = flat(sent.value), noise_of(algorithm, terms, step.least)
    try:
        if noise is None:
            terms.layout.encode(numbers, int(sent.weight), flat_figures(sent.metrics, step.figures))
        else:
            noise.check(numbers)
    except ProtocolError:
        return False
    return True


def _rows(job: Job, sent: list[Payload], took_part: np.ndarray) -> Rows:
    leaves = tree.names(job.broadcast)
    weights = np.array([payload.weight for payload in sent], np.float32) * took_part
    metrics = {name: np.stack([payload.metrics[name] for payload in sent]) for name in sent[0].metrics}
    accepted = np.repeat(took_part[:, None], len(leaves), axis=1)
    return Rows(job.tasks.clients, weights.astype(np.float32), metrics, accepted, leaves)
