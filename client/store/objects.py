"""Files of a `ModelStore`: weights, Fisher summaries and curvature, each named by its digest."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.files import TEMPORARY_GLOB, is_locked
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.tensors.checkpoints import (
    load_checkpoint,
    make_manifest,
    weights_digest,
)
from disinherit.common.tensors.files import Kind, TensorFile
from disinherit.common.tensors.identity import Manifest, manifest_digest
from disinherit.common.tensors.shards import (
    ShardFiles,
    ShardWriter,
    WrittenTensors,
    list_path,
    shard_path,
    shards_of,
)
from disinherit.common.tensors.stored import StoredTensors, kinds_of, verify

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Delta:
    """An object stored as a difference to full objects.

    Attributes:
        digest: digest of the object.
        base: digest of the full object with all other tensors.
        pack: digest of the object with the changed tensors, stacked `[M, *shape]`; `""` for none.
        place: index of its tensors in the stack.
        cleared: classes of a Fisher summary with rows of zeros.
    """

    digest: str
    base: str
    pack: str = ""
    place: int = 0
    cleared: tuple[int, ...] = ()


_NAME = re.compile(r"[0-9a-f]{64}\.(safetensors|shards)")
_SUM = "sum."
_COUNTS = "counts"
_CLASSES = "classes"
_OTHERS = "others."
_COLUMNS = "columns."
_BEHIND = "behind"


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Some tensors of an object.

    Attributes:
        tensors: the requested ones.
        carried: other tensors that its delta changes.
        manifest: manifest of all its tensors.
    """

    tensors: Mapping[str, Tensor]
    carried: Mapping[str, Tensor]
    manifest: Manifest


class Objects:
    """Content-addressed safetensors files in one folder.

    A large object has several, its shards, and a list of them; objects share shards.  An object
    with a `Delta` has no file of its own.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(
        self,
        digest: str,
        tensors: Mapping[str, Tensor],
        manifest: Manifest | None = None,
    ) -> None:
        """Write tensors whose `weights_digest` is `digest`, durably.

        An existing file is rewritten, which repairs a damaged one.

        Args:
            digest: their `weights_digest`.
            tensors: tensors by name; those that a writer has written are put in their place.
            manifest: their manifest, if it was made for the digest.

        Raises:
            CheckpointError: if they cannot be written.
        """
        if isinstance(tensors, WrittenTensors):
            tensors.writer.move_to(digest)
            return
        manifest = make_manifest(tensors) if manifest is None else manifest
        with ShardWriter(self._folder, kinds_of(tensors), manifest) as writer:
            for name in writer.names:
                writer.write(name, tensors[name])
            writer.move_to(digest)

    def stage(self, kinds: Mapping[str, Kind], like: str = "") -> ShardWriter:
        """Return a writer for a new object, which `put` puts in its place.

        Args:
            kinds: name -> dtype and shape of each tensor.
            like: digest of an object whose files it has where nothing in them differs; `""` for
                none.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if like:
            with suppress(CheckpointError):  # damaged, or a file of 0.1.0
                return ShardWriter(self._folder, kinds, like=shards_of(self._folder, like))
        return ShardWriter(self._folder, kinds)

    def put_pack(self, stacked: Mapping[str, Tensor]) -> str:
        """Write tensors of many objects, `[M, *shape]`, durably, and return their digest.

        Raises:
            CheckpointError: if they cannot be written.
        """
        manifest = make_manifest(stacked)
        digest = manifest_digest(manifest)
        self.put(digest, stacked, manifest)
        return digest

    def get(self, digest: str, what: str, part: Delta | None = None) -> dict[str, Tensor]:
        """Return the tensors with this digest, on the CPU.

        Args:
            digest: their `weights_digest`.
            what: description for the error message.
            part: their delta; `None` for a full object.

        Raises:
            CheckpointError: if a file is missing, damaged or has other content.
        """
        with suppress(CheckpointError):  # there is no manifest in a file of 0.1.0
            if part is None or not part.cleared:
                with self.open(digest, part) as stored:
                    return dict(stored)
        try:
            if part is None:
                return self._whole(digest)
            tensors = self._whole(part.base)
            tensors |= self._changed(part)
            _clear(tensors, part.cleared)
            if weights_digest(tensors) != digest:
                raise _not_made(part)
        except CheckpointError as error:
            raise CheckpointError(f"Cannot load the {what}. {error}") from error
        return tensors

    def verify(self, digest: str, what: str, part: Delta | None = None) -> None:
        """Read all tensors with this digest, one by one; arguments and errors as in `get`."""
        with self.view(digest, what, part) as stored:
            verify(stored)

    def write_out(self, part: Delta) -> None:
        """Give an object that is stored as a difference files of its own, or those of its base.

        Raises:
            CheckpointError: if a file is missing or damaged, or they cannot be written.
        """
        what = f"object {part.digest}"
        with (
            self.view(part.digest, what, part) as stored,
            self.stage(kinds_of(stored), part.base) as writer,
        ):
            for name in writer.names:
                writer.write(name, stored[name])
            writer.move_to(part.digest)

    def open(self, digest: str, part: Delta | None = None, what: str = "") -> StoredTensors:
        """Return the tensors with this digest, each read when it is asked for.

        Args:
            digest: their `weights_digest`.
            part: their delta; `None` for a full object.  It clears no classes.
            what: description for the error message of a damaged tensor; `""` for none.

        Raises:
            CheckpointError: if a file is missing or damaged, has other content or no manifest.
        """
        file = self._file(part.base if part else digest)
        try:
            changed = self._changed(part) if part else {}
            manifest = {**file.manifest, **make_manifest(changed)}
            if manifest_digest(manifest) != digest or manifest.keys() != {*file.names, *changed}:
                raise CheckpointError(
                    f"Expected tensors with digest {digest}, but the file was damaged or replaced."
                )
        except BaseException:
            file.close()
            raise
        return StoredTensors(file, manifest, changed, what)

    def view(
        self, digest: str, what: str, part: Delta | None = None
    ) -> AbstractContextManager[Mapping[str, Tensor]]:
        """Return what `open` returns; tensors without a manifest are read and verified at once.

        Args:
            digest: their `weights_digest`.
            what: description for the error message.
            part: their delta; `None` for a full object.

        Raises:
            CheckpointError: if a file is missing, damaged or has other content.
        """
        try:
            return self.open(digest, part, what)
        except CheckpointError:  # a file of 0.1.0, or a damaged one: the digest tells
            return nullcontext(self.get(digest, what, part))

    def scope(self, digest: str, names: Collection[str], part: Delta | None = None) -> Scope:
        """Return some of the tensors with this digest.

        Only these tensors are read and verified against the digest.

        Raises:
            CheckpointError: if a file is missing, damaged or has other content, or a tensor is
                missing.
        """
        with self._file(part.base if part else digest) as file:
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
        tensors = _tensors(fishers)
        manifest = make_manifest(tensors)
        digest = manifest_digest(manifest)
        self.put(digest, tensors, manifest)
        return digest

    def get_fishers(self, digest: str, what: str, part: Delta | None = None) -> ClassFishers:
        """Return the per-class Fisher sums with this digest, on the CPU.

        Args:
            digest: result of `put_fishers`.
            what: description for the error message.
            part: their delta; `None` for a full object.

        Raises:
            CheckpointError: if a file is missing, damaged or has other content.
        """
        return _fishers(self.get(digest, what, part))

    def any(self) -> bool:
        """Return whether any objects are stored."""
        return any(_NAME.fullmatch(path.name) for path in self._folder.iterdir())

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all other objects, and temporary files that nobody is writing; others stay.

        If a list of shards is damaged, nothing is removed, since any file may be one of them.
        """
        paths = list(self._folder.iterdir())
        lists = {path.name for path in paths if path.suffix == ".shards"}
        kept = {shard_path(self._folder, digest).name for digest in digests}
        try:
            for digest in digests:
                if (listed := list_path(self._folder, digest).name) in lists:
                    kept.add(listed)
                    kept |= {shard_path(self._folder, one).name for one in self._shards(digest)}
        except CheckpointError as error:
            _log.warning("No file of %s is removed. %s", self._folder, error)
            return
        for path in paths:
            unfinished = path.match(TEMPORARY_GLOB) and not is_locked(path)
            if unfinished or (_NAME.fullmatch(path.name) and path.name not in kept):
                path.unlink(missing_ok=True)

    def _changed(self, part: Delta) -> dict[str, Tensor]:
        if not part.pack:
            return {}
        with self._file(part.pack) as file:
            return file.read_all(file.names, part.place)

    def _shards(self, digest: str) -> tuple[str, ...]:
        return shards_of(self._folder, digest)

    def _file(self, digest: str) -> TensorFile | ShardFiles:
        shards = self._shards(digest)
        if shards == (digest,):
            return TensorFile(shard_path(self._folder, digest))
        return ShardFiles(shard_path(self._folder, one) for one in shards)

    def _whole(self, digest: str) -> dict[str, Tensor]:
        if self._shards(digest) == (digest,):
            return load_checkpoint(shard_path(self._folder, digest), digest)
        with self.open(digest) as stored:
            return dict(stored)


def fishers_digest(fishers: ClassFishers) -> str:
    """Return the digest of per-class Fisher sums."""
    return weights_digest(_tensors(fishers))


def _clear(tensors: dict[str, Tensor], classes: Sequence[int]) -> None:
    """Remove the samples of some classes from a Fisher summary."""
    if classes:
        tensors |= _tensors(_fishers(tensors).without(classes))


def _tensors(fishers: ClassFishers) -> dict[str, Tensor]:
    """Return the stored tensors of Fisher sums, without tensors that follow from others.

    A summary with sums of every class, and none by rows or factored, thus has the format of release
    0.1.0.
    """
    kept = {_SUM + name: value for name, value in fishers.sums.items()}
    kept[_COUNTS] = fishers.counts
    if len(fishers.classes) < fishers.num_classes:
        kept[_CLASSES] = fishers.classes
    kept |= {_COLUMNS + name: value for name, value in fishers.columns.items()}
    if fishers.by_rows:
        kept |= {_OTHERS + name: value for name, value in fishers.others.items()}
        kept[_BEHIND] = fishers.behind
    return kept


def _fishers(tensors: Mapping[str, Tensor]) -> ClassFishers:
    described = {
        field: tensors[key]
        for field, key in (("classes", _CLASSES), ("behind", _BEHIND))
        if key in tensors
    }
    return ClassFishers(
        {n.removeprefix(_SUM): v for n, v in tensors.items() if n.startswith(_SUM)},
        tensors[_COUNTS],
        others={n.removeprefix(_OTHERS): v for n, v in tensors.items() if n.startswith(_OTHERS)},
        columns={n.removeprefix(_COLUMNS): v for n, v in tensors.items() if n.startswith(_COLUMNS)},
        **described,
    )


def _not_made(part: Delta) -> CheckpointError:
    files = " and ".join(f"{digest}.safetensors" for digest in (part.base, part.pack) if digest)
    return CheckpointError(
        f"Expected tensors with digest {part.digest} in {files}, but their digest differs. One of "
        "the files was damaged or replaced; restore it."
    )
