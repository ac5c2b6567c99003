"""A private run: what is released, what it is divided by, who counts, when it ends, what is refused."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import apps
import koinon as kn
import linear
from koinon import exact, privacy, tree
from koinon.app import App, resolve
from koinon.channel.central import sensitivity
from koinon.core.protocols import Needs, Offers
from koinon.errors import CompositionError, ConfigurationError, StoreError
from koinon.privacy.accounted import accounted
from koinon.privacy.mechanism import Noise
from koinon.privacy.random_bits import PrivacyKeys, RandomStream
from koinon.privacy.releases import releases
from koinon.privacy.statement import statement

OFFERS = frozenset(Offers)
NOISE = (kn.Clip(0.5), kn.GaussianNoise(2.0))


def private(cohort=None, channel=NOISE, **options) -> kn.Algorithm:
    return kn.fedavg(kn.sgd(0.1), cohort=cohort, channel=channel, **options)


def fit(algorithm: kn.Algorithm, rounds: int = 3, **fields) -> kn.Run:
    return linear.train(algorithm, rounds, **{"privacy_test_mode": True, **fields})


def noise_of(seed: int, round: int, total, multiplier: float, norm: float):
    noise = Noise(lambda round: RandomStream(PrivacyKeys.of_test(seed).noise, round).normals)
    return kn.GaussianNoise(multiplier).release(total, norm, round, noise)


def test_a_round_is_the_clipped_sum_with_noise_over_the_expected_cohort() -> None:
    """Nobody's examples weigh more, and nobody's absence shows in the divisor."""
    seed, rate = 2, 0.6
    run = fit(private(kn.Poisson(rate)), 1, seed=seed)
    names = sorted(linear.clients())
    came = kn.Poisson(rate).choose(3, RandomStream(PrivacyKeys.of_test(seed).cohort, 1).bits)
    assert 0 < len(came) < 3, "the seed is to draw some and not all"
    total = None
    for position in came.tolist():
        data = linear.clients()
        alone = fit(private(channel=(kn.Clip(0.5),)), 1, clients={names[position]: data[names[position]]}, seed=seed)
        moved = {k: np.float32(v - w) for (k, v), w in zip(tree.items(alone.params), [0, linear.WEIGHTS], strict=True)}
        add = tree.map(lambda x: exact.convert(np.float32(x), np.float32(1)), moved)
        total = add if total is None else exact.merge(total, add)
    value = {"params": total, "state": {"batches": np.int64(0)}}
    noisy = noise_of(seed, 1, value, 2.0, 0.5)["params"]
    for (name, found), start in zip(tree.items(run.params), [0, linear.WEIGHTS], strict=True):
        wanted = start + noisy[name] / exact.SCALE / (3 * rate)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_an_empty_cohort_releases_noise_alone() -> None:
    run = fit(private(kn.Poisson(1e-9)), 2)
    assert [record.cohort for record in run.history] == [0, 0]
    assert not np.array_equal(run.params["w"], linear.WEIGHTS)


def test_noise_of_a_run_is_the_same_for_every_worker_and_engine_and_never_twice() -> None:
    def digest(**fields) -> str:
        given = {"stop": kn.Stop(rounds=2), "progress": False, "seed": 1, **fields}
        return kn.fit(apps.model(), apps.clients(), private(kn.Poisson(0.5)), **given).digest

    test = digest(privacy_test_mode=True)
    assert digest(privacy_test_mode=True, runtime="processes", workers=2) == test
    assert digest(privacy_test_mode=True, seed=2) != test
    assert len({digest(), digest(), test}) == 3, "without a test mode no run repeats another's noise"


def test_a_client_that_is_refused_counts_as_absent() -> None:
    spoilt = linear.clients()
    x, y = spoilt["site-1"]
    spoilt["site-1"] = (x * np.float32(1e30), y)
    without = fit(private(), 1, clients={n: c for n, c in spoilt.items() if n != "site-1"})
    run = fit(private(), 1, clients=spoilt)
    assert list(run.history[0].refused) == ["site-1"]
    noise = noise_of(0, 1, exact.zero(run.variables), 2.0, 0.5)["params"]["w"] / exact.SCALE
    among_three = 3 * (run.params["w"] - linear.WEIGHTS) - noise
    among_two = 2 * (without.params["w"] - linear.WEIGHTS) - noise
    np.testing.assert_allclose(among_three, among_two, atol=1e-5)
    everybody = fit(
        private(), 1, clients={name: (x * np.float32(1e30), y) for name, (x, y) in linear.clients().items()}
    )
    assert everybody.rounds == 1, "a round of which everybody was refused releases noise, and does not end the run"


@pytest.mark.parametrize("huge", [1e3, 1e18, 1e30])
def test_no_client_moves_a_release_by_more_than_its_share(huge: float) -> None:
    data = linear.clients()
    x, y = data["site-2"]
    one, two = (fit(private(), 1, clients={**data, "site-2": (x, y * np.float32(by))}) for by in (1.0, huge))
    gap = tree.map(lambda a, b: np.asarray(a, np.float64) - b, one.variables, two.variables)
    assert float(np.sqrt(tree.sum_of_squares(gap))) <= 2 * sensitivity(0.5, 4) / 3 + 1e-6


def test_a_private_run_goes_on_with_its_own_keys(tmp_path: Path) -> None:
    straight = fit(private(kn.Poisson(0.5)), 4, out=tmp_path / "straight", privacy_test_mode=True)
    fit(private(kn.Poisson(0.5)), 2, out=tmp_path / "broken", privacy_test_mode=True)
    assert fit(private(kn.Poisson(0.5)), 4, out=tmp_path / "broken", privacy_test_mode=False).digest == straight.digest
    fit(private(), 2, out=tmp_path / "secret", privacy_test_mode=False)
    assert fit(private(), 4, out=tmp_path / "secret", privacy_test_mode=False).privacy.guarantee
    assert len((tmp_path / "secret" / "privacy-ledger.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "algorithm", [private(), kn.replace(kn.fedavg(), work=kn.PrivateTraining())], ids=["keys", "work"]
)
def test_secrets_are_for_the_owners_eyes_only_while_a_run_writes_them(algorithm, tmp_path: Path) -> None:
    """A write-ahead log has them before the journal does; the folder may be one that everybody can read."""
    (tmp_path / "run").mkdir(mode=0o755)
    modes: dict[str, int] = {}

    def look(event: object) -> None:
        modes.update({path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").glob("journal*")})

    stop = kn.Stop(rounds=2)
    engine = "reference" if algorithm.channel else "jax"
    model, data = (linear.LinearModel(), linear.clients()) if algorithm.channel else (apps.model(), apps.clients(2))
    kn.fit(model, data, algorithm, stop=stop, out=tmp_path / "run", progress=look, engine=engine)
    assert {"journal.sqlite", "journal.sqlite-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_run_ends_before_the_round_that_would_exceed_its_budget(tmp_path: Path) -> None:
    budget = kn.PrivacyBudget(epsilon=3.0, ledger=tmp_path / "ledger")
    run = fit(private(), 20, privacy=budget, privacy_test_mode=False)
    assert 0 < run.rounds < 20
    assert run.stopped.startswith("budget: one more round would bring epsilon to")
    assert run.privacy.epsilon <= 3.0
    assert privacy.epsilon(noise_multiplier=2.0, rounds=run.rounds + 1, delta=1e-5) > 3.0, "and not a round too early"
    assert len((tmp_path / "ledger").read_text().splitlines()) == 1 + run.rounds


def test_two_runs_on_one_data_set_add_up(tmp_path: Path) -> None:
    budget = kn.PrivacyBudget(epsilon=6.0, ledger=tmp_path / "ledger")
    alone = fit(private(), 100, privacy=kn.PrivacyBudget(epsilon=6.0), privacy_test_mode=False)
    first = fit(private(), 3, privacy=budget, privacy_test_mode=False)
    second = fit(private(), 100, privacy=budget, privacy_test_mode=False)
    assert first.rounds == 3
    assert second.rounds == alone.rounds - 3
    assert second.privacy.rounds == alone.rounds
    assert second.privacy.epsilon == pytest.approx(alone.privacy.epsilon)
    third = fit(private(), 100, privacy=budget, privacy_test_mode=False)
    assert third.rounds == 0
    other = linear.clients((2, 4, 5))
    with pytest.raises(StoreError, match="is a ledger of another data"):
        fit(private(), 1, clients=other, privacy=budget)


def test_one_ledger_is_for_every_run_about_the_same_examples_however_they_are_split(tmp_path: Path) -> None:
    """A seed, a share held out, the order of clients: with a ledger each, nobody would add the runs up."""
    budget = kn.PrivacyBudget(epsilon=60.0, ledger=tmp_path / "ledger")
    data = linear.clients((6, 8, 7))
    turned = dict(reversed(data.items()))
    for i, (clients, fields) in enumerate([(data, {"seed": 1, "holdout": 0.3}), (turned, {"seed": 2, "holdout": 0.0})]):
        assert fit(private(), 2, clients=clients, privacy=budget, **fields).privacy.rounds == 2 * (i + 1)
    x, y = data["site-1"]
    changed = {**data, "site-1": (x + np.float32(1e-6), y)}
    swapped = {**data, "site-1": data["site-2"], "site-2": data["site-1"]}
    for other in (changed, swapped, {n: data[n] for n in list(data)[:2]}):
        with pytest.raises(StoreError, match="is a ledger of another data"):
            fit(private(), 1, clients=other, privacy=budget)


def test_who_is_trusted_with_what_depends_on_what_hides_single_updates() -> None:
    plain, hidden = (
        statement(accounted(private(channel=channel), 3), 1, 1e-5)
        for channel in (NOISE, (kn.Clip(0.5), kn.SecureSum(), kn.GaussianNoise(2.0)))
    )
    assert plain.trust.startswith("the coordinator sees each update without noise")
    assert hidden.trust.startswith("the coordinator sees the sum of a round without noise, by SecureSum(")
    assert hidden.epsilon == plain.epsilon


def test_sampling_counts_against_those_alone_who_do_not_see_who_is_drawn() -> None:
    """A fleet's receipts name everybody who was asked, so to the other parties a coin is no secret."""
    poisson = fit(private(kn.Poisson(0.25)), 5, privacy_test_mode=False).privacy
    everybody = privacy.epsilon(noise_multiplier=2.0, rounds=5, delta=1e-5)
    assert poisson.epsilon < poisson.epsilon_seen == pytest.approx(everybody)
    assert any(
        f"knows who took part (a fleet's receipts tell every party): epsilon {everybody:.4g}" in line
        for line in poisson.lines()
    )
    plain = fit(private(), 5, privacy_test_mode=False).privacy
    assert plain.epsilon_seen == plain.epsilon
    assert not any("knows who took part" in line for line in plain.lines())


def test_a_run_that_goes_on_with_another_ledger_brings_its_rounds_along(tmp_path: Path) -> None:
    fit(private(), 3, out=tmp_path / "run", privacy_test_mode=False)
    late = kn.PrivacyBudget(epsilon=50.0, ledger=tmp_path / "late")
    for rounds in (5, 5):  # the second time nothing is left to do
        run = fit(private(), rounds, out=tmp_path / "run", privacy=late, privacy_test_mode=False)
        assert run.privacy.rounds == 5
        assert len((tmp_path / "late").read_text().splitlines()) == 1 + 5
    elsewhere = kn.PrivacyBudget(epsilon=0.1, ledger=tmp_path / "later")
    assert fit(private(), 9, out=tmp_path / "run", privacy=elsewhere).rounds == 5
    assert len((tmp_path / "later").read_text().splitlines()) == 1 + 5


def test_a_sampler_swapped_under_the_ledger_is_refused(tmp_path: Path) -> None:
    budget = kn.PrivacyBudget(epsilon=60.0, ledger=tmp_path / "ledger")
    fit(private(kn.Poisson(0.5)), 1, privacy=budget)
    with pytest.raises(StoreError, match="ledger of another adjacency"):
        fit(private(2), 1, privacy=budget)
    out = tmp_path / "out"
    fit(private(kn.Poisson(0.5)), 1, out=out)
    with pytest.raises(StoreError, match="another algorithm.sampler"):
        fit(private(kn.Poisson(0.4)), 2, out=out)


def test_the_statement_is_of_what_runs() -> None:
    poisson = fit(private(kn.Poisson(0.25)), 5, privacy_test_mode=False).privacy
    exact_rate = kn.Poisson(0.25).participation(3).rate
    wanted = privacy.epsilon(sampling_rate=exact_rate, noise_multiplier=2.0, rounds=5, delta=1e-5)
    assert poisson.guarantee
    assert (poisson.unit, poisson.rounds, poisson.delta) == ("client", 5, 1e-5)
    assert poisson.epsilon == pytest.approx(wanted)
    assert poisson.epsilon_renyi >= poisson.epsilon
    everybody = fit(private(), 5, privacy_test_mode=False).privacy
    assert everybody.epsilon == pytest.approx(privacy.epsilon(noise_multiplier=2.0, rounds=5, delta=1e-5))
    fixed = fit(private(2), 5, privacy_test_mode=False).privacy
    assert fixed.epsilon == pytest.approx(privacy.epsilon(noise_multiplier=1.0, rounds=5, delta=1e-5)), (
        "a cohort of fixed size is not a Poisson one: no amplification, and replacing moves by twice the norm"
    )
    assert "replace" in fixed.adjacency
    test = fit(private(), 1).privacy
    assert not test.guarantee
    assert test.sentence.startswith("no guarantee: a test mode")
    assert fit(kn.fedavg(), 1, privacy_test_mode=False).privacy is None


def test_baselines_that_are_sent_to_nobody_carry_no_noise() -> None:
    model, data = linear.LinearModel(), linear.clients()
    given = {"stop": kn.Stop(rounds=2), "holdout": 0.0, "engine": "reference"}
    plain = private(channel=(kn.Clip(0.5),))
    assert kn.pooled(model, data, private(), **given).digest == kn.pooled(model, data, plain, **given).digest
    assert all(run.privacy is None for run in kn.alone(model, data, private(), **given).values())


@pytest.mark.parametrize(
    "make", [kn.scaffold, kn.fedadam, lambda **given: kn.fedprox(0.1, **given), lambda **given: kn.fedavg(server_momentum=0.9, **given)]
)  # fmt: skip
def test_what_is_done_with_a_private_sum_stays_private(make) -> None:
    algorithm = make(cohort=kn.Poisson(0.5), channel=(kn.AdaptiveClip(), kn.GaussianNoise(3.0)))
    run = fit(algorithm, 3, privacy_test_mode=False)
    assert run.privacy.guarantee
    assert run.privacy.epsilon == pytest.approx(
        privacy.epsilon(noise_multiplier=3.0, sampling_rate=0.5, rounds=3, delta=1e-5)
    )
    baseline = kn.pooled(linear.LinearModel(), linear.clients(), algorithm, stop=kn.Stop(rounds=2), holdout=0.0)
    assert baseline.privacy is None


def test_accountants_that_disagree_promise_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from koinon.privacy import statement

    monkeypatch.setattr(statement, "composed_renyi", lambda events, delta: 0.1)
    found = fit(private(), 3, privacy_test_mode=False).privacy
    assert not found.guarantee
    assert "two accountants disagree" in found.sentence


class Each:
    needs = Needs.EACH

    def __repr__(self) -> str:
        return "Each()"


@dataclass(frozen=True)
class Own:
    def cohort(self, population, key):
        return np.arange(population)

    def largest(self, population):
        return population


REFUSED = {
    "noise without room": (private(channel=(kn.Clip(1e6), kn.GaussianNoise(200.0))), "the exact sum has room for"),
    "rows without room": (private(kn.Cyclic(2), (kn.Clip(1.3e8), kn.CorrelatedNoise(1.0, 2))), "the exact sum has room for"),
    "no bound": (private(channel=(kn.GaussianNoise(1.0),)), r"GaussianNoise\(multiplier=1.0\) needs a bounded update. Put Clip before it"),
    "a bound that is lost": (private(channel=(kn.Clip(1.0), kn.Quantise(), kn.GaussianNoise(1.0))), "needs a bounded update"),
    "a later step": (private(channel=(kn.Clip(1.0), kn.GaussianNoise(1.0), kn.Bfloat16())), r"Bfloat16\(\) stands after GaussianNoise"),
    "twice": (private(channel=(*NOISE, kn.GaussianNoise(3.0))), "one of the two is enough"),
    "each update": (replace(private(), aggregator=Each()), r"covers the sum of all updates, but Each\(\)"),
    "the fastest": (replace(private(), schedule=kn.Synchronous(over_selection=1.5)), "takes the first who answer"),
    "clients too often": (private(kn.Cyclic(2), (kn.Clip(1.0), kn.CorrelatedNoise(1.0, 3))), r"Use Cyclic\(3\) or more groups"),
    "clients by chance": (private(kn.Poisson(0.1), (kn.Clip(1.0), kn.CorrelatedNoise(1.0, 2))), "may draw them once in 1"),
    "a sampler that says nothing": (private(Own()), r"Own\(\) does not say how it draws"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_accounted_is_refused(name: str) -> None:
    algorithm, says = REFUSED[name]
    with pytest.raises(CompositionError, match=says):
        algorithm.check(OFFERS)


def test_a_cohort_that_could_not_be_added_up_is_refused_before_one_more_client_refuses_all_others() -> None:
    """Each client's share of the exact sum shrinks with the cohort: who came would decide over all others."""
    norm = exact.RANGE / 2.5
    two = dict(list(linear.clients().items())[:2])
    assert fit(private(channel=(kn.Clip(norm), kn.GaussianNoise(1e-7))), 1, clients=two).rounds == 1
    for cohort in (None, kn.Poisson(0.5), 3):
        algorithm = private(cohort, (kn.Clip(norm), kn.GaussianNoise(1e-7)))
        with pytest.raises(CompositionError, match=r"a round may have 3 clients.*norm of 1.432e\+09 at most"):
            fit(algorithm, 1)


class Unaware:
    """Noise of somebody else's making, which does not say that clients must weigh alike."""

    trust = kn.GaussianNoise(1.0).trust

    def check(self, wire):
        return replace(wire, noise_by="Unaware()")

    def init(self, value):
        return {}

    def encode(self, value, state, context):
        return value, state

    def decode(self, payload, context):
        return payload

    def payload_bytes(self, sizes, value_bytes):
        return value_bytes

    def event(self, participation):
        return kn.GaussianNoise(1.0).event(participation)

    def release(self, total, bound, round, noise):
        return kn.GaussianNoise(1.0).release(total, bound, round, noise)


def test_noise_without_a_check_of_its_own_is_not_accounted() -> None:
    """Clients would keep weights of their own, and the noise would be for clients of weight 1."""
    assert accounted(private(channel=(kn.Clip(1.0), Unaware())), 3) is None


def test_a_round_without_an_entry_is_not_released() -> None:
    resolved = resolve(App(model=linear.LinearModel(), clients=linear.clients(), algorithm=private(), holdout=0.0))
    door = releases(resolved.plan, PrivacyKeys.fresh, None, None)
    total = exact.zero(resolved.plan.model.init(np.zeros(2, np.uint32)))
    with pytest.raises(ConfigurationError, match="round 1 is not in the ledger"):
        door.release(1, total)
    door.begin(1, 1)
    assert tree.names(door.release(1, total)) == tree.names(total)


def test_every_round_has_noise_of_its_own_and_a_repeated_one_the_same() -> None:
    """The difference of two releases with one noise has none."""
    resolved = resolve(App(model=linear.LinearModel(), clients=linear.clients(), algorithm=private(), holdout=0.0))
    keys, total = PrivacyKeys.fresh(), {"w": np.zeros(4000, np.int64)}

    def release(door, round):
        door.begin(round, 1)
        return door.release(round, total)["w"].astype(np.float64)

    one, again = (releases(resolved.plan, lambda: keys, None, None) for _ in range(2))
    rounds = [release(one, round) for round in range(1, 5)]
    assert np.abs(np.corrcoef(rounds) - np.eye(4)).max() < 4.5 * 4000**-0.5
    assert np.array_equal(release(again, 3), rounds[2])
    other = releases(resolved.plan, PrivacyKeys.fresh, None, None)
    assert abs(np.corrcoef(release(other, 1), rounds[0])[0, 1]) < 4.5 * 4000**-0.5


def test_what_keeps_the_bound_may_stand_before_the_noise() -> None:
    wire = private(channel=(kn.Clip(1.0), kn.Bfloat16(), kn.GaussianNoise(1.0))).check(OFFERS)
    assert wire.l2_bound == 1 + 2.0**-8
    assert wire.noise_by == "GaussianNoise(multiplier=1.0)"


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to keep within it"):
        fit(kn.fedavg(), 1, privacy=kn.PrivacyBudget(epsilon=1.0))


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf"), "1"])
def test_a_multiplier_is_a_number_above_zero(multiplier) -> None:
    with pytest.raises(ConfigurationError, match="GaussianNoise.multiplier"):
        kn.GaussianNoise(multiplier)


@pytest.mark.parametrize("given", [{"epsilon": 0.0}, {"epsilon": 1.0, "delta": 1.0}, {"epsilon": 1.0, "delta": 0.0}])
def test_a_budget_has_ranges(given) -> None:
    with pytest.raises(ConfigurationError, match="PrivacyBudget"):
        kn.PrivacyBudget(**given)


def test_noise_without_keys_and_ledger_does_not_run() -> None:
    resolved = resolve(App(model=linear.LinearModel(), clients=linear.clients(), algorithm=private(), holdout=0.0))
    program = resolved.program()
    state = program.init(resolved.plan.model.init(program.initial_key()))
    with pytest.raises(ConfigurationError, match="needs secret keys and a ledger"):
        program.next(state, 0.0)


@pytest.mark.parametrize("step", [kn.CorrelatedNoise(2.0, 3), kn.GaussianNoise(2.0)], ids=repr)
def test_clients_in_turn_are_charged_once_a_turn(step, tmp_path: Path) -> None:
    algorithm = private(kn.Cyclic(3), (kn.Clip(0.5), step))
    run = fit(algorithm, 7, out=tmp_path / "run", privacy_test_mode=False)
    assert [record.cohort for record in run.history] == [1] * 7
    assert run.privacy.rounds == 3, "rounds 1 to 3, 4 to 6 and 7"
    assert run.privacy.epsilon == pytest.approx(privacy.epsilon(noise_multiplier=2.0, rounds=3, delta=1e-5))
    assert "each once in 3 rounds" in run.privacy.sampling
    lines = (tmp_path / "run" / "privacy-ledger.jsonl").read_text().splitlines()
    assert ['"round": 1,' in lines[1], '"round": 4,' in lines[2], '"round": 7,' in lines[3]] == [True] * 3
    budget = kn.PrivacyBudget(epsilon=privacy.epsilon(noise_multiplier=2.0, rounds=2, delta=1e-5))
    assert fit(algorithm, 20, privacy=budget).rounds == 6, "the two turns that fit are taken whole"


def test_a_run_with_correlated_noise_goes_on_with_it(tmp_path: Path) -> None:
    algorithm = private(kn.Cyclic(3), (kn.Clip(0.5), kn.CorrelatedNoise(2.0, 3)))
    straight = fit(algorithm, 8, out=tmp_path / "straight")
    fit(algorithm, 5, out=tmp_path / "broken")
    assert fit(algorithm, 8, out=tmp_path / "broken").digest == straight.digest
