"""Files that only their owner may read, such as private keys."""

import fcntl
import os
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
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = _open_locked(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.truncate()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # while it is locked
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _open_locked(path: Path) -> int:
    """Return the descriptor of a private file that no other process writes to.

    It always has the same name, so what a process that was killed left behind is used again.
    """
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.fchmod(descriptor, 0o600)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # it has just gone
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another process has put it in its place meanwhile
