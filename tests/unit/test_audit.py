"""The audit: its bound, its canaries, its membership score; it passes what is right and fails what is broken."""

import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import koinon as kn
from koinon import exact, tree
from koinon.app import App, Resolved, resolve
from koinon.audit.attack import Attack, Audit
from koinon.audit.bound import canaries_for, ceiling, epsilon_of, lower_bound, p_value
from koinon.audit.canaries import CanaryRuntime
from koinon.audit.membership import area, found_at, halve, membership
from koinon.core.types import Job, Partial, Purpose, Tasks
from koinon.data.dataset import federate
from koinon.errors import ConfigurationError
from koinon.privacy.accounted import accounted
from koinon.privacy.sampling import Participation, Sampling

NUMBERS = 600
CLIP = kn.Clip(1.0)


def pull(params, data, task):
    """Move a little towards the mean of the examples."""
    x, _ = data
    return {"mean": params["mean"] + 0.1 * (x.mean(axis=0) - params["mean"])}, len(x), {"loss": 0.0}


def distance(params, data):
    return {"loss": float(((data[0] - params["mean"]) ** 2).mean())}


def job(algorithm: kn.Algorithm, rounds: int = 1, clients: int = 8, **fields) -> Resolved:
    draw = np.random.default_rng(3)
    given = {f"site-{i}": (draw.normal(size=(6, NUMBERS)), np.zeros(6)) for i in range(clients)}
    model = kn.OwnLoop(params={"mean": np.zeros(NUMBERS)}, train=pull, evaluate=distance)
    return resolve(App(model=model, clients=given, algorithm=algorithm, stop=kn.Stop(rounds=rounds), **fields))


def audited(step, cohort=None, rounds: int = 1, clip=CLIP, **fields) -> Audit:
    found = job(kn.fedavg(cohort=cohort, channel=(clip, step)), rounds, **fields)
    return Attack(examples=20).audit(found, listen=lambda event: None)


@dataclass(frozen=True)
class Weak(kn.GaussianNoise):
    """Draws a part of the noise it claims."""

    share: float = 0.05

    def release(self, total, bound, round, noise):
        return kn.GaussianNoise(self.multiplier * self.share).release(total, bound, round, noise)


@dataclass(frozen=True)
class Silent(kn.GaussianNoise):
    """Draws no noise at all."""

    def release(self, total, bound, round, noise):
        return total


@dataclass(frozen=True)
class OneNumber(kn.GaussianNoise):
    """Adds the same number everywhere."""

    def release(self, total, bound, round, noise):
        same = np.int64(np.rint(noise.normals(round)(1)[0] * self.multiplier * bound * exact.SCALE))
        return tree.map(lambda t: t + same, total)


@dataclass(frozen=True)
class NotSoRare(kn.Poisson):
    """Says that a client is rarely drawn, and draws all."""

    def choose(self, population, bits):
        return np.arange(population)

    def participation(self, population):
        return Participation(Sampling.POISSON, self.rate)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_the_bound_is_the_published_one(canaries, guesses, correct, delta, published) -> None:
    """Steinke et al. 2023: appendix D, and section 7 (which cuts the last digit off)."""
    assert epsilon_of(canaries, guesses, correct, delta) == pytest.approx(published, abs=1e-3)


def test_without_delta_the_chance_is_that_of_coins() -> None:
    fair = sum(math.comb(10, k) for k in range(8, 11)) / 2**10
    assert p_value(10, 10, 8, 0.0, 0.0) == pytest.approx(fair)
    assert p_value(10, 10, 10, math.log(3), 0.0) == pytest.approx(0.75**10)
    assert p_value(10, 10, 0, 1.0, 0.0) == 1.0
    assert p_value(10, 10, 8, 0.0, 1e-3) > fair, "a delta may give more away"


def test_chance_refutes_nothing_and_more_right_guesses_refute_more() -> None:
    assert epsilon_of(100, 100, 50, 1e-5) == 0.0
    bounds = [epsilon_of(100, 100, correct, 1e-5) for correct in range(50, 101)]
    assert all(a <= b for a, b in itertools.pairwise(bounds))
    assert ceiling(14, 1e-5) < 1.5 < ceiling(100, 1e-5)
    assert canaries_for(50.0, 1e-5) is None
    needed = canaries_for(3.0, 1e-5)
    assert needed is not None
    assert ceiling(needed, 1e-5) > 3.0


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Randomised response is as bad as epsilon allows: its bound is above epsilon in one run of twenty at most."""
    draw, epsilon, runs, size = np.random.default_rng(0), 1.0, 300, 200
    keep = 1 / (1 + math.exp(-epsilon))
    bounds = []
    for _ in range(runs):
        included = draw.random(size) < 0.5
        said = np.where(draw.random(size) < keep, included, ~included)
        bounds.append(lower_bound(said - 0.5 + 0.1 * draw.random(size), included, 0.0).epsilon)
    assert np.mean(np.array(bounds) > epsilon) <= 0.05
    assert np.mean(bounds) > 0.4


RIGHT = {
    "everybody": (kn.GaussianNoise(1.0), None, 1),
    "by coins": (kn.GaussianNoise(1.0), kn.Poisson(0.3), 6),
    "of fixed size": (kn.GaussianNoise(2.0), kn.Uniform(3), 4),
    "in turn": (kn.CorrelatedNoise(1.0, 3), kn.Cyclic(4), 8),
    "adaptive": (kn.GaussianNoise(1.0), None, 2),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_noise_passes(name: str) -> None:
    step, cohort, rounds = RIGHT[name]
    clip = kn.AdaptiveClip(kn.QuantileNorm()) if name == "adaptive" else CLIP
    audit = audited(step, cohort, rounds, clip)
    assert audit.noise is not None
    assert audit.passed, audit
    assert audit.noise.claim.guarantee
    assert audit.noise.canaries == NUMBERS + (name == "adaptive")
    assert audit.noise.bound.epsilon > 0.1, "the attack finds something of what may be found"


@pytest.mark.parametrize(
    ("step", "cohort", "rounds"),
    [
        (Weak(4.0), None, 1),
        (Weak(4.0), kn.Poisson(0.5), 4),
        (Weak(8.0), kn.Uniform(3), 4),
        (Silent(4.0), None, 1),
        (Silent(4.0), kn.Cyclic(4), 4),
        (OneNumber(4.0), None, 1),
        (kn.GaussianNoise(1.0), NotSoRare(0.02), 2),
    ],
    ids=repr,
)
def test_broken_noise_and_broken_draws_fail(step, cohort, rounds: int) -> None:
    audit = audited(step, cohort, rounds)
    assert audit.noise is not None
    assert audit.noise.could_fail
    assert audit.passed is False, audit.noise


def test_without_noise_every_guess_is_right() -> None:
    noise = audited(Silent(4.0)).noise
    assert noise is not None
    assert noise.bound.correct == noise.bound.guesses == NUMBERS
    assert noise.bound.epsilon == noise.ceiling


def test_guesses_of_all_runs_count_together() -> None:
    found = job(kn.fedavg(channel=(CLIP, Silent(4.0))))
    once, twice = (Attack(canaries=20, runs=runs, examples=2).audit(found, listen=print).noise for runs in (1, 2))
    assert once is not None and twice is not None
    assert (once.canaries, twice.canaries) == (20, 40)
    assert twice.bound.epsilon > once.bound.epsilon
    assert not once.could_fail or once.ceiling > once.claim.epsilon


class Honest:
    """A runtime whose clients send nothing but ones."""

    offers, engine = frozenset(), "reference"

    def round(self, plan, job, states):
        assert type(plan.algorithm.aggregator).__name__ == "Mean", "the inner runtime knows of no canary"
        return Partial({"a": np.ones((2, 3), np.int64), "b": np.ones((), np.int64)}, 1, None)


@pytest.mark.parametrize("cohort", [None, kn.Uniform(8)])
def test_canaries_are_as_long_as_a_client_may_be_and_apart(cohort) -> None:
    found = job(kn.fedavg(cohort=cohort, channel=(kn.Clip(0.5), kn.GaussianNoise(1.0))))
    program = found.program()
    started = program.init({"params": {"mean": np.zeros(3, np.float32)}, "state": {}})
    own = accounted(found.plan.algorithm, 8)
    runtime = CanaryRuntime(Honest(), found.plan, own, 50, np.random.default_rng(1))
    first = job_of(started)
    total = runtime.round(runtime.plan, first, {}).total
    added = np.concatenate([np.ravel(leaf) - 1 for leaf in tree.leaves(total)])
    assert len(runtime.included) == 7, "one for every number"
    assert 0 < runtime.included.sum() < 7, "the seed is to draw both kinds"
    amount, out = int(0.5 * exact.SCALE), 0 if cohort is None else -int(0.5 * exact.SCALE)
    assert added.tolist() == np.where(runtime.included, amount, out).tolist()


@pytest.mark.parametrize("cohort", [None, kn.Poisson(0.25), kn.Uniform(2), kn.Cyclic(4)], ids=repr)
def test_a_score_is_how_much_likelier_a_release_is_with_the_canary(cohort) -> None:
    """By the densities of the Gaussians that are claimed; of the draws the attacker knows what is no secret."""
    found = job(kn.fedavg(cohort=cohort, channel=(CLIP, kn.GaussianNoise(2.0))))
    runtime = CanaryRuntime(Honest(), found.plan, accounted(found.plan.algorithm, 8), 7, np.random.default_rng(0))
    state = found.program().init({"params": {"mean": np.zeros(3, np.float32)}, "state": {}})
    total = runtime.round(runtime.plan, job_of(state), {}).total
    sent = np.concatenate([np.ravel(leaf) - 1 for leaf in tree.leaves(total)]) / exact.SCALE
    noise = np.linspace(-3, 3, 7)
    parts = np.split(np.int64(noise * exact.SCALE), [6])
    shapes = {"a": parts[0].reshape(2, 3), "b": parts[1].reshape(())}
    runtime.plan.algorithm.aggregator.finish(tree.map(lambda t, n: t + n, total, shapes), 8)

    def density(mean):
        return np.exp(-((sent + noise - mean) ** 2) / (2 * 2.0**2))

    if isinstance(cohort, kn.Poisson):
        wanted = 0.75 + 0.25 * density(1.0) / density(0.0)
    elif isinstance(cohort, kn.Cyclic):
        wanted = np.where(np.arange(7) % 4 == 0, density(1.0) / density(0.0), 1.0)
    elif isinstance(cohort, kn.Uniform):
        wanted = np.where(sent != 0, density(1.0) / density(-1.0), 1.0)
    else:
        wanted = density(1.0) / density(0.0)
    np.testing.assert_allclose(np.exp(runtime.scores), wanted, rtol=1e-6)


def job_of(state) -> Job:
    nobody = Tasks(np.arange(0), np.empty((0, 2), np.uint32), np.empty(0, np.float32))
    return Job(Purpose.TRAIN, 1, 0, state.server, nobody)


def test_no_ledger_is_charged_and_the_same_budget_ends_the_audited_run(tmp_path: Path) -> None:
    budget = kn.PrivacyBudget(epsilon=6.0, ledger=tmp_path / "ledger.jsonl")
    audit = audited(kn.GaussianNoise(2.0), rounds=50, privacy=budget)
    assert audit.noise is not None
    assert audit.noise.claim.rounds < 50
    assert audit.noise.claim.epsilon <= 6.0
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_test_mode_is_audited_with_fresh_keys() -> None:
    audit = audited(kn.GaussianNoise(1.0), privacy_test_mode=True)
    assert audit.noise is not None and audit.noise.claim.guarantee
    assert any("test mode" in note for note in audit.notes)


def test_what_has_no_claim_or_no_canary_gets_no_verdict() -> None:
    plain = Attack(examples=20).audit(job(kn.fedavg()), listen=print)
    assert plain.passed is None and plain.members is not None
    assert any("no claim" in note for note in plain.notes)
    local = audited(kn.LocalGaussian(epsilon=8.0))
    assert local.passed is None
    assert any("LocalGaussian" in note and "not audited" in note for note in local.notes)


def test_a_run_of_no_rounds_gives_nothing_away() -> None:
    audit = audited(kn.GaussianNoise(1.0), rounds=0)
    assert audit.noise is not None and audit.noise.bound.epsilon == 0.0


@pytest.mark.parametrize("name", ["canaries", "runs", "examples"])
def test_an_attack_has_ranges(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Attack.{name}"):
        Attack(**{name: 0})


def test_the_halves_are_of_what_was_trained_on_and_of_every_client() -> None:
    sizes = {"one": 1, "few": 5, "many": 30}
    data = federate({name: (np.zeros((n, 2)), np.zeros(n)) for name, n in sizes.items()}, holdout=0.2)
    clients = np.arange(3)
    halves = halve(data, np.random.default_rng(0))
    (starts, counts), (held_starts, held) = (data.span(clients, held_out=part) for part in (False, True))
    trained = np.concatenate([data.rows[s : s + c] for s, c in zip(starts, counts, strict=True)])
    assert sorted([*halves.members, *halves.non_members]) == sorted(trained)
    new_starts, new_counts = halves.training.span(clients, held_out=False)
    assert new_counts.tolist() == [1, 2, 12] and counts.tolist() == [1, 4, 24]
    kept = np.concatenate([halves.training.rows[s : s + c] for s, c in zip(new_starts, new_counts, strict=True)])
    assert sorted(kept) == sorted(halves.members)
    again_starts, again = halves.training.span(clients, held_out=True)
    for old, new, count in zip(held_starts, again_starts, held, strict=True):
        assert data.rows[old : old + count].tolist() == halves.training.rows[new : new + count].tolist()
    assert again.tolist() == held.tolist()


def test_figures_of_membership_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    members, others = draw.integers(0, 20, 40) / 1.0, draw.integers(5, 25, 70) / 1.0
    pairs = [(a < b) + (a == b) / 2 for a in members for b in others]
    assert area(members, others) == pytest.approx(np.mean(pairs))
    assert found_at(np.arange(200.0), np.arange(200.0)) == pytest.approx(0.01)
    assert found_at(np.zeros(10), np.ones(10)) == 1.0
    assert found_at(np.ones(10), np.ones(10)) == 0.0
    lost = membership(np.array([0.0, np.nan, 1.0, np.inf]), np.array([True, False, True, False]), draw)
    assert lost is not None and lost.auc == 1.0
    assert membership(np.ones(3), np.ones(3, bool), draw) is None


@pytest.mark.parametrize("learns", [True, False])
def test_a_model_that_learns_by_heart_is_found_out(learns: bool) -> None:
    draw = np.random.default_rng(0)
    many = 240
    clients = {"site": (draw.normal(size=(many, 3)), np.zeros(many))}

    def train(params, data, task):
        size = len(data[0])
        rows = np.asarray(data[0]) if learns else np.zeros((size, 3))
        return {"seen": np.resize(rows, (many, 3))}, size, {}

    def evaluate(params, data):
        return {"loss": float(np.mean([np.abs(params["seen"] - x).sum(axis=1).min() for x in data[0]]))}

    model = kn.OwnLoop(params={"seen": np.zeros((many, 3))}, train=train, evaluate=evaluate)
    app = App(model=model, clients=clients, algorithm=kn.fedavg(), stop=kn.Stop(rounds=1), holdout=0.0)
    score = Attack().audit(resolve(app), listen=print).members
    assert score is not None and score.members == score.non_members == many // 2
    if learns:
        assert score.auc_interval[0] > 0.95 and score.found > 0.9
    else:
        assert 0.35 < score.auc < 0.65 and score.auc_interval[0] < 0.5 < score.auc_interval[1]


def test_a_model_that_nothing_can_judge_gets_no_score() -> None:
    model = kn.OwnLoop(params={"mean": np.zeros(2)}, train=pull)
    app = App(model=model, clients={"a": (np.zeros((4, 2)), np.zeros(4))}, stop=kn.Stop(rounds=1))
    audit = Attack().audit(resolve(app), listen=print)
    assert audit.members is None and any("no membership score" in note for note in audit.notes)


APP = """
import numpy as np
import koinon as kn
from test_audit import Silent, distance, pull

draw = np.random.default_rng(3)
app = kn.App(
    model=kn.OwnLoop(params={"mean": np.zeros(600)}, train=pull, evaluate=distance),
    clients={f"site-{i}": (draw.normal(size=(6, 600)), np.zeros(6)) for i in range(8)},
    algorithm=kn.fedavg(channel=(kn.Clip(1.0), NOISE)),
    stop=kn.Stop(rounds=1),
)
"""


def koinon(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from koinon.cli.main import main; main()", *map(str, arguments)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("noise", "status"), [("kn.GaussianNoise(4.0)", 0), ("Silent(4.0)", 1)])
def test_the_exit_status_is_the_verdict(noise: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.replace("NOISE", noise))
    done = koinon("audit", "app.py", "--json", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"passed", "noise", "membership", "notes"}
    assert found["passed"] is (status == 0)
    assert found["noise"]["canaries"] == 600
    assert found["membership"]["members"] == 16
    text = koinon("audit", "app.py", "--canaries", "4", cwd=tmp_path)
    assert text.returncode == 0, "4 canaries refute nothing"
    assert "verdict           passed" in text.stdout
    assert "could not have failed" in text.stdout
