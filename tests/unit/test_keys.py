"""Seeds and integers outside their range are refused; a name has one hash for ever."""

import numpy as np
import pytest

from koinon import keys


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"found {seed}"):
        keys.root(seed)
    with pytest.raises(ValueError, match=f"found {seed}"):
        keys.fold(keys.root(0), seed)


def test_a_seed_fills_both_words() -> None:
    assert keys.root(2**32 + 5).tolist() == [1, 5]
    assert keys.root(0).dtype == np.uint32


def test_folding_twice_is_folding_both() -> None:
    key = keys.root(3)
    assert keys.fold(key, 1, 2).tolist() == keys.fold(keys.fold(key, 1), 2).tolist() != keys.fold(key, 2, 1).tolist()


def test_the_upper_half_of_an_integer_counts() -> None:
    key = keys.root(3)
    assert keys.fold(key, 2**32).tolist() != keys.fold(key, 0).tolist()


def test_the_hash_of_a_name_is_the_same_in_every_process() -> None:
    """The first eight bytes of BLAKE2b, as `b2sum -l 64` prints them."""
    assert keys.name_hash(["paris", "Zürich"]).tolist() == [0x16FFF8BCF3676F91, 0x08D579A7FA387470]
    assert len(keys.name_hash([])) == 0
