"""Files become arrays and clients; a bad file is named, with what was found in it."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from koinon.data.sources import Speeches, idx, images, speeches, table
from koinon.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data"
IMAGES = (np.arange(2 * 3 * 4) * 10).reshape(2, 3, 4).astype(np.uint8)
LABELS = np.array([7, 1], np.uint8)
PLAY = "ANNA:\nto be or not\n\nBEN:\nyes\n\nANNA:\nto be\n"
TABLE = "town, age ,kind,y\nlyon,30,a,1\nparis, 4.5,b,0\n\nlyon,7,a,1\n"


def header(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header(IMAGES) + IMAGES.tobytes()))
        (tmp_path / f"{part}-labels.idx1-ubyte").write_bytes(header(LABELS) + LABELS.tobytes())
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_images_are_float32_in_0_to_1_and_labels_int32(folder: Path) -> None:
    (x, y), (x_test, y_test) = images(folder)
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    np.testing.assert_array_equal(x, IMAGES / np.float32(255))
    np.testing.assert_array_equal(y, [7, 1])
    assert x_test.shape == (2, 3, 4)
    assert y_test.shape == (2,)


@pytest.mark.parametrize("kind", [(0x08, ">u1"), (0x0C, ">i4"), (0x0D, ">f4")])
def test_an_idx_file_keeps_its_type(kind: tuple[int, str], tmp_path: Path) -> None:
    array = np.array([[1, 2, 3]], kind[1])
    path = tmp_path / "array"
    path.write_bytes(bytes([0, 0, kind[0], 2]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())
    found = idx(path)
    assert found.dtype == np.dtype(kind[1])
    np.testing.assert_array_equal(found, array)


def test_speakers_are_clients_that_learn_the_next_letter(tmp_path: Path) -> None:
    found = speeches(written(tmp_path / "play.txt", PLAY), window=4, holdout=0.0)
    assert isinstance(found, Speeches)
    assert found.clients.names == ("ANNA",)  # BEN says too little
    assert found.vocabulary == "".join(sorted(set("to be or not\nto be\nyes")))
    rows = [found.text(x) for x in found.clients.x]
    assert rows == ["to b", "e or", " not", "\nto "]
    assert [found.text(y) for y in found.clients.y] == ["o be", " or ", "not\n", "to b"]


def test_a_vocabulary_may_be_agreed_on(tmp_path: Path) -> None:
    path = written(tmp_path / "play.txt", PLAY)
    agreed = "\n abcdefghijklmnopqrstuvwxyz"
    assert speeches(path, window=3, vocabulary=agreed).vocabulary == agreed
    with pytest.raises(DataError, match=r"'ANNA' says 'n', which is not in the vocabulary of 5 letters"):
        speeches(path, window=3, vocabulary="\n beo")


def test_a_column_names_the_clients_of_a_table(tmp_path: Path) -> None:
    path = written(tmp_path / "people.csv", TABLE)
    data = table(path, client="town", label="y", columns=["age"], holdout=0.0)
    assert data.names == ("lyon", "paris")
    assert data.x.dtype == data.y.dtype == np.float32
    np.testing.assert_array_equal(data.x[data.rows], [[30], [7], [4.5]])
    np.testing.assert_array_equal(data.y[data.rows], [1, 1, 0])


def test_labels_may_be_classes(tmp_path: Path) -> None:
    path = written(tmp_path / "people.csv", TABLE)
    data = table(path, client="town", label="kind", columns=["age", "y"], classes=["b", "a"], holdout=0.0)
    assert data.y.dtype == np.int32
    np.testing.assert_array_equal(data.y, [1, 0, 1])


def test_tables_may_be_packed_and_divided_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_bytes(gzip.compress(b'town;"a ""quoted"" name";y\nlyon;1;2\n'))
    assert table(path, client="town", label="y", delimiter=";").x.tolist() == [[1.0]]


BROKEN = {
    "cut short": (
        "train-labels.idx1-ubyte",
        header(LABELS) + b"\1",
        r"shape \[2\], which takes 2 bytes; found 1. It was cut short",
    ),
    "not idx": ("train-labels.idx1-ubyte", b"label\n", r"read as an idx file, but begins with 6c 61 62 65"),
    "empty": ("train-labels.idx1-ubyte", b"", "begins with nothing"),
    "half packed": ("train-images-idx3-ubyte.gz", gzip.compress(bytes(1000))[:20], "cannot be unpacked"),
    "uneven": ("train-labels.idx1-ubyte", header(LABELS[:1]) + b"\1", "2 images and 1 labels of train"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_file_is_named(case: str, folder: Path) -> None:
    name, content, says = BROKEN[case]
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as raised:
        images(folder)
    assert str(folder) in str(raised.value)


def test_a_missing_file_is_asked_for_by_name(tmp_path: Path) -> None:
    written(tmp_path / "notes.txt", "")
    with pytest.raises(DataError, match=r"no file train-images-idx3-ubyte or .*\.gz; found \['notes.txt'\]"):
        images(tmp_path)
    with pytest.raises(DataError, match="found no such folder"):
        images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        idx(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("just words\n", r"line 1: a speech begins with a line NAME:; found 'just words'"),
        ("A:\nx\n\nwords\n", r"line 4: .*found 'words'"),
        ("A:\nshort\n", r"no speaker of 81 letters or more. Use a shorter window"),
        ("", r"no speaker of 81 letters"),
    ],
)
def test_a_play_that_is_none_is_said(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        speeches(written(tmp_path / "play.txt", text))


@pytest.mark.parametrize(
    ("text", "fields", "says"),
    [
        (TABLE, {"label": "z"}, r"no column 'z'. Its columns are town, age, kind, y"),
        (TABLE, {"client": "city"}, r"no column 'city'"),
        (TABLE, {}, r"row 1: column 'kind' holds 'a', which is not a finite number \(3 such rows\)"),
        (TABLE.replace("4.5", "NA"), {"columns": ["age"]}, r"row 2: column 'age' holds 'NA'.*\(1 such rows\)"),
        (TABLE.replace("4.5", "inf"), {"columns": ["age"]}, r"row 2: column 'age' holds 'inf'"),
        (TABLE, {"label": "kind", "columns": ["age"], "classes": ["a"]}, r"holds 'b'; the classes are a"),
        (TABLE.replace("30,a", "30"), {}, r"line 2: 3 cells under 4 columns. Are they divided by ','"),
        ("town,y\n", {}, r"a header, then rows; found 1 lines"),
    ],
)
def test_a_table_that_cannot_be_used_is_said(text: str, fields: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        table(written(tmp_path / "people.csv", text), **{"client": "town", "label": "y", **fields})


def test_text_in_another_encoding_is_said(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_bytes("A:\ncafé".encode("latin-1"))
    with pytest.raises(DataError, match=r"not text in UTF-8 \(byte 6\)"):
        speeches(tmp_path / "play.txt")


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not beside this checkout")
    return path


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_images(name: str) -> None:
    (x, y), (x_test, y_test) = images(real(name))
    assert x.shape == (60000, 28, 28)
    assert x_test.shape == (10000, 28, 28)
    assert x.max() == 1.0
    assert x.ctypes.data % 64 == 0
    assert set(y) == set(y_test) == set(range(10))


def test_shakespeare_by_speaker() -> None:
    found = speeches(real("shakespeare/input.txt.gz"))
    assert len(found.vocabulary) == 65
    assert len(found.clients) == 256  # of 308 speakers, those of 81 letters or more
    assert found.text(found.clients.x[0]).startswith("Before we proceed any further, hear me speak.")


def test_patients_by_their_column() -> None:
    path = real("parkinsons_telemonitoring/parkinsons_updrs.data.gz")
    data = table(path, client="subject#", label="motor_UPDRS", delimiter="\t")
    assert len(data) == 42
    assert data.x.shape == (5875, 20)
