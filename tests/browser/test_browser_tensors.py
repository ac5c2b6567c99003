"""The page reads and writes the very tensors that koinon does. Needs Node, no browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from koinon.store.tensors import layout, pieces

HERE = Path(__file__).parent
TENSORS = HERE.parents[1] / "examples" / "browser" / "tensors.js"
ARRAYS = {
    "params.weight": np.asarray([[1.5, -2.25, 0.1], [np.inf, 3e38, -0.0]], np.float32),
    "params.bias": np.asarray(0.1, np.float32),
    "state.empty": np.zeros((0, 4), np.float32),
    "state.counts": np.asarray([-(2**62), 2**40], np.int64),
    "state.codes": np.asarray([-128, 0, 127], np.int8),
    "state.short": np.asarray([7], np.uint16),
}

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def node(file: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = ["node", str(HERE / "tensors.mjs"), str(TENSORS), *words]
    return subprocess.run(command, input=file, capture_output=True, timeout=30, check=False)


def test_every_number_koinon_writes_is_read() -> None:
    done = node(b"".join(pieces(ARRAYS, {"structure": "{}"})), "list")
    assert done.returncode == 0, done.stderr.decode()
    found = {name: (shape, numbers) for name, shape, numbers in json.loads(done.stdout)}
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        shape, numbers = found[name]
        assert tuple(shape) == array.shape
        read = [float(n.replace("Infinity", "inf")) for n in numbers] if array.dtype.kind == "f" else map(int, numbers)
        np.testing.assert_array_equal(np.asarray(list(read), array.dtype), array.reshape(-1))


def test_koinon_reads_what_the_page_writes() -> None:
    given = {name: array for name, array in ARRAYS.items() if array.dtype == np.float32}
    done = node(b"".join(pieces(given)))
    assert done.returncode == 0, done.stderr.decode()
    file = done.stdout
    found = layout(file, len(file)).views(file)
    assert found.keys() == given.keys()
    for name, array in given.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert all(tensor.start % 4 == 0 for tensor in layout(file, len(file)).tensors)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[:5],
        lambda file: file[:-1],
        lambda file: file + b"\0",
        lambda file: (2**63).to_bytes(8, "little") + file[8:],
        lambda file: file.replace(b'"F32"', b'"F99"', 1),
        lambda file: file.replace(b"[2,3]", b"[2,4]", 1),
    ],
    ids=["no length", "cut", "longer", "length", "type", "shape"],
)
def test_a_damaged_file_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    done = node(damage(b"".join(pieces(ARRAYS))), "list")
    assert done.returncode != 0
    assert done.stdout == b""
