"""Four real hospitals train a model of heart disease without pooling records.

koinon run examples/heart.py --out runs/heart
"""

import koinon as kn
from koinon.data.heart import INPUTS, heart
from koinon.models.jax_logistic import logistic_regression

app = kn.App(
    model=logistic_regression(INPUTS),
    clients=heart,
    algorithm=kn.fedavg(kn.sgd(0.1), epochs=1, batch_size=16),
    stop=kn.Stop(rounds=200, patience=10, minimum_change=5e-4),
)
