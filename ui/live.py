"""Changes in the fleet, as they happen: one watch for each visitor, shared by all open pages.

The coordinator limits the watches of a token.  So a visitor's pages share one, which starts with
the first page and ends with the last.  When a lost coordinator comes back, it goes on after the
last audit entry that it saw.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import grpc

from disinherit.ui.visitors import Following, Visitor
from disinherit.v1 import coordinator_pb2 as pb

_LOG = logging.getLogger(__name__)

Change = Literal["changed", "lost", "ended", "closing"]
"""Something happened; the coordinator cannot be reached; the token is not accepted any more, or its
visitor signed out; the dashboard itself ends."""

_FIRST_DELAY, _LONGEST_DELAY = 0.25, 5.0
_ENDING = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


class Listener:
    """One open page: a signal that is never longer than the last change."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._last: Change = "changed"

    def tell(self, change: Change) -> None:
        """Tell the page, from any thread."""

        def set_it() -> None:
            self._last = change
            self._arrived.set()

        try:
            self._loop.call_soon_threadsafe(set_it)
        except RuntimeError:  # the server ends
            _LOG.debug("a page was gone before it could be told")

    async def next(self, seconds: float) -> Change | None:
        """Return the last change since the call before; `None` if there was none for a while."""
        try:
            await asyncio.wait_for(self._arrived.wait(), seconds)
        except TimeoutError:
            return None
        self._arrived.clear()
        return self._last


class FleetWatch:
    """The watch of one visitor.

    Args:
        visitor: makes the call.
    """

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._wake = threading.Event()
        self._call: Following[pb.FleetEvent] | None = None
        self._running = False
        self._sequence: int | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """Listen to changes for the length of a block."""
        listener = Listener()
        self._join(listener)
        try:
            yield listener
        finally:
            self._leave(listener)

    def close(self, change: Change) -> None:
        """End the watch, and tell its pages why."""
        with self._lock:
            listeners, self._listeners = self._listeners, set()
        for one in listeners:
            one.tell(change)
        self._stop()

    def _join(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.add(listener)
            if self._running:
                return
            self._running = True
            self._wake.clear()
        threading.Thread(target=self._run, name="fleet-watch", daemon=True).start()

    def _leave(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)
            wanted = bool(self._listeners)
        if not wanted:
            self._stop()

    def _stop(self) -> None:
        self._wake.set()
        call = self._call
        if call is not None:
            call.cancel()

    def _wanted(self) -> bool:
        """Return whether a page still listens; the thread ends for good when none does."""
        with self._lock:
            self._running = bool(self._listeners)
            if self._running:
                self._wake.clear()
            return self._running

    def _tell(self, change: Change) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for one in listeners:
            one.tell(change)

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while self._wanted():
            request = pb.WatchFleetRequest(after_sequence=self._sequence)
            try:
                self._call = self._visitor.follow(lambda stub: stub.WatchFleet, request)
                if self._wake.is_set():  # the last page left meanwhile
                    self._call.cancel()
                for event in self._call:
                    self._sequence, delay = event.sequence, _FIRST_DELAY
                    self._tell("changed")
            except grpc.RpcError as error:
                if error.code() in _ENDING:
                    self._tell("ended")
                elif error.code() is not grpc.StatusCode.CANCELLED:
                    self._tell("lost")
            finally:
                self._call = None
            self._wake.wait(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
