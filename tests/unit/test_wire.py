"""The law of composition: what cannot be combined is refused before anything runs, naming both parts."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

import koinon as kn
from koinon.core.protocols import Needs, Offers
from koinon.core.wire import Domain, Wire
from koinon.errors import CompositionError


@dataclass(frozen=True)
class Hide(kn.Clip):
    """A step after which the server sees only the sum."""

    def check(self, wire: Wire) -> Wire:
        return replace(wire, opaque_by=repr(self))


@dataclass(frozen=True)
class Remember(kn.Clip):
    """A step that keeps state on the client."""

    def check(self, wire: Wire) -> Wire:
        return replace(wire, stateful_by=repr(self))


@dataclass(frozen=True)
class Median(kn.Mean):
    """An aggregator that reads every update."""

    needs: ClassVar[Needs] = Needs.EACH


EVERYTHING = frozenset(Offers)


def test_a_plain_channel_leaves_real_numbers_without_a_bound() -> None:
    wire = kn.fedavg().check(frozenset())
    assert wire == Wire()
    assert (wire.domain, wire.l2_bound, wire.additive, wire.bits) == (Domain.REAL, None, True, 32)


def test_facts_are_shown_after_every_step() -> None:
    steps = kn.fedavg(channel=(kn.Clip(2.0), kn.Quantise(4))).wires()
    assert [name for name, _ in steps] == ["update", "Clip(norm=2.0)", "Quantise(bits=4, block=None)"]
    assert [wire.l2_bound for _, wire in steps] == [None, 2.0, None]


def test_steps_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(CompositionError, match=r"Clip\(norm=1.0\) works on real numbers, but receives INTEGER"):
        kn.fedavg(channel=(kn.Quantise(), kn.Clip(1.0))).check(EVERYTHING)


def test_who_reads_each_update_cannot_have_only_their_sum() -> None:
    algorithm = kn.replace(kn.fedavg(channel=(Hide(),)), aggregator=Median())
    with pytest.raises(
        CompositionError, match=r"Median\(\) reads each update, but Hide\(norm=1.0\) shows .* drop Hide"
    ):
        algorithm.check(EVERYTHING)
    kn.replace(algorithm, aggregator=kn.Mean()).check(EVERYTHING)
    kn.replace(algorithm, channel=()).check(EVERYTHING)


def test_a_step_with_memory_needs_a_runtime_with_some() -> None:
    algorithm = kn.fedavg(channel=(Remember(),))
    with pytest.raises(CompositionError, match=r"Remember\(norm=1.0\) keeps state on each client"):
        algorithm.check(frozenset({Offers.COMPILED}))
    algorithm.check(frozenset({Offers.CLIENT_STATE}))


def test_a_composition_is_refused_before_anything_is_trained() -> None:
    def never(params, data, task):
        raise AssertionError("a round began")

    loop = kn.OwnLoop(params={"w": 0.0}, train=never)
    with pytest.raises(CompositionError):
        kn.fit(loop, {"a": ([[1.0]], [1.0])}, kn.fedavg(channel=(kn.Quantise(), kn.Clip())), progress=False)
