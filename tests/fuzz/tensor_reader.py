"""Coverage-guided fuzzing of the tensor reader: ``python tests/fuzz/tensor_reader.py FOLDER -max_total_time=300``.

FOLDER keeps what reached new code. Needs atheris (``pip install atheris``); what it finds goes into
``test_tensor_reader.py`` by its name, and is fixed.
"""

import sys
from pathlib import Path

import atheris
from hypothesis import given
from hypothesis import strategies as st

with atheris.instrument_imports(include=["koinon.store", "koinon.tree", "json"]):
    import tensor_files

    from koinon.errors import FormatError
    from koinon.store import blobs


@given(st.one_of(tensor_files.damaged(), tensor_files.invented()))
def read_drawn(data: bytes) -> None:
    """Read a file whose parts are drawn from the fuzzer's bytes."""
    read(data)


def read(data: bytes) -> None:
    """Read a file as tensors, and as a tree."""
    tensor_files.read(data)
    try:
        blobs.unpack(data)
    except FormatError:
        pass


def once(data: bytes) -> None:
    """Take the fuzzer's bytes as a file, as a header and data beside its true length, or as choices of a file."""
    read(data)
    header, line, rest = data.partition(b"\n")
    if line:
        read(tensor_files.file_of(header, rest))
    else:
        read_drawn.hypothesis.fuzz_one_input(data)


def seed(folder: Path) -> None:
    """Give an empty corpus the known files to begin from."""
    import test_tensor_reader

    folder.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(test_tensor_reader.REFUSED.values()):
        if len(data) < 4096:
            (folder / f"refused-{i}").write_bytes(data)
    good = b'{"__metadata__":{"structure":"{\\"a\\":null}"},"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}\nxy'
    (folder / "good").write_bytes(good)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        seed(Path(sys.argv[1]))
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
