"""The suites themselves: each refuses a part that breaks one promise, and says which."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from koinon import tree
from koinon.aggregate.mean import Mean
from koinon.aggregate.median import Median
from koinon.channel.bfloat16 import Bfloat16
from koinon.channel.clip import Clip
from koinon.channel.local_privacy import LocalGaussian
from koinon.channel.noise import GaussianNoise
from koinon.channel.quantise import Quantise
from koinon.core.types import Partial
from koinon.core.wire import Domain, Wire
from koinon.data.partition import IID
from koinon.engines.reference import ReferenceEngine
from koinon.privacy.sampling import Sampling
from koinon.runtimes.local import Local
from koinon.sample.samplers import Poisson, Uniform
from koinon.server.average import Average
from koinon.testing import (
    check_aggregator,
    check_engine,
    check_model,
    check_partitioner,
    check_runtime,
    check_sampler,
    check_server,
    check_transform,
    check_work,
)
from koinon.testing.models import CentredRegression, SoftmaxRegression
from koinon.testing.samples import classified, measured
from koinon.work.local import LocalTraining


class LooseClip(Clip):
    def encode(self, value, state, context):
        return tree.scale(value, np.float32(0.5)), state


class HidingClip(Clip):
    def encode(self, value, state, context):
        return tree.map(np.nan_to_num, super().encode(value, state, context)[0]), state


class SaidAdditive(Quantise):
    def check(self, wire):
        return replace(super().check(wire), additive=True)


class UnkeyedQuantise(Quantise):
    def encode(self, value, state, context):
        draw = np.random.default_rng()
        return super().encode(value, state, replace(context, key=draw.integers(0, 2**32, 2, np.uint32)))


class InPlace(Clip):
    def encode(self, value, state, context):
        for leaf in tree.leaves(value):
            leaf *= np.float32(0)
        return value, state


class Forgetful(Average):
    def apply(self, state, aggregate, facts):
        return {name: part for name, part in super().apply(state, aggregate, facts).items() if name != "state"}


class Uphill(Average):
    def apply(self, state, aggregate, facts):
        return super().apply(state, tree.scale(aggregate, -1), facts)


class Narrow(Mean):
    def finish(self, total, weight):
        return tree.map(np.float32, super().finish(total, weight))


class Halved(Mean):
    def finish(self, total, weight):
        return super().finish(total, 2 * weight)


class FirstCome(Median):
    def finish(self, total, weight):
        return tree.map(lambda rows: rows[0].astype(np.float64), total)


class Unsorted(Uniform):
    def cohort(self, population, key):
        return super().cohort(population, key)[::-1]


class Favourites(Uniform):
    def cohort(self, population, key):
        return np.arange(self.size, dtype=np.int64)


class SaidPoisson(Uniform):
    def participation(self, population):
        return replace(super().participation(population), sampling=Sampling.POISSON)


class SaidRarer(Poisson):
    def participation(self, population):
        return replace(super().participation(population), rate=self.rate / 2)


class Paired(Poisson):
    def choose(self, population, bits):
        half = super().choose(population // 2, bits)
        return np.sort(np.concatenate([half, half + population // 2]))


class OverflowingClip(Clip):
    def encode(self, value, state, context):
        norm = np.sqrt(tree.sum_of_squares(value))
        return (tree.scale(value, np.float32(self.norm) / norm) if 1e15 > norm > self.norm else value), state


class SameNoise(LocalGaussian):
    def encode(self, value, state, context):
        draw = np.random.default_rng(0)
        return tree.map(lambda x: x + draw.normal(size=x.shape).astype(np.float32), value), state


class HalfTheNoise(LocalGaussian):
    def deviation(self, bound):
        return super().deviation(bound) / 2


class NoNoise(GaussianNoise):
    def release(self, total, bound, round, noise):
        return total


class UncountedNoise(GaussianNoise):
    def event(self, participation):
        return replace(super().event(participation), multiplier=2 * self.multiplier)


class SilentState(Clip):
    def init(self, value):
        return tree.zeros(value)


class SaidStateful(Clip):
    def check(self, wire):
        return replace(super().check(wire), stateful_by=repr(self))


class FreeOfCharge(Quantise):
    def payload_bytes(self, sizes, value_bytes):
        return super().payload_bytes(sizes, value_bytes) - 4


class SaidFourBits(Quantise):
    def check(self, wire):
        return replace(super().check(wire), bits=4)


class SaidReal(Bfloat16):
    def check(self, wire):
        return replace(super().check(wire), domain=wire.domain)


class SaidWhole(Clip):
    def check(self, wire):
        return replace(super().check(wire), domain=Domain.INTEGER)


class Losing(IID):
    def deal(self, y, key):
        names, owner = super().deal(y, key)
        return names, np.minimum(owner, self.clients - 2)


class Ascending(LocalTraining):
    def finish(self, task, broadcast, carry):
        update, state = super().finish(task, broadcast, carry)
        return replace(update, value=tree.scale(update.value, np.float32(-1))), state


class Fractional(LocalTraining):
    def finish(self, task, broadcast, carry):
        update, state = super().finish(task, broadcast, carry)
        return replace(update, weight=update.weight / 7), state


class WrongGradient(SoftmaxRegression):
    def grad(self, variables, batch):
        gradients, state, sums = super().grad(variables, batch)
        return {**gradients, "bias": gradients["bias"] * 0}, state, sums


class CountsEverybody(SoftmaxRegression):
    def evaluate(self, variables, batch):
        return super().evaluate(variables, replace(batch, mask=np.ones_like(batch.mask)))


@pytest.mark.parametrize(
    ("check", "part", "says"),
    [
        (check_transform, LooseClip(1e-6), "it says 1e-06"),
        (check_transform, HidingClip(1.0), "a client that diverged would go unseen"),
        (check_transform, UnkeyedQuantise(), "twice with one key"),
        (check_transform, InPlace(1.0), "the value after"),
        (check_transform, SilentState(1.0), "keeps state; its check"),
        (check_transform, SaidStateful(1.0), "keeps no state; its check"),
        (check_transform, FreeOfCharge(), "sends 28 bytes of an update; its payload_bytes says 24"),
        (check_transform, SaidFourBits(), "it says 4 bits"),
        (check_transform, SaidReal(), "sends whole numbers; it says REAL"),
        (check_transform, SaidWhole(1.0), "sends no whole numbers; it says INTEGER"),
        (check_server, Forgetful(), "shape|model|'state'|leaves"),
        (check_server, Uphill(), "against the mean update"),
        (check_aggregator, Narrow(), "is not float64"),
        (check_aggregator, Halved(), "clients agree on"),
        (check_aggregator, FirstCome(), "given its rows in another order"),
        (check_sampler, Unsorted(5), "in sorted order"),
        (check_sampler, Favourites(5), "never drew 45 of 50 clients"),
        (check_sampler, SaidPoisson(20), "sizes then vary by 12"),
        (check_sampler, SaidRarer(0.5), "takes part with probability 0.25"),
        (check_sampler, Paired(0.5), "sizes then vary|two go together"),
        (check_transform, OverflowingClip(1.0), "it says 1.0"),
        (check_partitioner, Losing(4), "without examples"),
        (check_work, Ascending(), "loss rises"),
        (check_work, Fractional(), "a weight is a whole number"),
    ],
    ids=lambda value: type(value).__name__ if not callable(value) or isinstance(value, type) else None,
)
def test_a_part_that_breaks_a_promise_is_refused(check, part, says: str) -> None:
    with pytest.raises((AssertionError, KeyError), match=says):
        check(part)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (SameNoise(1.0), "sent the same noise twice"),
        (HalfTheNoise(1.0), r"adds noise of 3\.7\d*; it is counted as 7\.4"),
        (NoNoise(2.0), "adds noise of 0; it is counted as 2"),
        (UncountedNoise(2.0), "it is counted as 4"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_noise_that_is_not_what_is_counted_is_refused(part, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_transform(part, before=Wire(l2_bound=1.0))


def test_a_sum_of_codes_that_cannot_be_decoded_is_no_sum() -> None:
    with pytest.raises((AssertionError, RuntimeWarning, OverflowError)):
        check_transform(SaidAdditive())


@pytest.mark.parametrize(
    ("model", "says"),
    [(WrongGradient(), "along the gradient of bias the loss rises"), (CountsEverybody(), "rows that count")],
)
def test_a_model_that_breaks_a_promise_is_refused(model, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_model(model, classified())


def test_a_model_is_held_to_its_own_check_of_the_data() -> None:
    from koinon.errors import ModelError

    with pytest.raises(ModelError, match="takes rows of 9 numbers"):
        check_model(CentredRegression(9), measured())


@dataclass(frozen=True)
class Spoilt:
    """The reference engine, with one thing done to what it returns."""

    spoil: object
    name: str = "spoilt"

    def run(self, plan, job, states) -> Partial:
        return self.spoil(job, ReferenceEngine().run(plan, job, states))


def larger(job, partial: Partial) -> Partial:
    return replace(partial, total=tree.map(lambda t: t + t // 1000, partial.total))


def by_chunk(job, partial: Partial) -> Partial:
    return replace(partial, total=tree.map(lambda t: t + np.int64(len(job.tasks) == 3), partial.total))


def keeps_refused(job, partial: Partial) -> Partial:
    accepted = np.ones_like(partial.rows.accepted)
    return replace(partial, rows=replace(partial.rows, accepted=accepted))


@pytest.mark.parametrize(
    ("spoil", "says"), [(larger, "the mean update"), (by_chunk, "in chunks of"), (keeps_refused, "refused clients")]
)
def test_an_engine_that_strays_is_refused(spoil, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_engine(lambda: Spoilt(spoil))


class Straying(Local):
    def round(self, plan, job, states):
        partial = super().round(plan, job, states)
        return replace(partial, total=tree.map(lambda t: t + 1, partial.total))


class Hiding(Local):
    def round(self, plan, job, states):
        try:
            return super().round(plan, job, states)
        except Exception:  # noqa: BLE001 - the fault under test
            return None


@pytest.mark.parametrize(("runtime", "says"), [(Straying, "round 1, total"), (Hiding, "hid the failure")])
def test_a_runtime_that_strays_is_refused(runtime, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_runtime(lambda: runtime("reference"))
