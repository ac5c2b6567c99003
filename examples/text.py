"""A Keras LSTM that learns the next letter, each speaker of a play being a client.

TEXT=play.txt koinon run examples/text.py

The file holds speeches divided by empty lines, each beginning with a line ``NAME:``. Without ``TEXT`` it is the
opening of Shakespeare's Coriolanus beside this file: enough to see it run, not to learn English.
"""

import os
from pathlib import Path

import keras

import koinon as kn
from koinon.data.sources import speeches

# Agreed on beforehand: counting the letters would need everybody's text in one place.
LETTERS = "\n" + "".join(chr(code) for code in range(ord(" "), ord("~") + 1))

play = speeches(
    os.environ.get("TEXT", Path(__file__).parent / "data" / "coriolanus.txt"), window=40, vocabulary=LETTERS
)

model = keras.Sequential(
    [
        keras.layers.Embedding(len(LETTERS), 16),
        keras.layers.LSTM(64, return_sequences=True),
        keras.layers.Dense(len(LETTERS), activation="softmax"),
    ]
)
model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

app = kn.App(
    model=model,
    clients=play.clients,
    algorithm=kn.fedadam(kn.sgd(1.0), server_learning_rate=0.02, batch_size=8, cohort=min(10, len(play.clients))),
    stop=kn.Stop(rounds=30, patience=5),
    evaluation=kn.Evaluation(clients=20),
)
