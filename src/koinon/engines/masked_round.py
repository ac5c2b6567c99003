"""A simulated round in which clients mask for one another as they do between institutions, message by message."""

from __future__ import annotations

import numpy as np

from koinon import tree
from koinon.channel.secure_sum import SecureSum
from koinon.core.execution import Engine, Plan
from koinon.core.types import Job, Partial, Payload, Rows
from koinon.errors import ProtocolError
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.simulate import simulate
from koinon.privacy.secure_sum.terms import Terms
from koinon.round.masked import flat, flat_figures, summed, terms_of
from koinon.tree import Tree


def masked_round(engine: Engine, step: SecureSum, plan: Plan, job: Job, states: Tree) -> Partial:
    """Compute every task with ``engine``, one by one, and add up by the protocol of ``step``."""
    terms = terms_of(plan.algorithm, "simulation", job.round, job.purpose, 0, value=job.broadcast, cohort=job.cohort)
    vectors: dict[str, Vector] = {}
    sent, kept = [], []
    for i in range(len(job.tasks)):
        before = _row(states, i)
        payload, after = engine.send(plan, job.chunk(np.array([i])), before)
        vector = _vector(terms, payload, step.figures)
        if vector is not None:
            vectors[f"client {i:08}"] = vector
        sent.append(payload)
        kept.append(before if vector is None else after)
    found = terms.layout.decode(simulate(terms, vectors).total)
    rows = _rows(job, sent, np.array([f"client {i:08}" in vectors for i in range(len(sent))]))
    new = tree.map(lambda *rows: np.concatenate(rows), *kept) if tree.leaves(kept[0]) else {}
    return Partial(summed(found, terms.layout.scale, job.broadcast), found.weight, rows, new)


def _row(states: Tree, i: int) -> Tree:
    return tree.map(lambda x: x[i : i + 1], states)


def _vector(terms: Terms, payload: Payload, figures: int) -> Vector | None:
    """Return what a client masks; None where it refuses itself, as it would between institutions."""
    try:
        return terms.layout.encode(flat(payload.value), int(payload.weight), flat_figures(payload.metrics, figures))
    except ProtocolError:
        return None


def _rows(job: Job, sent: list[Payload], took_part: np.ndarray) -> Rows:
    leaves = tree.names(job.broadcast)
    weights = np.array([payload.weight for payload in sent], np.float32) * took_part
    metrics = {name: np.stack([payload.metrics[name] for payload in sent]) for name in sent[0].metrics}
    accepted = np.repeat(took_part[:, None], len(leaves), axis=1)
    return Rows(job.tasks.clients, weights.astype(np.float32), metrics, accepted, leaves)
