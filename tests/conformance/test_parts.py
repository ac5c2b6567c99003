"""Every part against the public suite of its kind: a new part joins with one line."""

import numpy as np
import pytest

import apps
from koinon.aggregate.bucketed import Bucketed
from koinon.aggregate.bulyan import Bulyan
from koinon.aggregate.fltrust import FLTrust
from koinon.aggregate.geometric_median import GeometricMedian
from koinon.aggregate.krum import Krum
from koinon.aggregate.mean import Mean
from koinon.aggregate.median import Median
from koinon.aggregate.multi_krum import MultiKrum
from koinon.aggregate.norm_bound import NormBound
from koinon.aggregate.trimmed_mean import TrimmedMean
from koinon.channel.adaptive_clip import AdaptiveClip
from koinon.channel.bfloat16 import Bfloat16
from koinon.channel.clip import Clip
from koinon.channel.correlated_noise import CorrelatedNoise
from koinon.channel.distributed_noise import DistributedNoise
from koinon.channel.encrypted import Encrypted
from koinon.channel.local_privacy import LocalGaussian
from koinon.channel.noise import GaussianNoise
from koinon.channel.quantise import Quantise
from koinon.channel.secure_sum import SecureSum
from koinon.core.wire import Wire
from koinon.data.dataset import federate
from koinon.data.partition import IID, Dirichlet, NaturalColumn, QuantitySkew, Shards
from koinon.engines.jax import JaxEngine
from koinon.engines.reference import ReferenceEngine
from koinon.models.jax_logistic import logistic_regression
from koinon.privacy.quantile import QuantileNorm
from koinon.runtimes.local import Local
from koinon.runtimes.processes import Processes
from koinon.sample.samplers import All, Cyclic, Poisson, Uniform
from koinon.server.adaptive import Adaptive, SecondMoment
from koinon.server.average import Average
from koinon.server.controlled import Controlled
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
from koinon.work.controlled import ControlledTraining
from koinon.work.corrections import Proximal
from koinon.work.gradient import FullGradient
from koinon.work.local import LocalTraining, Weighting
from koinon.work.optimizers import Adam, Momentum, Sgd
from koinon.work.private import PrivateTraining
from koinon.work.private_batches import PoissonBatches, ShuffledBatches
from koinon.work.schedules import Cosine, Exponential

TRANSFORMS = [
    Clip(1.0),
    Clip(1e-3),
    Bfloat16(),
    Quantise(),
    Quantise(bits=2),
    Quantise(bits=4),
    Quantise(block=5),
]
AGGREGATORS = [
    Mean(),
    Median(),
    TrimmedMean(0.2),
    TrimmedMean(0.0),
    Krum(1),
    Krum(0),
    MultiKrum(2),
    MultiKrum(1, chosen=3),
    Bulyan(1),
    GeometricMedian(),
    NormBound(10.0),
    FLTrust("client-3"),
    Bucketed(1),
    Bucketed(3),
    Bucketed(2, TrimmedMean(0.25)),
    Bucketed(2, Krum(1)),
]
SERVERS = [
    Average(),
    Average(learning_rate=0.5),
    Average(momentum=0.9),
    Controlled(),
    Adaptive(second_moment=SecondMoment.ADAGRAD),
    Adaptive(second_moment=SecondMoment.ADAM, learning_rate=0.1),
    Adaptive(second_moment=SecondMoment.YOGI, beta_1=0.0),
]
SAMPLERS = [All(), Uniform(1), Uniform(7), Uniform(40), Uniform(50), Poisson(0.1), Poisson(1.0), Cyclic(1), Cyclic(5)]
PARTITIONERS = [
    IID(7),
    IID(1),
    Dirichlet(10, alpha=0.3),
    Dirichlet(4, alpha=100.0),
    Shards(30),
    Shards(10, shards=1),
    QuantitySkew(8, alpha=0.2),
    NaturalColumn(np.arange(300) // 45),
]
WORKS = [
    (LocalTraining(), Average()),
    (LocalTraining(optimizer=Momentum(0.05), epochs=2, batch_size=4), Average()),
    (LocalTraining(optimizer=Momentum(0.05, nesterov=True), batch_size=None), Average()),
    (LocalTraining(optimizer=Adam(0.01), steps=7, schedule=Cosine(100, warm_up=3)), Average()),
    (LocalTraining(corrections=(Proximal(0.1),), weighting=Weighting.UNIFORM), Average()),
    (LocalTraining(optimizer=Sgd(0.05), schedule=Exponential(0.9)), Adaptive(second_moment=SecondMoment.ADAM)),
    (FullGradient(), Average()),
    (FullGradient(batch_size=4), Average()),
    (PrivateTraining(multiplier=0.01, batches=ShuffledBatches(size=4)), Average()),
    (PrivateTraining(multiplier=0.01, batches=PoissonBatches(one_in=2, steps=20)), Average()),
    (ControlledTraining(), Controlled()),
    (ControlledTraining(batch_size=4, epochs=3), Controlled()),
]
MODELS = [
    (SoftmaxRegression(), classified()),
    (CentredRegression(), measured()),
    (logistic_regression(5), federate(apps.clients())),
    (apps.model(), federate(apps.clients())),
]
ENGINES = [ReferenceEngine, JaxEngine]
RUNTIMES = {
    "local": Local,
    "2 processes": lambda: Processes(2),
    "1 process, reference": lambda: Processes(1, "reference"),
    "2 processes, reference": lambda: Processes(2, "reference"),
}


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_transform(transform) -> None:
    check_transform(transform)


BOUNDED = Wire(l2_bound=1.0)


@pytest.mark.parametrize(
    "transform",
    [
        GaussianNoise(1.0),
        CorrelatedNoise(1.0, 4),
        LocalGaussian(1.0),
        LocalGaussian(20.0, 1e-8),
        DistributedNoise(1.0),
        DistributedNoise(20.0, steps=500),
    ],
    ids=repr,
)
def test_noise(transform) -> None:
    check_transform(transform, before=BOUNDED)


SUMS = [SecureSum(), SecureSum(fraction_bits=8, largest_weight=1), Encrypted(key="0f" * 32)]


@pytest.mark.parametrize("transform", SUMS, ids=repr)
def test_hiding(transform) -> None:
    check_transform(transform, before=BOUNDED)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e4])
def test_adaptive_clip(norm: float) -> None:
    transform = AdaptiveClip(QuantileNorm(share=0.5))
    check_transform(transform, broadcast={"clipping": {"norm": np.float32(norm)}})


@pytest.mark.parametrize("aggregator", AGGREGATORS, ids=repr)
def test_aggregator(aggregator) -> None:
    check_aggregator(aggregator)


@pytest.mark.parametrize("server", SERVERS, ids=repr)
def test_server(server) -> None:
    check_server(server)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_sampler(sampler) -> None:
    check_sampler(sampler)


@pytest.mark.parametrize("partitioner", PARTITIONERS, ids=repr)
def test_partitioner(partitioner) -> None:
    check_partitioner(partitioner)


@pytest.mark.parametrize(("work", "server"), WORKS, ids=repr)
def test_work(work, server) -> None:
    check_work(work, server)


@pytest.mark.parametrize(("model", "data"), MODELS, ids=lambda value: type(value).__name__)
def test_model(model, data) -> None:
    check_model(model, data)


@pytest.mark.parametrize("engine", ENGINES)
def test_engine(engine) -> None:
    check_engine(engine)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtime(runtime: str) -> None:
    check_runtime(RUNTIMES[runtime])
