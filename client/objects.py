"""Files of a `ModelStore`: weights and Fisher summaries, each named by its digest."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from disinherit.client.parts import Part
from disinherit.common.checkpoints import (
    TEMPORARY_GLOB,
    Manifest,
    load_checkpoint,
    make_manifest,
    manifest_digest,
    tensor_bytes,
    weights_digest,
    write_atomic,
)
from disinherit.common.errors import CheckpointError
from disinherit.common.fisher import ClassFishers
from disinherit.common.tensor_files import TensorFile, with_manifest

_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_SUM = "sum."
_COUNTS = "counts"


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Some tensors of an object.

    Attributes:
        tensors: those that were asked for.
        carried: others that its part has changed.
        manifest: of all its tensors.
    """

    tensors: Mapping[str, Tensor]
    carried: Mapping[str, Tensor]
    manifest: Manifest


class Objects:
    """Content-addressed safetensors files in one folder.

    An object that is described by a `Part` has no file of its own.

    Args:
        folder: the folder; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, digest: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors whose `weights_digest` is `digest`, durably.

        A file that is there already is written again, which repairs a damaged one.

        Raises:
            CheckpointError: if they cannot be written.
        """
        metadata = with_manifest(make_manifest(tensors))
        write_atomic(self._path(digest), tensor_bytes(tensors, metadata))

    def put_pack(self, stacked: Mapping[str, Tensor]) -> str:
        """Write tensors of many objects, `[M, *shape]`, durably, and return their digest.

        Raises:
            CheckpointError: if they cannot be written.
        """
        digest = weights_digest(stacked)
        self.put(digest, stacked)
        return digest

    def get(self, digest: str, what: str, part: Part | None = None) -> dict[str, Tensor]:
        """Return the tensors with this digest, on the CPU.

        Args:
            digest: their `weights_digest`.
            what: what they are, for the error message.
            part: what they are made of; `None` if they are written out.

        Raises:
            CheckpointError: if a file is missing, damaged or holds something else.
        """
        try:
            if part is None:
                return load_checkpoint(self._path(digest), digest)
            tensors = load_checkpoint(self._path(part.base), part.base)
            tensors |= self._changed(part)
            _clear(tensors, part.cleared)
            if weights_digest(tensors) != digest:
                raise _not_made(part)
        except CheckpointError as error:
            raise CheckpointError(f"Cannot load the {what}. {error}") from error
        return tensors

    def scope(self, digest: str, names: Collection[str], part: Part | None = None) -> Scope:
        """Return some of the tensors with this digest.

        Only what is returned is read, and compared with the digest.

        Raises:
            CheckpointError: if a file is missing, damaged or holds something else, or there is no
                such tensor.
        """
        with TensorFile(self._path(part.base if part else digest)) as file:
            changed = self._changed(part) if part else {}
            manifest = file.manifest
            read = file.read_all(name for name in names if name not in changed) | changed
        manifest |= make_manifest(read)
        if manifest_digest(manifest) != digest:
            raise CheckpointError(
                f"Expected tensors with digest {digest}, but the file was damaged or replaced."
            )
        tensors = {name: read.pop(name) for name in names}
        return Scope(tensors, carried=read, manifest=manifest)

    def put_fishers(self, fishers: ClassFishers) -> str:
        """Write per-class Fisher sums, durably, and return their digest.

        Raises:
            CheckpointError: if they cannot be written.
        """
        digest = fishers_digest(fishers)
        self.put(digest, _tensors(fishers))
        return digest

    def get_fishers(self, digest: str, what: str, part: Part | None = None) -> ClassFishers:
        """Return the per-class Fisher sums with this digest, on the CPU.

        Args:
            digest: as `put_fishers` returned it.
            what: what they are, for the error message.
            part: what they are made of; `None` if they are written out.

        Raises:
            CheckpointError: if a file is missing, damaged or holds something else.
        """
        tensors = self.get(digest, what, part)
        counts = tensors.pop(_COUNTS)
        sums = {name.removeprefix(_SUM): value for name, value in tensors.items()}
        return ClassFishers(sums, counts)

    def any(self) -> bool:
        """Return whether there are objects, whatever refers to them."""
        return any(_NAME.fullmatch(path.name) for path in self._folder.iterdir())

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all other objects and unfinished files; what is not an object's stays."""
        kept = {self._path(digest).name for digest in digests}
        for path in list(self._folder.iterdir()):
            ours = _NAME.fullmatch(path.name) or path.match(TEMPORARY_GLOB)
            if ours and path.name not in kept:
                path.unlink()

    def _changed(self, part: Part) -> dict[str, Tensor]:
        if not part.pack:
            return {}
        with TensorFile(self._path(part.pack)) as file:
            return file.read_all(file.names, part.place)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"


def fishers_digest(fishers: ClassFishers) -> str:
    """Return the digest under which per-class Fisher sums are kept."""
    return weights_digest(_tensors(fishers))


def without_classes(fishers: ClassFishers, classes: Sequence[int]) -> ClassFishers:
    """Return Fisher sums in which some classes have no samples; the input is untouched."""
    tensors = {name: value.clone() for name, value in _tensors(fishers).items()}
    _clear(tensors, classes)
    counts = tensors.pop(_COUNTS)
    return ClassFishers({n.removeprefix(_SUM): value for n, value in tensors.items()}, counts)


def _clear(tensors: Mapping[str, Tensor], classes: Sequence[int]) -> None:
    if classes:
        rows = torch.tensor(classes)
        for value in tensors.values():
            value[rows.to(value.device)] = 0


def _tensors(fishers: ClassFishers) -> dict[str, Tensor]:
    return {_SUM + name: value for name, value in fishers.sums.items()} | {_COUNTS: fishers.counts}


def _not_made(part: Part) -> CheckpointError:
    files = " and ".join(f"{digest}.safetensors" for digest in (part.base, part.pack) if digest)
    return CheckpointError(
        f"Expected tensors with digest {part.digest} of {files}, but they are others. One of the "
        "files was damaged or replaced; restore it."
    )
