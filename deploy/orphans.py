"""Processes that Flower started, and leaves behind when it ends.

A SuperLink starts a program for each run in a session of its own, and that starts the ServerApp.
One that was just being started when the SuperLink was ended asks for it for ever, whatever signal
it gets but the one that cannot be refused.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def running_for(home: Path) -> Iterator[int]:
    """Yield the other processes that run for a Flower home; none where there is no `/proc`.

    Args:
        home: a Flower home, or a folder that holds some, as programs were told it.
    """
    wanted = f"FLWR_HOME={home}".encode()
    return running_with(lambda setting: setting == wanted or setting.startswith(wanted + b"/"))


def running_with(wanted: Callable[[bytes], bool]) -> Iterator[int]:
    """Yield the other processes that were started with a setting in their environment.

    Args:
        wanted: whether `NAME=value` is such a setting.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            settings = (entry / "environ").read_bytes().split(b"\0")
            if any(map(wanted, settings)) and int(entry.name) != os.getpid():
                yield int(entry.name)


def end_stragglers(home: Path) -> list[int]:
    """Kill what still runs for a Flower home, and return the processes' ids.

    Args:
        home: as in `running_for`.
    """
    found = []
    for pid in running_for(home):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            found.append(pid)
    return found
