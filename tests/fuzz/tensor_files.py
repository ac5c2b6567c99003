"""Tensor files for the reader's fuzz tests: good ones, damaged ones, and what a reader must never do with them."""

import json
from typing import Any

import numpy as np
from hypothesis import strategies as st

from koinon.errors import FormatError
from koinon.store import tensors

DTYPES = tuple(
    np.dtype(name) for name in ("?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
)
LIMITS = tensors.Limits(header_bytes=1 << 16, tensors=64, name_characters=64)

names = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """An array of any type and shape, empty and without dimensions included, of any bits a type allows."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
    count = int(np.prod(shape, dtype=int))
    if dtype == np.bool_:
        return np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype).reshape(shape)
    size = count * dtype.itemsize
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype, count).reshape(shape)


trees = st.dictionaries(names, arrays(), max_size=4)
texts = st.dictionaries(names, st.text(st.characters(codec="utf-8"), max_size=12), max_size=2)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file that is as it should be."""
    return written(draw(trees), draw(texts))


numbers = st.one_of(
    st.integers(-2, 70), st.sampled_from([2**31, 2**47, 2**48, 2**63, 2**64, 10**400, True, None, 1.0, "1", [], {}])
)
odd = st.one_of(numbers, st.text(max_size=4), st.lists(numbers, max_size=10))
entries = st.one_of(
    st.fixed_dictionaries({
        "dtype": st.one_of(st.sampled_from(["F32", "U8", "BF16", "BOOL", "F64", "f32", "C64", ""]), odd),
        "shape": st.one_of(st.lists(numbers, max_size=9), odd),
        "data_offsets": st.one_of(st.tuples(numbers, numbers).map(list), odd),
    }, optional={"more": odd}),
    odd,
)  # fmt: skip
headers = st.one_of(st.dictionaries(st.one_of(st.just("__metadata__"), st.text(max_size=80)), entries, max_size=4), odd)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with bytes changed, removed, inserted or repeated."""
    data = bytearray(draw(files()))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        stop = draw(st.integers(place, min(len(data), place + 24)))
        new = draw(
            st.one_of(
                st.binary(max_size=8), st.sampled_from([b"", b"0", b"-", b"9" * 30, b'"', b"[", b"}", b"\\ud800"])
            )
        )
        data[place:stop] = draw(st.sampled_from([new, bytes(data[place:stop]) * 2]))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@st.composite
def invented(draw: st.DrawFn) -> bytes:
    """A true length, a header that is JSON of almost the right kind, and some bytes."""
    return file_of(draw(headers), draw(st.binary(max_size=32)))


def written(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Return the file that koinon writes."""
    return b"".join(tensors.pieces(arrays, metadata))


def file_of(header: Any, data: bytes = b"") -> bytes:
    """Return a file of a header, as a value for JSON or as its very bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str, shape: list[Any], start: int, stop: int) -> dict[str, Any]:
    """Return a header's line of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def read(data: bytes, limits: tensors.Limits = LIMITS) -> dict[str, np.ndarray] | None:
    """Return a file's tensors after checking each, or None where it was refused as it should be.

    Anything else is a bug: another exception, memory outside the file, a tensor that overlaps another or a byte of
    data that belongs to none.
    """
    try:
        found = tensors.layout(data, len(data), limits)
        views = found.views(data)
        text = [name.encode() for name in views]
    except FormatError as error:
        assert len(str(error)) < 1000
        return None
    assert len(text) == len(found.tensors) <= limits.tensors
    begin = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    place = 8 + int.from_bytes(data[:8], "little")
    for tensor in found.tensors:
        view = views[tensor.name]
        assert (view.dtype, view.shape) == (tensor.dtype, tensor.shape)
        if view.size:
            assert view.__array_interface__["data"][0] - begin == place
        place += view.nbytes
    assert place == len(data) == found.size
    return views
