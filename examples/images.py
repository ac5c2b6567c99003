"""A Keras convolution network on images of ten classes, dealt out to clients of few classes each.

IMAGES=folder/of/mnist koinon run examples/images.py

The folder holds the four files of MNIST, or of a data set in its format, plain or as .gz. Without ``IMAGES`` the
images are made here: noisy stripes at ten angles, which say nothing about real pictures.
"""

import os

import keras
import numpy as np

import koinon as kn
from koinon.data.sources import images


def stripes(rows, seed):
    """Return synthetic images, [rows, 28, 28] in [0, 1], and which of ten angles each has."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 10, rows).astype("int32")
    angle, phase = y[:, None, None] * np.pi / 10, draw.normal(0, 0.5, (rows, 1, 1))
    across, down = np.meshgrid(np.arange(28), np.arange(28))
    wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 0.8 + phase)
    x = 0.5 + 0.25 * wave + draw.normal(0, 0.2, wave.shape)
    return x.clip(0, 1).astype("float32"), y


folder = os.environ.get("IMAGES")
train, test = images(folder) if folder else (stripes(2000, 0), stripes(500, 1))

model = keras.Sequential(
    [
        keras.layers.Reshape((28, 28, 1)),
        keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
        keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

app = kn.App(
    model=model,
    clients=lambda: kn.partition(*train, kn.Dirichlet(clients=20, alpha=0.5)),
    test=test,
    algorithm=kn.fedavg(kn.sgd(0.1, momentum=0.9), epochs=1, batch_size=20, cohort=5),
    stop=kn.Stop(rounds=20, target=("test_accuracy", 0.97)),
)
