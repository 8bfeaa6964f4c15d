"""Partial reads of safetensors files: single tensors without the rest.

Data is copied and not mapped: it cannot change after the comparison with its manifest.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.tensors.checkpoints import content_of, tensor_line
from disinherit.common.tensors.identity import Manifest
from disinherit.common.tensors.lazy import LazyTensors
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
        try:
            entry = self._entries[name]
            dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= self._size:
                raise IndexError(last)
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
            self._fill(memoryview(data), self._start + first)
        except OSError as error:
            raise CheckpointError(f"Expected to read {self._path}, but got: {error}.") from error
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"{name!r}: {type(error).__name__} {error}") from error
        return torch.frombuffer(data, dtype=dtype).view(shape)

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


class StoredTensors(Mapping[str, Tensor]):
    """Tensors of a file, each read when it is asked for, and verified by a manifest.

    Each time it is another copy, so that no more than what is in use is in memory.

    Args:
        file: the file; closed with this.
        manifest: manifest of all tensors.
        others: tensors that are not in the file, or instead of some that are.
    """

    def __init__(
        self, file: TensorFile, manifest: Manifest, others: Mapping[str, Tensor] | None = None
    ) -> None:
        self._file = file
        self._manifest = manifest
        self._others = others or {}
        self._names = dict.fromkeys([*file.names, *self._others])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            CheckpointError: if it is damaged.
        """
        line = self._manifest[name]
        value = self._others[name] if name in self._others else self._file.read(name)
        digest = hashlib.sha256(content_of(name, value)).hexdigest()
        if tensor_line(name, value.dtype, value.shape, digest) != line:
            raise CheckpointError(
                f"Expected the tensor {name!r} that was stored, but it was damaged or replaced. "
                "Restore its file."
            )
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # nothing is read

    def kind(self, name: str) -> Kind:
        """Return dtype and shape of a tensor, without reading it."""
        if name in self._others:
            return self._others[name].dtype, self._others[name].shape
        return self._file.kind(name)


def kinds_of(tensors: Mapping[str, Tensor]) -> dict[str, Kind]:
    """Return dtype and shape of each tensor, without reading those that are stored."""
    if isinstance(tensors, StoredTensors):
        return {name: tensors.kind(name) for name in tensors}
    return {name: (value.dtype, value.shape) for name, value in tensors.items()}


def without_values(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return some tensors as dtypes and shapes without values, on the device `meta`."""
    kinds = kinds_of(tensors)
    return {
        name: torch.empty(kinds[name][1], dtype=kinds[name][0], device="meta") for name in names
    }


@contextmanager
def spilled(data: bytes, folder: Path, what: str) -> Iterator[Mapping[str, Tensor]]:
    """Keep the content of a safetensors file in a file without a name during the block.

    Args:
        data: the content; not trusted.
        folder: folder of a file system with room for it.
        what: name of the source, for error messages.

    Yields:
        Tensors by name, each read when it is asked for.

    Raises:
        CheckpointError: if `data` is no content of a safetensors file, or cannot be written.
    """
    try:
        kept = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
    except OSError as error:
        raise _no_room(folder, error) from error
    with kept:
        try:
            kept.write(data)
            kept.flush()
            del data  # nobody else may hold it, and this frame stays
        except OSError as error:
            raise _no_room(folder, error) from error
        file = TensorFile(what, os.dup(kept.fileno()))
        try:
            yield LazyTensors(file.names, file.read)
        finally:
            file.close()


def _no_room(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"Expected room in {folder} for what was received, but got: {error}. Check that the folder "
        "exists, is writable and has room."
    )
