"""koinon: many parties train one model together, and no party's data ever leaves its place.

Every name here is resolved when it is first used: ``import koinon`` imports no framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import replace as replace

    from koinon.aggregate.bucketed import Bucketed as Bucketed
    from koinon.aggregate.bulyan import Bulyan as Bulyan
    from koinon.aggregate.fltrust import FLTrust as FLTrust
    from koinon.aggregate.geometric_median import GeometricMedian as GeometricMedian
    from koinon.aggregate.krum import Krum as Krum
    from koinon.aggregate.mean import Mean as Mean
    from koinon.aggregate.median import Median as Median
    from koinon.aggregate.multi_krum import MultiKrum as MultiKrum
    from koinon.aggregate.norm_bound import NormBound as NormBound
    from koinon.aggregate.trimmed_mean import TrimmedMean as TrimmedMean
    from koinon.algorithms.fedadagrad import fedadagrad as fedadagrad
    from koinon.algorithms.fedadam import fedadam as fedadam
    from koinon.algorithms.fedavg import fedavg as fedavg
    from koinon.algorithms.fedprox import fedprox as fedprox
    from koinon.algorithms.fedsgd import fedsgd as fedsgd
    from koinon.algorithms.fedyogi import fedyogi as fedyogi
    from koinon.algorithms.scaffold import scaffold as scaffold
    from koinon.app import App as App
    from koinon.app import alone as alone
    from koinon.app import evaluate as evaluate
    from koinon.app import fit as fit
    from koinon.app import pooled as pooled
    from koinon.channel.adaptive_clip import AdaptiveClip as AdaptiveClip
    from koinon.channel.bfloat16 import Bfloat16 as Bfloat16
    from koinon.channel.clip import Clip as Clip
    from koinon.channel.correlated_noise import CorrelatedNoise as CorrelatedNoise
    from koinon.channel.distributed_noise import DistributedNoise as DistributedNoise
    from koinon.channel.encrypted import Encrypted as Encrypted
    from koinon.channel.local_privacy import LocalGaussian as LocalGaussian
    from koinon.channel.noise import GaussianNoise as GaussianNoise
    from koinon.channel.quantise import Quantise as Quantise
    from koinon.channel.secure_sum import SecureSum as SecureSum
    from koinon.core.algorithm import Algorithm as Algorithm
    from koinon.core.algorithm import Synchronous as Synchronous
    from koinon.core.types import Batch as Batch
    from koinon.core.types import Task as Task
    from koinon.core.types import Update as Update
    from koinon.data.dataset import FederatedDataset as FederatedDataset
    from koinon.data.dataset import federate as federate
    from koinon.data.partition import IID as IID
    from koinon.data.partition import Dirichlet as Dirichlet
    from koinon.data.partition import NaturalColumn as NaturalColumn
    from koinon.data.partition import QuantitySkew as QuantitySkew
    from koinon.data.partition import Shards as Shards
    from koinon.data.partition import partition as partition
    from koinon.errors import KoinonError as KoinonError
    from koinon.metrics import Accuracy as Accuracy
    from koinon.metrics import AreaUnderCurve as AreaUnderCurve
    from koinon.metrics import MeanSquaredError as MeanSquaredError
    from koinon.models.jax_functions import FunctionModel as FunctionModel
    from koinon.models.own_loop import OwnLoop as OwnLoop
    from koinon.privacy.budget import PrivacyBudget as PrivacyBudget
    from koinon.privacy.quantile import QuantileNorm as QuantileNorm
    from koinon.privacy.statement import PrivacyStatement as PrivacyStatement
    from koinon.report.tracking.mlflow import MLflow as MLflow
    from koinon.report.tracking.tensorboard import TensorBoard as TensorBoard
    from koinon.report.tracking.wandb import WeightsAndBiases as WeightsAndBiases
    from koinon.round.stopping import Stop as Stop
    from koinon.round.training import Evaluation as Evaluation
    from koinon.run import Run as Run
    from koinon.runtimes.local import Local as Local
    from koinon.runtimes.processes import Processes as Processes
    from koinon.sample.samplers import All as All
    from koinon.sample.samplers import Cyclic as Cyclic
    from koinon.sample.samplers import Poisson as Poisson
    from koinon.sample.samplers import Uniform as Uniform
    from koinon.server.adaptive import Adaptive as Adaptive
    from koinon.server.average import Average as Average
    from koinon.work.corrections import Proximal as Proximal
    from koinon.work.local import LocalTraining as LocalTraining
    from koinon.work.local import Weighting as Weighting
    from koinon.work.optimizers import adam as adam
    from koinon.work.optimizers import momentum as momentum
    from koinon.work.optimizers import sgd as sgd
    from koinon.work.private import PrivateTraining as PrivateTraining
    from koinon.work.private_batches import PoissonBatches as PoissonBatches
    from koinon.work.private_batches import ShuffledBatches as ShuffledBatches
    from koinon.work.schedules import Constant as Constant
    from koinon.work.schedules import Cosine as Cosine
    from koinon.work.schedules import Exponential as Exponential

__version__ = "0.1.0"

_HOMES = {
    "dataclasses": ("replace",),
    "koinon.aggregate.bucketed": ("Bucketed",),
    "koinon.aggregate.bulyan": ("Bulyan",),
    "koinon.aggregate.fltrust": ("FLTrust",),
    "koinon.aggregate.geometric_median": ("GeometricMedian",),
    "koinon.aggregate.krum": ("Krum",),
    "koinon.aggregate.mean": ("Mean",),
    "koinon.aggregate.median": ("Median",),
    "koinon.aggregate.multi_krum": ("MultiKrum",),
    "koinon.aggregate.norm_bound": ("NormBound",),
    "koinon.aggregate.trimmed_mean": ("TrimmedMean",),
    "koinon.algorithms.fedadagrad": ("fedadagrad",),
    "koinon.algorithms.fedadam": ("fedadam",),
    "koinon.algorithms.fedavg": ("fedavg",),
    "koinon.algorithms.fedprox": ("fedprox",),
    "koinon.algorithms.fedsgd": ("fedsgd",),
    "koinon.algorithms.fedyogi": ("fedyogi",),
    "koinon.algorithms.scaffold": ("scaffold",),
    "koinon.app": ("App", "alone", "evaluate", "fit", "pooled"),
    "koinon.channel.adaptive_clip": ("AdaptiveClip",),
    "koinon.channel.bfloat16": ("Bfloat16",),
    "koinon.channel.clip": ("Clip",),
    "koinon.channel.correlated_noise": ("CorrelatedNoise",),
    "koinon.channel.distributed_noise": ("DistributedNoise",),
    "koinon.channel.encrypted": ("Encrypted",),
    "koinon.channel.local_privacy": ("LocalGaussian",),
    "koinon.channel.noise": ("GaussianNoise",),
    "koinon.channel.quantise": ("Quantise",),
    "koinon.channel.secure_sum": ("SecureSum",),
    "koinon.core.algorithm": ("Algorithm", "Synchronous"),
    "koinon.core.types": ("Batch", "Task", "Update"),
    "koinon.data.dataset": ("FederatedDataset", "federate"),
    "koinon.data.partition": ("Dirichlet", "IID", "NaturalColumn", "QuantitySkew", "Shards", "partition"),
    "koinon.errors": ("KoinonError",),
    "koinon.metrics": ("Accuracy", "AreaUnderCurve", "MeanSquaredError"),
    "koinon.models.jax_functions": ("FunctionModel",),
    "koinon.models.own_loop": ("OwnLoop",),
    "koinon.privacy.budget": ("PrivacyBudget",),
    "koinon.privacy.quantile": ("QuantileNorm",),
    "koinon.privacy.statement": ("PrivacyStatement",),
    "koinon.report.tracking.mlflow": ("MLflow",),
    "koinon.report.tracking.tensorboard": ("TensorBoard",),
    "koinon.report.tracking.wandb": ("WeightsAndBiases",),
    "koinon.round.stopping": ("Stop",),
    "koinon.round.training": ("Evaluation",),
    "koinon.run": ("Run",),
    "koinon.runtimes.local": ("Local",),
    "koinon.runtimes.processes": ("Processes",),
    "koinon.sample.samplers": ("All", "Cyclic", "Poisson", "Uniform"),
    "koinon.server.adaptive": ("Adaptive",),
    "koinon.server.average": ("Average",),
    "koinon.work.corrections": ("Proximal",),
    "koinon.work.local": ("LocalTraining", "Weighting"),
    "koinon.work.optimizers": ("adam", "momentum", "sgd"),
    "koinon.work.private": ("PrivateTraining",),
    "koinon.work.private_batches": ("PoissonBatches", "ShuffledBatches"),
    "koinon.work.schedules": ("Constant", "Cosine", "Exponential"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604 - the table above, which a test holds against the imports


if not TYPE_CHECKING:  # or a type checker would take every misspelt name

    def __getattr__(name: str) -> Any:
        if name == "privacy":  # a room of functions, not one of them
            return import_module("koinon.privacy")
        if name not in _HOME:
            raise AttributeError(f"module 'koinon' has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
