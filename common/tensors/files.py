"""Partial reads of safetensors files: single tensors without the rest.

Data is copied and not mapped: it cannot change after the comparison with its manifest.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.tensors.identity import Manifest
from disinherit.common.text import load_json

MANIFEST = "manifest"
"""Metadata key of the manifest of a file's tensors."""

DTYPES = {
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Name in a file -> dtype, in the order in which safetensors writes tensors: widest first."""

Kind = tuple[torch.dtype, Sequence[int]]
"""Dtype and shape of a tensor."""

_COPIED = 1 << 20  # bytes at a time
_LARGEST_HEADER = 100_000_000  # the limit of safetensors itself


def with_manifest(manifest: Manifest) -> dict[str, str]:
    """Return the metadata that carries a manifest in a file."""
    return {MANIFEST: json.dumps(manifest)}


class TensorFile:
    """An open safetensors file.

    Args:
        path: the file, or what it is called in messages.
        descriptor: of the open file, which is closed with this; `None` to open it.

    Attributes:
        metadata: text in the header.
        names: names of the tensors.

    Raises:
        CheckpointError: if it cannot be read, or is no safetensors file.
    """

    def __init__(self, path: Path | str, descriptor: int | None = None) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY) if descriptor is None else descriptor
        except OSError as error:
            raise CheckpointError(f"Expected a readable file {path}, but got: {error}.") from error
        try:
            length = int.from_bytes(self._bytes(0, 8), "little")
            if length > _LARGEST_HEADER:
                raise self._damaged("its header has no end")
            header: Mapping[str, Any] = load_json(self._bytes(8, length))
            self.metadata: Mapping[str, str] = header.get("__metadata__", {})
            self._entries = {n: e for n, e in header.items() if n != "__metadata__"}
        except (ValueError, AttributeError) as error:
            self.close()
            raise self._damaged(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._start = 8 + length
        self._size = os.fstat(self._descriptor).st_size - self._start
        self.names = self._entries.keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @property
    def manifest(self) -> dict[str, str]:
        """The stored manifest, unchecked: compare its digest.

        Raises:
            CheckpointError: if the file has no manifest.
        """
        try:
            manifest: dict[str, str] = load_json(self.metadata[MANIFEST])
        except (ValueError, TypeError, LookupError) as error:
            raise self._damaged(f"no manifest: {error}") from error
        return manifest

    def read(self, name: str, place: int | None = None) -> Tensor:
        """Return a tensor, or one slice of it along its first dimension.

        Args:
            name: name of the tensor.
            place: index into the first dimension; `None` for the whole tensor.

        Raises:
            CheckpointError: if the tensor is missing or has an unknown dtype, or the file is
                damaged.
        """
        if place is None:
            return self._read(name)
        return self._read(name, place, place + 1)[0]

    def _read(self, name: str, begin: int = 0, end: int | None = None) -> Tensor:
        """Return a tensor, or its rows from `begin` to before `end`."""
        try:
            dtype, shape = DTYPES[self._entries[name]["dtype"]], list(self._entries[name]["shape"])
            first, last = self._extent(name)
            if end is not None:
                size = (last - first) // shape[0]
                if not 0 <= begin <= end <= shape[0]:
                    raise IndexError(begin)
                first, last = first + begin * size, first + end * size
                shape[0] = end - begin
            if last - first != math.prod(shape) * dtype.itemsize:
                raise ValueError(shape)
            if first == last:
                return torch.empty(shape, dtype=dtype)
            data = bytearray(last - first)
            self._fill(memoryview(data), self._start + first)
        except OSError as error:
            raise CheckpointError(f"Expected to read {self._path}, but got: {error}.") from error
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"{name!r}: {type(error).__name__} {error}") from error
        return torch.frombuffer(data, dtype=dtype).view(shape)

    def block(self, name: str, rows: slice) -> Tensor:
        """Return some rows of a tensor, without reading the others.

        Args:
            name: name of the tensor.
            rows: places in its first dimension, one after the other.

        Raises:
            CheckpointError: as `read`.
        """
        _, shape = self.kind(name)
        try:
            first, last, step = rows.indices(shape[0])
        except (LookupError, TypeError) as error:
            raise self._damaged(f"{name!r} has no rows") from error
        if step != 1 or math.prod(shape) == 0:
            return self.read(name)[rows]
        return self._read(name, first, max(first, last))

    def copy_to(self, name: str, target: int, place: int) -> str:
        """Copy the bytes of a tensor into another file, without holding them.

        Args:
            name: name of the tensor.
            target: descriptor of the other file.
            place: where they begin in it.

        Returns:
            Their SHA-256.

        Raises:
            CheckpointError: as `read`.
        """
        first, last = self._extent(name)
        place -= first
        digest = hashlib.sha256()
        while first < last:
            data = os.pread(self._descriptor, min(last - first, _COPIED), self._start + first)
            if not data:
                raise self._damaged("it ends early")
            digest.update(data)
            written = 0
            while written < len(data):
                written += os.pwrite(target, data[written:], place + first + written)
            first += len(data)
        return digest.hexdigest()

    def kind(self, name: str) -> Kind:
        """Return dtype and shape of a tensor, without reading it.

        Args:
            name: name of the tensor.

        Raises:
            CheckpointError: if it is missing or has an unknown dtype.
        """
        try:
            entry = self._entries[name]
            return DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(f"{name!r}: {type(error).__name__} {error}") from error

    def read_all(self, names: Iterable[str], place: int | None = None) -> dict[str, Tensor]:
        """Return several tensors by name; arguments and errors as in `read`."""
        return {name: self.read(name, place) for name in names}

    def _extent(self, name: str) -> tuple[int, int]:
        """Return where the bytes of a tensor begin and end after the header."""
        try:
            first, last = self._entries[name]["data_offsets"]
            if not 0 <= first <= last <= self._size:
                raise IndexError(last)
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(f"{name!r}: {type(error).__name__} {error}") from error
        return first, last

    def _fill(self, data: memoryview, start: int) -> None:
        """Read as many bytes as fit; one system call reads 2 GiB at most."""
        while data:
            count = os.preadv(self._descriptor, [data], start)
            if not count:
                raise ValueError("it ends early")
            data, start = data[count:], start + count

    def _bytes(self, start: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, start)
        if len(data) != length:
            raise self._damaged("it ends early")
        return data

    def _damaged(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"Expected {self._path} to be a safetensors file, but it is damaged or something else "
            f"({reason}). Restore it."
        )
