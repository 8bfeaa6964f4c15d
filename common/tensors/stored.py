"""Tensors that are read from files when they are asked for, each verified or checked on the way."""

import hashlib
import math
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.tensors.checkpoints import content_of, make_manifest, tensor_line
from disinherit.common.tensors.files import Kind, TensorFile
from disinherit.common.tensors.identity import Manifest
from disinherit.common.tensors.lazy import LazyTensors


class Readable(Protocol):
    """An open file of tensors, or several that are read as one."""

    @property
    def names(self) -> Collection[str]:
        """Names of the tensors."""
        ...

    def read(self, name: str) -> Tensor:
        """Return a tensor."""
        ...

    def kind(self, name: str) -> Kind:
        """Return dtype and shape of a tensor, without reading it."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class StoredTensors(Mapping[str, Tensor]):
    """Tensors of a file, each read when it is asked for, and verified by a manifest.

    Each time it is another copy, so that no more than what is in use is in memory.

    Args:
        file: the file; closed with this.
        manifest: manifest of all tensors.
        others: tensors that are not in the file, or instead of some that are.
        what: description for the error message of a damaged tensor; `""` for none.

    Attributes:
        manifest: the same.
    """

    def __init__(
        self,
        file: Readable,
        manifest: Manifest,
        others: Mapping[str, Tensor] | None = None,
        what: str = "",
    ) -> None:
        self._of = f"Cannot load the {what}. " if what else ""
        self._file = file
        self.manifest = manifest
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
        line = self.manifest[name]
        known = name in self._others
        try:
            value = self._others[name].clone() if known else self._file.read(name)
        except CheckpointError as error:
            raise CheckpointError(f"{self._of}{error}") from error
        digest = hashlib.sha256(content_of(name, value)).hexdigest()
        if tensor_line(name, value.dtype, value.shape, digest) != line:
            raise damaged(name, self._of)
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


def damaged(name: str, of: str = "") -> CheckpointError:
    """Return the error for a tensor that its line of the manifest does not describe.

    Args:
        name: its name.
        of: a sentence and a space before the message; `""` for none.
    """
    return CheckpointError(
        f"{of}Expected the tensor {name!r} that was stored, but it was damaged or replaced. "
        "Restore its file."
    )


def verify(tensors: Mapping[str, Tensor]) -> None:
    """Read all tensors, one by one, so that those that are stored are verified.

    Raises:
        CheckpointError: if one is damaged.
    """
    for name in tensors:
        tensors[name]


def kinds_of(tensors: Mapping[str, Tensor]) -> dict[str, Kind]:
    """Return dtype and shape of each tensor, without reading those that are stored."""
    if isinstance(tensors, StoredTensors):
        return {name: tensors.kind(name) for name in tensors}
    return {name: (value.dtype, value.shape) for name, value in tensors.items()}


def bytes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the bytes of each tensor, without reading those that are stored."""
    kinds = kinds_of(tensors)
    return {name: math.prod(shape) * dtype.itemsize for name, (dtype, shape) in kinds.items()}


def manifest_of(tensors: Mapping[str, Tensor]) -> Manifest:
    """Return the manifest of tensors; stored ones are verified by theirs when they are read."""
    return tensors.manifest if isinstance(tensors, StoredTensors) else make_manifest(tensors)


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
            yield LazyTensors(file.names, file.read, file.block)
        finally:
            file.close()


def _no_room(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"Expected room in {folder} for what was received, but got: {error}. Check that the folder "
        "exists, is writable and has room."
    )
