"""The table of what may stand together: every cell by ``Algorithm.check``, every refusal with both parts and a way out."""

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

import koinon as kn
import linear
from koinon.app import App, resolve
from koinon.cli.commands import check_app
from koinon.core.protocols import Offers
from koinon.core.wire import Wire
from koinon.errors import CompositionError
from koinon.runtimes.local import Local


@dataclass(frozen=True)
class HidesCodes(kn.Clip):
    """Stands in for what hides whole numbers, whatever they mean."""

    def check(self, wire: Wire) -> Wire:
        return replace(wire, opaque_by=repr(self))


EACH = (
    kn.Median(), kn.TrimmedMean(0.2), kn.Krum(1), kn.MultiKrum(1), kn.Bulyan(1), kn.GeometricMedian(), kn.NormBound(1.0),
    kn.FLTrust("site-0"),
)  # fmt: skip
GROUPS = (kn.Bucketed(2), kn.Bucketed(2, kn.Krum(0)))
SUM = (kn.Mean(),)
FACTORIES = (kn.fedavg, kn.fedadam, kn.fedyogi, kn.fedadagrad, kn.fedprox, kn.scaffold)
NORM = kn.QuantileNorm(initial=1.0)
CENTRAL = (kn.GaussianNoise(1.0), kn.CorrelatedNoise(1.0, 2))
CHANNELS: dict[str, tuple[Any, ...]] = {
    "plain": (),
    "clip": (kn.Clip(1.0),),
    "halves, noise": (kn.Clip(1.0), kn.Bfloat16(), CENTRAL[0]),
    "codes": (kn.Clip(1.0), kn.Quantise()),
    "halves": (kn.Bfloat16(),),
    "secure sum": (kn.Clip(1.0), kn.SecureSum()),
    "secure sum, noise": (kn.Clip(1.0), kn.SecureSum(), CENTRAL[0]),
    "secure sum of local noise": (kn.Clip(1.0), kn.LocalGaussian(8.0), kn.Clip(9.0), kn.SecureSum()),
    "secure sum of clients' noise": (kn.Clip(1.0), kn.DistributedNoise(1.0), kn.SecureSum()),
    "secure sum of adaptive clip and clients' noise": (
        kn.AdaptiveClip(NORM),
        kn.DistributedNoise(1.0),
        kn.SecureSum(),
    ),
    "noise": (kn.Clip(1.0), CENTRAL[0]),
    "correlated noise": (kn.Clip(1.0), CENTRAL[1]),
    "local noise": (kn.Clip(1.0), kn.LocalGaussian(8.0)),
    "local noise, codes": (kn.Clip(1.0), kn.LocalGaussian(8.0), kn.Quantise()),
    "adaptive clip": (kn.AdaptiveClip(NORM),),
    "adaptive clip, noise": (kn.AdaptiveClip(NORM), CENTRAL[0]),
}
SECURE = {channel for channel in CHANNELS if channel.startswith("secure sum")}
ONLY_SUMS = SECURE | {"halves, noise", "noise", "correlated noise", "adaptive clip", "adaptive clip, noise"}
"""What a rule of single updates or of groups cannot have."""


def combined(rule: Any, channel: str, factory: Any = kn.fedavg) -> kn.Algorithm:
    sampler = kn.Cyclic(2) if channel == "correlated noise" else kn.All()
    return kn.replace(factory(channel=CHANNELS[channel]), aggregator=rule, sampler=sampler)


def refusal(algorithm: kn.Algorithm, offers: Any = Local.offers) -> str:
    with pytest.raises(CompositionError) as caught:
        algorithm.check(offers)
    return str(caught.value)


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
@pytest.mark.parametrize("channel", CHANNELS)
def test_the_mean_and_every_server_on_it_go_with_every_channel(channel: str, factory: Any) -> None:
    combined(kn.Mean(), channel, factory).check(Local.offers)


@pytest.mark.parametrize("rule", [*EACH, *GROUPS], ids=repr)
@pytest.mark.parametrize("channel", [channel for channel in CHANNELS if channel not in ONLY_SUMS])
def test_a_robust_rule_goes_with_what_leaves_updates_to_be_seen(channel: str, rule: Any) -> None:
    combined(rule, channel).check(Local.offers)


@pytest.mark.parametrize("rule", [*EACH, *GROUPS], ids=repr)
@pytest.mark.parametrize("channel", sorted(ONLY_SUMS))
def test_a_robust_rule_with_what_needs_a_sum_is_refused_by_both_names_and_with_a_way_out(
    channel: str, rule: Any
) -> None:
    said = refusal(combined(rule, channel))
    steps = CHANNELS[channel]
    assert repr(rule) in said
    assert any(repr(step) in said for step in steps), said
    assert re.search(r"Use Mean\(\), or ", said), said


@pytest.mark.parametrize("rule", [*SUM, *EACH, *GROUPS], ids=repr)
def test_every_rule_goes_with_dp_sgd_on_the_clients(rule: Any) -> None:
    work = kn.PrivateTraining(multiplier=1.0, batches=kn.PoissonBatches(one_in=4, steps=2))
    kn.replace(kn.fedavg(), work=work, aggregator=rule).check(Local.offers)


@pytest.mark.parametrize("rule", [*EACH, *GROUPS], ids=repr)
def test_a_runtime_that_only_adds_up_has_no_robust_rule(rule: Any) -> None:
    said = refusal(combined(rule, "plain"), frozenset(Offers) - {Offers.APART})
    assert said.startswith(repr(rule)) and "no updates apart. Use one that does (local, processes), or Mean()" in said


@pytest.mark.parametrize("channel", sorted(SECURE))
def test_a_runtime_that_carries_no_messages_has_no_secure_sum(channel: str) -> None:
    said = refusal(combined(kn.Mean(), channel), frozenset(Offers) - {Offers.HANDSHAKE})
    assert said.startswith("SecureSum(") and "or drop SecureSum(" in said


@pytest.mark.parametrize("codec", [kn.Quantise(), kn.Bfloat16()], ids=repr)
def test_a_secure_sum_of_codes_or_of_what_has_no_bound_is_refused(codec: Any) -> None:
    said = refusal(kn.fedavg(channel=(kn.Clip(1.0), codec, kn.SecureSum())))
    assert "SecureSum(" in said and "Drop the codec before it" in said
    assert "Put Clip before it" in refusal(kn.fedavg(channel=(kn.SecureSum(),)))
    assert "Drop the other" in refusal(kn.fedavg(channel=(kn.Clip(1.0), kn.SecureSum(), kn.SecureSum())))


@pytest.mark.parametrize("codec", [kn.Quantise(), kn.Bfloat16()], ids=repr)
def test_codes_that_do_not_add_up_cannot_be_hidden(codec: Any) -> None:
    hides = HidesCodes(1.0)
    said = refusal(kn.fedavg(channel=(codec, hides)))
    assert said.startswith(f"{codec!r} is decoded update by update, but {hides!r} shows the server only the sum")
    assert said.endswith(f"Use no codec, or drop {hides!r}.")


@pytest.mark.parametrize("noise", CENTRAL, ids=repr)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda noise: {"channel": (noise,)}, "needs a bounded update. Put Clip before it"),
        (lambda noise: {"channel": (kn.Clip(1.0), kn.Quantise(), noise)}, "needs a bounded update. Put Clip before it"),
        (lambda noise: {"channel": (kn.Clip(1.0), noise, kn.Quantise())}, "Put {noise} last in the channel"),
        (lambda noise: {"channel": (kn.Clip(1.0), noise, noise)}, "one of the two is enough. Drop the other"),
        (lambda noise: {"channel": (kn.Clip(1.0), kn.LocalGaussian(1.0), noise)}, "one of the two is enough"),
        (lambda noise: {"schedule": kn.Synchronous(over_selection=1.5)}, "Use over_selection=1"),
        (lambda noise: {"sampler": Unaccounted()}, r"Use Poisson(rate), All() or Uniform(size)"),
    ],
)
def test_central_noise_is_refused_where_it_would_not_cover_or_could_not_be_counted(
    noise: Any, change: Any, says: str
) -> None:
    base = kn.replace(kn.fedavg(channel=(kn.Clip(1.0), noise)), sampler=kn.Cyclic(2))
    base.check(Local.offers)
    said = refusal(kn.replace(base, **change(noise)))
    assert repr(noise) in said and says.format(noise=repr(noise)) in said


@dataclass(frozen=True)
class Unaccounted:
    """Draws somehow, and does not say how."""

    def cohort(self, population: int, key: Any) -> Any:
        raise AssertionError("nothing is drawn before the check")

    def largest(self, population: int) -> int:
        return population


def test_noise_for_clients_in_turn_is_refused_where_they_may_come_oftener() -> None:
    algorithm = kn.replace(kn.fedavg(channel=CHANNELS["correlated noise"]), sampler=kn.All())
    assert re.search(r"CorrelatedNoise\(.*All\(\).*Use Cyclic\(2\)", refusal(algorithm))


@pytest.mark.parametrize("step", [kn.Bfloat16(), kn.SecureSum()], ids=repr)
def test_local_noise_on_codes_or_on_what_is_hidden_is_refused(step: Any) -> None:
    said = refusal(kn.fedavg(channel=(kn.Clip(1.0), step, kn.LocalGaussian(1.0))))
    assert "LocalGaussian(epsilon=1.0" in said and "receives INTEGER. Move it before the step" in said


def test_local_noise_needs_a_bound_and_goes_with_any_draw() -> None:
    assert "Put Clip before it" in refusal(kn.fedavg(channel=(kn.LocalGaussian(1.0),)))
    base = combined(kn.Median(), "local noise")
    kn.replace(base, sampler=Unaccounted(), schedule=kn.Synchronous(over_selection=2.0)).check(Local.offers)


APP = """
import koinon as kn, linear
base = kn.fedavg(channel=(kn.Clip(1.0), kn.GaussianNoise(1.0)))
app = kn.App(model=linear.LinearModel(), clients=linear.clients((4,) * 6), algorithm=kn.replace(base, aggregator=kn.Krum(1)))
"""


def test_the_command_that_checks_refuses_before_anything_runs(tmp_path: Any) -> None:
    """``koinon check`` asks the very same law."""
    (tmp_path / "app.py").write_text(APP)
    with pytest.raises(CompositionError, match=r"GaussianNoise\(multiplier=1.0\).*Krum\(byzantine=1\).*Use Mean\(\)"):
        check_app(tmp_path / "app.py", (), as_json=True)
    for refused in (combined(kn.Bucketed(2), "secure sum"), combined(kn.Krum(1), "noise")):
        app = App(model=linear.LinearModel(), clients=linear.clients((4,) * 6), algorithm=refused)
        with pytest.raises(CompositionError):
            kn.fit(app.model, app.clients, refused, progress=False)
        assert resolve(replace(app, algorithm=combined(kn.Krum(1), "plain"))) is not None
