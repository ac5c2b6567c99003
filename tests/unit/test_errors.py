"""One tree of errors, drawn where it is defined; each survives the way out of a worker."""

import pickle

import numpy as np
import pytest

import koinon as kn
import linear
from koinon import errors
from koinon.errors import ClientError, KoinonError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_koinons_and_drawn_in_the_tree(kind: type[Exception]) -> None:
    assert issubclass(kind, KoinonError)
    assert kind.__name__ in f"{errors.__doc__}".split()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not ClientError], ids=lambda kind: kind.__name__)
def test_an_error_comes_out_of_a_worker_as_it_was(kind: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(kind("what was asked")))
    assert (type(again), str(again)) == (kind, "what was asked")


def test_a_clients_error_keeps_its_client_and_stage() -> None:
    again = pickle.loads(pickle.dumps(ClientError("it failed", client="paris", stage="train")))
    assert (str(again), again.client, again.stage) == ("it failed", "paris", "train")


def broken(params, data, task):
    """A user's loop with a mistake in it."""
    if len(data[0]) == 3:
        raise ZeroDivisionError("an empty shelf")
    return params, len(data[0]), {}


@pytest.mark.parametrize("runtime", ["local", "processes"])
def test_what_fails_in_a_clients_own_code_names_the_client_and_keeps_the_cause(runtime: str) -> None:
    loop = kn.OwnLoop(params={"w": np.zeros(2)}, train=broken)
    with pytest.raises(
        ClientError, match="Client 'site-1' failed while training: ZeroDivisionError: an empty shelf"
    ) as found:
        kn.fit(loop, linear.clients(), runtime=runtime, workers=1, progress=False)
    assert (found.value.client, found.value.stage) == ("site-1", "train")
    shown = f"{found.value.__cause__!r} {' '.join(getattr(found.value, '__notes__', []))}"
    assert "an empty shelf" in shown
    assert runtime == "local" or "in broken" in shown, "a worker's traceback travels as a note"
