"""What Flower started on its own, and leaves behind when it is ended.

A SuperLink starts a program for each run in a session of its own, and that starts the ServerApp.
One that was just being started when the SuperLink was ended asks for it for ever, whatever signal
it gets but the one that cannot be refused.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path


def end_stragglers(home: Path) -> list[int]:
    """Kill what still runs for a Flower home in a folder; nothing where there is no `/proc`.

    Args:
        home: the folder that holds the homes, as programs were told it.

    Returns:
        The processes' ids.
    """
    wanted = f"FLWR_HOME={home}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            settings = (entry / "environ").read_bytes().split(b"\0")
            if any(value == wanted or value.startswith(wanted + b"/") for value in settings):
                os.kill(int(entry.name), signal.SIGKILL)
                found.append(int(entry.name))
    return found
