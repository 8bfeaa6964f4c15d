"""Files of a `ModelStore`: weights and Fisher summaries, each named by its digest."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from disinherit.common.checkpoints import (
    TEMPORARY_GLOB,
    load_checkpoint,
    tensor_bytes,
    weights_digest,
    write_atomic,
)
from disinherit.common.errors import CheckpointError
from disinherit.common.fisher import ClassFishers

_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_SUM = "sum."
_COUNTS = "counts"


class Objects:
    """Content-addressed safetensors files in one folder.

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
        write_atomic(self._path(digest), tensor_bytes(tensors))

    def get(self, digest: str, what: str) -> dict[str, Tensor]:
        """Return the tensors with this digest, on the CPU.

        Args:
            digest: their `weights_digest`.
            what: what they are, for the error message.

        Raises:
            CheckpointError: if the file is missing, damaged or holds something else.
        """
        try:
            return load_checkpoint(self._path(digest), digest)
        except CheckpointError as error:
            raise CheckpointError(f"Cannot load the {what}. {error}") from error

    def put_fishers(self, fishers: ClassFishers) -> str:
        """Write per-class Fisher sums, durably, and return their digest.

        Raises:
            CheckpointError: if they cannot be written.
        """
        digest = fishers_digest(fishers)
        self.put(digest, _tensors(fishers))
        return digest

    def get_fishers(self, digest: str, what: str) -> ClassFishers:
        """Return the per-class Fisher sums with this digest, on the CPU.

        Args:
            digest: as `put_fishers` returned it.
            what: what they are, for the error message.

        Raises:
            CheckpointError: if the file is missing, damaged or holds something else.
        """
        tensors = self.get(digest, what)
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

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"


def fishers_digest(fishers: ClassFishers) -> str:
    """Return the digest under which per-class Fisher sums are kept."""
    return weights_digest(_tensors(fishers))


def _tensors(fishers: ClassFishers) -> dict[str, Tensor]:
    return {_SUM + name: value for name, value in fishers.sums.items()} | {_COUNTS: fishers.counts}
