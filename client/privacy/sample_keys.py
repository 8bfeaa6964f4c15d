"""The key of an owner's sample digests and noise: a file in its folder, created on first use."""

import secrets
from pathlib import Path

from disinherit.common.errors import StoreError
from disinherit.common.files import FolderLock, write_private
from disinherit.common.wire.samples import KEY_BYTES

KEY_FILE = "samples.key"
"""File name of the key of sample digests and noise in an owner's folder."""


def sample_key(folder: Path) -> bytes:
    """Return the key of an owner's sample digests, created on first use.

    Args:
        folder: folder of the owner's `ModelStore`.

    Raises:
        StoreError: if the folder cannot be used, or the file holds something else.
    """
    path = folder / KEY_FILE
    try:
        with FolderLock(folder / "lock").held(exclusive=True):
            if not path.exists():
                write_private(path, secrets.token_bytes(KEY_BYTES))
            key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"Expected the folder of an owner's models at {folder}, with a key for digests of "
            f"samples or room for one, but: {error.strerror}."
        ) from error
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"Expected a key of {KEY_BYTES} bytes in {path}, but got {len(key)}. Restore it; "
            "without it, digests made with it match no sample."
        )
    return key
