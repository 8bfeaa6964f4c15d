"""A lock on a folder that processes and threads share, and that no crash leaves behind."""

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.errors import StoreError

LOCK_SECONDS = 60.0
"""How long to wait for other processes before giving up."""

_POLL_SECONDS = 0.01


class FolderLock:
    """`flock` on a file, held by one process to write or by several to read.

    Threads of one process take turns in either case.

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
            exclusive: whether no other process may hold it too.

        Raises:
            StoreError: if it is not free within `LOCK_SECONDS`.
            OSError: if the file cannot be opened or locked.
        """
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        # Opened anew each time: closing releases it, and nothing is left locked after `close`.
        with self._mutex, self._path.open("ab") as file:
            deadline = time.monotonic() + LOCK_SECONDS
            while not _try_lock(file.fileno(), mode):
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"Expected {self._path} to be free, but another process has been holding "
                        f"it for {LOCK_SECONDS:g} s. See which one it is, and try again."
                    )
                time.sleep(_POLL_SECONDS)
            yield


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
