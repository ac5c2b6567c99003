"""What every step of a channel must hold to."""

from __future__ import annotations

import numpy as np

from koinon import keys, tree
from koinon.core.protocols import Transform
from koinon.core.types import Context
from koinon.core.wire import Wire
from koinon.testing.comparison import copied, near, same
from koinon.testing.samples import update
from koinon.tree import Tree

_SIZES = (0.0, 1e-6, 1e-2, 1.0, 1e3)


def check_transform(transform: Transform, *, tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless ``transform`` keeps the promises of a channel step.

    It is pure; a decoded update has the shape and type of the encoded one; a declared bound, additivity and
    statefulness are true; a value that is not finite stays so, for the exact sum to refuse.
    """
    wire = transform.check(Wire())
    assert wire == transform.check(Wire()), f"{transform!r}.check must be pure"
    for size in _SIZES:
        for seed in range(4):
            value = update(seed, size)
            sent = _sent(transform, value, seed)
            _check_kind(transform, sent, value)
            if wire.l2_bound is not None:
                norm = float(np.sqrt(tree.sum_of_squares(sent)))
                assert norm <= wire.l2_bound * (1 + tolerance), f"{transform!r} sent {norm}; it says {wire.l2_bound}"
    _check_state(transform, wire)
    _check_values_that_are_not_finite(transform)
    if wire.additive:
        _check_additive(transform, tolerance)
    sizes = {name: int(np.size(leaf)) for name, leaf in tree.items(update(0))}
    wired = transform.payload_bytes(sizes, 4 * sum(sizes.values()))
    assert isinstance(wired, int), f"{transform!r}.payload_bytes must be a whole number; found {wired!r}"
    assert wired >= 0, f"{transform!r}.payload_bytes must not be negative; found {wired}"


def _context(seed: int) -> Context:
    return Context(keys.root(seed), np.float32(4))


def _sent(transform: Transform, value: Tree, seed: int) -> Tree:
    """Return what the server has of ``value``, after a look at whether encoding is pure."""
    given = copied(value)
    payload, _ = transform.encode(value, transform.init(value), _context(seed))
    again, _ = transform.encode(value, transform.init(value), _context(seed))
    same(payload, again, f"{transform!r} encoding twice with one key")
    same(value, given, f"the value after {transform!r} encoded it")
    return transform.decode(payload, _context(seed))


def _check_kind(transform: Transform, sent: Tree, value: Tree) -> None:
    same(tree.zeros(sent), tree.zeros(value), f"the shape of an update after {transform!r}")


def _check_state(transform: Transform, wire: Wire) -> None:
    value = update(0)
    state = transform.init(value)
    kept = bool(tree.leaves(state))
    assert kept == (wire.stateful_by is not None), (
        f"{transform!r} {'keeps' if kept else 'keeps no'} state; its check() must say so in stateful_by"
    )
    _, new = transform.encode(value, state, _context(0))
    same(tree.zeros(new), tree.zeros(state), f"the state of {transform!r} after one update")
    nothing, _ = transform.encode({}, transform.init({}), _context(0))
    assert transform.decode(nothing, _context(0)) == {}, f"{transform!r} must pass an update without leaves"


def _check_values_that_are_not_finite(transform: Transform) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        value = update(0)
        value["params"]["weights"][1, 2] = bad
        with np.errstate(all="ignore"):
            payload, _ = transform.encode(value, transform.init(value), _context(0))
            sent = transform.decode(payload, _context(0))
        finite = all(np.isfinite(leaf).all() for leaf in tree.leaves(sent))
        assert not finite, f"{transform!r} turned {bad} into finite numbers: a client that diverged would go unseen"


def _check_additive(transform: Transform, tolerance: float) -> None:
    values = [update(seed) for seed in range(4)]
    payloads = [transform.encode(value, transform.init(value), _context(0))[0] for value in values]
    total, expected = payloads[0], transform.decode(payloads[0], _context(0))
    for payload in payloads[1:]:
        total = tree.add(total, payload)
        expected = tree.add(expected, transform.decode(payload, _context(0)))
    near(transform.decode(total, _context(0)), expected, tolerance, f"the sum after {transform!r}")
