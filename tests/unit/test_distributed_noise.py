"""Noise that clients add inside a secure sum, as a user has it: what is refused, what it costs, both ways to simulate it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import special

import koinon as kn
import linear
from koinon.app import App, party, resolve
from koinon.cli.commands import check_app
from koinon.core.protocols import Offers
from koinon.core.types import Payload, Purpose
from koinon.errors import CompositionError, ConfigurationError, ProtocolError
from koinon.fleet.participant.keep import Keep
from koinon.fleet.participant.making import Maker
from koinon.privacy.accountant import composed, composed_renyi
from koinon.privacy.analytic import gaussian_epsilon
from koinon.privacy.mechanism import Adjacency, Event
from koinon.privacy.secure_sum import client as half
from koinon.privacy.secure_sum.client import Masked, Ready
from koinon.privacy.secure_sum.neighbours import Assumptions, honest_survivors, quorum
from koinon.privacy.secure_sum.ring import Vector
from koinon.privacy.secure_sum.server import Stage
from koinon.privacy.secure_sum.simulate import Identities, Room
from koinon.privacy.secure_sum.terms import Floors
from koinon.round.masked import Encoding, noise_of, terms_of
from koinon.runtimes.local import Local

DELTA = 1e-5
CLIP, SECURE = kn.Clip(1.0), kn.SecureSum()


def channel(multiplier: float = 1.1, simulate: str = "ideal", **options: Any) -> tuple[Any, ...]:
    return (CLIP, kn.DistributedNoise(multiplier, **options), kn.SecureSum(simulate=simulate))


def fit(*steps: Any, sizes: tuple[int, ...] = (6, 9, 12, 7, 8), rounds: int = 3, **options: Any) -> Any:
    algorithm = kn.fedavg(kn.sgd(0.05), channel=steps)
    return kn.fit(
        linear.LinearModel(), linear.clients(sizes), algorithm, stop=kn.Stop(rounds=rounds), progress=False, **options
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((kn.DistributedNoise(1.0), SECURE), "needs a bounded update. Put Clip before it"),
        ((CLIP, kn.Quantise(), kn.DistributedNoise(1.0), SECURE), "works on real numbers, but receives INTEGER"),
        ((CLIP, SECURE, kn.DistributedNoise(1.0)), "works on real numbers, but receives INTEGER"),
        ((CLIP, kn.DistributedNoise(1.0)), "nothing after it. Put SecureSum() directly after it, and last"),
        ((CLIP, kn.DistributedNoise(1.0), CLIP, SECURE), "Clip(norm=1.0), SecureSum() after it. Put"),
        ((CLIP, kn.DistributedNoise(1.0), kn.Encrypted(key="0f" * 32)), "Put SecureSum() directly after it"),
        ((CLIP, kn.DistributedNoise(1.0), kn.DistributedNoise(1.0), SECURE), "one of the two is enough"),
        ((CLIP, kn.DistributedNoise(1.0), SECURE, kn.GaussianNoise(1.0)), "one of the two is enough"),
        ((CLIP, kn.LocalGaussian(1.0), kn.Clip(1.0), kn.DistributedNoise(1.0), SECURE), "one of the two is enough"),
        ((kn.Clip(4096.0), kn.DistributedNoise(1.0), SECURE), "Clip to a smaller norm"),
    ],
)
def test_what_does_not_hold_together_is_refused(steps: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CompositionError) as caught:
        kn.fedavg(channel=steps).check(Local.offers)
    assert message in str(caught.value)


@pytest.mark.parametrize("rule", [kn.Krum(1), kn.Median(), kn.Bucketed(2)], ids=repr)
def test_rules_that_read_more_than_the_sum_are_refused(rule: Any) -> None:
    with pytest.raises(CompositionError, match="shows the server only the sum of all"):
        kn.replace(kn.fedavg(channel=channel()), aggregator=rule).check(Local.offers)


def test_a_runtime_without_messages_is_refused() -> None:
    with pytest.raises(CompositionError, match="offers no handshake"):
        kn.fedavg(channel=channel()).check(frozenset(Offers) - {Offers.HANDSHAKE})


@pytest.mark.parametrize("sampler", [kn.All(), kn.Uniform(4), kn.Poisson(0.9), kn.Cyclic(1)], ids=repr)
def test_no_way_of_drawing_clients_is_counted(sampler: Any) -> None:
    algorithm = kn.replace(kn.fedavg(channel=channel()), sampler=sampler)
    algorithm.check(Local.offers)
    event = algorithm.channel[1].event(SimpleNamespace(rate=0.1))
    assert event == Event(1.1, 1.0, Adjacency.ZERO_OUT, 4096.0)


@pytest.mark.parametrize(
    "wrong", [{"multiplier": 0.0}, {"multiplier": float("nan")}, {"steps": 1}, {"steps": 2.5}, {"multiplier": 9.0}]
)
def test_a_step_of_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        kn.DistributedNoise(**{"multiplier": 1.0, **wrong})
    assert kn.DistributedNoise(9.0, steps=3640)


@pytest.mark.parametrize(("multiplier", "rounds"), [(0.5, 1), (1.0, 1), (1.1, 30), (4.0, 100), (7.0, 1000)])
def test_it_never_costs_less_than_gaussian_noise_and_at_fine_steps_hardly_more(multiplier: float, rounds: int) -> None:
    gaussian = gaussian_epsilon(rounds**0.5 / multiplier, DELTA)
    by_renyi = composed_renyi({Event(multiplier, 1.0, Adjacency.ADD_OR_REMOVE): rounds}, DELTA)
    fine = kn.privacy.epsilon(noise_multiplier=multiplier, rounds=rounds, delta=DELTA, steps=4096)
    coarse = kn.privacy.epsilon(noise_multiplier=multiplier, rounds=rounds, delta=DELTA, steps=4)
    assert gaussian <= fine <= 1.01 * by_renyi + 1e-6, "the orders are not quite those of the other accountant"
    assert fine <= 1.15 * gaussian
    assert coarse > fine


@pytest.mark.parametrize(("multiplier", "steps"), [(0.7, 3), (1.0, 16), (2.5, 40)])
def test_the_exact_delta_of_one_sum_is_within_what_is_claimed(multiplier: float, steps: int) -> None:
    """All of a client's length in one number: the two laws are Skellam's and itself shifted, term by term."""
    claimed = kn.privacy.epsilon(noise_multiplier=multiplier, rounds=1, delta=DELTA, steps=steps)
    variance = (multiplier * steps) ** 2
    k = np.arange(-60 * steps, 61 * steps)
    p, q = (special.ive(np.abs(k - shift), variance) for shift in (0, steps))

    def delta(epsilon: float) -> float:
        return float(np.maximum(q - np.exp(epsilon) * p, 0).sum())

    assert delta(claimed) <= DELTA
    assert steps < 16 or delta(0.9 * claimed) > DELTA, "where steps are fine the claim is near"


def test_a_calibrated_multiplier_keeps_to_its_epsilon() -> None:
    found = kn.privacy.noise_multiplier(epsilon=2.0, rounds=50, delta=DELTA, steps=4096)
    assert kn.privacy.epsilon(noise_multiplier=found, rounds=50, delta=DELTA, steps=4096) <= 2.0
    assert kn.privacy.epsilon(noise_multiplier=found * 0.999, rounds=50, delta=DELTA, steps=4096) > 2.0
    assert found >= kn.privacy.noise_multiplier(epsilon=2.0, rounds=50, delta=DELTA)


@pytest.mark.parametrize("wrong", [{"sampling_rate": 0.5}, {"steps": 0.5}, {"steps": float("inf")}])
def test_what_cannot_be_counted_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        kn.privacy.epsilon(**{"noise_multiplier": 1.0, "rounds": 1, "delta": DELTA, "steps": 64.0, **wrong})


def test_an_event_is_written_down_and_read_again() -> None:
    for event in (Event(1.1, 1.0, Adjacency.ZERO_OUT, 4096.0), Event(1.1, 0.25, Adjacency.ADD_OR_REMOVE)):
        assert Event.from_json(event.to_json()) == event
    assert "steps" not in event.to_json(), "a line for Gaussian noise is what it was"
    assert composed({Event(1.1, 1.0, Adjacency.ZERO_OUT, 4096.0): 0}, DELTA) == 0.0


@pytest.mark.parametrize("simulate", ["ideal", "protocol"])
@pytest.mark.parametrize("engine", ["reference", "jax"])
def test_with_little_noise_it_learns_what_the_clear_sum_learns(simulate: str, engine: str) -> None:
    model = linear.LinearModel(compiled=engine == "jax")
    algorithm = kn.fedavg(kn.sgd(0.05), channel=channel(1e-3, simulate))
    options: dict[str, Any] = {"stop": kn.Stop(rounds=3), "progress": False, "engine": engine}
    private = kn.fit(model, linear.clients((6, 9, 12, 7, 8)), algorithm, **options)
    plain = kn.replace(algorithm, channel=(CLIP,), work=kn.replace(algorithm.work, weighting=kn.Weighting.UNIFORM))
    clear = kn.fit(model, linear.clients((6, 9, 12, 7, 8)), plain, **options)
    for name, leaf in private.params.items():
        np.testing.assert_allclose(leaf, clear.params[name], atol=0.01)
    assert private.digest != clear.digest


@pytest.mark.parametrize("simulate", ["ideal", "protocol"])
def test_the_statement_says_what_is_counted_and_who_is_trusted(simulate: str) -> None:
    run = fit(*channel(1.1, simulate))
    assert run.privacy is not None and run.privacy.guarantee
    assert run.privacy.epsilon == run.privacy.epsilon_renyi == run.privacy.epsilon_seen
    assert run.privacy.epsilon == composed({Event(1.1, 1.0, Adjacency.ZERO_OUT, 4096.0): 3}, DELTA)
    said = "\n".join(run.promises)
    assert "trust: no single party" in said and "a fifth" in said
    assert "then 3 honest ones survive of a cohort of 5" in said
    assert "adjacent: send zeros for one client" in said
    assert "drawn: counted as if every client took part in every round" in said
    assert ("noise of all clients is drawn at once" in said) is (simulate == "ideal")
    assert run.charged == (("3", "1.1", "1"),)


@pytest.mark.parametrize("simulate", ["ideal", "protocol"])
@pytest.mark.parametrize(
    ("factory", "clip"), [(kn.scaffold, CLIP), (kn.fedadam, kn.AdaptiveClip(kn.QuantileNorm(initial=1.0)))]
)
def test_updates_of_more_than_a_model_have_it_too(factory: Any, clip: Any, simulate: str) -> None:
    """Two trees of SCAFFOLD, and the answer beside an update that is clipped to a quantile."""
    noise, secure = kn.DistributedNoise(1e-3), kn.SecureSum(simulate=simulate)
    options: dict[str, Any] = {"stop": kn.Stop(rounds=2), "progress": False, "engine": "reference"}
    model, clients = linear.LinearModel(), linear.clients((6, 9, 12, 7, 8))
    private = kn.fit(model, clients, factory(kn.sgd(0.05), channel=(clip, noise, secure)), **options)
    central = (clip, kn.SecureSum(), kn.GaussianNoise(1e-6))  # every client weighs 1 there too
    hidden = kn.fit(model, clients, factory(kn.sgd(0.05), channel=central), **options)
    for name, leaf in private.params.items():
        np.testing.assert_allclose(leaf, hidden.params[name], atol=0.02)


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ("kn.DistributedNoise(1.1), kn.SecureSum()", 16 * 3),  # 14 numbers filled up to 16, of 18 bits each
        ("kn.SecureSum()", 14 * 5),  # 20 bits, a weight of up to 4096, four hospitals
        ("kn.SecureSum(), kn.GaussianNoise(1.1)", 14 * 3),  # who weighs 1 needs no room for weights
    ],
)
def test_what_travels_is_said_before_anything_runs(
    steps: str, wanted: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "app.py"
    file.write_text(
        "import koinon as kn\n"
        "from koinon.data.heart import INPUTS, heart\n"
        "from koinon.models.jax_logistic import logistic_regression\n"
        f"algorithm = kn.fedavg(channel=(kn.Clip(1.0), {steps}))\n"
        "app = kn.App(model=logistic_regression(INPUTS), clients=heart(), algorithm=algorithm)\n"
    )
    check_app(file, (), as_json=True)
    assert json.loads(capsys.readouterr().out)["wire"][-1]["bytes"] == wanted


def test_a_test_mode_repeats_and_says_so() -> None:
    one, two = (fit(*channel(), privacy_test_mode=True) for _ in range(2))
    assert one.digest == two.digest != fit(*channel()).digest
    assert not one.privacy.guarantee and "test mode" in one.privacy.why_not


def test_a_budget_ends_a_run_before_the_round_that_would_exceed_it(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    budget = kn.PrivacyBudget(epsilon=8.5, ledger=ledger)
    run = fit(*channel(), rounds=9, privacy=budget)
    assert run.rounds == 3 and "the budget is 8.5" in run.stopped
    assert [line.count('"steps": 4096.0') for line in ledger.read_text().splitlines()] == [0, 1, 1, 1]
    assert fit(*channel(), rounds=9, privacy=budget).rounds == 0, "of all runs together"


def test_a_run_that_was_killed_goes_on_with_the_same_noise(tmp_path: Path) -> None:
    straight = fit(*channel(), rounds=4, out=tmp_path / "one", privacy_test_mode=True)
    fit(*channel(), rounds=2, out=tmp_path / "two", privacy_test_mode=True)
    resumed = fit(*channel(), rounds=4, out=tmp_path / "two", privacy_test_mode=True)
    assert resumed.digest == straight.digest
    assert resumed.privacy.rounds == 4, "each round is written down once"


def test_workers_do_not_show_and_messages_run_in_one_place() -> None:
    modes: dict[str, Any] = {"privacy_test_mode": True, "runtime": "processes", "workers": 2}
    assert fit(*channel(), privacy_test_mode=True).digest == fit(*channel(), **modes).digest
    assert fit(*channel(1e-3, "protocol"), runtime="processes", workers=2).rounds == 3


def test_a_client_that_diverged_is_left_out_of_the_messages() -> None:
    clients = dict(linear.clients((6, 9, 12, 7, 8)).items())
    x, y = clients["site-2"]
    clients["site-2"] = (np.full_like(x, 1e30), y)
    with np.errstate(all="ignore"):
        algorithm = kn.fedavg(kn.sgd(0.05), channel=channel(1e-3, "protocol"))
        run = kn.fit(linear.LinearModel(), clients, algorithm, stop=kn.Stop(rounds=2), progress=False)
    assert [list(record.refused) for record in run.history] == [["site-2"], ["site-2"]]


VALUE = {"params": {"w": np.zeros((40, 50), np.float32), "b": np.zeros(7, np.float32)}, "state": {}}


def begun(cohort: int, missing: dict[str, Stage] | None = None, steps: Any = None) -> tuple[Any, Any, Room]:
    """Return an algorithm, the terms and a room whose members are ready to mask."""
    algorithm = kn.fedavg(channel=steps or channel(0.5))
    terms = terms_of(algorithm, "r", 1, Purpose.TRAIN, 0, value=VALUE, cohort=cohort)
    parties = [f"c{i:03}" for i in range(cohort)]
    room = Room(terms, Floors(), Identities.of(parties), missing or {})
    room.begin(parties)
    room.step(Stage.SHARES)
    return algorithm, terms, room


def test_the_terms_bind_the_noise() -> None:
    _, terms, _ = begun(5)
    assert terms.noise == 0.5
    other = dataclasses.replace(terms, noise=0.25)
    assert len({terms.digest(), other.digest(), dataclasses.replace(terms, noise=0.0).digest()}) == 3
    judged = terms_of(kn.fedavg(channel=channel(0.5)), "r", 1, Purpose.EVALUATE, 0, value=VALUE, cohort=5)
    assert judged.noise == 0.0, "figures have none"


def test_a_client_that_reckons_with_more_corrupt_members_than_the_noise_is_made_for_refuses() -> None:
    _, terms, _ = begun(5)
    Floors(corrupt=0.2).check_terms(terms)
    with pytest.raises(ProtocolError, match="made for 20% of corrupt members, and this client reckons with 33%"):
        Floors(corrupt=1 / 3).check_terms(terms)
    Floors(corrupt=1 / 3).check_terms(dataclasses.replace(terms, noise=0.0))


def test_a_client_refuses_fewer_survivors_than_its_noise_is_made_for() -> None:
    """What makes up the noise and what a client signs are one number, and the words of the trust are true."""
    assert Assumptions().corrupt == 1 / 5
    for cohort in (3, 4, 5, 10, 99, 100, 1000):
        made_for = honest_survivors(cohort, Assumptions())
        stay = quorum(cohort) - Assumptions().corrupt_of(cohort)
        assert made_for == (stay if cohort < 100 else 5 * stay // 6), "of a sparse graph some can be left out"
        assert made_for >= 1
        with pytest.raises(ProtocolError, match="There is no result"):
            Floors().check_survivors(quorum(cohort) - 1, quorum(cohort))


def test_a_rotation_is_known_to_nobody_before_the_cohort_is() -> None:
    """One update and one client's randomness, in two cohorts of the same members: other keys, so another rotation."""
    value = {"params": {"w": np.full((40, 50), 0.02, np.float32), "b": np.zeros(7, np.float32)}, "state": {}}
    sent = Payload(value, np.float32(1), {"examples": np.float32(4)})
    bodies = []
    for _ in range(2):
        algorithm, terms, room = begun(4)
        one, two = (Encoding(algorithm, terms, room.server.known).vector(sent, bytes(32)).body for _ in range(2))
        assert np.array_equal(one, two)
        bodies.append(one)
    assert not np.array_equal(*bodies)


class Ending:
    """Secure sums of one client: it is ready, and whether its record was written says whether it has masked."""

    def __init__(self, state: Ready, written: list[Any], *, dies: bool) -> None:
        self._state, self._written, self._dies = state, written, dies

    def prepared(self, place: Any, terms: Any, still: Callable[[], bool]) -> Ready | Masked:
        return self._written[-1] if self._written else self._state

    def masked(self, state: Ready, vector: Vector) -> Masked:
        return half.mask(state, vector)

    def write(self, place: Any, record: Any) -> None:
        if self._dies:
            raise KeyboardInterrupt
        self._written.append(record)


class Engine:
    """An engine whose updates are all ones."""

    def send(self, plan: Any, job: Any, states: Any) -> tuple[Payload, Any]:
        value = {
            "params": {"b": np.float32(0.1), "w": np.full(2, 0.1, np.float32)},
            "state": {"batches": np.float32(0)},
        }
        return Payload(value, np.float32(1), {"examples": np.float32(4), "loss": np.float32(1)}), {}


def test_who_is_killed_after_its_noisy_vector_was_made_sends_that_very_vector(tmp_path: Path) -> None:
    algorithm = kn.fedavg(kn.sgd(0.05), channel=channel(0.5))
    app = App(model=linear.LinearModel(), clients=linear.clients((6,)), algorithm=algorithm, holdout=0.0)
    training, written = resolve(app, data=party(app, "site-0", None)).program(), list[Any]()
    value = {"params": {"w": np.zeros(2, np.float32), "b": np.float32(0)}, "state": {"batches": np.float32(0)}}
    terms = terms_of(algorithm, "r-1", 1, Purpose.TRAIN, 0, value=value, cohort=4)
    parties = [f"c{i}" for i in range(4)]
    room = Room(terms, Floors(), Identities.of(parties), {})
    room.begin(parties)
    room.step(Stage.SHARES)
    room.step(Stage.VECTORS)
    ready = room.states["c1"]
    assert isinstance(ready, Ready)
    work = {
        "round": 1,
        "purpose": "train",
        "cohort": 4,
        "model": "a" * 64,
        "bytes": 0,
        "attempt": 0,
        "roster": "00" * 32,
    }

    def made(*, dies: bool) -> bytes:
        with closing(Keep(tmp_path)) as keep:
            sums: Any = Ending(ready, written, dies=dies)
            maker = Maker(training, Engine(), keep, SimpleNamespace(), sums, "r-1")  # type: ignore[arg-type]
            maker._model = ("a" * 64, value)
            update = maker.made(work, lambda: True)
        assert update is not None and update.weight == 1
        return b"".join(update.pieces)

    with pytest.raises(KeyboardInterrupt):
        made(dies=True)
    (kept,) = (tmp_path / "states").iterdir()
    first = kept.read_bytes()
    assert made(dies=False) == first, "killed between the file and the record"
    assert made(dies=False) == first, "and later"
    assert isinstance(written[-1], Masked) and len(written) == 1


def test_two_vectors_of_one_update_differ_by_noise_of_the_size_that_each_client_adds() -> None:
    algorithm, terms, room = begun(5)
    sent = Payload(VALUE, np.float32(1), {"examples": np.float32(4)})
    cohort = room.server.known
    one, two = (Encoding(algorithm, terms, cohort).vector(sent, os.urandom(32)).body.view("<i4") for _ in range(2))
    noise = noise_of(algorithm, terms, 5)
    assert noise is not None
    assert np.var((one - two).astype(np.float64)) == pytest.approx(2 * noise.own.variance, rel=0.2)
    assert noise.own.variance * honest_survivors(5, Assumptions()) >= noise.variance
