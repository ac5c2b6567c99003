"""How batches are sized: the same for every chunk, and none larger than the examples can fill."""

import numpy as np
import pytest

from koinon import keys
from koinon.core.types import Passes, Purpose, Tasks
from koinon.data.dataset import FederatedDataset, NumberedNames
from koinon.errors import DataError
from koinon.round.batches import EVALUATION_BATCH, cut, step_counts


def dataset(counts: list[int], held_out: list[int]) -> FederatedDataset:
    offsets = np.concatenate([[0], np.cumsum(counts)])
    x = np.arange(sum(counts), dtype=np.float32)
    rows = np.arange(sum(counts), dtype=np.int32)
    return FederatedDataset(x, x, NumberedNames(len(counts)), rows, offsets, np.asarray(held_out, np.int32))


def tasks(clients: list[int]) -> Tasks:
    chosen = np.asarray(clients, np.int64)
    own = keys.fold(np.broadcast_to(keys.root(0), (len(chosen), 2)), chosen.astype(np.uint32))
    return Tasks(chosen, own, np.ones(len(chosen), np.float32))


def test_judging_small_clients_takes_small_batches() -> None:
    data = dataset([10, 20, 30], [2, 4, 3])
    made = cut(Passes(EVALUATION_BATCH, shuffle=False), data, Purpose.EVALUATE, tasks([0, 1, 2]))
    assert made.rows.shape == (3, 4)
    assert made.valid.tolist() == [2, 4, 3]
    alone = cut(Passes(EVALUATION_BATCH, shuffle=False), data, Purpose.EVALUATE, tasks([0]))
    assert alone.rows.shape == (1, 4), "a chunk takes batches of the size that the whole cohort takes"


def test_judging_large_clients_takes_batches_of_the_limit() -> None:
    data = dataset([2 * EVALUATION_BATCH + 1], [0])
    made = cut(Passes(EVALUATION_BATCH, shuffle=False), data, Purpose.TEST, tasks([0]))
    assert made.rows.shape == (3, EVALUATION_BATCH)
    assert made.valid.tolist() == [EVALUATION_BATCH, EVALUATION_BATCH, 1]


def test_training_takes_the_batch_size_that_was_asked_for() -> None:
    made = cut(Passes(8), dataset([3, 20], [0, 0]), Purpose.TRAIN, tasks([0, 1]))
    assert made.rows.shape == (4, 8)
    assert made.valid.tolist() == [3, 8, 8, 4]


def test_one_batch_of_everything_has_the_size_of_the_largest_client() -> None:
    data = dataset([3, 20, 7], [0, 5, 0])
    assert cut(Passes(None), data, Purpose.TRAIN, tasks([0, 1, 2])).rows.shape == (3, 15)
    assert cut(Passes(None), data, Purpose.TRAIN, tasks([0])).rows.shape == (1, 15)


def test_clients_without_examples_to_judge_take_no_step() -> None:
    made = cut(Passes(4, shuffle=False), dataset([5, 5], [0, 2]), Purpose.EVALUATE, tasks([0, 1]))
    assert made.steps.tolist() == [0, 1]
    assert made.examples.tolist() == [0, 2]


def test_a_client_without_examples_to_train_on_is_named() -> None:
    with pytest.raises(DataError, match="'client-1' has no examples"):
        cut(Passes(4), dataset([5, 2, 5], [0, 2, 0]), Purpose.TRAIN, tasks([0, 1, 2]))


def test_an_empty_cohort_has_no_batches() -> None:
    made = cut(Passes(4, epochs=2), dataset([5, 2], [0, 0]), Purpose.TRAIN, tasks([]))
    assert made.rows.shape == (0, 4)
    assert len(made.steps) == len(made.starts) == len(made.examples) == 0


def test_step_counts_say_what_is_cut() -> None:
    data = dataset([1, 8, 9, 40], [0, 0, 0, 0])
    for asked in (Passes(8, epochs=3), Passes(8, steps=5), Passes(None, epochs=2)):
        made = cut(asked, data, Purpose.TRAIN, tasks([0, 1, 2, 3]))
        assert made.steps.tolist() == step_counts(asked, np.array([1, 8, 9, 40])).tolist()
        assert made.steps.sum() == len(made.rows)
