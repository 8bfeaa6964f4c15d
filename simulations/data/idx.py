"""The IDX format of the MNIST family: unsigned bytes with a big-endian header, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from disinherit.common.errors import DataError

_UNSIGNED_BYTES = 0x08


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    Args:
        path: the file; it is taken as gzip when its name ends in `.gz`.
        dimensions: how many dimensions the array must have: 3 for images `[N, H, W]`, 1 for
            labels `[N]`.

    Returns:
        A read-only array over the bytes of the file, not a copy of them.

    Raises:
        DataError: if the file cannot be read, is not IDX of this kind, is empty, or is shorter or
            longer than its header says.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"Expected a readable IDX file at {path}, but got: {error}.") from error
    magic = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if data[:4] != magic:
        raise DataError(
            f"Expected the IDX magic number {magic.hex()} (unsigned bytes, {dimensions} "
            f"dimensions) at the start of {path}, but got {data[:4].hex() or 'an empty file'}."
        )
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise DataError(
            f"Expected an IDX header of {header} bytes in {path}, but got {len(data)} bytes: "
            f"the file is truncated."
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dimensions, offset=4))
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise DataError(
            f"Expected {expected} bytes in {path}, as its header {list(shape)} says, but got "
            f"{len(data)}: the file is truncated or damaged."
        )
    if math.prod(shape) == 0:
        raise DataError(f"Expected samples in {path}, but got an empty array {list(shape)}.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_idx_folder(folder: Path) -> tuple[Tensor, Tensor, range]:
    """Read the four IDX files of a data set into one pool, the test set after the training set.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
            `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, each possibly with `.idx` for
            `-idx` and with `.gz` at the end.

    Returns:
        Images `[N, 1, H, W]` as float32 in [0, 1], labels `[N]` as int64, and the positions of the
        test set in both.

    Raises:
        DataError: if a file is missing or damaged, or if the files do not belong together.
    """
    train = _read_pair(folder, "train")
    test = _read_pair(folder, "t10k")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"Expected images of one size in {folder}, but got training images of "
            f"{list(train[0].shape[1:])} and test images of {list(test[0].shape[1:])} pixels."
        )
    first, total = len(train[0]), len(train[0]) + len(test[0])
    images = torch.empty(total, 1, *train[0].shape[1:])
    # Written straight into the pool: a float copy of each part would double the peak memory.
    pool = images.numpy()[:, 0]
    np.divide(train[0], np.float32(255), out=pool[:first])
    np.divide(test[0], np.float32(255), out=pool[first:])
    labels = torch.from_numpy(np.concatenate((train[1], test[1])).astype(np.int64))
    return images, labels, range(first, total)


def _read_pair(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    images = read_idx(_find(folder, f"{part}-images", dimensions=3), dimensions=3)
    labels = read_idx(_find(folder, f"{part}-labels", dimensions=1), dimensions=1)
    if len(images) != len(labels):
        raise DataError(
            f"Expected as many labels as images for {part!r} in {folder}, but got {len(labels)} "
            f"labels and {len(images)} images."
        )
    return images, labels


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    names = [
        f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark in ("-", ".") for end in ("", ".gz")
    ]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"Expected one of {names} in {folder}, but got none of them.")
