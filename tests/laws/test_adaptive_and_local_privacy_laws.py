"""The clipping norm finds its quantile; a client's own noise is what was promised, and its own."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import apps
import koinon as kn
import linear
from koinon import keys, tree
from koinon.core.protocols import Offers
from koinon.core.types import Context, RoundFacts
from koinon.core.wire import Wire
from koinon.errors import CompositionError, ConfigurationError, UnsupportedError
from koinon.privacy.analytic import gaussian_sigma
from koinon.privacy.quantile import QuantileNorm
from koinon.server.average import Average
from koinon.server.follow_quantile import FollowQuantile

OFFERS = frozenset(Offers)


def context(norm: float) -> Context:
    return Context(keys.root(0), np.float32(1), {"clipping": {"norm": np.float32(norm)}})


def round_of(clip: kn.AdaptiveClip, server: FollowQuantile, state, updates, noise=0.0):
    """Return the server's state after a round in which everybody takes part, with noise on the mean."""
    broadcast = server.broadcast(state)
    sent = [clip.encode(value, {}, replace(context(1), broadcast=broadcast))[0] for value in updates]
    mean = sent[0]
    for one in sent[1:]:
        mean = tree.add(mean, one)
    mean = tree.map(lambda x: np.asarray(x, np.float64) / len(updates) + noise, mean)
    return server.apply(state, mean, RoundFacts(1, len(updates), len(updates)))


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("initial", [1e-3, 30.0])
def test_the_norm_converges_to_the_quantile_from_both_sides(quantile: float, initial: float) -> None:
    draw = np.random.default_rng(2)
    lengths = np.exp(draw.normal(size=200))
    directions = draw.normal(size=(200, 6))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    updates = [
        {"params": {"w": (length * x).astype(np.float32)}, "state": {}}
        for length, x in zip(lengths, directions, strict=True)
    ]
    norm = QuantileNorm(initial=initial, quantile=quantile)
    clip, server = kn.AdaptiveClip(norm), FollowQuantile(Average(), norm)
    state = server.init({"params": {"w": np.zeros(6, np.float32)}, "state": {}})
    for _ in range(200):
        state = round_of(clip, server, state, updates, noise=draw.normal() * norm.share * 10 / 200)
    found = float(state["clipping"]["norm"])
    low, high = np.quantile(lengths, [max(0, quantile - 0.06), min(1, quantile + 0.06)])
    assert low <= found <= high, f"{found} and not {np.quantile(lengths, quantile)}"


def test_the_mean_is_that_of_the_clipped_updates_in_their_own_size() -> None:
    updates = [
        {"params": {"w": np.float32([3.0, 4.0])}, "state": {}},
        {"params": {"w": np.float32([0.5, 0])}, "state": {}},
    ]
    norm = QuantileNorm(initial=2.5)
    server = FollowQuantile(Average(), norm)
    state = server.init({"params": {"w": np.zeros(2, np.float32)}, "state": {}})
    state = round_of(kn.AdaptiveClip(norm), server, state, updates)
    np.testing.assert_allclose(server.variables(state)["params"]["w"], [(1.5 + 0.5) / 2, 2.0 / 2], rtol=1e-6)
    assert float(state["clipping"]["norm"]) == pytest.approx(2.5, rel=1e-6), "half of them were within, as asked"


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 1e6, 1e25]), st.floats(1e-4, 1e4))
def test_an_update_over_the_norm_and_its_answer_are_within_the_bound(seed: int, size: float, norm: float) -> None:
    clip = kn.AdaptiveClip(QuantileNorm(share=0.7))
    value = {"params": {"w": (size * np.random.default_rng(seed).normal(size=9)).astype(np.float32)}, "state": {}}
    with np.errstate(over="ignore"):
        sent, _ = clip.encode(value, {}, context(norm))
    total = np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in tree.leaves(sent)))
    assert total <= clip.check(Wire()).l2_bound * (1 + 1e-5)
    within = np.linalg.norm(value["params"]["w"].astype(np.float64)) <= norm
    if abs(np.linalg.norm(value["params"]["w"].astype(np.float64)) / norm - 1) > 1e-5:
        assert float(sent["clipping"]["norm"]) == pytest.approx(0.35 if within else -0.35)


def test_the_papers_split_of_the_noise() -> None:
    """For 100 clients and a multiplier of 1 the update's own multiplier is 1.00504, the count's noise 5 clients."""
    norm = QuantileNorm.of_cohort(100, 1.0)
    own = 1.0 * norm.bound
    assert round(own, 5) == 1.00504
    assert own / norm.share == pytest.approx(5.0)
    assert own**-2 + (2 * 5.0) ** -2 == pytest.approx(1.0)
    with pytest.raises(ConfigurationError, match="Ask for more than 20 clients"):
        QuantileNorm.of_cohort(20, 2.0)


def test_numpy_and_a_compiled_program_clip_alike() -> None:
    clip = kn.AdaptiveClip()
    value = {"params": {"w": np.linspace(-1, 1, 7, dtype=np.float32)}, "state": {}}
    for norm in (0.1, 10.0):
        plain, _ = clip.encode(value, {}, context(norm))
        compiled = jax.jit(
            lambda v, n: clip.encode(v, {}, Context(keys.root(0), 1, {"clipping": {"norm": n}}))[0]
        )(value, jnp.float32(norm))  # fmt: skip
        for a, b in zip(tree.leaves(compiled), tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
            assert a.dtype == b.dtype


@pytest.mark.slow
def test_a_run_moves_its_norm_and_goes_on_with_it(tmp_path) -> None:
    algorithm = kn.fedavg(kn.sgd(0.1), cohort=kn.Poisson(0.8), channel=(kn.AdaptiveClip(), kn.GaussianNoise(1.0)))
    run = linear.train(algorithm, 6, privacy_test_mode=True, out=tmp_path / "straight")
    linear.train(algorithm, 3, privacy_test_mode=True, out=tmp_path / "broken")
    again = linear.train(algorithm, 6, privacy_test_mode=True, out=tmp_path / "broken")
    norms = [float(each.outcome.state.server["clipping"]["norm"]) for each in (run, again)]
    assert norms[0] == norms[1] != 0.1
    assert run.digest == again.digest
    compiled = kn.fit(
        apps.model(), apps.clients(), algorithm, stop=kn.Stop(rounds=2), progress=False, privacy_test_mode=True
    )
    plain = kn.fit(
        apps.model(), apps.clients(), algorithm, stop=kn.Stop(rounds=2), progress=False, privacy_test_mode=True,
        engine="reference",
    )  # fmt: skip
    for a, b in zip(tree.leaves(compiled.params), tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_server_that_does_not_follow_is_refused() -> None:
    algorithm = replace(kn.fedavg(), channel=(kn.AdaptiveClip(),))
    with pytest.raises(CompositionError, match=r"Average\(.*follows none of it"):
        algorithm.check(OFFERS)
    other = replace(algorithm, server=FollowQuantile(Average(), QuantileNorm(initial=3.0)))
    with pytest.raises(CompositionError, match="follows none of it"):
        other.check(OFFERS)
    assert replace(algorithm, server=FollowQuantile(Average(), QuantileNorm())).check(OFFERS).l2_bound > 1


@pytest.mark.parametrize("answer", [-1e30, -1e4, 1e4, 1e30])
def test_no_answer_ends_or_freezes_a_norm(answer: float) -> None:
    """A dishonest client may say anything: in one round the norm moves by a factor of e at most."""
    assert 1 / math.e <= QuantileNorm(initial=1.0).following(1.0, answer) <= math.e


@pytest.mark.parametrize("given", [{"initial": 0.0}, {"quantile": 1.0}, {"learning_rate": -1.0}, {"share": 0.0}])
def test_a_quantile_norm_has_ranges(given) -> None:
    with pytest.raises(ConfigurationError, match="QuantileNorm"):
        QuantileNorm(**given)


def local(epsilon: float, bound: float, count: int = 200_000):
    value = {"w": np.linspace(-1, 1, count, dtype=np.float32) * np.float32(bound / count)}
    mechanism = kn.LocalGaussian(epsilon)
    sent, _ = mechanism.encode(value, {}, Context(keys.root(0), 1, {}, lambda: bound))
    return mechanism, sent["w"].astype(np.float64) - value["w"]


@pytest.mark.parametrize(("epsilon", "bound"), [(1.0, 1.0), (8.0, 0.01), (20.0, 300.0)])
def test_a_clients_noise_is_that_of_the_analytic_mechanism_for_twice_its_norm(epsilon: float, bound: float) -> None:
    mechanism, noise = local(epsilon, bound)
    wanted = gaussian_sigma(epsilon, 1e-5) * 2 * bound
    assert mechanism.deviation(bound) == pytest.approx(wanted, rel=2e-5)
    assert mechanism.deviation(bound) >= wanted
    assert stats.kstest(noise / wanted, "norm").pvalue > 1e-3


def test_what_a_client_sends_lies_on_a_grid_that_its_update_does_not_change() -> None:
    values = [{"w": np.float32([x, 2 * x, -x])} for x in (0.0, 1e-7, 0.3, 1 / 3)]
    mechanism = kn.LocalGaussian(1.0)
    step = 2.0 ** (np.ceil(np.log2(mechanism.deviation(1.0))) - 18)
    for value in values:
        sent, _ = mechanism.encode(value, {}, Context(keys.root(0), 1, {}, lambda: 1.0))
        steps = sent["w"].astype(np.float64) / step
        assert np.array_equal(steps, np.rint(steps))


def test_local_noise_needs_a_bound_a_loop_and_no_second_noise() -> None:
    clipped = (kn.Clip(1.0), kn.LocalGaussian(8.0))
    wire = kn.fedavg(channel=clipped).check(OFFERS)
    assert (wire.l2_bound, wire.noise_by) == (None, "LocalGaussian(epsilon=8.0, delta=1e-05)")
    for channel, says in (
        ((kn.LocalGaussian(8.0),), "needs a bounded update. Put Clip before it"),
        ((*clipped, kn.GaussianNoise(1.0)), "one of the two is enough"),
        ((kn.Clip(1.0), kn.GaussianNoise(1.0), kn.LocalGaussian(8.0)), "one of the two is enough"),
    ):
        with pytest.raises(CompositionError, match=says):
            kn.fedavg(channel=channel).check(OFFERS)
    with pytest.raises(UnsupportedError, match='Use engine="reference"'):
        jax.jit(lambda v: clipped[1].encode(v, {}, Context(keys.root(0), 1, {}, lambda: 1.0))[0])({"w": jnp.ones(3)})
    with pytest.raises(CompositionError, match="was given no bound"):
        clipped[1].encode({"w": np.ones(3, np.float32)}, {}, Context(keys.root(0), 1))


def test_a_run_with_local_noise_says_what_it_costs_and_that_nobody_is_trusted() -> None:
    run = linear.train(kn.fedavg(kn.sgd(0.1), channel=(kn.Clip(1.0), kn.LocalGaussian(4.0))), 1)
    assert run.privacy.epsilon == pytest.approx(4.0, abs=1e-6)
    assert run.privacy.trust.startswith("nobody")
    assert run.privacy.adjacency == "replace one"
    assert run.outcome.state.rows.weights.tolist() == [1, 1, 1]
    budget = kn.PrivacyBudget(epsilon=9.0)
    more = linear.train(kn.fedavg(kn.sgd(0.1), channel=(kn.Clip(1.0), kn.LocalGaussian(4.0))), 50, privacy=budget)
    assert 1 < more.rounds < 10
    assert more.privacy.epsilon <= 9.0
