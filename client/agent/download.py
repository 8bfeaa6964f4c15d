"""Resumable downloads of blobs, addressed by the SHA-256 of their content.

Layout of the folder::

    <sha256>.part   partial content
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
"""Digest and offset -> the pieces from the offset to the end.

Raises CheckpointError if the digest, or the offset, does not exist.
"""


class Downloads:
    """Downloads in one folder.

    Args:
        folder: folder of the downloads; created if it does not exist.
        fetch: fetches the pieces.

    Raises:
        StoreError: if the folder cannot be used; every method may raise it.
    """

    def __init__(self, folder: Path, fetch: Fetch) -> None:
        self._folder = folder
        self._fetch = fetch
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def get(self, digest: str) -> bytes:
        """Return a blob; only missing bytes are fetched.

        Args:
            digest: SHA-256 of the blob, hexadecimal.

        Raises:
            StoreError: if the folder cannot be used, or has no space.
            CheckpointError: if the received content has another digest.
        """
        try:
            return self._get(digest)
        except OSError as error:
            raise self._unusable(error) from error

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove all other files; those that cannot be removed now are removed later."""
        with suppress(OSError):
            for path in list(self._folder.iterdir()):
                if path.name.removesuffix(".part") not in digests:
                    path.unlink()

    def _get(self, digest: str) -> bytes:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            # The digest becomes a file name.
            raise CheckpointError(f"Expected a SHA-256 to download, but got {digest!r}.")
        whole, part = self._folder / digest, self._folder / f"{digest}.part"
        if whole.exists():
            data = whole.read_bytes()
            if hashlib.sha256(data).hexdigest() == digest:
                return data
            whole.unlink()
        if part.exists() and part.stat().st_size:
            # A power loss may have damaged the partial file.
            with suppress(CheckpointError):
                return self._complete(digest, part, whole)
        return self._complete(digest, part, whole)

    def _complete(self, digest: str, part: Path, whole: Path) -> bytes:
        """Fetch the missing bytes and verify the whole; wrong content is removed."""
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
        """Fetch the missing bytes and return the whole content."""
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
