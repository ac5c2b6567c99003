"""What every server must hold to."""

from __future__ import annotations

import numpy as np

from koinon import tree
from koinon.core.protocols import Server
from koinon.core.types import RoundFacts, Variables
from koinon.testing.comparison import copied, same
from koinon.tree import Tree

_FACTS = RoundFacts(round=1, cohort=3, population=10)


def check_server(server: Server) -> None:
    """Raise AssertionError unless ``server`` is pure and its state is a tree that can be written down.

    An update has the shape of the broadcast, so the aggregate given to it does too. The first aggregate moves
    the model its own way; an aggregate of zeros leaves a new model where it is.
    """
    variables = _variables()
    state = server.init(variables)
    same(server.variables(state), variables, f"the model of {server!r} before the first round")
    broadcast = server.broadcast(state)
    assert {"params", "state"} <= set(broadcast), f"{server!r} must broadcast params and state; found {list(broadcast)}"
    nothing = tree.map(lambda leaf: np.zeros(np.shape(leaf)), broadcast)
    still = server.apply(state, nothing, _FACTS)
    same(server.variables(still), variables, f"the model of {server!r} after an aggregate of zeros")
    _check_rounds(server, variables, broadcast)


def _check_rounds(server: Server, variables: Variables, broadcast: Tree) -> None:
    draw = np.random.default_rng(0)
    state = restored = server.init(variables)
    for number in range(1, 5):
        facts = RoundFacts(number, 3, 10)
        aggregate = tree.map(lambda leaf: 0.1 * draw.normal(size=np.shape(leaf)), broadcast)
        given, before = copied(aggregate), copied(state)
        new = server.apply(state, aggregate, facts)
        same(state, before, f"the state that {server!r} was given")
        same(aggregate, given, f"the aggregate that {server!r} was given")
        same(tree.zeros(new), tree.zeros(state), f"the shape of {server!r}'s state after a round")
        restored = server.apply(_written_and_read(restored), aggregate, facts)
        same(restored, new, f"{server!r} from a state that was written down and read back")
        if number == 1:
            _check_direction(server, state, new, aggregate)
        state = new


def _check_direction(server: Server, old: Tree, new: Tree, aggregate: Tree) -> None:
    moved = tree.subtract(server.variables(new)["params"], server.variables(old)["params"])
    along = sum(float(np.sum(m * d)) for m, d in zip(tree.leaves(moved), tree.leaves(aggregate["params"]), strict=True))
    assert along > 0, f"{server!r} moved the model against the mean update"


def _written_and_read(state: Tree) -> Tree:
    leaves = [
        np.frombuffer(np.asarray(x).tobytes(), np.asarray(x).dtype).reshape(np.shape(x)) for x in tree.leaves(state)
    ]
    return tree.fill(tree.structure(state), iter(leaves))


def _variables() -> Variables:
    draw = np.random.default_rng(1)
    params = {"weights": draw.normal(size=(3, 2)).astype(np.float32), "bias": draw.normal(size=2).astype(np.float32)}
    return {"params": params, "state": {"mean": draw.normal(size=3).astype(np.float32)}}
