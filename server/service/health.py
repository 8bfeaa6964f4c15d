"""A health service that says SERVING only while the store answers.

Whether it does is asked anew every few seconds, over a new connection: one that is held open may
still read a file that is gone.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import HealthServicer
from sqlalchemy import select

from disinherit.common.errors import DisinheritError, StoreError
from disinherit.server.database import Database
from disinherit.server.tables import REQUESTS

SERVICES = ("", "disinherit.v1.Coordinator")


def check_store(url: str | Path) -> None:
    """Ask the store something.

    Args:
        url: as for `CoordinatorStore`.

    Raises:
        StoreError: if it does not answer.
    """
    database = Database(url)
    if database.file is not None and not database.file.is_file():
        raise StoreError(f"Expected a coordinator database at {database.name!r}, but it is gone.")
    try:
        with database.reading() as db:
            db.execute(select(REQUESTS.c.id).limit(1)).all()
    finally:
        database.close()


class HealthMonitor:
    """Keeps a health servicer truthful, in a thread of its own.

    Args:
        servicer: what answers the health calls.
        check: raises if the store does not answer.
        interval: seconds between two checks, and how long one may take.
    """

    def __init__(
        self, servicer: HealthServicer, check: Callable[[], None], interval: float = 2.0
    ) -> None:
        self._servicer = servicer
        self._check = check
        self._interval = interval
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

    def _sound(self) -> bool:
        """Check in a thread that may hang, since a database on a network may."""
        found: list[bool] = []
        checking = threading.Thread(target=lambda: found.append(self._try()), daemon=True)
        checking.start()
        checking.join(self._interval)
        return found == [True]

    def _try(self) -> bool:
        try:
            self._check()
        except DisinheritError:
            return False
        return True

    def _tell(self, sound: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for service in SERVICES:
            self._servicer.set(service, status.SERVING if sound else status.NOT_SERVING)
