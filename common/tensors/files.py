"""Partial reads of safetensors files: single tensors without the rest.

Data is copied and not mapped: it cannot change after the comparison with its manifest.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.tensors.identity import Manifest
from disinherit.common.text import load_json

MANIFEST = "manifest"
"""Metadata key of the manifest of a file's tensors."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
_LARGEST_HEADER = 100_000_000  # the limit of safetensors itself


def with_manifest(manifest: Manifest) -> dict[str, str]:
    """Return the metadata that carries a manifest in a file."""
    return {MANIFEST: json.dumps(manifest)}


class TensorFile:
    """An open safetensors file.

    Args:
        path: the file.

    Attributes:
        metadata: text in the header.
        names: names of the tensors.

    Raises:
        CheckpointError: if it cannot be read, or is no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
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
            CheckpointError: if the tensor is missing or has a dtype other than float and int64, or
                the file is damaged.
        """
        try:
            entry = self._entries[name]
            dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
            first, last = entry["data_offsets"]
            if place is not None:
                count, *shape = shape
                size = (last - first) // count
                if not 0 <= place < count:
                    raise IndexError(place)
                first, last = first + place * size, first + (place + 1) * size
            if last - first != math.prod(shape) * dtype.itemsize:
                raise ValueError(shape)
            if first == last:
                return torch.empty(shape, dtype=dtype)
            data = bytearray(last - first)
            if os.preadv(self._descriptor, [data], self._start + first) != len(data):
                raise ValueError("it ends early")
        except OSError as error:
            raise CheckpointError(f"Expected to read {self._path}, but got: {error}.") from error
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"{name!r}: {type(error).__name__} {error}") from error
        return torch.frombuffer(data, dtype=dtype).view(shape)

    def read_all(self, names: Iterable[str], place: int | None = None) -> dict[str, Tensor]:
        """Return several tensors by name; arguments and errors as in `read`."""
        return {name: self.read(name, place) for name in names}

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
