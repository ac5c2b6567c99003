"""Local files as clients: images in the idx format, a play by its speakers, a table by one of its columns.

Nothing is fetched. Files may be packed with gzip, whatever they are called.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koinon.data.dataset import FederatedDataset, aligned, federate
from koinon.data.partition import NaturalColumn, partition
from koinon.errors import DataError
from koinon.tree import Array

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def images(folder: str | Path) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return ``(x, y), (x_test, y_test)`` of the four files of MNIST, or of a data set in its format.

    Images are float32 ``[rows, height, width]`` in [0, 1], labels int32 ``[rows]``. Raises DataError for a file
    that is missing, cut short or does not fit the others. LeCun et al., "Gradient-based learning applied to
    document recognition", Proc. IEEE 86(11), 1998; Fashion-MNIST: Xiao et al. 2017, arXiv 1708.07747.
    """
    train, test = (_part(Path(folder), name) for name in ("train", "t10k"))
    return train, test


def idx(path: str | Path) -> Array:
    """Return the array of one idx file, in the type it was written in."""
    data = _bytes(Path(path))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path} was read as an idx file, but begins with {data[:4].hex(' ') or 'nothing'}.")
    kind, first = np.dtype(_IDX_TYPES[data[2]]), 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data, ">u4", data[3], 4).tolist())
    wanted, found = math.prod(shape) * kind.itemsize, len(data) - first
    if wanted != found:
        raise DataError(
            f"{path} announces an array of shape {list(shape)}, which takes {wanted:,} bytes; "
            f"found {found:,}. It was cut short or damaged: get it again."
        )
    return np.frombuffer(data, kind, offset=first).reshape(shape)


@dataclass(frozen=True)
class Speeches:
    """What each speaker says, as the places of letters in ``vocabulary``."""

    clients: FederatedDataset
    vocabulary: str

    def text(self, letters: Array) -> str:
        """Return places, int ``[count]``, as text again."""
        return "".join(self.vocabulary[place] for place in np.asarray(letters).tolist())


def speeches(
    path: str | Path, *, window: int = 80, vocabulary: str | None = None, holdout: float = 0.2, seed: int = 0
) -> Speeches:
    """Return a play with a client for each speaker, to learn the next letter from the ones before it.

    The file holds speeches divided by empty lines, each beginning with a line ``NAME:``. ``x`` is int32
    ``[rows, window]``, windows of a speaker's words that do not overlap, and ``y`` the same one letter later. A
    speaker of fewer than ``window + 1`` letters is left out. Windows are held out at random, not the last ones.

    ``vocabulary=None`` is every letter of the file, sorted; parties that do not see each other's words must agree
    on one instead. Raises DataError for a letter outside it. McMahan et al., AISTATS 2017, section 3.
    """
    words = _by_speaker(Path(path))
    known = "".join(sorted(set().union(*words.values()))) if vocabulary is None else vocabulary
    place = {letter: i for i, letter in enumerate(known)}
    clients = {}
    for speaker, said in words.items():
        strange = set(said) - place.keys()
        if strange:
            raise DataError(
                f"{path}: {speaker!r} says {min(strange)!r}, which is not in the vocabulary of {len(known)} letters. "
                "Add it there, or replace it in the text."
            )
        rows = (len(said) - 1) // window
        if rows > 0:
            codes = np.array([place[letter] for letter in said[: rows * window + 1]], np.int32)
            clients[speaker] = (codes[:-1].reshape(rows, window), codes[1:].reshape(rows, window))
    if not clients:
        raise DataError(f"{path} has no speaker of {window + 1} letters or more. Use a shorter window.")
    return Speeches(federate(clients, holdout=holdout, seed=seed), known)


def table(
    path: str | Path, *, client: str, label: str, columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None, delimiter: str = ",", holdout: float = 0.2, seed: int = 0,
) -> FederatedDataset:  # fmt: skip
    """Return the rows of a CSV file with a header as clients, one for each value of the column ``client``.

    ``x`` is float32 ``[rows, columns]``: ``columns`` in their order, or all but ``client`` and ``label``. ``y`` is
    float32 ``[rows]``, or the place of the label in ``classes``, int32. Raises DataError for a cell that is not a
    finite number, with its row.
    """
    header, rows = _table(Path(path), delimiter)
    chosen = [name for name in header if name not in (client, label)] if columns is None else list(columns)
    missing = [name for name in (client, label, *chosen) if name not in header]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}. Its columns are {', '.join(header)}.")
    cells = {name: [row[header.index(name)].strip() for row in rows] for name in (client, label, *chosen)}
    x = aligned((len(rows), len(chosen)), np.float32)
    for place, name in enumerate(chosen):
        x[:, place] = _numbers(path, name, cells[name])
    if classes is None:
        y = _numbers(path, label, cells[label])
    else:
        y = _places(path, label, cells[label], {value: i for i, value in enumerate(classes)})
    return partition(x, y, NaturalColumn(cells[client]), holdout=holdout, seed=seed)


def _part(folder: Path, part: str) -> tuple[Array, Array]:
    pixels, labels = idx(_named(folder, f"{part}-images", 3)), idx(_named(folder, f"{part}-labels", 1))
    if len(pixels) != len(labels):
        raise DataError(f"{folder} holds {len(pixels)} images and {len(labels)} labels of {part}. Get both again.")
    x = aligned(pixels.shape, np.float32)
    np.divide(pixels, np.float32(255), out=x)
    return x, labels.astype(np.int32)


def _named(folder: Path, name: str, dimensions: int) -> Path:
    tried = [f"{name}{dot}idx{dimensions}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    found = next((folder / file for file in tried if (folder / file).is_file()), None)
    if found is None:
        there = sorted(entry.name for entry in folder.iterdir())[:8] if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder} has no file {tried[0]} or {tried[1]}; found {there or 'nothing'}. Download it first."
        )
    return found


def _by_speaker(path: Path) -> dict[str, str]:
    """Return each speaker's words, speeches joined by a line break."""
    words: dict[str, list[str]] = {}
    line = 1
    for speech in _text(path).split("\n\n"):
        first, _, rest = speech.lstrip("\n").partition("\n")
        if first and not first.endswith(":"):
            raise DataError(f"{path}, line {line}: a speech begins with a line NAME:; found {first[:60]!r}.")
        if first:
            words.setdefault(first[:-1], []).append(rest)
        line += speech.count("\n") + 2
    return {speaker: "\n".join(said) for speaker, said in words.items()}


def _table(path: Path, delimiter: str) -> tuple[list[str], list[list[str]]]:
    rows = list(csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter))
    if len(rows) < 2:
        raise DataError(f"{path} was read as a table: a header, then rows; found {len(rows)} lines.")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    uneven = next((i for i, row in enumerate(body, start=2) if row and len(row) != len(header)), None)
    if uneven is not None:
        raise DataError(
            f"{path}, line {uneven}: {len(rows[uneven - 1])} cells under {len(header)} columns. "
            f"Are they divided by {delimiter!r}?"
        )
    return header, [row for row in body if row]


def _numbers(path: str | Path, name: str, cells: Sequence[str]) -> Array:
    try:
        values = np.array(cells, np.float64)
    except ValueError:
        values = np.array([_number(cell) for cell in cells])
    bad = np.nonzero(~np.isfinite(values))[0]
    if len(bad):
        raise DataError(
            f"{path}, row {bad[0] + 1}: column {name!r} holds {cells[bad[0]]!r}, which is not a finite number "
            f"({len(bad)} such rows). Fill it in, drop these rows, or choose other columns."
        )
    return values.astype(np.float32)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _places(path: str | Path, name: str, cells: Sequence[str], places: Mapping[str, int]) -> Array:
    strange = sorted(set(cells) - places.keys())
    if strange:
        raise DataError(f"{path}: column {name!r} holds {strange[0]!r}; the classes are {', '.join(places)}.")
    return np.array([places[cell] for cell in cells], np.int32)


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 (byte {error.start}). Convert it first.") from error


def _bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be unpacked ({error}). It was cut short or damaged: get it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
