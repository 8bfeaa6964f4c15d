"""Orphaned processes of Flower.

A SuperLink starts a program for each run in its own session, which starts the ServerApp.  If the
SuperLink ends during that start, the program polls for it for ever, and only SIGKILL ends it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def running_for(home: Path) -> Iterator[int]:
    """Yield the other processes that run for a Flower home; none without `/proc`.

    Args:
        home: a Flower home, or a parent folder of some, as in the programs' environment.
    """
    wanted = f"FLWR_HOME={home}".encode()
    return running_with(lambda setting: setting == wanted or setting.startswith(wanted + b"/"))


def running_with(wanted: Callable[[bytes], bool]) -> Iterator[int]:
    """Yield the other processes with a setting in their environment.

    Args:
        wanted: returns whether `NAME=value` is such a setting.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            settings = (entry / "environ").read_bytes().split(b"\0")
            if any(map(wanted, settings)) and int(entry.name) != os.getpid():
                yield int(entry.name)


def end_orphans(home: Path) -> list[int]:
    """Kill the processes that still run for a Flower home, and return their ids.

    Args:
        home: as in `running_for`.
    """
    found = []
    for pid in running_for(home):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            found.append(pid)
    return found
