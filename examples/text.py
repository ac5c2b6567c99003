"""A Keras LSTM that learns the next letter, each speaker of a play being a client.

TEXT=play.txt koinon run examples/text.py

The file holds speeches divided by empty lines, each beginning with a line ``NAME:``. Without ``TEXT`` it is the
opening of Shakespeare's Coriolanus beside this file: enough to see it run, not to learn English.
"""

import os
from collections import defaultdict
from pathlib import Path

import keras
import numpy as np

import koinon as kn

# Agreed on beforehand: counting the letters would need everybody's text in one place.
LETTERS = "\n !\"&'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz"
WINDOW = 40


def speakers(text):
    """Return each speaker's windows of letters, and for each letter the one after it."""
    lines = defaultdict(str)
    for speech in text.split("\n\n"):
        name, _, words = speech.strip().partition(":\n")
        lines[name] += words + "\n"
    found = {}
    for name, words in lines.items():
        code = np.array([LETTERS.find(letter) for letter in words if letter in LETTERS], "int32")
        count = (len(code) - 1) // WINDOW
        if count >= 2:  # one to train on, one to be judged on
            rows = np.arange(count)[:, None] * WINDOW + np.arange(WINDOW)
            found[name] = (code[rows], code[rows + 1])
    return found


model = keras.Sequential(
    [
        keras.layers.Embedding(len(LETTERS), 16),
        keras.layers.LSTM(64, return_sequences=True),
        keras.layers.Dense(len(LETTERS), activation="softmax"),
    ]
)
model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

path = Path(os.environ.get("TEXT", Path(__file__).parent / "data" / "coriolanus.txt"))
clients = speakers(path.read_text(encoding="utf-8"))

app = kn.App(
    model=model,
    clients=clients,
    algorithm=kn.fedadam(kn.sgd(1.0), server_learning_rate=0.02, batch_size=8, cohort=min(10, len(clients))),
    stop=kn.Stop(rounds=30, patience=5),
    evaluation=kn.Evaluation(clients=20),
)
