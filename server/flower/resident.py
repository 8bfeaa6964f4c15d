"""Resident run of a ServerApp: drives the open campaigns of a store, for owners on Flower.

It shares the store with a coordinator's service; each of the two reaches different owners.  A pass
only sends and records, so neither waits for the other's owners.  State is stored before messages
are sent, so another run can follow one that was killed.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.serverapp import Grid

from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.driver import Driver, OpenCampaigns
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.flower.owners import RegisteredOwners
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.store.presence import Attendance, Details
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.mailbox import Mailbox

_log = logging.getLogger("flwr")  # where Flower's own messages of a run go

_LOOK_SECONDS = 1.0
"""Interval of polling store and nodes; a few short queries and one small request."""

_WITHHELD_SECONDS = 3600.0
_POLL_SECONDS = 0.3
"""Interval of polling for replies, which take seconds."""

_PATIENCE_SECONDS = 5.0
"""Longer than a pass of another coordinator that does not wait for its owners."""


def reside(
    grid: Grid,
    store: CoordinatorStore,
    owners: RegisteredOwners,
    timeout: float,
    seconds: float,
    stopped: threading.Event,
) -> None:
    """Drive open campaigns until the time is up or the event is set.

    Args:
        grid: Flower's grid of the run.
        store: the coordinator's store.
        owners: the owners' nodes.
        timeout: seconds to wait for an owner's answer; then it is asked again.
        seconds: maximum duration.
        stopped: ends the run.
    """
    transport = FlowerTransport(grid, owners, _POLL_SECONDS)
    # A person resumes requests in another process.
    mailbox = Mailbox(transport, lambda: driver.poke(), withheld=_WITHHELD_SECONDS)
    coordinator = Coordinator(store, mailbox, timeout, _log.info, patience=_PATIENCE_SECONDS)

    def run(request_id: str) -> CampaignResult:
        result = coordinator.drive(request_id)
        settled = sum(task.state.settled for task in result.tasks.values())
        _log.info("request %s: %d of %d models settled", request_id, settled, len(result.tasks))
        return result

    driver = Driver(OpenCampaigns(coordinator), run, _LOOK_SECONDS)
    attendance = store.attendance("flower")
    driver.start()
    try:
        _watch(owners, driver, attendance, stopped, time.monotonic() + seconds)
    finally:
        driver.stop()
        attendance.keep({})


@contextmanager
def until_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set during the block, if in the main thread."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in numbers]
    try:
        yield stopped
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _watch(
    owners: RegisteredOwners,
    driver: Driver,
    attendance: Attendance,
    stopped: threading.Event,
    until: float,
) -> None:
    """Record who is connected, and wake the driver whenever an owner comes, until the end."""
    known: set[str] = set()
    while (left := until - time.monotonic()) > 0 and not stopped.wait(min(left, _LOOK_SECONDS)):
        try:
            connected = set(owners.connected())
        except Exception as error:  # the SuperLink may be back in a moment
            _log.warning("the nodes cannot be listed: %s", error)
            continue
        if connected - known:
            _log.info("connected: %s", ", ".join(sorted(connected)))
            driver.poke()
        known = connected
        attendance.keep(dict.fromkeys(connected, Details()))
