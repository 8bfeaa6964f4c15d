"""End of the processes that a test run started, however the run ends.

A run that is interrupted or killed cannot stop what its tests started: supervisors, SuperLinks,
PostgreSQL.  All of these inherit a mark in their environment.  A process beside the run waits until
the run is gone, and ends exactly those with its mark.
"""

import os
import secrets
import signal
import sys
import time
from contextlib import suppress

from disinherit.deploy.orphans import running_with

MARK = "DISINHERIT_TEST_RUN"
"""Environment variable that every process of a test run has."""

_GRACE_SECONDS = 5.0
_open_ends: list[int] = []
"""What the process beside this one waits for the end of."""


def watch_over_this_run() -> None:
    """Mark all processes that are started from now on, and have them ended with this one."""
    if MARK in os.environ:
        return  # a worker of a run that is watched over already
    mark = secrets.token_hex(8)
    ours, theirs = os.pipe()  # its end comes when this process is gone
    os.posix_spawn(
        sys.executable,
        [sys.executable, __file__, mark],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, 0)],
        setsid=True,  # an interrupt is for this process alone
    )
    os.close(ours)
    _open_ends.append(theirs)
    os.environ[MARK] = mark


def marked(mark: str) -> list[int]:
    """Return the ids of the processes that have a mark."""
    wanted = f"{MARK}={mark}".encode()
    return list(running_with(lambda setting: setting == wanted))


def end_marked(mark: str) -> None:
    """End the processes that have a mark: asked first, then killed."""
    # PostgreSQL takes SIGQUIT as "now", and then leaves no memory behind.
    for number in (signal.SIGQUIT, signal.SIGKILL):
        for process in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + _GRACE_SECONDS
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(0.1)


if __name__ == "__main__":
    sys.stdin.read()
    end_marked(sys.argv[1])
