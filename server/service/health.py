"""Health service: SERVING only while the store can be read and written.

A check runs every few seconds over a new connection: an open one may still read a deleted file.
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
"""NOT_SERVING while campaigns are stopped because the log has lost entries."""


_FREE_BYTES = 2**20
"""Required free space for an SQLite file: many times the smallest step of a campaign."""


def check_store(url: str | Path) -> None:
    """Read from every table of the store, and check that it is writable.

    The check writes nothing, to keep the disk idle.

    Args:
        url: a URL or file, as for `CoordinatorStore`.

    Raises:
        StoreError: if the store does not answer or is not writable.
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
    """A thread that keeps the status of a health servicer up to date.

    Args:
        servicer: answers the health calls.
        check: raises if the store does not answer.
        interval: seconds between checks.
        lost: returns why campaigns are stopped; `""` if they are not.
        patience: seconds after which a check that has no answer has failed.
    """

    def __init__(
        self,
        servicer: HealthServicer,
        check: Callable[[], None],
        interval: float = 2.0,
        lost: Callable[[], str] = lambda: "",
        patience: float = 2.0,
    ) -> None:
        self._servicer = servicer
        self._check = check
        self._lost = lost
        self._interval = interval
        self._patience = patience
        self._problem = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)

    def start(self) -> None:
        """Check once, then periodically."""
        self._publish(self._measure())
        self._thread.start()

    def stop(self) -> None:
        """Report NOT_SERVING from now on, and stop."""
        self._stopped.set()
        self._thread.join(self._interval + self._patience)
        self._servicer.enter_graceful_shutdown()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            self._publish(self._measure())

    def _measure(self) -> tuple[bool, bool]:
        """Check in a separate thread, since a database on a network may hang."""
        found: list[tuple[bool, bool]] = []
        checking = threading.Thread(target=lambda: found.append(self._probe()), daemon=True)
        checking.start()
        checking.join(self._patience)
        return found[0] if found else (False, False)

    def _probe(self) -> tuple[bool, bool]:
        """Return whether the store answers, and whether campaigns advance."""
        try:
            self._check()
            lost = self._lost()
        except DisinheritError as error:
            self._log_problem(str(error))
            return False, False
        self._log_problem("")
        return True, not lost

    def _log_problem(self, problem: str) -> None:
        """Log a problem when it changes."""
        if problem and problem != self._problem:
            _LOG.error("not serving: %s", problem)
        elif self._problem and not problem:
            _LOG.info("serving again")
        self._problem = problem

    def _publish(self, sound: tuple[bool, bool]) -> None:
        status = health_pb2.HealthCheckResponse
        answers, advances = sound
        for service in SERVICES:
            self._servicer.set(service, status.SERVING if answers else status.NOT_SERVING)
        self._servicer.set(CAMPAIGNS, status.SERVING if advances else status.NOT_SERVING)
