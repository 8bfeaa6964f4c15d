"""Atomic files, private files, and locks on folders."""

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.errors import CheckpointError, StoreError

TEMPORARY_GLOB = ".disinherit-*.tmp"
"""Ending of unfinished files of `write_atomic`; a killed process can leave one behind."""

LOCK_SECONDS = 60.0
"""Longest wait for other processes."""

_POLL_SECONDS = 0.01


def keep_private() -> None:
    """Make this process create files that only its user can read, whatever the umask was.

    For programs: libraries write databases, packets, models and summaries without setting modes.
    """
    os.umask(0o077)


@contextmanager
def kept_private() -> Iterator[None]:
    """Create private files within the block; the umask is restored afterwards."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically: `path` holds all of `data`, or is unchanged.

    Args:
        path: the file, new or to be replaced; its folder exists.
        data: its content.

    Raises:
        CheckpointError: if it cannot be written.
    """
    temporary = path.with_name(TEMPORARY_GLOB.replace("*", secrets.token_hex(8)))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _put_in_place(temporary, descriptor, path, data)
    except OSError as error:
        raise CheckpointError(
            f"Expected to write {len(data)} bytes to {path}, but got: {error}. Check that the "
            "folder exists, is writable and has room."
        ) from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600, atomically.

    Args:
        path: the file, new or to be replaced; its folder exists.
        data: its content.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    _put_in_place(temporary, _open_locked(temporary), path, data)


def is_locked(path: Path) -> bool:
    """Return whether another open file holds `flock` on a file; `False` if there is none."""
    try:
        with path.open("rb") as file:
            return not _try_lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: renames and new files survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """`flock` on a file: one process holds it to write, or several to read.

    Threads of one process take turns in both cases.

    Args:
        path: the lock file; created when the lock is first held, and never removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()

    @contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock during the block.

        Args:
            exclusive: whether to exclude all other processes.

        Raises:
            StoreError: if the lock is not free within `LOCK_SECONDS`.
            OSError: if the file cannot be opened or locked.
        """
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        with self._mutex:
            # Opened anew each time: closing releases the lock, and no lock is left after `close`.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                deadline = time.monotonic() + LOCK_SECONDS
                while not _try_lock(descriptor, mode):
                    if time.monotonic() > deadline:
                        raise StoreError(
                            f"Expected {self._path} to be free, but another process has been "
                            f"holding it for {LOCK_SECONDS:g} s. See which one it is, and try "
                            "again."
                        )
                    time.sleep(_POLL_SECONDS)
                yield
            finally:
                os.close(descriptor)


def _put_in_place(temporary: Path, descriptor: int, path: Path, data: bytes) -> None:
    """Write data to an open temporary file and move it to `path`; remove it on failure."""
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.truncate()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # still locked, where there is a lock
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _open_locked(path: Path) -> int:
    """Return the descriptor of a private file that no other process writes to.

    Its name is fixed, so the file of a killed process is used again.
    """
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.fchmod(descriptor, 0o600)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # it was removed meanwhile
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another process has moved it into place meanwhile


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
