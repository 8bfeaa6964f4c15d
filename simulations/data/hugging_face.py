"""Data sets of the Hugging Face Hub, and local folders of the same formats, through `datasets`.

==================  ===========================================  ==============================
name                repository                                   what it is
==================  ===========================================  ==============================
``cifar100``        ``uoft-cs/cifar100``                         60,000 photos, 32 x 32
``tiny-imagenet``   ``zh-plus/tiny-imagenet``                    110,000 photos, 64 x 64
``yahoo-answers``   ``community-datasets/yahoo_answers_topics``  1,460,000 questions, 10 topics
==================  ===========================================  ==============================

A folder of that name among the local data (`DISINHERIT_DATA`) is used before the network is.  A
folder holds Parquet files named `train*` and `test*` or `valid*` (also below `data`), or images as
`train/CLASS/*.png` and `test/CLASS/*.png`.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.common.extras import importing
from disinherit.simulations.data.texts import VOCABULARY, encode_texts, sort_labels

EVALUATION_SPLITS = ("test", "valid", "validation")
"""Names of the split that figures are reported on."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """Where a data set is, and which of its columns are used.

    Attributes:
        repository: on the Hub.
        inputs: the image's column, or the columns of texts that are joined.
        label: the column of the class.
    """

    repository: str
    inputs: tuple[str, ...]
    label: str


HUB: Mapping[str, HubSource] = {
    "cifar100": HubSource("uoft-cs/cifar100", ("img",), "fine_label"),
    "tiny-imagenet": HubSource("zh-plus/tiny-imagenet", ("image",), "label"),
    "yahoo-answers": HubSource(
        "community-datasets/yahoo_answers_topics",
        ("question_title", "question_content", "best_answer"),
        "topic",
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Samples of a training and an evaluation split, the former first.

    Attributes:
        inputs: images `[N, channels, H, W]` as float32 in [0, 1], or token ids `[N, L]`.
        targets: class indices `[N]`.
        classes: class names.
        evaluation: where the evaluation samples are; `None` if the source has no such split.
        vocabulary: number of token ids of texts, 0 for images.
    """

    inputs: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    evaluation: range | None
    vocabulary: int


def load_hub(name: str, local: Path) -> Pool:
    """Load one of `HUB`.

    Args:
        name: its name.
        local: the folder it is read from if it exists; otherwise it is downloaded.

    Raises:
        DataError: if it cannot be had, or holds something else.
    """
    source = HUB[name]
    if local.is_dir():
        return read_folder(local, source)
    splits = _call(f"data set {name!r} from {source.repository}", path=source.repository)
    return _pool(splits, source, source.repository)


def is_folder_of_samples(folder: Path) -> bool:
    """Whether a folder holds Parquet files or a folder of images per class."""
    return bool(_parquet_files(folder)) or (folder / "train").is_dir()


def read_folder(folder: Path, source: HubSource | None = None) -> Pool:
    """Read a local folder of Parquet files or images.

    Args:
        folder: see the module's description.
        source: names the columns to use; by default the first image column, or `text`, and
            the first column of classes, or `label`.

    Raises:
        DataError: if it cannot be read, or holds something else.
    """
    files = _parquet_files(folder)
    arguments: dict[str, Any] = {"path": "parquet", "data_files": files}
    if not files:
        arguments = {"path": "imagefolder", "data_dir": str(folder), "drop_labels": False}
    with tempfile.TemporaryDirectory(prefix="disinherit-") as cache:
        splits = _call(f"data in {folder}", cache_dir=cache, **arguments)
        return _pool(splits, source or _guess(splits, str(folder)), str(folder))


def _parquet_files(folder: Path) -> dict[str, list[str]]:
    """Return split -> its files; empty unless there is a training split."""
    files: dict[str, list[str]] = {}
    for path in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        for split in ("train", *EVALUATION_SPLITS):
            if path.stem.split("-")[0] == split:
                files.setdefault(split, []).append(str(path))
    return files if "train" in files else {}


def _call(what: str, **arguments: Any) -> Any:
    with importing(what, DataError):
        import datasets
    try:
        datasets.disable_progress_bars()
        return datasets.load_dataset(**arguments)
    except Exception as error:  # the library's own errors have no common base
        reason = " ".join(str(error).split())
        raise DataError(
            f"Expected to be able to load {what}, but: {type(error).__name__}: {reason}. Without "
            "a network, put its files into a folder (see the documentation of data sets)."
        ) from error


def _guess(splits: Any, what: str) -> HubSource:
    """Return which columns to use."""
    import datasets

    features = splits["train"].features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    inputs = images or [name for name in features if name == "text"]
    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = classes or [name for name in features if name == "label"]
    if not inputs or not labels:
        raise DataError(
            f"Expected a column of images or 'text', and one of classes or 'label', in {what}, "
            f"but got {', '.join(features)}."
        )
    return HubSource("", (inputs[0],), labels[0])


def _pool(splits: Any, source: HubSource, what: str) -> Pool:
    """Return the samples of the training and evaluation split."""
    import datasets

    names = ["train", *(name for name in EVALUATION_SPLITS if name in splits)][:2]
    if "train" not in splits:
        raise DataError(f"Expected a split 'train' in {what}, but got {', '.join(splits)}.")
    parts = [splits[name] for name in names]
    features = parts[0].features
    missing = [name for name in (*source.inputs, source.label) if name not in features]
    if missing:
        raise DataError(f"Expected the column {missing[0]!r} in {what}, but got {list(features)}.")
    raw = [label for part in parts for label in part[source.label]]
    kind = features[source.label]
    if isinstance(kind, datasets.ClassLabel):
        classes = tuple(kind.names)
        targets = torch.tensor(raw, dtype=torch.int64)
    else:
        classes = sort_labels(map(str, raw))
        index = {name: row for row, name in enumerate(classes)}
        targets = torch.tensor([index[str(label)] for label in raw], dtype=torch.int64)
    rows = [part.select_columns(list(source.inputs)) for part in parts]
    image = isinstance(features[source.inputs[0]], datasets.Image)
    inputs = _images(rows, source.inputs[0], len(raw), what) if image else _texts(rows, source)
    count = len(parts[0])
    evaluation = range(count, len(raw)) if len(raw) > count else None
    return Pool(inputs, targets, classes, evaluation, 0 if image else VOCABULARY)


def _images(parts: Sequence[Iterable[Any]], column: str, count: int, what: str) -> Tensor:
    """Return images as one tensor; grey ones have one channel if all are grey."""
    first = next(iter(parts[0]))[column]
    mode = "L" if first.mode in ("L", "1", "I") else "RGB"
    pixels = np.empty((count, 1 if mode == "L" else 3, first.height, first.width), np.float32)
    row = 0
    for part in parts:
        for sample in part:
            image = sample[column]
            if image.size != first.size:
                raise DataError(
                    f"Expected images of {first.width} x {first.height} pixels in {what} as the "
                    f"first, but got one of {image.width} x {image.height}. Make them one size."
                )
            values = np.asarray(image.convert(mode), np.float32) / 255
            pixels[row] = values[None] if mode == "L" else values.transpose(2, 0, 1)
            row += 1
    return torch.from_numpy(pixels)


def _texts(parts: Sequence[Iterable[Any]], source: HubSource) -> Tensor:
    """Return the ids of the joined texts."""
    texts = [
        " ".join(str(sample[name]) for name in source.inputs if sample[name])
        for part in parts
        for sample in part
    ]
    return encode_texts(texts)
