"""Data sets in the formats of the Hugging Face Hub, from tiny local files of the same formats."""

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from disinherit.common.errors import DataError
from disinherit.simulations.data.datasets import DATA_VARIABLE, load_dataset
from disinherit.simulations.data.hugging_face import HUB
from disinherit.simulations.data.splits import make_splits

datasets = pytest.importorskip("datasets")

CLASSES = ["apple", "bear", "crab"]


def pixels(seed: int, *, grey: bool = False, size: int = 6) -> Image.Image:
    shape = (size, size) if grey else (size, size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def png(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


def write(path: Path, columns: Mapping[str, Sequence[Any]], **features: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = datasets.Features({name: features[name] for name in columns}) if features else None
    datasets.Dataset.from_dict(dict(columns), features=kinds).to_parquet(str(path))


def write_images(folder: Path, source: str, test: str, labels: Sequence[int] = (0, 1, 2)) -> None:
    column, label = HUB[source].inputs[0], HUB[source].label
    for split, seeds in (("train", range(12)), (test, range(20, 26))):
        values: dict[str, Any] = {
            column: [png(pixels(seed)) for seed in seeds],
            label: [labels[seed % len(labels)] for seed in seeds],
            "coarse_label": [0 for _ in seeds],
        }
        kinds = {
            column: datasets.Image(),
            label: datasets.ClassLabel(names=CLASSES),
            "coarse_label": datasets.Value("int64"),
        }
        write(folder / "data" / f"{split}-00000-of-00001.parquet", values, **kinds)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "test"), [("cifar100", "test"), ("tiny-imagenet", "valid")])
def test_images_are_read_with_their_classes_and_their_own_test_set(
    name: str, test: str, local: Path
) -> None:
    write_images(local / name, name, test)
    data = load_dataset(name)
    assert (data.name, data.kind, data.classes) == (name, "image", tuple(CLASSES))
    assert data.inputs.shape == (18, 3, 6, 6)
    assert data.official_evaluation == range(12, 18)
    expected = torch.from_numpy(np.array(pixels(20), np.float32) / 255).permute(2, 0, 1)
    assert torch.equal(data.inputs[12], expected)
    assert data.targets[:4].tolist() == [0, 1, 2, 0]
    splits = make_splits(data, seed=0)
    assert sorted(splits.evaluation.tolist()) == list(range(12, 18))


def test_texts_of_several_columns_are_joined_and_empty_ones_left_out(local: Path) -> None:
    source = HUB["yahoo-answers"]
    title, content, answer = source.inputs
    for split in ("train", "test"):
        values: dict[str, Any] = {
            title: [f"{split} why {i}" for i in range(4)],
            content: ["", "so", "", "so"],
            answer: ["because"] * 4,
            source.label: [0, 1, 0, 1],
        }
        kinds = {name: datasets.Value("string") for name in source.inputs}
        kinds[source.label] = datasets.ClassLabel(names=["Science", "Sports"])
        write(local / "yahoo-answers" / f"{split}.parquet", values, **kinds)
    data = load_dataset("yahoo-answers")
    assert (data.kind, data.classes) == ("text", ("Science", "Sports"))
    assert data.official_evaluation == range(4, 8)
    from disinherit.simulations.data.texts import encode_texts

    assert torch.equal(data.inputs[0], encode_texts(["train why 0 because"])[0])
    assert torch.equal(data.inputs[5], encode_texts(["test why 1 so because"])[0])


@pytest.mark.parametrize("grey", [True, False])
def test_a_folder_of_images_per_class(grey: bool, tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels(10 * label + i, grey=grey).save(folder / f"{i}.png")
    data = load_dataset(str(tmp_path / "photos"))
    assert (data.name, data.classes) == ("photos", tuple(CLASSES))
    assert data.inputs.shape == (18, 1 if grey else 3, 6, 6)
    assert data.targets.bincount().tolist() == [6, 6, 6]
    assert data.official_evaluation == range(12, 18)


def test_a_folder_of_parquet_with_labels_that_are_words(tmp_path: Path) -> None:
    values = {"text": ["one", "two", "three", "four"], "label": ["x", "y", "x", "y"]}
    write(tmp_path / "own" / "train.parquet", values)
    data = load_dataset(str(tmp_path / "own"))
    assert data.classes == ("x", "y")
    assert data.targets.tolist() == [0, 1, 0, 1]
    assert data.official_evaluation is None


def test_images_of_several_sizes_are_refused(local: Path) -> None:
    values: dict[str, Any] = {"img": [png(pixels(1)), png(pixels(2, size=7))], "fine_label": [0, 1]}
    kinds = {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=CLASSES)}
    write(local / "cifar100" / "train.parquet", values, **kinds)
    with pytest.raises(DataError, match="6 x 6 pixels .* one of 7 x 7"):
        load_dataset("cifar100")


def test_a_column_that_is_missing_is_named(local: Path) -> None:
    write(local / "cifar100" / "train.parquet", {"img": ["a", "b"], "label": [0, 1]})
    with pytest.raises(DataError, match="column 'fine_label'"):
        load_dataset("cifar100")
    write(local / "own" / "train.parquet", {"words": ["a", "b"], "label": [0, 1]})
    with pytest.raises(DataError, match="column of images or 'text'.*words, label"):
        load_dataset(str(local / "own"))


def test_a_damaged_file_is_one_line(local: Path) -> None:
    (local / "cifar100").mkdir()
    (local / "cifar100" / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cifar100") as caught:
        load_dataset("cifar100")
    assert "\n" not in str(caught.value)


def test_without_a_network_it_is_said_what_to_do(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unreachable(path: str) -> None:
        asked.append(path)
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match="reach the Hub. Without a network, put its files"):
        load_dataset("cifar100")
    assert asked == ["uoft-cs/cifar100"]


def test_without_the_package_it_is_said_what_to_install(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install '\.\[hub\]'"):
        load_dataset("cifar100")
