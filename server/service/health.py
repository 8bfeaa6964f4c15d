"""Health service: SERVING only while the store can be read and written.

Whether it can is asked anew every few seconds, over a new connection: one that is held open may
still read a file that is gone.
"""

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer
from sqlalchemy import select

from disinherit.common.errors import DisinheritError, StoreError
from disinherit.server.store.database import Database
from disinherit.server.store.tables import MODELS

_LOG = logging.getLogger(__name__)

SERVICES = ("", "disinherit.v1.Coordinator")
CAMPAIGNS = "disinherit.v1.Campaigns"
"""Not served while the coordinator asks no owner for anything, as it has lost history."""


_FREE_BYTES = 2**20
"""On the disk of an SQLite file: what the smallest step of a campaign needs, many times over."""


def check_store(url: str | Path) -> None:
    """Read something of every table of the store, and see whether it could be written.

    Nothing is written, as that would keep a disk busy for ever.

    Args:
        url: as for `CoordinatorStore`.

    Raises:
        StoreError: if it does not answer, or nothing can be written.
    """
    database = Database(url)
    if database.file is not None:
        _check_file(database.file, database.name)
    try:
        with database.reading() as db:
            for table in MODELS.metadata.sorted_tables:
                db.execute(select(table).limit(1)).all()
        database.check_writable()
    finally:
        database.close()


def _check_file(file: Path, name: str) -> None:
    if not file.is_file():
        raise StoreError(f"Expected a coordinator database at {name!r}, but it is gone.")
    free = shutil.disk_usage(file.parent).free
    if free < _FREE_BYTES:
        raise StoreError(
            f"Expected {_FREE_BYTES} free bytes on the disk of {name!r}, but there are {free}."
        )


class HealthMonitor:
    """Keeps a health servicer truthful, in a thread of its own.

    Args:
        servicer: what answers the health calls.
        check: raises if the store does not answer.
        interval: seconds between two checks, and how long one may take.
        lost: returns why campaigns stand still; `""` if they do not.
    """

    def __init__(
        self,
        servicer: HealthServicer,
        check: Callable[[], None],
        interval: float = 2.0,
        lost: Callable[[], str] = lambda: "",
    ) -> None:
        self._servicer = servicer
        self._check = check
        self._lost = lost
        self._interval = interval
        self._problem = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)

    def start(self) -> None:
        """Check once, and from then on again and again."""
        self._tell(self._sound())
        self._thread.start()

    def stop(self) -> None:
        """Say NOT_SERVING from now on, and stop."""
        self._stopped.set()
        self._thread.join(2 * self._interval)
        self._servicer.enter_graceful_shutdown()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            self._tell(self._sound())

    def _sound(self) -> tuple[bool, bool]:
        """Check in a thread that may hang, since a database on a network may."""
        found: list[tuple[bool, bool]] = []
        checking = threading.Thread(target=lambda: found.append(self._try()), daemon=True)
        checking.start()
        checking.join(self._interval)
        return found[0] if found else (False, False)

    def _try(self) -> tuple[bool, bool]:
        """Return whether the store answers, and whether campaigns go on."""
        try:
            self._check()
            lost = self._lost()
        except DisinheritError as error:
            self._note(str(error))
            return False, False
        self._note("")
        return True, not lost

    def _note(self, problem: str) -> None:
        """Log what is wrong, once as long as it stays the same."""
        if problem and problem != self._problem:
            _LOG.error("not serving: %s", problem)
        elif self._problem and not problem:
            _LOG.info("serving again")
        self._problem = problem

    def _tell(self, sound: tuple[bool, bool]) -> None:
        status = health_pb2.HealthCheckResponse
        answers, goes_on = sound
        for service in SERVICES:
            self._servicer.set(service, status.SERVING if answers else status.NOT_SERVING)
        self._servicer.set(CAMPAIGNS, status.SERVING if goes_on else status.NOT_SERVING)
