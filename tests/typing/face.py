"""What a user writes, as a type checker sees it. Checked by test_typing.py; never run."""

from typing import Any, assert_type

import numpy as np

import koinon as kn

x, y = np.zeros((8, 2), np.float32), np.zeros(8, np.float32)
clients = {"paris": (x, y), "lyon": (x, y)}


def init(key: Any) -> dict[str, Any]:
    """Return parameters."""
    return {"w": np.zeros(2, np.float32)}


def loss(params: dict[str, Any], x: Any, y: Any) -> Any:
    """Return one loss an example."""
    return (x @ params["w"] - y) ** 2


model = kn.FunctionModel(init, loss)
algorithm = kn.fedprox(0.1, kn.sgd(0.05), epochs=2, cohort=kn.Uniform(2), channel=(kn.Clip(1.0), kn.Quantise()))
assert_type(algorithm, kn.Algorithm)
assert_type(kn.replace(algorithm, sampler=kn.All()), kn.Algorithm)

run = kn.fit(model, clients, algorithm, stop=kn.Stop(rounds=3, target=("loss", 0.1)), runtime="processes", seed=7)
assert_type(run, kn.Run)
assert_type(run.digest, str)
assert_type(run.metrics, dict[str, float])
assert_type(kn.alone(model, clients), dict[str, kn.Run])
assert_type(kn.pooled(model, clients, holdout=0.1), kn.Run)
assert_type(kn.partition(x, y, kn.Dirichlet(10, alpha=0.3), seed=1), kn.FederatedDataset)
app = kn.App(model=model, clients=lambda: clients, algorithm=algorithm)


class Halved:
    """A step of a channel of one's own: no base class."""

    def check(self, wire: Any) -> Any:
        """Return the facts unchanged."""
        return wire

    def init(self, value: Any) -> Any:
        """Return nothing."""
        return {}

    def encode(self, value: Any, state: Any, context: Any) -> tuple[Any, Any]:
        """Return the value as it is."""
        return value, state

    def decode(self, payload: Any, context: Any) -> Any:
        """Return the payload."""
        return payload

    def payload_bytes(self, sizes: Any, value_bytes: int) -> int:
        """Return half of the bytes."""
        return value_bytes // 2


kn.fedavg(channel=(Halved(),))
