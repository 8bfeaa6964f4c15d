"""Activity of an agent: what its process last did, for whoever asks on the device.

Layout of the state folder::

    activity.json   what it last did
    activity.lock   locked while the process runs, however it ends
"""

import fcntl
import json
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from disinherit.common.files import is_locked
from disinherit.common.text import load_json

_FILE = "activity.json"
_LOCK = "activity.lock"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Activity:
    """What an agent did, with times in microseconds since the epoch; 0 for never.

    Attributes:
        process: id of its process; 0 if none ever ran.
        started_us: when it started.
        connected: whether it was connected to the coordinator.
        since_us: since when it was or was not.
        why: why it was not connected; `""` if it was.
        answered: tasks that it answered since it started.
        failed: how many of them without a result.
        answered_us: when it answered the last one.
        error: why the last one that failed did; `""` for none.
        running: whether the process runs now.
    """

    process: int = 0
    started_us: int = 0
    connected: bool = False
    since_us: int = 0
    why: str = ""
    answered: int = 0
    failed: int = 0
    answered_us: int = 0
    error: str = ""
    running: bool = False


class ActivityFile:
    """The file that a running agent keeps.  Failures are logged once: an agent goes on without it.

    Args:
        folder: the agent's state folder; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lock = threading.Lock()
        self._failed = False
        self._descriptor: int | None = None
        now = _now_us()
        self._now = Activity(os.getpid(), now, since_us=now, why="it has just started")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another agent of this folder runs, which the coordinator settles
        except OSError as error:
            self._fail(error)
        self._write()

    def connected(self) -> None:
        """Take in that there is a connection."""
        self._note(connected=True, since_us=_now_us(), why="")

    def away(self, why: str) -> None:
        """Take in that there is no connection."""
        since = _now_us() if self._now.connected else self._now.since_us
        self._note(connected=False, since_us=since, why=why)

    def answered(self, error: str) -> None:
        """Take in that a task was answered.

        Args:
            error: why without a result; `""` with one.
        """
        told = self._now
        self._note(
            answered=told.answered + 1,
            failed=told.failed + bool(error),
            answered_us=_now_us(),
            error=error or told.error,
        )

    def close(self) -> None:
        """End: the process no longer counts as running."""
        self.away("it was stopped")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _note(self, **changes: Any) -> None:
        with self._lock:
            self._now = replace(self._now, **changes)
            self._write()

    def _write(self) -> None:
        values = asdict(self._now)
        del values["running"]
        new = self._path.with_suffix(".new")
        try:  # without a sync: it tells of this process only
            new.write_text(json.dumps(values))
            new.replace(self._path)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            _log.warning("Cannot write what this agent does to %s: %s", self._path, error.strerror)
        self._failed = True


def read_activity(folder: Path) -> Activity:
    """Return what the agent of a state folder last did; of none if no agent ever ran there."""
    found = Activity()
    with suppress(OSError, ValueError, TypeError):
        found = Activity(**load_json((folder / _FILE).read_bytes()))
    return replace(found, running=is_locked(folder / _LOCK))


def _now_us() -> int:
    return time.time_ns() // 1000
