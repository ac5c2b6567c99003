"""Chunks become one round, and a round one aggregate."""

import numpy as np
import pytest

import apps
import koinon as kn
import linear
from koinon.core.types import Partial, Rows
from koinon.errors import DivergedError, ModelError
from koinon.round.settle import merge, settle


def partial(clients: list[int], weight: float, **metrics: np.ndarray) -> Partial:
    accepted = np.full((len(clients), 1), weight > 0)
    rows = Rows(np.array(clients), np.full(len(clients), weight), metrics, accepted, ("w",))
    return Partial({"w": np.full(2, 1 << 30)}, int(weight) * len(clients), rows, {"kept": np.array(clients)})


def test_rows_and_states_line_up_in_chunk_order() -> None:
    whole = merge([partial([0, 1], 2.0, loss=np.ones(2)), partial([4], 3.0, loss=np.zeros(1))])
    assert whole.rows.clients.tolist() == [0, 1, 4] == whole.states["kept"].tolist()
    assert whole.rows.weights.tolist() == [2, 2, 3]
    assert whole.rows.metrics["loss"].tolist() == [1, 1, 0]
    assert whole.weight == 7
    assert whole.total["w"].tolist() == [2 << 30] * 2


@pytest.mark.parametrize("turned", [False, True])
def test_a_chunk_that_had_nothing_to_judge_counts_as_zeros(turned: bool) -> None:
    judged, none = partial([0], 1.0, loss=np.float32([2]), auc=np.ones((1, 2, 5))), partial([1, 2], 1.0)
    whole = merge([none, judged] if turned else [judged, none])
    assert whole.rows.metrics["loss"].tolist() == ([0, 0, 2] if turned else [2, 0, 0])
    assert whole.rows.metrics["auc"].shape == (3, 2, 5)


@pytest.mark.parametrize("first", [True, False])
def test_clients_too_small_to_hold_anything_out_are_not_judged(first: bool) -> None:
    """Two workers of the plain loop, of which one gets only such clients."""
    whole = linear.clients((5, 6, 7))
    tiny = {f"tiny-{i}": own for i, own in enumerate(linear.clients((1,) * 9).values())}
    mixed = {**tiny, **whole} if first else {**whole, **tiny}
    runs = [
        kn.fit(linear.LinearModel(), mixed, stop=kn.Stop(rounds=1), runtime=runtime, workers=workers, progress=False)
        for runtime, workers in (("local", None), ("processes", 2))
    ]
    assert runs[0].digest == runs[1].digest
    assert runs[0].metrics == runs[1].metrics
    assert "loss" in runs[0].metrics
    assert set(runs[0].clients) == set(whole)


def test_a_round_of_refused_clients_names_them() -> None:
    with pytest.raises(
        DivergedError, match=r"All 2 clients of the round were refused \('a', 'b'\).*Lower the learning rate"
    ):
        settle(kn.fedavg(), partial([0, 1], 0.0), ["a", "b"])


@pytest.mark.parametrize("examples", [0, -3, 0.5, float("nan"), 2**24])
def test_a_loop_of_ones_own_counts_whole_examples(examples: float) -> None:
    loop = kn.OwnLoop(params={"w": np.zeros(2)}, train=lambda params, data, task: (params, examples, {}))
    with pytest.raises(ModelError, match="a whole number from 1 to 16777215"):
        kn.fit(loop, apps.clients(2), progress=False)
