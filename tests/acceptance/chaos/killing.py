"""Processes that are killed by SIGKILL at a random one of the calls that they make."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.acceptance.chaos.forking import exit_code, fork

WRITING = frozenset(
    {
        *("write", "fsync", "rename", "replace", "unlink", "open", "close", "flock", "mkdir"),
        *("execute", "executemany", "commit"),  # SQLite's
    }
)
"""Calls that change files, or the order of those who do."""

Work = Callable[[], object]
Counted = Callable[[str], bool]
"""Whether a call of some name counts."""


def any_call(_: str) -> bool:
    """Count every call, of Python's functions and of C's."""
    return True


def writing_call(name: str) -> bool:
    """Count only calls that change files."""
    return name in WRITING


class Watch:
    """Counts the calls of this thread, and kills the process at one of them.

    Args:
        counted: which of them count.
        deadly: the number of the last one; 0 for none.
    """

    def __init__(self, counted: Counted, deadly: int = 0) -> None:
        self.count = 0
        self._counted = counted
        self._deadly = deadly

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take notice of a call, before or after it."""
        code = frame.f_code.co_name
        name = code if event in ("call", "return") else getattr(argument, "__name__", "")
        if self._counted(name):
            self.count += 1
            if self.count == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)


def count_calls(work: Work, counted: Counted, note: Path) -> int:
    """Return how many calls some work makes, which is done in a process of its own.

    Args:
        work: the work.
        counted: which calls count.
        note: a file to write the number to.
    """

    def counting() -> None:
        watch = Watch(counted)
        _watched(work, watch)
        note.write_text(str(watch.count))

    exit_code(fork(counting))
    return int(note.read_text())


def kill_at(work: Work, counted: Counted, number: int) -> bool:
    """Do some work in a process of its own that is killed at one of its calls.

    Args:
        work: the work.
        counted: which calls count.
        number: of the call.

    Returns:
        Whether it was killed; it may have ended before.
    """
    code = exit_code(fork(lambda: _watched(work, Watch(counted, number))))
    return code == -signal.SIGKILL


def _watched(work: Work, watch: Watch) -> None:
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
