"""Blobs by the hash of their content, piece by piece, going on where a killed process ended.

Layout of the folder::

    <sha256>.part   what has arrived so far
    <sha256>        complete and checked
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from disinherit.common.errors import CheckpointError, StoreError
from disinherit.common.files import sync_folder
from disinherit.v1 import agents_pb2 as pb

Fetch = Callable[[str, int], Iterator[pb.Chunk]]
"""Digest and offset -> the pieces from there on, to the end.

Raises CheckpointError if the digest, or the offset, does not exist.
"""


class Downloads:
    """Downloads in one folder.

    Args:
        folder: created if it does not exist.
        fetch: gets the pieces.

    Raises:
        StoreError: if the folder cannot be used; so may every method.
    """

    def __init__(self, folder: Path, fetch: Fetch) -> None:
        self._folder = folder
        self._fetch = fetch
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def get(self, digest: str) -> bytes:
        """Return a blob; what is on disk of it is not fetched again.

        Args:
            digest: its SHA-256, hexadecimal.

        Raises:
            StoreError: if the folder cannot be used, or has no room.
            CheckpointError: if what is sent under this digest is something else.
        """
        try:
            return self._get(digest)
        except OSError as error:
            raise self._unusable(error) from error

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all others, complete or not; what cannot be removed now is so later."""
        with suppress(OSError):
            for path in list(self._folder.iterdir()):
                if path.name.removesuffix(".part") not in digests:
                    path.unlink()

    def _get(self, digest: str) -> bytes:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            # It becomes the name of a file.
            raise CheckpointError(f"Expected a SHA-256 to download, but got {digest!r}.")
        whole, part = self._folder / digest, self._folder / f"{digest}.part"
        if whole.exists():
            data = whole.read_bytes()
            if hashlib.sha256(data).hexdigest() == digest:
                return data
            whole.unlink()
        if part.exists() and part.stat().st_size:
            # A loss of power may have damaged what was there.
            with suppress(CheckpointError):
                return self._complete(digest, part, whole)
        return self._complete(digest, part, whole)

    def _complete(self, digest: str, part: Path, whole: Path) -> bytes:
        """Fetch what is missing and check all of it; what is wrong is removed."""
        try:
            data = self._fill(digest, part)
            found = hashlib.sha256(data).hexdigest()
            if found != digest:
                raise CheckpointError(
                    f"Expected a download with SHA-256 {digest}, but got {found}. The coordinator, "
                    "or something on the way to it, sends something else."
                )
        except CheckpointError:
            part.unlink()
            raise
        part.replace(whole)
        sync_folder(self._folder)
        return data

    def _fill(self, digest: str, part: Path) -> bytes:
        """Fetch what is missing and return what is there then."""
        with part.open("ab") as file:
            for chunk in self._fetch(digest, file.tell()):
                missing = chunk.total - file.tell()
                if missing > shutil.disk_usage(self._folder).free:
                    raise StoreError(
                        f"Expected room for {missing} bytes in {self._folder}, but there is none. "
                        "Make room; the task is sent again with the next campaign."
                    )
                file.write(chunk.data)
                file.flush()
            os.fsync(file.fileno())
        return part.read_bytes()

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"Expected a folder for downloads that can be written to at {self._folder}, but got: "
            f"{error}."
        )
