"""Writing of safetensors files, one tensor at a time: only the present one is in memory.

The header has the manifest of the tensors, so it is written last, and a file is whole or not there.
"""

import fcntl
import hashlib
import json
import math
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.files import TEMPORARY_GLOB, sync_folder
from disinherit.common.tensors.checkpoints import content_of, tensor_line
from disinherit.common.tensors.files import DTYPES, Kind, TensorFile, with_manifest
from disinherit.common.tensors.identity import Manifest, manifest_digest
from disinherit.common.tensors.stored import StoredTensors, damaged

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(DTYPES.values())}
_NO_DIGEST = "0" * 64  # as long as any


class TensorWriter:
    """A new safetensors file that is written tensor by tensor, under a temporary name at first.

    Until it is closed, it is locked, so that others know that somebody is at work on it.

    Args:
        folder: an existing folder.
        kinds: name -> dtype and shape of each tensor.
        manifest: their manifest, where it is known before.
        named: whether the file gets a name at all; without one it is gone when it is closed.

    Attributes:
        kinds: the same.
        manifest: manifest of what was written.

    Raises:
        CheckpointError: if a tensor cannot be stored as safetensors, or the file cannot be written;
            every method may raise it for these reasons.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Mapping[str, Kind],
        manifest: Manifest | None = None,
        *,
        named: bool = True,
    ) -> None:
        self._folder = folder
        self.kinds = kinds
        self._entries = entries_of(kinds)
        unknown = {name: tensor_line(name, *kinds[name], _NO_DIGEST) for name in kinds}
        self.manifest: dict[str, str] = dict(manifest or unknown)
        header = self._header()
        self._start = len(header)
        self._path: Path | None = None
        try:
            if named:
                self._path, descriptor = _open_locked(folder)
                self._file: IO[bytes] = os.fdopen(descriptor, "w+b")
            else:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
        except OSError as error:
            raise self._unwritable(error) from error
        self._view: StoredTensors | None = None
        self._written = b""
        self._known = manifest is not None
        if manifest is not None:
            self._put_header(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def digest(self) -> str:
        """The `weights_digest` of what was written."""
        return manifest_digest(self.manifest)

    @property
    def names(self) -> list[str]:
        """The names of all tensors, in the order of the file."""
        return list(self._entries)

    def write(self, name: str, value: Tensor, line: str = "") -> None:
        """Write a tensor, or write it anew.

        Args:
            name: its name.
            value: its value, of the dtype and shape that were given.
            line: its line of the manifest, where it was made before; `""` to make it.
        """
        kind = self.kinds[name]
        if (value.dtype, tuple(value.shape)) != (kind[0], tuple(kind[1])):
            raise CheckpointError(
                f"Expected {name!r} as {kind[0]} of shape {list(kind[1])}, but got {value.dtype} "
                f"of shape {list(value.shape)}."
            )
        data = content_of(name, value)
        self._put(self._start + self._entries[name]["data_offsets"][0], data)
        if not self._known:
            line = line or tensor_line(name, *kind, hashlib.sha256(data).hexdigest())
            self.manifest[name] = line

    def copy(self, name: str, source: TensorFile) -> None:
        """Write a tensor of another file, as its manifest has it.

        Args:
            name: its name in both.
            source: the other file.
        """
        try:
            self._file.flush()
            place = self._start + self._entries[name]["data_offsets"][0]
            line = tensor_line(
                name, *source.kind(name), source.copy_to(name, self._file.fileno(), place)
            )
        except OSError as error:
            raise self._unwritable(error) from error
        if line != source.manifest[name]:
            raise damaged(name)
        self.manifest[name] = line

    def reader(self) -> TensorFile:
        """Return a file to read what was written; to be closed by the caller."""
        self._complete()
        return TensorFile(self._folder, os.dup(self._file.fileno()))

    def flush(self, *, durably: bool = False) -> None:
        """Let readers see what was written; durably: also after a loss of power."""
        self._complete()
        if durably:
            try:
                os.fdatasync(self._file.fileno())
            except OSError as error:
                raise self._unwritable(error) from error

    def opened(self) -> StoredTensors:
        """Return the tensors for reading, as they are now; all of them must have been written.

        They can be read until this is closed, also when they are written anew: then call it again.
        """
        self._complete()
        if self._view is None:
            self._view = StoredTensors(self.reader(), self.manifest)
        return self._view

    def move_to(self, path: Path) -> None:
        """Put the file in its place, durably, instead of one that is there.

        Args:
            path: the place, in the same folder.
        """
        self._complete()
        assert self._path is not None
        try:
            os.fsync(self._file.fileno())
            self._path.replace(path)  # still locked
            self._path = None
            sync_folder(self._folder)
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file, and remove it if it was not put in its place."""
        if self._view is not None:
            self._view.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        with suppress(OSError):
            self._file.close()

    def _complete(self) -> None:
        header = self._header()
        if header != self._written:
            self._put_header(header)
        try:
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _put_header(self, header: bytes) -> None:
        """Write the header; a digest is as long as any other, so its length stays."""
        self._put(0, header)
        self._written = header

    def _put(self, place: int, data: bytes | memoryview) -> None:
        try:
            if self._file.tell() != place:
                self._file.seek(place)
            self._file.write(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _header(self) -> bytes:
        """Return length and JSON of the header, with the manifest as it is."""
        text = json.dumps({"__metadata__": with_manifest(self.manifest), **self._entries})
        data = text.encode()
        data += b" " * (-len(data) % 8)  # tensors begin at whole words
        return len(data).to_bytes(8, "little") + data

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"Expected to write tensors to {self._folder}, but got: {error}. Check that the folder "
            "exists, is writable and has room."
        )


def entries_of(kinds: Mapping[str, Kind]) -> dict[str, dict[str, Any]]:
    """Return the header's entries, in the order of safetensors: the widest first, then by name."""
    if unknown := sorted(name for name, (dtype, _) in kinds.items() if dtype not in _NAMES):
        raise CheckpointError(
            "Expected tensors that safetensors can store, but got "
            f"{kinds[unknown[0]][0]} for {unknown[0]!r}."
        )
    entries: dict[str, dict[str, Any]] = {}
    place = 0
    for name in sorted(kinds, key=lambda name: (_ORDER[kinds[name][0]], name)):
        dtype, shape = kinds[name]
        end = place + math.prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [place, end],
        }
        place = end
    return entries


def _open_locked(folder: Path) -> tuple[Path, int]:
    """Make a temporary file and lock it, and return its path and descriptor."""
    while True:
        path = folder / TEMPORARY_GLOB.replace("*", secrets.token_hex(8))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:  # nobody has removed it before it was locked
                return path, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
