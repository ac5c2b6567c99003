"""The safetensors layout, read and written without a copy, and read from strangers without a risk.

A file is 8 bytes of header length (little-endian), a JSON header and the tensors' bytes without gaps. Every
bound is checked before anything of that size is allocated. Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from koinon.errors import FormatError
from koinon.tree import Array

LENGTH_BYTES = 8
_ADDRESSES = 2**48
_METADATA = "__metadata__"
_DTYPES = {
    "BOOL": np.dtype("?"), "U8": np.dtype("u1"), "I8": np.dtype("i1"), "U16": np.dtype("<u2"), "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"), "I32": np.dtype("<i4"), "U64": np.dtype("<u8"), "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items() if name != "BF16"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a header may hold at most."""

    header_bytes: int = 4 << 20
    tensors: int = 65_536
    name_characters: int = 512
    dimensions: int = 8


LIMITS = Limits()


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file. A BF16 tensor is read as the uint16 of its bits."""

    name: str
    type: str  # as the format names it: F32, I8, ...
    shape: tuple[int, ...]
    start: int  # bytes from the first byte of the file
    stop: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of its elements."""
        return _DTYPES[self.type]


@dataclass(frozen=True)
class Layout:
    """Where everything in a file is. Tensors lie in the order of their bytes, without gaps."""

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    size: int  # bytes of the whole file

    def views(self, buffer: Any) -> dict[str, Array]:
        """Return every tensor of the file in ``buffer`` as an array over its memory."""
        return {
            t.name: np.frombuffer(buffer, t.dtype, math.prod(t.shape), t.start).reshape(t.shape) for t in self.tensors
        }


def pieces(
    arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None, bfloat16: Sequence[str] = ()
) -> Iterator[bytes | memoryview]:
    """Yield a file piece by piece: its head, then every array's own memory, widest elements first.

    Arrays of names in ``bfloat16`` hold the bits of such numbers as uint16.
    """
    little = {name: _little(array) for name, array in arrays.items()}
    order = sorted(little, key=lambda name: (-little[name].dtype.itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    place = 0
    for name in order:
        array = little[name]
        kind = "BF16" if name in bfloat16 else _NAMES[array.dtype]
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [place, place := place + array.nbytes],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # the first tensor is aligned
    yield len(text).to_bytes(LENGTH_BYTES, "little") + text
    for name in order:
        if little[name].size:
            yield memoryview(little[name].reshape(-1).view(np.uint8))


def header_length(head: bytes, limits: Limits = LIMITS) -> int:
    """Return the length of the JSON header from a file's first 8 bytes. Raises FormatError if it cannot be."""
    if len(head) < LENGTH_BYTES:
        raise FormatError(f"A tensor file begins with {LENGTH_BYTES} bytes of length; found {len(head)} bytes in all.")
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if length > limits.header_bytes:
        raise FormatError(f"A tensor header may take {limits.header_bytes:,} bytes; this one claims {length:,}.")
    return length


def layout(head: bytes | memoryview, size: int, limits: Limits = LIMITS) -> Layout:
    """Return the layout of a file of ``size`` bytes that begins with ``head`` (at least its whole header).

    Raises FormatError for anything but tensors that cover the file exactly, once each, in order.
    """
    length = header_length(bytes(head[:LENGTH_BYTES]), limits)
    begin = LENGTH_BYTES + length
    if begin > min(size, len(head)):
        raise FormatError(f"The header claims {length:,} bytes, and the file has {min(size, len(head)):,} in all.")
    header = _parsed(bytes(head[LENGTH_BYTES:begin]))  # no more of it: what follows may be the whole file
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("The header's metadata must map names to texts.")
    if len(header) > limits.tensors:
        raise FormatError(f"A file may hold {limits.tensors:,} tensors; this one lists {len(header):,}.")
    tensors = sorted((_tensor(name, entry, begin, limits) for name, entry in header.items()), key=_place)
    place = begin
    for tensor in tensors:
        if tensor.start != place:
            raise FormatError(f"Tensor {tensor.name[:80]!r} begins at byte {tensor.start}, where {place} is next.")
        place = tensor.stop
    if place != size:
        raise FormatError(f"The tensors end at byte {place:,}, and the file has {size:,} bytes.")
    return Layout(tuple(tensors), metadata, size)


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.start, tensor.stop


def _parsed(text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        "".join(part for pair in pairs for part in pair if isinstance(part, str)).encode()  # raises: not Unicode text
        if len(found) != len(pairs):
            raise ValueError("a name stands twice")
        return found

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"The tensor header is not JSON of unique names: {str(error)[:200]}.") from error
    if not isinstance(header, dict):
        raise FormatError(f"The tensor header must be an object; found {type(header).__name__}.")
    return header


def _tensor(name: str, entry: Any, begin: int, limits: Limits) -> Tensor:
    if len(name) > limits.name_characters:
        raise FormatError(f"A tensor's name may take {limits.name_characters} characters; one takes {len(name):,}.")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"Tensor {name[:80]!r} must have dtype, shape and data_offsets, and nothing else.")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise FormatError(f"Tensor {name[:80]!r} has type {str(kind)[:20]!r}; known are {', '.join(_DTYPES)}.")
    if not _counts(shape) or len(shape) > limits.dimensions:
        raise FormatError(f"Tensor {name[:80]!r} must have a shape of at most {limits.dimensions} whole numbers.")
    if not _counts(offsets) or len(offsets) != 2:
        raise FormatError(f"Tensor {name[:80]!r} must have two data_offsets, whole numbers.")
    start, stop = offsets
    if math.prod(size or 1 for size in shape) >= _ADDRESSES:  # numpy refuses such a shape even when it is empty
        raise FormatError(f"Tensor {name[:80]!r} has shape {shape}, more numbers than a memory has places.")
    if stop - start != math.prod(shape) * _DTYPES[kind].itemsize:
        raise FormatError(f"Tensor {name[:80]!r} of {kind}{shape} does not take {stop - start:,} bytes.")
    return Tensor(name, kind, tuple(shape), begin + start, begin + stop)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _ADDRESSES for item in value)


def _little(array: Array) -> Array:
    array = np.asarray(array)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    if array.dtype not in _NAMES:
        raise FormatError(f"Arrays of type {array.dtype} cannot be written; known are {', '.join(_DTYPES)}.")
    return array
