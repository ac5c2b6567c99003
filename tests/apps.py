"""Small apps that several tests share: made here once, never run on import."""

import jax.numpy as jnp
import numpy as np

import koinon as kn


def clients(count: int = 6, examples: int = 30, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return ragged clients of a linear rule with noise."""
    draw = np.random.default_rng(seed)
    rule = draw.normal(size=5)
    out = {}
    for i in range(count):
        x = draw.normal(size=(examples + 3 * i, 5)).astype(np.float32)
        out[f"client-{i}"] = (x, (x @ rule + draw.normal(size=len(x)) > 0).astype(np.float32))
    return out


def init(key):
    """Return zero parameters of a hidden layer of three."""
    return {"w": jnp.full((5, 3), 0.1) * jnp.arange(3.0), "v": jnp.ones(3), "b": jnp.zeros(())}


def predict(params, x):
    """Return one logit an example."""
    return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"]


def loss(params, x, y):
    """Return the binary cross-entropy of each example."""
    logit = predict(params, x)
    return jnp.logaddexp(0.0, logit) - y * logit


def model() -> kn.FunctionModel:
    """Return the model of the functions above."""
    return kn.FunctionModel(init, loss, predict, (kn.Accuracy(), kn.AreaUnderCurve()))


def algorithm() -> kn.Algorithm:
    """Return FedAvg with clip and int8 in the channel: plain SGD hides a sum that depends on threads."""
    return kn.fedavg(kn.sgd(0.3), epochs=2, batch_size=8, channel=(kn.Clip(1.0), kn.Quantise()))
