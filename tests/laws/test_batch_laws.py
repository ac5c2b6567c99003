"""Batches: every example once an epoch, filled from the same client, and no chunk shows."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koinon import keys
from koinon.core.types import Passes, Purpose, Tasks
from koinon.data.dataset import FederatedDataset, NumberedNames
from koinon.round.batches import Batches, cut

sizes = st.lists(st.integers(1, 23), min_size=1, max_size=7)
passes = st.builds(Passes, st.one_of(st.none(), st.integers(1, 9)), st.integers(1, 3), st.none(), st.booleans())


def dataset(counts: list[int], held: int = 0) -> FederatedDataset:
    """Return clients whose rows lie scattered over the arrays; row numbers tell whose they are."""
    total = sum(counts)
    rows = np.random.default_rng(total).permutation(total).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    held_out = np.minimum(held, np.asarray(counts) - 1).astype(np.int32)
    x = np.arange(total, dtype=np.float32)
    return FederatedDataset(x, x, NumberedNames(len(counts)), rows, offsets, held_out)


def tasks(clients: np.ndarray, seed: int) -> Tasks:
    own = keys.fold(np.broadcast_to(keys.root(seed), (len(clients), 2)), clients.astype(np.uint32))
    return Tasks(clients.astype(np.int64), own, np.ones(len(clients), np.float32))


def batches_of(cut_up: Batches, i: int) -> list[tuple[np.ndarray, int]]:
    span = range(cut_up.starts[i], cut_up.starts[i] + cut_up.steps[i])
    return [(cut_up.rows[j], int(cut_up.valid[j])) for j in span]


@given(sizes, passes, st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_each_epoch_has_every_example_of_the_client_exactly_once(counts, asked, held, seed) -> None:
    data = dataset(counts, held)
    made = cut(asked, data, Purpose.TRAIN, tasks(np.arange(len(counts)), seed))
    for i in range(len(counts)):
        start, count = (int(v) for v in data.span(np.array(i), held_out=False))
        own = data.order()[start : start + count]
        batches = batches_of(made, i)
        each = len(batches) // asked.epochs
        for epoch in range(asked.epochs):
            seen = np.concatenate([rows[:valid] for rows, valid in batches[epoch * each : (epoch + 1) * each]])
            assert sorted(seen) == sorted(own)
            if not asked.shuffle:
                assert seen.tolist() == own.tolist()
        assert made.examples[i] == count
        assert all(np.isin(rows, own).all() for rows, _ in batches), "a batch is filled with the client's own rows"
        assert all(1 <= valid <= len(rows) for rows, valid in batches)


@given(sizes, passes, st.integers(0, 2**32 - 1))
def test_a_short_batch_is_filled_from_the_beginning_of_its_epoch(counts, asked, seed) -> None:
    made = cut(replace(asked, epochs=1), dataset(counts), Purpose.TRAIN, tasks(np.arange(len(counts)), seed))
    for i, count in enumerate(counts):
        laid = np.concatenate([rows for rows, _ in batches_of(made, i)])
        np.testing.assert_array_equal(laid, np.resize(laid[:count], len(laid)))


@given(sizes, passes, st.integers(0, 2**32 - 1), st.data())
def test_a_chunk_has_the_batches_of_the_cohort(counts, asked, seed, data) -> None:
    federated, everybody = dataset(counts, 1), tasks(np.arange(len(counts)), seed)
    whole = cut(asked, federated, Purpose.TRAIN, everybody)
    chosen = np.array(data.draw(st.lists(st.sampled_from(range(len(counts))), min_size=1, unique=True)))
    chunk = cut(asked, federated, Purpose.TRAIN, everybody.take(chosen))
    for place, client in enumerate(chosen):
        for (rows, valid), (wanted, count) in zip(batches_of(chunk, place), batches_of(whole, client), strict=True):
            np.testing.assert_array_equal(rows, wanted)
            assert valid == count


@given(sizes, st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_number_of_steps_is_the_beginning_of_as_many_epochs(counts, size, steps, seed) -> None:
    everybody = tasks(np.arange(len(counts)), seed)
    fixed = cut(Passes(size, steps=steps), dataset(counts), Purpose.TRAIN, everybody)
    long = cut(Passes(size, epochs=12), dataset(counts), Purpose.TRAIN, everybody)
    assert fixed.steps.tolist() == [steps] * len(counts)
    for i in range(len(counts)):
        for (rows, valid), (wanted, count) in zip(batches_of(fixed, i), batches_of(long, i), strict=False):
            np.testing.assert_array_equal(rows, wanted)
            assert valid == count


@given(sizes, st.integers(1, 3))
def test_judging_reads_the_held_out_examples_in_order(counts, held) -> None:
    data = dataset(counts, held)
    made = cut(Passes(4, shuffle=False), data, Purpose.EVALUATE, tasks(np.arange(len(counts)), 0))
    for i in range(len(counts)):
        start, count = (int(v) for v in data.span(np.array(i), held_out=True))
        seen = [row for rows, valid in batches_of(made, i) for row in rows[:valid].tolist()]
        assert seen == data.order()[start : start + count].tolist()


def test_every_order_of_an_epoch_comes_equally_often() -> None:
    """Four examples have 24 orders; each comes as often as the others, and epochs differ."""
    clients = 12_000
    data = dataset([4] * clients)
    made = cut(Passes(4, epochs=2), data, Purpose.TRAIN, tasks(np.arange(clients), 5))
    own = data.order().reshape(clients, 1, 4)
    place = np.argmax(made.rows.reshape(clients, 2, 4)[..., None] == own[:, :, None, :], axis=-1)
    code = place @ np.array([64, 16, 4, 1])
    for epoch in range(2):
        counts = np.unique(code[:, epoch], return_counts=True)[1]
        assert len(counts) == 24
        assert float(((counts - clients / 24) ** 2 / (clients / 24)).sum()) < 23 + 4 * (2 * 23) ** 0.5
    assert abs(float((code[:, 0] == code[:, 1]).mean()) - 1 / 24) < 0.01
