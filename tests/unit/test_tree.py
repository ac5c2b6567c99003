"""Trees refuse what cannot be told apart later, and say why."""

import jax.numpy as jnp
import numpy as np
import pytest

from koinon import tree

VALUE = {"b": {}, "a": {"y": np.ones(2), "x": np.zeros((2, 3), np.float32)}}


def test_leaves_come_in_name_order_with_their_paths() -> None:
    assert tree.names(VALUE) == ("a.x", "a.y")
    assert [leaf.shape for leaf in tree.leaves(VALUE)] == [(2, 3), (2,)]
    assert tree.structure(VALUE) == {"a": {"x": None, "y": None}, "b": {}}


def test_a_lone_array_is_a_tree() -> None:
    assert tree.names(np.ones(3)) == ("",)
    assert tree.size(np.ones(3)) == 3


def test_sizes_count_numbers_and_bytes() -> None:
    assert tree.size(VALUE) == 8
    assert tree.size_bytes(VALUE) == 6 * 4 + 2 * 8
    assert tree.size({"scalar": np.float32(1), "none": np.zeros((0, 4))}) == 1


@pytest.mark.parametrize("other", [{"a": {}}, {"a": VALUE["a"]}, {**VALUE, "c": {}}, np.ones(2)])
def test_trees_of_two_structures_are_not_mapped_together(other) -> None:
    with pytest.raises(ValueError, match="trees differ"):
        tree.add(VALUE, other)


def test_a_name_with_a_dot_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not hold '\.': 'dense\.kernel'"):
        tree.names({"dense.kernel": np.ones(1)})


def test_the_library_of_the_leaves_is_kept() -> None:
    value = {"w": jnp.ones(2)}
    assert type(tree.zeros(value)["w"]) is type(value["w"])
    assert tree.namespace(jnp.ones(1)) is jnp
    assert tree.namespace(np.ones(1)) is np
    assert tree.namespace(1.5) is np


def test_no_leaves_have_no_length() -> None:
    assert tree.sum_of_squares({"a": {}}) == 0.0
    assert tree.sum_of_squares({"a": np.float32([3, 4])}) == 25
