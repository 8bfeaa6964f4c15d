"""Identity of weights in files: digests as in the rest of the project, without torch.

Safetensors keep tensors as little-endian bytes in row-major order, which is what `weights_digest`
hashes.  So the digest of a file's tensors, or of the shards of a model together, needs no numbers.
Pickles are never opened, and other formats have no tensors of ours: for these the digest is that of
their files.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from disinherit.common.errors import DataError
from disinherit.common.tensors.identity import manifest_digest, manifest_line, structure_digest
from disinherit.common.text import load_json, one_line
from disinherit.families.evidence import Weights

NO_WEIGHTS = Weights()
MOST_HEADER = 16 * 2**20
"""Bytes of the header of a safetensors file: some 100,000 tensors."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""Start of what a checkout by Git LFS has where a file was not fetched."""

_PIECE = 2**20
_MOST_DIMENSIONS = 64
_SIZES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "C64": ("complex64", 8),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
}
"""Dtype of safetensors -> that of PyTorch, and bytes of a value."""


def tensors_weights(paths: Sequence[Path]) -> Weights:
    """Return the identity of the tensors in safetensors files, the shards of one model.

    The digest is that of `weights_digest` of all tensors together, as they are in the files.

    Args:
        paths: the files.

    Raises:
        DataError: if one cannot be read or is malformed, or two hold a tensor of the same name.
    """
    manifest: dict[str, str] = {}
    entries: list[tuple[str, Sequence[int], str]] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                for name, dtype, shape, size in _layout(file, path):
                    if name in manifest:
                        raise DataError(f"Expected tensor {name!r} in one shard, but got two.")
                    manifest[name] = manifest_line(name, dtype, shape, _hash(file, size, path))
                    entries.append((name, shape, dtype))
        except OSError as error:
            raise DataError(f"Expected a readable {path.name}, but: {error.strerror}.") from None
    return Weights(manifest_digest(manifest), structure_digest(entries))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is in a safetensors file.

    Attributes:
        path: the file.
        name: name of the tensor.
        dtype: its dtype, as PyTorch calls it.
        shape: its shape.
        offset: the first of its bytes.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def tensor_places(path: Path) -> list[Place]:
    """Return where the tensors of a safetensors file are.

    Raises:
        DataError: if it cannot be read or is malformed.
    """
    found = []
    try:
        with path.open("rb") as file:
            for name, dtype, shape, size in _layout(file, path):
                found.append(Place(path, name, dtype, tuple(shape), file.tell()))
                file.seek(size, os.SEEK_CUR)
    except OSError as error:
        raise DataError(f"Expected a readable {path.name}, but: {error.strerror}.") from None
    return found


def files_weights(paths: Sequence[Path]) -> Weights:
    """Return the identity of weights in files whose tensors are not read, such as pickles or GGUF.

    The digest is that of canonical lines: JSON `[file name, SHA-256 of the file]`, sorted by name.

    Args:
        paths: the files.

    Raises:
        DataError: if one cannot be read.
    """
    lines = []
    for path in sorted(paths, key=lambda path: path.name):
        try:
            with path.open("rb") as file:
                _refuse_pointer(file, path)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"Expected a readable {path.name}, but: {error.strerror}.") from None
        lines.append(json.dumps([path.name, digest]))
    return Weights(hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest())


def _layout(file: BinaryIO, path: Path) -> Iterator[tuple[str, str, list[int], int]]:
    """Yield name, dtype, shape and bytes of the tensors, in the order of their data.

    The file is positioned at the data of each tensor when it is yielded.
    """
    _refuse_pointer(file, path)
    total = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(MOST_HEADER, total - 8):
        raise _malformed(path, f"a header of {length:,} bytes")
    try:
        header = load_json(file.read(length))
        entries = sorted(
            (_entry(name, entry) for name, entry in header.items() if name != "__metadata__"),
            key=lambda entry: (entry[3], entry[4]),
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _malformed(path, f"{type(error).__name__} {error}") from None
    place = 0
    for name, dtype, shape, first, last in entries:
        if first != place:
            raise _malformed(path, f"gaps or overlaps before {name!r}")
        place = last
        yield name, dtype, shape, last - first
    if 8 + length + place != total:
        raise _malformed(path, f"{total:,} bytes instead of {8 + length + place:,}")


def _refuse_pointer(file: BinaryIO, path: Path) -> None:
    """Refuse what a checkout has where the file itself was not fetched."""
    if file.read(len(POINTER)) == POINTER:
        raise DataError(
            f"Expected weights in {path.name}, but got a pointer of Git LFS. Fetch the file with "
            "`git lfs pull`."
        )
    file.seek(0)


def _entry(name: str, entry: Mapping[str, Any]) -> tuple[str, str, list[int], int, int]:
    dtype, size = _SIZES[entry["dtype"]]
    shape, (first, last) = entry["shape"], entry["data_offsets"]
    whole = [*shape, first, last]
    if len(shape) > _MOST_DIMENSIONS or any(
        type(number) is not int or not 0 <= number < 2**63 for number in whole
    ):
        raise ValueError(f"no shape and place for {name!r}")
    if last - first != math.prod(shape) * size:
        raise ValueError(f"another number of bytes than its shape has for {name!r}")
    return name, dtype, shape, first, last


def _hash(file: BinaryIO, size: int, path: Path) -> str:
    digest = hashlib.sha256()
    while size:
        piece = file.read(min(size, _PIECE))
        if not piece:
            raise _malformed(path, "an early end")
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _malformed(path: Path, reason: str) -> DataError:
    return DataError(
        f"Expected a safetensors file, but got {one_line(reason, 200)} in {path.name}."
    )
