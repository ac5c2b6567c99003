"""One row per client that ever took part; the others cost nothing and begin where everybody begins."""

import numpy as np
import pytest

from koinon.store.client_states import MemoryStates

INITIAL = {"control": {"w": np.float32([1, 2])}, "count": np.float32(0)}


def rows(*values: float) -> dict[str, object]:
    column = np.float32(values)
    return {"control": {"w": np.stack([column, -column], axis=1)}, "count": column}


def test_who_never_took_part_begins_at_the_beginning() -> None:
    read = MemoryStates().read(np.array([3, 9]), INITIAL)
    assert read["control"]["w"].tolist() == [[1, 2], [1, 2]]
    assert read["count"].shape == (2,)


def test_rows_come_back_in_the_order_asked_for() -> None:
    states = MemoryStates()
    states.stage(np.array([5, 2]), rows(50, 20))
    states.stage(np.array([7, 5]), rows(70, 51))
    assert states.read(np.array([2, 5, 6, 7]), INITIAL)["count"].tolist() == [20, 51, 0, 70]
    assert states.read(np.array([7]), INITIAL)["control"]["w"].tolist() == [[70, -70]]
    assert len(states) == 3


def test_what_was_read_is_a_copy() -> None:
    states = MemoryStates()
    states.stage(np.array([1]), rows(10))
    states.read(np.array([1]), INITIAL)["count"][:] = 99
    assert states.read(np.array([1]), INITIAL)["count"].tolist() == [10]


def test_no_state_takes_no_room() -> None:
    states = MemoryStates()
    assert states.read(np.array([1, 2]), {"work": {}, "channel": {}}) == {"work": {}, "channel": {}}
    assert len(states) == 0


def test_a_million_registered_clients_cost_what_took_part() -> None:
    states = MemoryStates()
    for first in range(0, 900, 9):
        states.stage(np.arange(first, first + 9) * 1111, rows(*range(9)))
    assert len(states) == 900
    assert len(states._table["count"]) < 2 * 900


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_a_row_at_a_time_is_all_at_once(count: int) -> None:
    single, whole = MemoryStates(), MemoryStates()
    for i in range(count):
        single.put(i, {"control": {"w": np.float32([i, -i])}, "count": np.float32(i)})
    whole.stage(np.arange(count), rows(*range(count)))
    assert (
        single.read(np.arange(count), INITIAL)["count"].tolist()
        == whole.read(np.arange(count), INITIAL)["count"].tolist()
    )
