"""Coverage-guided fuzzing of the tensor reader: ``python tests/fuzz/tensor_reader.py FOLDER -max_total_time=300``.

FOLDER keeps what reached new code. Needs atheris (``pip install atheris``); what it finds goes into
``test_tensor_reader.py`` by its name, and is fixed.
"""

import struct
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["koinon.store", "koinon.tree", "json"]):
    import tensor_files

    from koinon.errors import FormatError
    from koinon.store import blobs


def read(data: bytes) -> None:
    """Give the reader bytes as they are, and once more behind a true header length, which chance seldom finds."""
    tensor_files.read(data)
    stop = data.find(b"\n")
    if stop >= 0:
        data = struct.pack("<Q", stop) + data[:stop] + data[stop + 1 :]
        tensor_files.read(data)
        try:
            blobs.unpack(data)
        except FormatError:
            pass


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
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
