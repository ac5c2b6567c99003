"""Noise that clients add: as much as is counted whoever survives, of the law that the simulation draws, and never more."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import koinon as kn
from koinon import exact
from koinon.channel.central import FLOAT32
from koinon.core.types import Payload, Purpose
from koinon.privacy import renyi
from koinon.privacy.mechanism import Event
from koinon.privacy.secure_sum.neighbours import Assumptions, honest_survivors, quorum
from koinon.privacy.secure_sum.primitives import digest
from koinon.privacy.secure_sum.rotation import padded
from koinon.privacy.secure_sum.server import Stage, unmask
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors
from koinon.round.masked import Encoding, noise_of, terms_of
from koinon.sample.samplers import All

COUNT = 4000
ALL = All().participation(5)


def algorithm(multiplier: float = 0.7, clip: float = 1.0, **options: int) -> kn.Algorithm:
    return kn.fedavg(channel=(kn.Clip(clip), kn.DistributedNoise(multiplier, **options), kn.SecureSum(figures=1)))


def summed(
    one: kn.Algorithm, updates: dict[str, np.ndarray], missing: dict[str, Stage]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the sum that the messages leave, in its own units, and whose updates are in it."""
    count = len(next(iter(updates.values())))
    terms = terms_of(one, "r", 1, Purpose.TRAIN, 0, value={"w": np.zeros(count, np.float32)}, cohort=len(updates))
    room, total = Room(terms, Floors(), Identities.of(updates), missing), terms.layout.zero()
    room.begin(updates)
    room.step(Stage.SHARES)
    for party in room.step(Stage.VECTORS):
        sent = Payload({"w": updates[party].astype(np.float32)}, np.float32(1), {"examples": np.float32(2)})
        vector = Encoding(one, terms, room.server.known).vector(sent, digest(party.encode()))
        room.mask(party, vector)
        total += vector
    room.step(Stage.AGREEMENT)
    room.step(Stage.UNMASKING)
    unmask(room.server, total)
    found = Encoding(one, terms, room.server.known).total(total)
    active = tuple(room.server.known.names[i] for i in sorted(room.server.active))
    assert found.weight == len(active)
    return found.update[:count] / exact.SCALE, active


def clipped(count: int, parties: int, seed: int = 0, norm: float = 1.0) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed).standard_normal((parties, count))
    drawn *= norm * 0.9999 / np.linalg.norm(drawn, axis=1, keepdims=True)
    return {f"c{i}": row for i, row in enumerate(drawn)}


@pytest.mark.parametrize("gone", [(), *combinations(range(6), 1)])
def test_whoever_survives_the_honest_ones_bring_at_least_what_is_counted(gone: tuple[int, ...]) -> None:
    """Six, of whom five must survive and two may be corrupt and add nothing that counts."""
    one, updates = algorithm(), clipped(COUNT, 6)
    found, active = summed(one, updates, {f"c{i}": Stage.VECTORS for i in gone})
    assert len(active) == 6 - len(gone) >= quorum(6)
    noise = found - sum(updates[name] for name in active)
    terms = terms_of(one, "r", 1, Purpose.TRAIN, 0, value={"w": np.zeros(COUNT)}, cohort=6)
    plan = noise_of(one, terms, 6)
    assert plan is not None
    own = plan.own.variance / 4.0**plan.scale
    honest = len(active) - Assumptions().corrupt_of(6)
    assert honest * own >= (0.7 * 1.0) ** 2, "without the corrupt ones, in units of the clipping norm"
    assert noise.var() == pytest.approx(len(active) * own, rel=5 * (2 / COUNT) ** 0.5)
    assert stats.kstest(noise / noise.std(), "norm").pvalue > 1e-6


@pytest.mark.parametrize("cohort", [3, 4, 5, 7, 10, 33, 99, 100, 1000, 10_000])
@pytest.mark.parametrize("corrupt", [0.0, 0.2, 1 / 3])
def test_the_least_survivors_less_the_corrupt_ones_bring_the_whole(cohort: int, corrupt: float) -> None:
    step, assumptions = kn.DistributedNoise(1.3), Assumptions(corrupt=corrupt)
    honest = honest_survivors(cohort, assumptions)
    stay = quorum(cohort) - assumptions.corrupt_of(cohort)
    assert honest == (stay if cohort < 100 else 5 * stay // 6) > 0
    plan = step.shared(1.0, 1000, honest)
    assert plan.own.variance * honest >= (1.3 * plan.sensitivity) ** 2


@pytest.mark.parametrize("clip", [1e-3, 1.0, 700.0])
@pytest.mark.parametrize("numbers", [1, 14, 1000, 2**20])
def test_the_sensitivity_has_the_steps_that_are_counted(clip: float, numbers: int) -> None:
    """An event knows no model: its cost is that of the shortest sensitivity there can be, and longer ones cost less."""
    step = kn.DistributedNoise(1.0, steps=64)
    plan, event = step.shared(clip, numbers, 3), step.event(ALL)
    assert event.steps is not None and event.steps <= plan.length <= plan.sensitivity
    assert plan.norm >= clip * (1 + FLOAT32)
    for order in (1.1, 2.0, 3.5, 64.0):
        l1 = min(padded(numbers) ** 0.5 * plan.sensitivity, plan.sensitivity**2)
        true = renyi.skellam(order, plan.variance, plan.sensitivity, l1)
        assert true <= renyi.divergence(event, order) * (1 + 1e-12)


@given(st.floats(0.2, 8.0), st.integers(2, 4096), st.floats(1.01, 200.0))
def test_the_divergence_is_never_below_the_gaussians_and_falls_with_the_steps(
    multiplier: float, steps: int, order: float
) -> None:
    event = kn.DistributedNoise(multiplier, steps).event(ALL)
    gaussian = order / (2 * multiplier**2)
    assert gaussian <= renyi.divergence(event, order) * (1 + 1e-12)
    finer = Event(multiplier, 1.0, event.adjacency, 2.0 * steps)
    assert renyi.divergence(finer, order) <= renyi.divergence(event, order)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from([3, 4, 9]))
def test_adjacent_sums_differ_by_no_more_than_the_sensitivity(seed: int, numbers: int, parties: int) -> None:
    """Zeros in place of one update, and the same noise: whole numbers no longer than what is counted."""
    plan = kn.DistributedNoise(1.0, steps=8).shared(1.0, numbers, parties)
    update = np.random.default_rng(seed).standard_normal(numbers)
    update *= 1.0 / np.linalg.norm(update)
    key, entropy = digest(seed.to_bytes(8, "big")), digest(b"entropy", seed.to_bytes(8, "big"))
    moved = plan.encode(update.astype(np.float32), key, entropy) - plan.encode(np.zeros(numbers), key, entropy)
    assert np.linalg.norm(moved) <= plan.sensitivity * (1 + 1e-12)
    assert np.linalg.norm(moved, 1) <= min(padded(numbers) ** 0.5 * plan.sensitivity, plan.sensitivity**2)


@pytest.mark.parametrize("parties", [5, 12])
def test_what_a_simulation_draws_at_once_is_of_the_law_of_the_sum(parties: int) -> None:
    one, updates = algorithm(steps=2048), clipped(COUNT, parties)
    by_messages, _ = summed(one, updates, {})
    true = np.sum(list(updates.values()), axis=0)
    total = {"w": np.rint(true * exact.SCALE).astype(np.int64)}
    step = one.channel[1]
    assert isinstance(step, kn.DistributedNoise)
    at_once = step.stand_in(total, 1.0, parties, bytes(range(32)))["w"] / exact.SCALE
    assert stats.ks_2samp(by_messages - true, at_once - true).pvalue > 1e-6
    assert np.var(at_once - true) == pytest.approx(np.var(by_messages - true), rel=8 * (2 / COUNT) ** 0.5)
    other = step.stand_in(total, 1.0, parties, bytes(32))["w"] / exact.SCALE
    assert not np.array_equal(at_once, other)


@pytest.mark.parametrize("cohort", [5, 60])
@pytest.mark.parametrize("kind", ["spike", "flat", "alike"])
def test_the_ring_does_not_wrap(cohort: int, kind: str) -> None:
    """Everybody sends the same, as long as the clip allows, in a cohort as large as was planned for."""
    update = {"spike": np.eye(1, 3000)[0], "flat": np.full(3000, 3000**-0.5), "alike": np.resize([1.0, -1.0], 3000)}[
        kind
    ]
    update *= 0.9999 / np.linalg.norm(update)
    found, active = summed(algorithm(1e-2), {f"c{i}": update for i in range(cohort)}, {})
    assert np.abs(found - len(active) * update).max() < 0.2


def test_what_does_not_fit_wraps_and_is_not_refused() -> None:
    """To refuse a vector with noise for its size would tell of it; the sum is the same modulo the ring."""
    layout = kn.DistributedNoise(1.0).shared(1.0, 8, 3).layout(5, 0, 2.0)
    width = 8 * layout.zero().body.itemsize
    large = np.full(layout.numbers, 2**width + 5, np.int64)
    assert layout.encode_integers(large, 1, np.zeros(0)).body.tolist() == [5] * layout.numbers
