"""DP-SGD on clients: the cipher and its normals, batches by secret coins, what one example can do, what is claimed."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import apps
import koinon as kn
from koinon import keys, tree
from koinon.core.types import Batch, Task
from koinon.errors import CompositionError, ConfigurationError
from koinon.models.example_norms_jax import losses_and_squares
from koinon.models.own_loop import OwnLoopModel
from koinon.testing.models import SoftmaxRegression
from koinon.testing.samples import INPUTS, classified
from koinon.work import private, private_batches, secret_noise
from koinon.work.private import PrivateTraining
from koinon.work.private_batches import PoissonBatches, ShuffledBatches, at_once
from koinon.work.secret_noise import Draw, chacha, normals, secret_for, words

SECRET = np.arange(8, dtype=np.uint32) * np.uint32(0x01234567)
KEY = np.array([7, 9], np.uint32)
STOP = kn.Stop(rounds=3)


def algorithm(**fields: Any) -> kn.Algorithm:
    fields = {"batches": ShuffledBatches(size=8), "test_seed": 1, **fields}
    return kn.replace(kn.fedavg(), work=PrivateTraining(**fields))


def product(y: Any, output: Any) -> Any:
    return y * output[..., 0]


def one_step(work: PrivateTraining, secret: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    """Return the change of the model of one step on these examples, from zero weights."""
    model = SoftmaxRegression(x.shape[1], 3)
    broadcast = tree.zeros(model.init(np.zeros(2, np.uint32)))
    task = Task(KEY, np.float32(len(x)), np.float32(1))
    carry = work.begin(task, broadcast, {"secret": secret})
    carry, _ = work.step(model, carry, Batch(x, y, np.ones(len(x), np.float32), KEY))
    return work.finish(task, broadcast, carry)[0].value["params"]


# The cipher and its normals.


def test_the_cipher_is_chacha20_of_rfc_8439_where_it_has_20_rounds() -> None:
    key = np.frombuffer(bytes(range(32)), "<u4").astype(np.uint32)
    nonce = np.frombuffer(bytes.fromhex("000000090000004a00000000"), "<u4").astype(np.uint32)
    block = chacha(key, nonce, 2, rounds=20).reshape(16, 2)[:, 1]  # the RFC's example has counter 1
    expected = (
        "e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3 "
        "466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"
    )
    assert [f"{word:08x}" for word in block.tolist()] == expected.split()


def test_a_compiled_program_draws_the_same_words_and_normals() -> None:
    there = jax.jit(lambda s, k, t: words(s, k, t, Draw.NOISE, 1001))(SECRET, KEY, np.uint32(5))
    here = words(SECRET, KEY, np.uint32(5), Draw.NOISE, 1001)
    np.testing.assert_array_equal(here, there)
    np.testing.assert_allclose(normals(here[:1000]), jax.jit(normals)(there[:1000]), rtol=1e-4, atol=1e-5)


def test_streams_differ_by_secret_task_turn_and_purpose() -> None:
    first = words(SECRET, KEY, np.uint32(0), Draw.NOISE, 64)
    others = [
        words(SECRET + np.uint32(1), KEY, np.uint32(0), Draw.NOISE, 64),
        words(SECRET, KEY + np.uint32(1), np.uint32(0), Draw.NOISE, 64),
        words(SECRET, KEY, np.uint32(1), Draw.NOISE, 64),
        words(SECRET, KEY, np.uint32(0), Draw.COINS, 64),
    ]
    assert all((first != other).mean() > 0.95 for other in others)


def test_normals_are_normal_and_independent() -> None:
    stats = pytest.importorskip("scipy.stats")
    drawn = normals(words(SECRET, KEY, np.uint32(0), Draw.NOISE, 2_000_000)).astype(np.float64)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn**power).mean() - moment) < 4 * (spread / len(drawn)) ** 0.5
    for bound in (3.0, 4.0, 4.5):
        wanted = 2 * stats.norm.sf(bound) * len(drawn)
        assert abs((np.abs(drawn) > bound).sum() - wanted) < 4 * wanted**0.5 + 1
    half = len(drawn) // 2
    assert abs(np.corrcoef(drawn[:half], drawn[half:])[0, 1]) < 4 / half**0.5
    assert abs(np.corrcoef(drawn[:half] ** 2, drawn[half:] ** 2)[0, 1]) < 4 / half**0.5


def test_the_extremes_of_the_cipher_are_finite_normals() -> None:
    extreme = np.array([0, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF], np.uint32)
    drawn = normals(extreme)
    assert np.isfinite(drawn).all() and 7.3 < np.abs(drawn).max() < 7.6


def test_another_model_or_rate_has_another_secret_and_the_same_has_the_same() -> None:
    draw = np.random.default_rng(0)
    model = {"w": draw.normal(size=(70, 50)).astype(np.float32), "b": np.zeros((), np.float32)}
    found = secret_for(SECRET, KEY, model)
    np.testing.assert_array_equal(found, jax.jit(lambda m: secret_for(jnp.asarray(SECRET), jnp.asarray(KEY), m))(model))
    np.testing.assert_array_equal(found, secret_for(SECRET, KEY, tree.map(np.copy, model)))
    others = [secret_for(SECRET, KEY, {**model, "b": np.array(-0.0, np.float32)})]
    for place in (0, 1023, 1024, 3499):
        for bit in (0, 15, 16, 31):
            other = model["w"].copy()
            other.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
            others.append(secret_for(SECRET, KEY, {**model, "w": other}))
    others.append(secret_for(SECRET, KEY + np.uint32(1), model))
    others.append(secret_for(SECRET + np.uint32(1), KEY, model))
    seen = {tuple(each.tolist()) for each in [found, *others]}
    assert len(seen) == len(others) + 1


def test_a_round_asked_again_has_the_same_noise_only_on_the_same_model() -> None:
    work, model = PrivateTraining(batches=ShuffledBatches(size=4)), SoftmaxRegression(5, 3)
    broadcast = model.init(np.zeros(2, np.uint32))
    moved = {**broadcast, "params": {**broadcast["params"], "bias": broadcast["params"]["bias"] + np.float32(1e-6)}}

    def begun(asked: Any, rate: float = 1.0) -> Any:
        task = Task(KEY, np.float32(4), np.float32(rate))
        carry = work.begin(task, asked, {"secret": SECRET})
        return carry["secret"].tolist(), carry["next"].tolist()

    assert begun(broadcast) == begun(broadcast)
    for other in (begun(moved), begun(broadcast, 0.5)):
        assert other[0] != begun(broadcast)[0] and other[1] == begun(broadcast)[1]


# What a step does.


def test_the_noise_of_a_step_has_the_deviation_that_is_accounted() -> None:
    work = PrivateTraining(norm=0.5, multiplier=3.0, batches=ShuffledBatches(size=4), optimizer=kn.sgd(0.2))
    x, y = np.zeros((4, 400), np.float32), np.array([0, 1, 2, 0], np.int32)
    secrets = [SECRET, SECRET + np.uint32(1), SECRET + np.uint32(2)]
    changes = [one_step(work, secret, x, y)["weights"] for secret in secrets]  # zero inputs: no gradient, only noise
    flat = np.concatenate([change.reshape(-1) for change in changes]) / (0.2 * 0.5 * 3.0 / 4)
    assert abs(flat.std() - 1) < 4 / (2 * len(flat)) ** 0.5 and abs(flat.mean()) < 4 / len(flat) ** 0.5


def test_every_step_of_a_round_has_noise_and_coins_of_its_own() -> None:
    """The difference of two steps with one noise has none."""
    work = PrivateTraining(batches=PoissonBatches(one_in=4), optimizer=kn.sgd(0.2))
    model = SoftmaxRegression(1000, 3)
    broadcast = tree.zeros(model.init(np.zeros(2, np.uint32)))
    x, y = np.zeros((40, 1000), np.float32), np.zeros(40, np.int32)
    carry = work.begin(Task(KEY, np.float32(40), np.float32(1)), broadcast, {"secret": SECRET})
    changes, sizes = [], []
    for _ in range(8):
        before = carry["params"]["weights"]
        carry, sums = work.step(model, carry, Batch(x, y, np.ones(40, np.float32), KEY))
        changes.append((carry["params"]["weights"] - before).reshape(-1))
        sizes.append(float(sums["examples"]))
    assert np.abs(np.corrcoef(changes) - np.eye(8)).max() < 4.5 * 3000**-0.5
    assert len(set(sizes)) > 2
    for change in changes:  # over what is expected, never over who came
        assert change.std() == pytest.approx(0.2 * 4 / 40, rel=4.5 * 6000**-0.5)


def test_no_stream_is_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn for noise is drawn for nothing else, coins and the next secret least of all."""
    read: list[Any] = []

    def words_that_are_noted(secret: Any, key: Any, turn: Any, draw: Draw, count: int) -> Any:
        read.append((secret.tobytes(), key.tobytes(), int(turn), draw))
        return words(secret, key, turn, draw, count)

    for module in (private, private_batches, secret_noise):
        monkeypatch.setattr(module, "words", words_that_are_noted)
    work, model = PrivateTraining(batches=PoissonBatches(one_in=4)), SoftmaxRegression(5, 3)
    broadcast = model.init(np.zeros(2, np.uint32))
    carry = work.begin(Task(KEY, np.float32(8), np.float32(1)), broadcast, {"secret": SECRET})
    x, y = np.zeros((8, 5), np.float32), np.zeros(8, np.int32)
    for _ in range(3):
        carry, _ = work.step(model, carry, Batch(x, y, np.ones(8, np.float32), KEY))
    assert {draw for *_, draw in read} == set(Draw)
    assert len(set(read)) == len(read) == 3 + 2 * 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 1e4])
def test_no_example_moves_a_step_by_more_than_its_norm(value: float) -> None:
    work = PrivateTraining(norm=0.5, multiplier=1e-6, batches=ShuffledBatches(size=6), optimizer=kn.sgd(1.0))
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(6, 5)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2], np.int32)
    spoilt = x.copy()
    spoilt[2] = value
    with np.errstate(all="ignore"):
        moved = tree.subtract(one_step(work, SECRET, spoilt, y), one_step(work, SECRET, x, y))
    assert float(tree.sum_of_squares(moved)) ** 0.5 <= 2 * 0.5 / 6 * 1.001


def test_an_example_that_is_not_finite_is_dropped_and_counted_and_its_client_stays() -> None:
    data = kn.federate(apps.clients(3), holdout=0.0)
    start, _ = data.span(np.array([1]), held_out=False)
    data.x[data.order()[int(start[0]) + 4]] = np.nan
    run = kn.fit(apps.model(), data, algorithm(), stop=STOP, progress=False)
    rows = run.outcome.history[-1].rows
    assert rows.refused() == {} and rows.metrics["dropped"].tolist() == [0.0, 1.0, 0.0]
    assert all(np.isfinite(leaf).all() for leaf in tree.leaves(run.params))


def test_each_gradient_is_clipped_by_its_own_norm_whatever_the_others_are() -> None:
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(8, 5)) * 10.0 ** np.arange(-4, 4)[:, None]).astype(np.float32)
    x[6, 2] = np.nan
    y, mask = draw.integers(0, 2, 8).astype(np.float32), np.float32([1, 1, 1, 1, 1, 0, 1, 1])
    model, norm = apps.model(), np.float32(0.6)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(keys.root(0))["params"])
    total, sums = model.clipped_gradient({"params": params, "state": {}}, Batch(x, y, mask, KEY), norm)
    wanted, lengths = tree.zeros(jax.tree.map(np.float64, params)), []
    for i in (0, 1, 2, 3, 4, 7):
        own = jax.grad(lambda p, i=i: apps.loss(p, x[i : i + 1], y[i : i + 1])[0])(params)
        lengths.append(float(tree.sum_of_squares(own)) ** 0.5)
        wanted = tree.add(wanted, tree.scale(jax.tree.map(np.float64, own), min(1.0, norm / lengths[-1])))
    assert min(lengths) < norm < max(lengths)
    for found, leaf in zip(tree.leaves(total), tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-4, atol=1e-6)
    assert (float(sums["examples"]), float(sums["dropped"])) == (6, 1)


def shared(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["a"]) @ params["a"].T @ params["b"]


NETWORKS = {
    "dense": lambda p, x: jnp.tanh(x @ p["a"] + p["c"]) @ p["b"],
    "a kernel used twice": shared,
    "a jitted loss": lambda p, x: jax.jit(lambda y: jax.nn.relu(y @ p["a"]))(x) @ p["a"].T @ p["b"],
    "several rows": lambda p, x: (jnp.stack([x, 2 * x, x * x], axis=1) @ p["a"]).sum(axis=(1, 2)) + x @ p["b"],
    "no product": lambda p, x: (x[:, :, None] * p["a"]).sum(axis=(1, 2)) + (x * p["b"]).sum(axis=1),
    "one product only": lambda p, x: x @ p["b"],
}


@pytest.mark.parametrize("network", NETWORKS)
def test_norms_without_a_dense_layers_gradient_are_those_of_the_gradients(network: str) -> None:
    draw = np.random.default_rng(0)
    shapes = {"a": (5, 4), "b": (4,) if network == "dense" else (5,), "c": (4,)}
    params = {name: jnp.asarray(draw.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    x = jnp.asarray(draw.normal(size=(7, 5)), jnp.float32)

    def one(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.square(NETWORKS[network](params, x[None])))

    losses, squares = jax.jit(lambda p: losses_and_squares(one, p, (x,)))(params)
    gradients = jax.vmap(jax.grad(one), (None, 0))(params, x)
    wanted = sum(jnp.sum(jnp.square(leaf.reshape(7, -1)), axis=1) for leaf in tree.leaves(gradients))
    np.testing.assert_allclose(squares, wanted, rtol=1e-5)
    np.testing.assert_allclose(losses, jax.vmap(one, (None, 0))(params, x), rtol=1e-6)


# Batches by secret coins.


def drawn(ways: Any, batch: Batch, turn: int) -> list[int]:
    """Return the examples of a step, which are numbers."""
    seen: list[int] = []

    def clipped(taken: Batch) -> Any:
        assert (taken.x == taken.y).all()
        seen.extend(taken.x[taken.mask > 0].tolist())
        return {}, {"examples": taken.mask.sum()}

    _, sums = ways.summed(clipped, batch, SECRET, KEY, np.uint32(turn))
    assert float(sums["examples"]) == len(seen) == len(set(seen))
    return seen


def test_every_example_comes_with_the_probability_that_is_accounted() -> None:
    ways, count, turns = PoissonBatches(one_in=5), 40, 3000
    batch = Batch(np.arange(count), np.arange(count), (np.arange(count) < 30).astype(np.float32), KEY)
    seen, sizes = np.zeros(count), []
    for turn in range(turns):
        chosen = drawn(ways, batch, turn)
        seen[chosen] += 1
        sizes.append(len(chosen))
    assert seen[30:].sum() == 0  # what fills a batch up is never drawn
    assert (np.abs(seen[:30] / turns - 0.2) < 5 * (0.2 * 0.8 / turns) ** 0.5).all()
    assert abs(np.var(sizes) - 30 * 0.2 * 0.8) < 5 * 4.8 * (2 / turns) ** 0.5  # independent coins: a binomial size
    assert max(sizes) > at_once(count, 5), "more than a piece holds"


@pytest.mark.parametrize("one_in", [1, 2, 7, 100])
def test_all_examples_whose_coin_fell_are_taken_however_many(one_in: int) -> None:
    """To leave one out would be to let another decide over it, which no noise covers."""
    batch = Batch(np.arange(50), np.arange(50), np.ones(50, np.float32), KEY)
    for turn in range(200):
        coins = words(SECRET, KEY, np.uint32(turn), Draw.COINS, 50)
        fell = np.nonzero(coins.astype(np.float64) < np.floor(2.0**32 / one_in))[0]
        assert sorted(drawn(PoissonBatches(one_in=one_in), batch, turn)) == fell.tolist()


def test_a_compiled_step_takes_as_many_pieces_as_it_needs() -> None:
    ways, draw = PoissonBatches(one_in=3), np.random.default_rng(0)
    batch = Batch(draw.normal(size=(20, 4)), draw.normal(size=20), np.ones(20, np.float32), KEY)

    def clipped(taken: Batch) -> Any:
        return {"w": (taken.mask[:, None] * taken.x).sum(axis=0)}, {"examples": taken.mask.sum()}

    compiled = jax.jit(lambda turn: ways.summed(clipped, Batch(*map(jnp.asarray, (batch.x, batch.y, batch.mask, batch.key))), jnp.asarray(SECRET), jnp.asarray(KEY), turn))  # fmt: skip
    sizes = []
    for turn in range(400):
        total, sums = compiled(np.uint32(turn))
        wanted, counted = ways.summed(clipped, batch, SECRET, KEY, np.uint32(turn))
        np.testing.assert_allclose(total["w"], wanted["w"], rtol=1e-4, atol=1e-5)
        assert float(sums["examples"]) == float(counted["examples"])
        sizes.append(float(sums["examples"]))
    assert max(sizes) > at_once(20, 3)


def test_nobody_draws_the_same_twice_and_a_secret_lasts_one_round() -> None:
    work = PrivateTraining()
    first, second = work.init({}), work.init({})
    assert (first["secret"] != second["secret"]).any() and first["secret"].shape == (8,)
    task = Task(KEY, np.float32(4), np.float32(1))
    broadcast = SoftmaxRegression().init(np.zeros(2, np.uint32))
    _, kept = work.finish(task, broadcast, work.begin(task, broadcast, first))
    assert (kept["secret"] != first["secret"]).all() and kept["secret"].dtype == np.uint32


def test_two_runs_of_one_seed_have_other_noise() -> None:
    secret = kn.replace(kn.fedavg(), work=PrivateTraining(batches=ShuffledBatches(size=8)))
    runs = [
        kn.fit(apps.model(), apps.clients(2), secret, stop=STOP, engine="reference", progress=False) for _ in range(2)
    ]
    assert runs[0].digest != runs[1].digest
    tested = [
        kn.fit(apps.model(), apps.clients(2), algorithm(), stop=STOP, engine="reference", progress=False)
        for _ in range(2)
    ]
    assert tested[0].digest == tested[1].digest


@pytest.mark.slow
@pytest.mark.parametrize("batches", [ShuffledBatches(size=8), PoissonBatches(one_in=4)], ids=repr)
def test_workers_engines_and_a_resumed_run_agree(batches: Any, tmp_path: Any) -> None:
    chosen = algorithm(batches=batches, corrections=(kn.Proximal(0.1),))

    def run(**fields: Any) -> kn.Run:
        return kn.fit(apps.model(), apps.clients(4), chosen, progress=False, **{"stop": STOP, **fields})

    straight = run()
    kn.fit(apps.model(), apps.clients(4), chosen, stop=kn.Stop(rounds=1), out=tmp_path / "run", progress=False)
    assert run(out=tmp_path / "run").digest == straight.digest
    assert run(runtime="processes", workers=2).digest == straight.digest
    # One round: the noise of the next is of the model to the last bit, in which engines differ.
    first, slow = run(stop=kn.Stop(rounds=1)), run(stop=kn.Stop(rounds=1), engine="reference")
    for a, b in zip(tree.leaves(slow.params), tree.leaves(first.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


# What is claimed.


def test_an_epoch_of_shuffled_batches_is_one_gaussian_with_twice_the_norm() -> None:
    pytest.importorskip("dp_accounting")
    work = PrivateTraining(multiplier=20.0, batches=ShuffledBatches(size=8, epochs=4))
    claim = work.statement(rounds=25, delta=1e-5)  # 100 Gaussians of 10: one of 1
    assert claim.epsilon == pytest.approx(4.377178, abs=2e-3) and claim.unit == "example" and claim.guarantee
    assert claim.adjacency == "replace one" and claim.epsilon_renyi >= claim.epsilon


def test_poisson_batches_are_accounted_with_the_rate_of_their_coins() -> None:
    pytest.importorskip("dp_accounting")
    work = PrivateTraining(multiplier=4.0, batches=PoissonBatches(one_in=100))
    claim = work.statement(rounds=100, delta=1e-5)
    assert claim.epsilon == pytest.approx(0.9470, abs=1e-3) and claim.adjacency == "add or remove one"


def test_a_seed_for_tests_is_no_guarantee() -> None:
    pytest.importorskip("dp_accounting")
    claim = PrivateTraining(multiplier=4.0, test_seed=3).statement(rounds=10)
    assert not claim.guarantee and claim.sentence.startswith("no guarantee: a test mode")


def test_a_run_is_charged_for_every_step_and_ends_by_its_budget(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    work = PrivateTraining(multiplier=3.0, batches=PoissonBatches(one_in=4), optimizer=kn.sgd(0.1))
    chosen = kn.replace(kn.fedavg(), work=work)

    def run(rounds: int, **fields: Any) -> kn.Run:
        return kn.fit(apps.model(), apps.clients(2), chosen, stop=kn.Stop(rounds=rounds), progress=False, **fields)

    alone = run(3, out=tmp_path / "run")
    assert alone.privacy.guarantee and (alone.privacy.unit, alone.privacy.rounds) == ("example", 3)
    assert alone.privacy.epsilon == pytest.approx(work.statement(rounds=3).epsilon)
    ledger = [json.loads(line) for line in (tmp_path / "run" / "privacy-ledger.jsonl").read_text().splitlines()]
    assert ledger[0]["unit"] == "example" and [line["times"] for line in ledger[1:]] == [4, 4, 4]
    limit = work.statement(rounds=2).epsilon * 1.001
    budget = kn.PrivacyBudget(epsilon=limit, ledger=tmp_path / "ledger")
    ended = run(9, privacy=budget)
    assert ended.rounds == 2 and ended.stopped.startswith("budget: one more round would bring epsilon to")
    assert ended.privacy.epsilon <= limit
    assert run(9, privacy=budget).rounds == 0, "what was spent stays spent"
    tested = kn.replace(chosen, work=kn.replace(work, test_seed=1))
    assert not kn.fit(apps.model(), apps.clients(2), tested, stop=kn.Stop(rounds=1), progress=False).privacy.guarantee


# What is refused.


def test_a_model_that_mixes_examples_is_refused_and_its_likeness_without_is_not() -> None:
    keras = pytest.importorskip("keras")
    from koinon.models.keras_on_jax import KerasModel

    data = classified()
    batch = Batch(data.x[:4], data.y[:4], np.ones(4, np.float32), KEY)

    def clipped(layer: Any) -> float:
        net = keras.Sequential([keras.layers.Input((INPUTS,)), layer, keras.layers.Dense(3)])
        net.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model = KerasModel.of(net, data)
        total, sums = model.clipped_gradient(model.init(keys.root(0)), batch, np.float32(0.1))
        assert float(sums["examples"]) == 4
        return float(tree.sum_of_squares(total)) ** 0.5

    with pytest.raises(CompositionError, match=r"BatchNormalization does.*GroupNormalization"):
        clipped(keras.layers.BatchNormalization())
    assert 0 < clipped(keras.layers.LayerNormalization()) <= 0.4
    assert 0 < clipped(keras.layers.BatchNormalization(trainable=False)) <= 0.4


def test_dropout_gives_every_example_a_mask_of_its_own_that_clipping_and_sum_share() -> None:
    keras = pytest.importorskip("keras")
    from koinon.models.keras_on_jax import KerasModel

    layers = [keras.layers.Input((INPUTS,)), keras.layers.Dropout(0.5), keras.layers.Dense(1, use_bias=False)]
    net = keras.Sequential(layers)
    net.compile(optimizer="sgd", loss=product)
    rows = np.ones((16, INPUTS), np.float32)
    data = kn.federate({"a": (rows, np.ones(16, np.float32))}, holdout=0.0)
    model = KerasModel.of(net, data)
    variables = model.init(keys.root(0))
    sums, added = [], np.zeros(INPUTS)
    for i in range(16):
        mask = (np.arange(16) == i).astype(np.float32)
        total, _ = model.clipped_gradient(variables, Batch(rows, np.ones(16, np.float32), mask, KEY), np.float32(0.5))
        (leaf,) = (np.asarray(leaf).ravel() for leaf in tree.leaves(total))
        norm = float(np.linalg.norm(leaf))
        assert norm <= 0.5 and (norm > 0.499 or norm == 0)
        added += leaf
        sums.append(tuple((leaf != 0).tolist()))
    assert len(set(sums)) > 4  # of 32 masks
    everybody = Batch(rows, np.ones(16, np.float32), np.ones(16, np.float32), KEY)
    total, _ = model.clipped_gradient(variables, everybody, np.float32(0.5))  # clipped with the very masks it adds up
    np.testing.assert_allclose(np.asarray(tree.leaves(total)[0]).ravel(), added, rtol=1e-5)


def test_work_that_needs_single_examples_refuses_models_without() -> None:
    model = OwnLoopModel(kn.OwnLoop(params={"w": np.zeros(2)}, train=lambda p, d, t: (p, 1, {})))
    with pytest.raises(CompositionError, match="OwnLoopModel does not give"):
        PrivateTraining().step(model, {}, Batch(np.zeros(1), np.zeros(1), np.ones(1), KEY))
    with pytest.raises(CompositionError, match="your own train"):
        model.fitted(algorithm())


@pytest.mark.parametrize("fields", [{"norm": 0.0}, {"multiplier": -1.0}, {"batches": 32}])
def test_fields_out_of_range_are_refused(fields: Any) -> None:
    with pytest.raises(ConfigurationError):
        PrivateTraining(**fields)


def test_the_operating_system_makes_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda count: bytes(range(count)))
    assert PrivateTraining().init({})["secret"].tobytes() == bytes(range(32))
    assert jnp.asarray(PrivateTraining(test_seed=1).init({})["secret"]).dtype == jnp.uint32
