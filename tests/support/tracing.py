"""What a piece of work does to the files of a folder, system call by system call, with `strace`.

First the calls are listed; then the work is done again on a copy, and at one of them its process is
killed, or the call fails::

    for operation in operations(work, folder):
        code = interrupted(work, operation, "signal=SIGKILL")

Only calls that change something are listed: between two of these, what is on disk is the same.  The
work runs in a forked child, because importing torch takes longer than all the rest.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.chaos.forking import exit_code, fork

CHANGING = {
    "creat",
    "fallocate",
    "fchmod",
    "fchown",
    "fdatasync",
    "flock",
    "fsync",
    "ftruncate",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "openat",  # of those, the ones that may create or truncate
    "pwrite64",
    "pwritev",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "symlink",
    "symlinkat",
    "truncate",
    "unlink",
    "unlinkat",
    "utimensat",
    "write",
    "writev",
}
"""System calls that change files or the order of those who do."""

LOOKING = {
    "access",
    "close",  # ends a lock, as the end of the process does
    "faccessat",
    "faccessat2",
    "fcntl",  # locks of SQLite, inside of ours
    "fstat",
    "fstatfs",
    "getdents64",
    "ioctl",
    "lseek",
    "lstat",
    "mmap",  # nobody maps a file to write to it
    "newfstatat",
    "pread64",
    "preadv",
    "preadv2",
    "read",
    "readlink",
    "stat",
    "statfs",
    "statx",
}
"""System calls that change nothing on disk."""

_CALL = re.compile(r"\d+ +(\w+)\((.*)")
_CREATING = re.compile(r"O_CREAT|O_TRUNC")


@dataclass(frozen=True, slots=True)
class Operation:
    """One system call of a piece of work.

    Attributes:
        call: its name.
        number: how many calls of this name there are up to it, itself included.
        text: as `strace` writes it.
    """

    call: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.call} number {self.number}, {self.text}"


def skip_without_tracing() -> None:
    """Skip a test where `strace` is missing or not allowed."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    try:
        _traced(lambda: None, "trace=%file")
    except PermissionError as error:
        pytest.skip(str(error))


def operations(work: Callable[[], None], folder: Path) -> list[Operation]:
    """Do some work and return what it does to the files in a folder.

    Fails if a call on the folder is none of those known to change something or nothing.
    """
    code, lines = _traced(work, "trace=%file,%desc")
    assert code == 0
    found = []
    inside = re.compile(re.escape(str(folder)) + r'[/">]')
    counts: Counter[str] = Counter()
    for line in lines:
        match = _CALL.match(line)
        if match is None:  # signals, and the end of the process
            continue
        call, arguments = match.groups()
        counts[call] += 1
        if not inside.search(arguments):
            continue
        assert call in CHANGING | LOOKING, line
        if call in CHANGING and (call != "openat" or _CREATING.search(arguments)):
            found.append(Operation(call, counts[call], arguments))
    return found


def interrupted(work: Callable[[], None], operation: Operation, how: str) -> int:
    """Do the work again, with something else in the place of an operation.

    Args:
        work: does the same as when the operations were listed, in another folder perhaps.
        operation: one of them.
        how: what happens instead, as `strace` understands it.

    Returns:
        The exit code of the process; if it was killed, minus the signal.
    """
    inject = f"inject={operation.call}:{how}:when={operation.number}"
    code, lines = _traced(work, f"trace={operation.call}", inject)
    if "error=" in how:
        assert sum("(INJECTED)" in line for line in lines) == 1
    return code


def _traced(work: Callable[[], None], *expressions: str) -> tuple[int, list[str]]:
    """Do some work in a child and return its exit code and the lines that `strace` writes."""
    reading, writing = os.pipe()

    def child() -> None:
        os.close(writing)
        os.read(reading, 1)
        work()

    process = fork(child)
    os.close(reading)
    with tempfile.NamedTemporaryFile(prefix="strace-") as log:
        options = [option for expression in expressions for option in ("-e", expression)]
        command = ["strace", "-qq", "-f", "-y", "-o", log.name, *options, "-p", str(process)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            status = Path(f"/proc/{process}/status")
            while "TracerPid:\t0\n" in status.read_text():
                if strace.poll() is not None:
                    os.close(writing)
                    exit_code(process)
                    assert strace.stderr is not None
                    raise PermissionError(strace.stderr.read().strip())
                time.sleep(0.001)
            os.close(writing)  # now it begins
            code = exit_code(process)
        return code, Path(log.name).read_text().splitlines()
