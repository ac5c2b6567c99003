"""What every step of a channel must hold to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from koinon import exact, keys, tree
from koinon.core.protocols import Transform
from koinon.core.types import Context
from koinon.core.wire import Domain, Wire
from koinon.privacy.mechanism import Adjacency, CentralMechanism, DistributedMechanism, Mechanism, Noise
from koinon.privacy.sampling import Participation, Sampling
from koinon.testing.comparison import copied, near, same
from koinon.testing.samples import update
from koinon.tree import Array, Tree

_PLAIN = Wire()
_NOTHING: Tree = MappingProxyType({})
_QUIET = 20_000
"""Zeros to which noise is added: its deviation is then known to half a percent."""
_COHORT = 10
_SIZES = (0.0, 1e-6, 1e-2, 1.0, 1e3)


def check_transform(
    transform: Transform, *, tolerance: float = 1e-5, before: Wire = _PLAIN, broadcast: Tree = _NOTHING
) -> None:
    """Raise AssertionError unless ``transform`` keeps the promises of a channel step.

    It is pure, unless it says that it adds noise, which must then differ every time and be as much as the accountant is
    told; a decoded update has the shape and type of the encoded one; declared bound, additivity, statefulness, bits and
    bytes are true, the bound for adversarial updates too; a value that is not finite stays so, for the exact sum to refuse.
    ``before`` are the facts it is given, and ``broadcast`` is what its server sends beside the model, where the update has
    an answer to it.
    """
    suite = _Suite(transform, before, transform.check(before), broadcast)
    assert suite.wire == transform.check(before), f"{transform!r}.check must be pure"
    bound = suite.wire.l2_bound
    sizes = _SIZES if bound is None else (*_SIZES, 0.9995 * bound, 1.0005 * bound)
    for seed, value in enumerate([*(update(seed, size) for size in sizes for seed in range(4)), *_adversarial()]):
        sent = suite.sent(suite.given(value), seed)
        _check_bound(suite, sent, tolerance)
    suite.check_state()
    suite.check_values_that_are_not_finite()
    if suite.wire.additive:
        suite.check_additive(tolerance)
    suite.check_payload()
    suite.check_noise()


def _adversarial() -> Iterator[Tree]:
    """Yield updates made to escape a bound: long, flat, spiked, at both ends of float32."""
    long = np.full(200_000, 0.1, np.float32)
    spiked = np.concatenate([np.array([1e15], np.float32), long])
    draw = np.random.default_rng(7)
    mixed = (10.0 ** draw.uniform(-40, 18, 5_000) * draw.choice([-1, 1], 5_000)).astype(np.float32)
    for x in (long, spiked, mixed, long * np.float32(1e-42), np.full(9, 3e38, np.float32), np.zeros(5, np.float32)):
        yield {"params": {"x": x, "y": -x[:3]}, "state": {}}


def _norm(value: Tree) -> float:
    return float(np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in tree.leaves(value))))


def _check_bound(suite: _Suite, sent: Tree, tolerance: float) -> None:
    bound = suite.wire.l2_bound
    if bound is not None:
        norm = _norm(sent)
        assert norm <= bound * (1 + tolerance), f"{suite.transform!r} sent {norm}; it says {bound}"


@dataclass(frozen=True)
class _Suite:
    """A transform, the facts before and after it, and what its server sends beside the model."""

    transform: Transform
    before: Wire
    wire: Wire
    broadcast: Tree

    @property
    def noisy(self) -> bool:
        """Whether what it sends is never the same."""
        later = (CentralMechanism, DistributedMechanism)
        return self.wire.noise_by != self.before.noise_by and not isinstance(self.transform, later)

    def given(self, value: Tree) -> Tree:
        """Return an update as the steps before would hand it on: within their bound."""
        whole = {**value, **tree.zeros(self.broadcast)}
        bound, norm = self.before.l2_bound, _norm(whole)
        return (
            whole if bound is None or norm <= bound else tree.map(lambda x: (x * (bound / norm)).astype(x.dtype), whole)
        )

    def context(self, seed: int) -> Context:
        """Return what it may know."""
        return Context(keys.root(seed), np.float32(4), self.broadcast, lambda: self.before.l2_bound)

    def encoded(self, value: Tree, seed: int) -> tuple[Tree, Tree]:
        """Return payload and state."""
        with np.errstate(over="ignore", under="ignore"):
            return self.transform.encode(value, self.transform.init(value), self.context(seed))

    def sent(self, value: Tree, seed: int) -> Tree:
        """Return what the server has of ``value``, after a look at whether encoding is pure."""
        transform, given = self.transform, copied(value)
        payload, _ = self.encoded(value, seed)
        again, _ = self.encoded(value, seed)
        if self.noisy:
            alike = any(tree.digest(a) == tree.digest(b) for a, b in _pairs(payload, again))
            assert not alike, f"{transform!r} sent the same noise twice"
        else:
            same(payload, again, f"{transform!r} encoding twice with one key")
        same(value, given, f"the value after {transform!r} encoded it")
        sent = transform.decode(payload, self.context(seed))
        same(tree.zeros(sent), tree.zeros(value), f"the shape of an update after {transform!r}")
        return sent

    def check_state(self) -> None:
        """Look whether it keeps state if and only if it says so."""
        transform, value = self.transform, self.given(update(0))
        state = transform.init(value)
        kept = bool(tree.leaves(state))
        assert kept == (self.wire.stateful_by != self.before.stateful_by), (
            f"{transform!r} {'keeps' if kept else 'keeps no'} state; its check() must say so in stateful_by"
        )
        _, new = self.encoded(value, 0)
        same(tree.zeros(new), tree.zeros(state), f"the state of {transform!r} after one update")
        empty = tree.zeros(self.broadcast)
        nothing = transform.decode(self.encoded(empty, 0)[0], self.context(0))
        assert tree.structure(nothing) == tree.structure(empty), f"{transform!r} must pass an update without leaves"

    def check_values_that_are_not_finite(self) -> None:
        """Look whether a client that diverged is still seen to have."""
        for bad in (np.nan, np.inf, -np.inf):
            value = self.given(update(0))
            value["params"]["weights"][1, 2] = bad
            with np.errstate(all="ignore"):
                sent = self.transform.decode(self.encoded(value, 0)[0], self.context(0))
            assert not all(np.isfinite(leaf).all() for leaf in tree.leaves(sent)), (
                f"{self.transform!r} turned {bad} into finite numbers: a client that diverged would go unseen"
            )

    def check_additive(self, tolerance: float) -> None:
        """Look whether the decoded sum is the sum of the decoded."""
        payloads = [self.encoded(self.given(update(seed)), 0)[0] for seed in range(4)]
        total, expected = payloads[0], self.transform.decode(payloads[0], self.context(0))
        for payload in payloads[1:]:
            total = tree.add(total, payload)
            expected = tree.add(expected, self.transform.decode(payload, self.context(0)))
        near(self.transform.decode(total, self.context(0)), expected, tolerance, f"the sum after {self.transform!r}")

    def check_payload(self) -> None:
        """Look whether what travels takes the bytes and the bits that it says."""
        value = self.given(update(0))
        payload, _ = self.encoded(value, 0)
        sizes = {name: int(np.size(leaf)) for name, leaf in tree.items(value)}
        wired = self.transform.payload_bytes(sizes, tree.size_bytes(value))
        assert isinstance(wired, int), f"{self.transform!r}.payload_bytes must be a whole number; found {wired!r}"
        found = tree.size_bytes(payload)
        masked_later = self.wire.opaque_by != self.before.opaque_by or isinstance(self.transform, DistributedMechanism)
        if masked_later:  # in a ring of 8 to 64 bits, or encrypted and no smaller
            least = found if self.wire.domain is Domain.CIPHERTEXT else found // 4
            assert wired >= least, (
                f"{self.transform!r} hides {found} bytes of an update; its payload_bytes says {wired}"
            )
            return
        assert wired == found, f"{self.transform!r} sends {found} bytes of an update; its payload_bytes says {wired}"
        codes = [leaf for leaf in map(np.asarray, tree.leaves(payload)) if leaf.dtype.kind in "iu"]
        assert bool(codes) == (self.wire.domain is Domain.INTEGER), (
            f"{self.transform!r} sends {'whole' if codes else 'no whole'} numbers; it says {self.wire.domain.name}"
        )
        for code in codes:
            room = int(code.max(initial=0)) - int(code.min(initial=0))
            assert room < 2**self.wire.bits, (
                f"{self.transform!r} sends codes over {room}; it says {self.wire.bits} bits"
            )

    def check_noise(self) -> None:
        """Look whether there is at least as much noise as the accountant is told."""
        transform, bound = self.transform, self.before.l2_bound
        if self.wire.noise_by == self.before.noise_by or not isinstance(transform, Mechanism) or bound is None:
            return
        nothing = {"params": {"x": np.zeros(_QUIET, np.float32)}, "state": {}}
        if isinstance(transform, CentralMechanism):
            noise = Noise(lambda round: np.random.default_rng([7, round]).standard_normal)
            total = transform.release(exact.zero(nothing), bound, 1, noise)
            found = tree.map(lambda t: t / exact.SCALE, total)["params"]["x"]
        elif isinstance(transform, DistributedMechanism):
            total = transform.stand_in(exact.zero(nothing), bound, _COHORT, bytes(range(32)))
            found = tree.map(lambda t: t / exact.SCALE, total)["params"]["x"]
        else:
            found = transform.decode(self.encoded(nothing, 0)[0], self.context(0))["params"]["x"]
        event = transform.event(Participation(Sampling.EVERYBODY, 1.0))
        moved = 2 * bound if event.adjacency is Adjacency.REPLACE_ONE else bound
        deviation, wanted = float(np.std(found)), event.multiplier * moved
        assert deviation > 0.97 * wanted, f"{transform!r} adds noise of {deviation:.4g}; it is counted as {wanted:.4g}"


def _pairs(left: Tree, right: Tree) -> list[tuple[Array, Array]]:
    return [(a, b) for a, b in zip(tree.leaves(left), tree.leaves(right), strict=True) if np.size(a)]
