"""A Keras convolution network on images of ten classes, dealt out to clients of few classes each.

IMAGES=folder/of/mnist koinon run examples/images.py

The folder holds the four files of MNIST, or of a data set in its format, plain or as .gz. Without ``IMAGES`` the
images are made here: noisy stripes at ten angles, which say nothing about real pictures.
"""

import gzip
import os
from pathlib import Path

import keras
import numpy as np

import koinon as kn


def read(folder, name):
    """Return one file in the idx format as an array."""
    path = next(Path(folder).glob(f"{name}*"))
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    sizes = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def mnist(folder, part):
    """Return images in [0, 1] of shape [rows, 28, 28, 1] and their labels."""
    x, y = read(folder, f"{part}-images-idx3"), read(folder, f"{part}-labels-idx1")
    return x[..., None].astype("float32") / 255, y.astype("int32")


def stripes(rows, seed):
    """Return synthetic images of the same shape: stripes at one of ten angles, with noise."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 10, rows).astype("int32")
    angle, phase = y[:, None, None] * np.pi / 10, draw.normal(0, 0.5, (rows, 1, 1))
    across, down = np.meshgrid(np.arange(28), np.arange(28))
    wave = np.sin((across * np.cos(angle) + down * np.sin(angle)) * 0.8 + phase)
    x = 0.5 + 0.25 * wave + draw.normal(0, 0.2, wave.shape)
    return x[..., None].clip(0, 1).astype("float32"), y


folder = os.environ.get("IMAGES")
train, test = (mnist(folder, "train"), mnist(folder, "t10k")) if folder else (stripes(2000, 0), stripes(500, 1))

model = keras.Sequential(
    [
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
