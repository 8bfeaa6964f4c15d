"""Tensors in several files, of which a new version shares those in which nothing changed.

Which tensors are together follows from their names, dtypes and shapes alone, so two versions of a
model have the same shards.  A shard is a safetensors file, named by the digest of its tensors.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.files import write_atomic
from disinherit.common.tensors.checkpoints import content_of, tensor_line
from disinherit.common.tensors.files import Kind, TensorFile
from disinherit.common.tensors.identity import Manifest, manifest_digest
from disinherit.common.tensors.stored import StoredTensors
from disinherit.common.tensors.writing import TensorWriter, entries_of

SHARD_BYTES = 64 << 20
"""Bytes of tensors in one file, unless one tensor alone has more, or there would be too many."""

MOST_SHARDS = 128
"""Files that tensors of one size would fill; all of a version are open while it is written."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def shard_path(folder: Path, digest: str) -> Path:
    """Return the path of the file of tensors with this digest."""
    return folder / f"{digest}.safetensors"


def list_path(folder: Path, digest: str) -> Path:
    """Return the path of the list of shards whose tensors together have this digest."""
    return folder / f"{digest}.shards"


def shards_of(folder: Path, digest: str) -> tuple[str, ...]:
    """Return the digests of the shards of an object; its own if it is a single file.

    Raises:
        CheckpointError: if their list is damaged.
    """
    path = list_path(folder, digest)
    try:
        listed = json.loads(path.read_bytes())
    except FileNotFoundError:
        return (digest,)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Expected a list of shards in {path}, but got: {error}.") from error
    if not isinstance(listed, list) or not all(
        isinstance(one, str) and _DIGEST.fullmatch(one) for one in listed
    ):
        raise CheckpointError(
            f"Expected a list of shards in {path}, but it is damaged. Restore it."
        )
    return tuple(listed)


class ShardFiles:
    """Several open safetensors files that are read as one.

    Args:
        paths: the files; they have no tensor in common.

    Attributes:
        files: the open files, in this order.

    Raises:
        CheckpointError: if one cannot be read, or is no safetensors file.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self.files: list[TensorFile] = []
        try:
            for path in paths:
                self.files.append(TensorFile(path))
        except BaseException:
            self.close()
            raise
        self._places = {name: file for file in self.files for name in file.names}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors."""
        return self._places.keys()

    @property
    def manifest(self) -> dict[str, str]:
        """The stored manifests together, unchecked: compare their digest.

        Raises:
            CheckpointError: if a file has no manifest.
        """
        return {name: line for file in self.files for name, line in file.manifest.items()}

    def read(self, name: str, place: int | None = None) -> Tensor:
        """Return a tensor, or one slice of it, as `TensorFile.read` does."""
        return self._file(name).read(name, place)

    def read_all(self, names: Iterable[str], place: int | None = None) -> dict[str, Tensor]:
        """Return several tensors by name; arguments and errors as in `read`."""
        return {name: self.read(name, place) for name in names}

    def kind(self, name: str) -> Kind:
        """Return dtype and shape of a tensor, without reading it."""
        return self._file(name).kind(name)

    def _file(self, name: str) -> TensorFile:
        if name not in self._places:
            raise CheckpointError(
                f"Expected tensor {name!r} in one of {len(self.files)} files, but it is in none. "
                "One of them was damaged or replaced; restore it."
            )
        return self._places[name]


class WrittenTensors(StoredTensors):
    """Tensors that a writer has written.

    Args:
        writer: the writer.
    """

    def __init__(self, writer: "ShardWriter") -> None:
        super().__init__(writer, writer.manifest)
        self.writer = writer

    def close(self) -> None:
        """Leave the writer open: it is closed by its owner."""


class ShardWriter:
    """New tensors that are written one by one, where possible as shards of an older version.

    A shard in which nothing differs is not written: the new version has that of the older one.

    Args:
        folder: an existing folder, with the files of the older version.
        kinds: name -> dtype and shape of each tensor.
        manifest: their manifest, where it is known before.
        like: digests of the shards of an older version, which may share tensors; empty for none.

    Attributes:
        kinds: the same.
        manifest: manifest of what was written.

    Raises:
        CheckpointError: if a tensor cannot be stored as safetensors, or a file cannot be written;
            every method may raise it for these reasons.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Mapping[str, Kind],
        manifest: Manifest | None = None,
        like: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self.kinds = kinds
        self.manifest: dict[str, str] = dict(manifest or {})
        self._known = manifest is not None
        layout = _layout(kinds)
        self._older = ShardFiles(shard_path(folder, digest) for digest in like)
        older = {
            _described({name: file.kind(name) for name in file.names}): (digest, file)
            for digest, file in zip(like, self._older.files, strict=True)
        }
        self._shards = [_Shard(names, older.get(_described(names))) for names in layout]
        self._places = {name: shard for shard in self._shards for name in shard.kinds}
        self._last: _Shard | None = None

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
        """The names of all tensors, in the order of the files."""
        return list(self._places)

    @property
    def written(self) -> int:
        """Number of shards that differ from those of the older version."""
        return sum(shard.writer is not None for shard in self._shards)

    def write(self, name: str, value: Tensor) -> None:
        """Write a tensor, or write it anew.

        Args:
            name: its name.
            value: its value, of the dtype and shape that were given.
        """
        shard = self._places[name]
        if self._last is not None and self._last is not shard:
            self._last.flush()  # not all at the end, while others wait
        self._last = shard
        line = "" if self._known else shard.compared(name, value)
        if line and shard.is_older(name, line):
            self.manifest[name] = line
            return
        written = shard.begin(self._folder, self.manifest if self._known else None)
        written.write(name, value, line)
        self.manifest[name] = shard.line(name)

    def keep(self, name: str, older: Mapping[str, Tensor]) -> None:
        """Take a tensor of the older version; it is not read where its file may be shared.

        Args:
            name: its name.
            older: the tensors of that version.
        """
        shard = self._places[name]
        if not shard.take(self, name):
            self.write(name, older[name])

    def opened(self) -> WrittenTensors:
        """Return the tensors for reading, as they are now; all of them must have been written.

        They can be read until this is closed, also when they are written anew.
        """
        return WrittenTensors(self)

    def read(self, name: str) -> Tensor:
        """Return a tensor that was written."""
        return self._places[name].read(name)

    def kind(self, name: str) -> Kind:
        """Return dtype and shape of a tensor."""
        return self.kinds[name]

    def move_to(self, digest: str) -> None:
        """Put all files in their places, durably, as the tensors with a digest.

        Args:
            digest: digest of all tensors.
        """
        digests = [shard.move_into(self._folder) for shard in self._shards]
        if len(digests) > 1:
            write_atomic(list_path(self._folder, digest), json.dumps(digests).encode())

    def close(self) -> None:
        """Close all files, and remove those that were not put in their places."""
        for shard in self._shards:
            shard.close()
        self._older.close()


class _Shard:
    """One file of a `ShardWriter`: that of an older version, until something differs.

    Args:
        kinds: name -> dtype and shape of its tensors.
        older: digest and file of an older version's shard with such tensors; `None` without one.
    """

    def __init__(self, kinds: Mapping[str, Kind], older: tuple[str, TensorFile] | None) -> None:
        self.kinds = kinds
        self.writer: TensorWriter | None = None
        self._reader: TensorFile | None = None
        self._older = older
        self._lines: Mapping[str, str] = {}
        if older is not None:
            manifest = older[1].manifest
            self._lines = manifest if manifest_digest(manifest) == older[0] else {}
        self._same: dict[str, None] = {}

    def compared(self, name: str, value: Tensor) -> str:
        """Return the line of a tensor that may be that of the older version; else `""`."""
        if self.writer is not None or name not in self._lines:
            return ""
        kind = self.kinds[name]
        if (value.dtype, tuple(value.shape)) != (kind[0], tuple(kind[1])):
            return ""  # refused when it is written
        return tensor_line(name, *kind, hashlib.sha256(content_of(name, value)).hexdigest())

    def is_older(self, name: str, line: str) -> bool:
        """Take a tensor that is that of the older version by its line; return whether it is."""
        if line != self._lines[name]:
            return False
        self._same[name] = None
        return True

    def take(self, writer: ShardWriter, name: str) -> bool:
        """Take a tensor of the older version as it is, and return whether there is one."""
        if name not in self._lines:
            return False
        if self.writer is not None:
            assert self._older is not None
            self.writer.copy(name, self._older[1])
        else:
            self._same[name] = None
        writer.manifest[name] = self._lines[name]
        return True

    def begin(self, folder: Path, manifest: Manifest | None) -> TensorWriter:
        """Return the writer of a file of its own, with what was taken from the older version."""
        if self.writer is None:
            known = None if manifest is None else {name: manifest[name] for name in self.kinds}
            self.writer = TensorWriter(folder, self.kinds, known)
            for name in self._same:
                assert self._older is not None
                self.writer.copy(name, self._older[1])
        return self.writer

    def line(self, name: str) -> str:
        """Return the line of a written tensor."""
        assert self.writer is not None
        return self.writer.manifest[name]

    def read(self, name: str) -> Tensor:
        """Return a tensor."""
        if self.writer is None:
            assert self._older is not None
            return self._older[1].read(name)
        if self._reader is None:
            self._reader = self.writer.reader()
        else:
            self.writer.flush()
        return self._reader.read(name)

    def flush(self) -> None:
        """Write what is buffered to the disk."""
        if self.writer is not None:
            self.writer.flush(durably=True)

    def move_into(self, folder: Path) -> str:
        """Put the file in its place, and return the digest of its tensors."""
        if self.writer is not None:
            digest = self.writer.digest
            self.writer.move_to(shard_path(folder, digest))
            return digest
        assert self._older is not None
        digest = self._older[0]
        if not shard_path(folder, digest).exists():
            raise CheckpointError(
                f"Expected {shard_path(folder, digest)}, in which nothing changed, but it was "
                "removed meanwhile. Try again."
            )
        return digest

    def close(self) -> None:
        """Close its files; that of the older version stays open."""
        if self._reader is not None:
            self._reader.close()
        if self.writer is not None:
            self.writer.close()


def _layout(kinds: Mapping[str, Kind]) -> list[dict[str, Kind]]:
    """Return the tensors of each file, in the order of a single one."""
    shards: list[dict[str, Kind]] = [{}]
    entries = entries_of(kinds)
    most = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    most, size = max(SHARD_BYTES, most // MOST_SHARDS), 0
    for name, entry in entries.items():
        first, last = entry["data_offsets"]
        if shards[-1] and size + last - first > most:
            shards.append({})
            size = 0
        shards[-1][name] = kinds[name]
        size += last - first
    return shards


def _described(kinds: Mapping[str, Kind]) -> frozenset[tuple[str, object, tuple[int, ...]]]:
    return frozenset((name, dtype, tuple(shape)) for name, (dtype, shape) in kinds.items())
