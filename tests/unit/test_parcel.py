"""Values between processes: what is packed is what arrives, and nothing is left behind."""

import os
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from koinon.runtimes.parcel import Parcel, receive, send


@given(
    hnp.arrays(st.sampled_from([np.float32, np.int64, np.uint8, np.bool_]), hnp.array_shapes(min_dims=0, max_side=40)),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_a_value_arrives_as_it_was_sent(array: np.ndarray, note: dict[str, int]) -> None:
    here, there = socket.socketpair()
    with here, there:
        send({"array": array, "note": note}, here)
        got = receive(there)
    np.testing.assert_array_equal(got["array"], array)
    assert got["array"].dtype == array.dtype
    assert got["note"] == note


def test_large_arrays_travel_in_shared_memory_and_outlive_the_next_parcel() -> None:
    here, there = socket.socketpair()
    first, second = np.arange(300_000, dtype=np.float32), np.ones(100_000)
    with here, there:
        send(first, here)
        kept = receive(there)
        send((second, "more"), here)
        other, word = receive(there)
    assert not kept.flags.writeable
    assert kept.ctypes.data % 64 == 0
    np.testing.assert_array_equal(kept, first)
    np.testing.assert_array_equal(other, second)
    assert word == "more"


def test_one_parcel_goes_to_many_without_a_copy_and_no_descriptor_is_left() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    pairs = [socket.socketpair() for _ in range(3)]
    parcel = Parcel({"w": np.arange(50_000)})
    for here, _ in pairs:
        parcel.send(here)
    parcel.close()
    parcel.close()
    for here, there in pairs:
        np.testing.assert_array_equal(receive(there)["w"], np.arange(50_000))
        here.close()
        there.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_closed_end_is_an_end_of_file_and_not_a_hang() -> None:
    here, there = socket.socketpair()
    here.close()
    with there, pytest.raises(EOFError):
        receive(there)


def test_an_end_that_closes_within_a_value_is_an_end_of_file() -> None:
    here, there = socket.socketpair()
    with there:
        here.sendall(b"\1\0\0\0\0\0\0\0")
        threading.Timer(0.05, here.close).start()
        with pytest.raises(EOFError):
            receive(there)
