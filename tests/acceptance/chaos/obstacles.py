"""Disks that are full, and databases that are locked or gone, for a while."""

import resource
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

DISK_BYTES = 16 * 2**20

Full = Callable[[int], AbstractContextManager[None]]
"""Leaves so many bytes of a disk, or of each file, for the length of a block."""

_BLOCK = bytes(2**16)
_LOCK_SECONDS = 30.0


@contextmanager
def small_disk(folder: Path) -> Iterator[Full]:
    """Make a folder on a disk of its own, or on the one there is if that is not allowed.

    Args:
        folder: made.

    Yields:
        What makes it full.  Without a disk of its own, no file of this process can grow instead.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        yield _limited
        return
    if done.returncode != 0:
        yield _limited
        return
    try:
        yield lambda free: _filled(folder / "ballast", free)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _filled(ballast: Path, free: int) -> Iterator[None]:
    size = 0
    with ballast.open("wb", buffering=0) as file:
        try:
            while size <= DISK_BYTES:
                size += file.write(_BLOCK)
        except OSError:
            file.truncate(max(0, size - free))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def _limited(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def lock(database: Path, seconds: float) -> threading.Timer:
    """Take an SQLite database's write lock, and return what gives it back after some seconds."""
    connection = sqlite3.connect(
        database, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(seconds, connection.close)
    timer.start()
    return timer


@contextmanager
def moved_away(database: Path) -> Iterator[None]:
    """Have the files of an SQLite database elsewhere for the length of a block."""
    elsewhere = database.with_name("elsewhere")
    elsewhere.mkdir()
    for path in database.parent.glob(f"{database.name}*"):
        if path.is_file():
            path.rename(elsewhere / path.name)
    try:
        yield
    finally:
        for path in elsewhere.iterdir():
            path.rename(database.with_name(path.name))
        elsewhere.rmdir()
