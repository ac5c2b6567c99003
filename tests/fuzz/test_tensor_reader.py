"""The tensor reader meets strangers' bytes: it reads what is there, or says in one way that it will not."""

import math
import sys
import tracemalloc

import numpy as np
import pytest
import tensor_files
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tensor_files import entry, file_of

import koinon.store.tensors as reader
from koinon.errors import FormatError
from koinon.store import blobs

HEADER = reader.LIMITS.header_bytes


def many(count: int) -> bytes:
    """Return a file of so many empty tensors."""
    return file_of(
        b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(count)) + b"}"
    )


# What fuzzing found, kept as it was found: each once left the reader by another way than FormatError.
FINDINGS = {
    "an empty tensor with more bytes than memory has addresses": file_of({"a": entry("F32", [0, 2**47, 2**47], 0, 0)}),
    "an empty tensor whose other dimensions overflow": file_of({"a": entry("U8", [2**47, 2**47, 0, 2**47], 0, 0)}),
    "a name that is no Unicode text": file_of(
        b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"
    ),
    "metadata that is no Unicode text": file_of(b'{"__metadata__":{"a":"\\udfff"}}'),
}  # fmt: skip

REFUSED = FINDINGS | {
    "nothing": b"",
    "seven bytes": bytes(7),
    "an empty header": bytes(8),
    "a header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "a header that claims all memory there is": b"\xff" * 8 + b"{}",
    "a header one byte over the limit": (HEADER + 1).to_bytes(8, "little") + b"{}",
    "lists within lists": file_of(b"[" * 100_000),
    "objects within objects": file_of(b'{"a":' * 100_000),
    "a number of 5,000 digits": file_of(b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,1]}}'),
    "a name twice": file_of(
        b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x"
    ),
    "a key of a tensor twice": file_of(b'{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x"),
    "UTF-16": file_of("{}".encode("utf-16")),
    "a byte order mark": file_of(b"\xef\xbb\xbf{}"),
    "NaN for a shape": file_of(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"),
    "true for a size": file_of({"a": entry("U8", [True], 0, 1)}, b"x"),
    "a fraction for a size": file_of({"a": entry("U8", [1.0], 0, 1)}, b"x"),
    "a negative size": file_of({"a": entry("U8", [-1, -1], 0, 1)}, b"x"),
    "a gap": file_of({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"xyz"),
    "an overlap": file_of({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"xyz"),
    "one place for two": file_of({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 0, 1)}, b"x"),
    "offsets the wrong way round": file_of({"a": entry("U8", [1], 1, 0)}, b"x"),
    "bytes left over": file_of({"a": entry("U8", [1], 0, 1)}, b"xy"),
    "bytes that are not there": file_of({"a": entry("U8", [3], 0, 3)}, b"xy"),
    "a shape of other bytes": file_of({"a": entry("F32", [2], 0, 4)}, b"xxxx"),
    "nine dimensions": file_of({"a": entry("U8", [1] * 9, 0, 1)}, b"x"),
    "a type that does not exist": file_of({"a": entry("PICKLE", [1], 0, 1)}, b"x"),
    "a key that does not exist": file_of({"a": entry("U8", [1], 0, 1) | {"code": "print()"}}, b"x"),
    "metadata that is no text": file_of({"__metadata__": {"a": 1}}),
    "a name of 513 characters": file_of({"n" * 513: entry("U8", [1], 0, 1)}, b"x"),
    "65,537 tensors": many(65_537),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_tensor_file_is_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(FormatError):
        reader.layout(data, len(data)).views(data)


def test_what_the_limits_just_allow_is_read() -> None:
    assert len(tensor_files.read(many(65_536), reader.LIMITS) or {}) == 65_536
    assert tensor_files.read(file_of({"n" * 512: entry("U8", [1] * 8, 0, 1)}, b"x"), reader.LIMITS)


@pytest.mark.parametrize("length", [HEADER + 1, 2**63, 2**64 - 1])
def test_a_length_over_the_limit_is_refused_from_its_eight_bytes(length: int) -> None:
    with pytest.raises(FormatError, match="may take 4,194,304 bytes"):
        reader.header_length(length.to_bytes(8, "little"))


@given(tensor_files.trees, tensor_files.texts)
def test_what_is_written_is_read_back(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    data = tensor_files.written(arrays, metadata)
    views = tensor_files.read(data)
    assert views is not None and views.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (views[name].dtype, views[name].shape) == (array.dtype, array.shape)
        assert views[name].tobytes() == array.tobytes()
    assert reader.layout(data, len(data)).metadata == metadata


@pytest.mark.parametrize("dtype", tensor_files.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3), (1,) * 8], ids=str)
def test_every_type_and_shape_survives_in_either_byte_order(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    for order in "<>":
        views = tensor_files.read(tensor_files.written({"a": array.astype(dtype.newbyteorder(order))}))
        assert views is not None
        np.testing.assert_array_equal(views["a"], array, strict=True)


def test_the_bits_of_bfloat16_are_kept() -> None:
    bits = np.arange(0, 2**16, 257, dtype=np.uint16).reshape(-1, 4)
    data = b"".join(reader.pieces({"a": bits}, bfloat16=("a",)))
    found = reader.layout(data, len(data))
    assert found.tensors[0].type == "BF16"
    np.testing.assert_array_equal(found.views(data)["a"], bits, strict=True)


def test_a_view_is_the_files_own_memory() -> None:
    data = bytearray(tensor_files.written({"a": np.float32([1, 2])}))
    view = reader.layout(data, len(data)).views(data)["a"]
    data[-4:] = np.float32(7).tobytes()
    assert view[1] == 7


@given(tensor_files.trees, tensor_files.texts)
def test_the_reference_package_writes_what_is_read_here(
    arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    assume(arrays)  # its own header of no tensors beside metadata is no JSON (0.8)
    views = tensor_files.read(numpy_io.save(arrays, metadata))
    assert views is not None and views.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (views[name].dtype, views[name].shape, views[name].tobytes()) == (
            array.dtype,
            array.shape,
            array.tobytes(),
        )


@given(st.one_of(tensor_files.files(), tensor_files.damaged(), tensor_files.invented()))
def test_the_reference_package_reads_whatever_is_read_here(data: bytes) -> None:
    safetensors = pytest.importorskip("safetensors")
    assume(b"-0" not in data)  # JSON's minus zero is a whole number to Python and a fraction to Rust
    views = tensor_files.read(data)
    if views is not None:
        assert sorted(
            (name, tuple(found["shape"]), bytes(found["data"])) for name, found in safetensors.deserialize(data)
        ) == sorted((name, view.shape, view.tobytes()) for name, view in views.items())


@settings(max_examples=300)
@given(tensor_files.damaged())
def test_damaged_files_are_read_within_their_bounds_or_refused(data: bytes) -> None:
    tensor_files.read(data)


@settings(max_examples=300)
@given(tensor_files.invented())
@example(file_of({"a": entry("F32", [0], 0, 0), "b": entry("U8", [], 0, 1)}, b"x"))
def test_invented_headers_are_read_within_their_bounds_or_refused(data: bytes) -> None:
    tensor_files.read(data)


@given(st.binary(max_size=64))
def test_noise_is_refused(data: bytes) -> None:
    assert tensor_files.read(data) is None


@given(tensor_files.files().filter(lambda data: len(data) > 8), st.data())
def test_every_truncation_is_refused(data: bytes, draw: st.DataObject) -> None:
    assert tensor_files.read(data[: draw.draw(st.integers(0, len(data) - 1))]) is None


@given(st.one_of(tensor_files.files(), tensor_files.damaged(), tensor_files.invented()))
def test_a_tree_is_rebuilt_or_refused(data: bytes) -> None:
    try:
        blobs.unpack(data)
    except FormatError:
        pass


@pytest.mark.parametrize(
    "structure", ["", "[]", "3", "null", '"x"', '{"a":' * 90_000, '{"a.b":null}', '{"\\ud800":null}']
)
def test_a_structure_that_is_none_is_refused(structure: str) -> None:
    with pytest.raises(FormatError, match="cannot be rebuilt"):
        blobs.unpack(file_of({"__metadata__": {"structure": structure}, "a": entry("U8", [], 0, 1)}, b"x"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[" + b"[]," * (HEADER // 3 - 2) + b"[]]", id="lists"),
        pytest.param(b'{"a":[' + b"{}," * (HEADER // 3 - 9) + b"{}]}", id="objects", marks=pytest.mark.slow),
        pytest.param(b"{" + b",".join(b'"%x":0' % i for i in range(400_000)) + b"}", id="names"),
        pytest.param(b'{"a":"' + b"a" * (HEADER - 9) + b'"}', id="text"),
    ],
)
def test_the_largest_header_takes_bounded_memory(text: bytes) -> None:
    data = file_of(text)
    assert len(text) <= HEADER
    assert _peak(data) < 40 * HEADER


def test_a_claim_takes_no_memory() -> None:
    for length in (HEADER, HEADER + 1, 2**40, 2**64 - 1):
        assert _peak(length.to_bytes(8, "little") + b"{}") < 1 << 16
    assert _peak(file_of({"a": entry("F64", [2**44], 0, 2**47)})) < 1 << 16


def _peak(data: bytes) -> int:
    """Return the most bytes that refusing a file took."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            reader.layout(data, sys.maxsize if len(data) < 100 else len(data))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
