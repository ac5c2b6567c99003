"""One cipher, the published one, whoever computes it; and no two streams share a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import keys

words = st.integers(0, 2**32 - 1)
wide = st.integers(0, 2**64 - 1)

# The known answers that come with Random123 for threefry2x32 of 20 rounds: counter, key, answer.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
@pytest.mark.parametrize("library", [np, jnp])
def test_threefry_gives_the_published_answers(library, counter, key, answer) -> None:
    high, low = (library.asarray([word], dtype=library.uint32) for word in counter)
    left, right = keys.threefry(library.asarray(key, dtype=library.uint32), high, low)
    assert (int(left[0]), int(right[0])) == answer


@given(wide, words)
def test_fold_is_that_of_jax(seed: int, data: int) -> None:
    key = keys.root(seed)
    np.testing.assert_array_equal(keys.fold(key, data), jax.random.fold_in(jnp.asarray(key), np.uint32(data)))


@given(wide, st.sampled_from([1, 2, 33]))
def test_the_cipher_is_that_of_jax(seed: int, count: int) -> None:
    key = keys.root(seed)
    low = np.arange(count, dtype=np.uint32)
    left, right = keys.threefry(key, np.zeros_like(low), low)
    with jax.threefry_partitionable(True):
        np.testing.assert_array_equal(left ^ right, jax.random.bits(jnp.asarray(key), (count,)))


@jax.jit
def step_key(key, step):
    """Fold a traced number, as a compiled program does."""
    return keys.fold(key, keys.Purpose.STEP.value, step)


bits = jax.jit(keys.bits, static_argnums=1)
uniform = jax.jit(keys.uniform, static_argnums=1)


@given(wide, st.sampled_from([0, 1, 6, 33]))
def test_numpy_and_jax_draw_the_same_bits(seed: int, count: int) -> None:
    key = keys.root(seed)
    np.testing.assert_array_equal(keys.bits(key, count), bits(key, count))
    np.testing.assert_array_equal(keys.uniform(key, (count,)), uniform(key, (count,)))
    np.testing.assert_array_equal(keys.fold(key, keys.Purpose.STEP.value, count), step_key(key, count))


@given(wide, st.lists(wide, min_size=1, max_size=20), st.data())
def test_the_keys_of_a_chunk_are_those_of_the_cohort(seed: int, clients: list[int], data) -> None:
    root, data_ids = keys.root(seed), np.array(clients, np.uint64)
    whole = keys.fold(np.broadcast_to(root, (len(clients), 2)), data_ids)
    at = data.draw(st.integers(0, len(clients) - 1))
    np.testing.assert_array_equal(keys.fold(root, clients[at]), whole[at])
    np.testing.assert_array_equal(keys.fold(np.broadcast_to(root, (1, 2)), data_ids[at : at + 1]), whole[at : at + 1])


@given(wide, st.integers(0, 40), st.integers(0, 40))
def test_a_longer_draw_begins_neither_later_nor_elsewhere(seed: int, short: int, more: int) -> None:
    """Both words of a block, concatenated: the left words of a longer draw begin with those of a shorter one."""
    key = keys.root(seed)
    few, many = keys.bits(key, 2 * short), keys.bits(key, 2 * (short + more))
    np.testing.assert_array_equal(few[:short], many[:short])
    np.testing.assert_array_equal(few[short:], many[short + more : 2 * short + more])


def test_seeds_rounds_clients_and_purposes_never_share_a_key() -> None:
    found = set()
    for seed in (0, 1, 2**32, 2**64 - 1):
        for purpose in keys.Purpose:
            for round in range(20):
                own = keys.fold(keys.root(seed), purpose.value, round)
                many = keys.fold(np.broadcast_to(own, (50, 2)), keys.name_hash([f"client-{i}" for i in range(50)]))
                found |= {tuple(key) for key in many.tolist()}
    assert len(found) == 4 * len(keys.Purpose) * 20 * 50


def test_uniform_numbers_fill_the_open_interval_evenly() -> None:
    drawn = keys.uniform(keys.root(7), (200_000,))
    assert drawn.dtype == np.float32
    assert 0 < drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    counts = np.histogram(drawn, 64, (0, 1))[0]
    chi_square = float(((counts - len(drawn) / 64) ** 2 / (len(drawn) / 64)).sum())
    assert chi_square < 63 + 4 * (2 * 63) ** 0.5
