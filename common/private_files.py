"""Files that only their owner may read, such as private keys."""

import os
import secrets
from pathlib import Path

from disinherit.common.checkpoints import sync_folder


def keep_private() -> None:
    """Have this process make files that only its user can read, whatever its caller made.

    For programs: databases, packets, models and summaries are written by libraries that ask nobody.
    """
    os.umask(0o077)


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600, whole or not at all.

    Args:
        path: the file, new or to be replaced; its folder exists.
        data: its content.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
