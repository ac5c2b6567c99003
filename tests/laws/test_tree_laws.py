"""A tree has one flat form: nothing is lost on the way there and back, and equal trees have one digest."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from koinon import tree

names = st.text(st.characters(exclude_characters=".", codec="utf-8"), min_size=1, max_size=4)
dtypes = st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "bool"])
leaves = dtypes.flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
trees = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6)
)


def reversed_names(value):
    """Return the same tree, written down in the other order."""
    return {name: reversed_names(value[name]) for name in reversed(list(value))} if isinstance(value, dict) else value


@given(trees)
def test_a_tree_comes_back_from_its_leaves_and_its_structure(value) -> None:
    shape = json.loads(json.dumps(tree.structure(value)))
    again = tree.fill(shape, iter(tree.leaves(value)))
    assert tree.structure(again) == tree.structure(value)
    assert tree.names(again) == tree.names(value)
    assert all(a is b for a, b in zip(tree.leaves(again), tree.leaves(value), strict=True))


@given(trees)
def test_the_digest_is_blind_to_the_order_of_names(value) -> None:
    assert tree.digest(reversed_names(value)) == tree.digest(value)
    assert tree.names(reversed_names(value)) == tree.names(value)


@given(trees)
def test_mapping_the_identity_changes_nothing(value) -> None:
    assert tree.digest(tree.map(lambda x: x, value)) == tree.digest(value)


@given(trees)
def test_zeros_are_positive_and_of_the_same_kind(value) -> None:
    zero = tree.zeros(value)
    for old, new in zip(tree.leaves(value), tree.leaves(zero), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
        assert not new.any()
        assert new.dtype.kind != "f" or not np.signbit(new).any()


reals = st.dictionaries(names, arrays.arrays(np.float64, 3, elements=st.integers(-1000, 1000)), min_size=1, max_size=4)


@given(reals)
def test_adding_undoes_subtracting(value) -> None:
    other = tree.scale(value, 2.0)
    assert tree.digest(tree.add(tree.subtract(value, other), other)) == tree.digest(value)
    assert tree.sum_of_squares(other) == 4 * tree.sum_of_squares(value)


@given(st.integers(0, 5))
def test_the_sign_of_a_zero_is_no_difference_of_models(place: int) -> None:
    plain, signed = np.zeros(6, np.float32), np.zeros(6, np.float32)
    signed[place] = -0.0
    assert tree.digest({"w": signed}) == tree.digest({"w": plain})


def test_every_other_difference_shows_in_the_digest() -> None:
    w = np.arange(6, dtype=np.float32)
    changed = w.copy()
    changed[3] = np.nextafter(changed[3], np.float32(9))
    trees = [
        {"w": w},
        {"v": w},
        {"w": changed},
        {"w": w.reshape(2, 3)},
        {"w": w.astype(np.float64)},
        {"w": w.view(np.int32)},
        {"w": w[:5]},
        {"a": {"w": w}},
        {"w": w, "v": w},
    ]
    assert len({tree.digest(value) for value in trees}) == len(trees)
    assert tree.digest({"w": w.astype(">f4")}) == tree.digest({"w": w}), "byte order is no difference"
    assert tree.digest({"w": np.asfortranarray(w.reshape(2, 3))}) == tree.digest({"w": w.reshape(2, 3)})
