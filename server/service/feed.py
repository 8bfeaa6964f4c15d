"""Feed of what happens, for all that watch: one thread reads the store, however many listen.

The store is polled, since another coordinator may change it.  The feed keeps the latest events; a
listener that falls behind these, or begins in the past, reads what it has missed from the audit
log.  So a slow one takes no memory and delays nobody.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from disinherit.common.errors import DisinheritError, InputError, StoppingError, StoreError
from disinherit.server.service.events import (
    OFFLINE,
    ONLINE,
    caught_up,
    make_events,
    presence_events,
)
from disinherit.server.store.audit import entries_after, last_sequence
from disinherit.server.store.presence import find_presence
from disinherit.server.store.status import RequestStatus, find_status, find_statuses
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import coordinator_pb2 as pb

_LOG = logging.getLogger(__name__)
_KEPT = 2000
"""Latest events that are kept in memory."""

_AT_ONCE = 500
_PRESENCE_TURNS = 4
"""Every how many turns the presence of owners is read."""

_AWAKE_SECONDS = 10.0
"""Longest wait of a listener before it looks whether its caller is still there."""


class Feed:
    """The latest events, and the status of watched requests.

    Args:
        store: the coordinator's store.
        tap: called with all new events, in order, from the feed's thread; it raises nothing.
        seconds: interval of polling the store.
    """

    def __init__(
        self,
        store: CoordinatorStore,
        tap: Callable[[Sequence[pb.FleetEvent]], None] = lambda _: None,
        seconds: float = 0.5,
    ) -> None:
        self._store = store
        self._tap = tap
        self._seconds = seconds
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._turn = 0
        self._failure: tuple[int, str] | None = None
        # The kept events are all after this entry of the log, up to `_head`.
        self._since = self._head = -1
        self._kept: deque[pb.FleetEvent] = deque()
        self._dropped = 0
        self._listeners = 0
        self._online: frozenset[str] | None = None
        self._watched: Counter[str] = Counter()
        self._statuses: dict[str, tuple[int, RequestStatus]] = {}

    def start(self) -> None:
        """Start the thread; what happens from now on counts as new.

        Raises:
            StoreError: if the store cannot be used.
        """
        with self._store.reading() as db:
            self._since = self._head = last_sequence(db)
        self._thread.start()

    @property
    def listeners(self) -> int:
        """The number of watches of the fleet and of requests."""
        with self._changed:
            return self._listeners + self._watched.total()

    def stop(self) -> None:
        """Stop, and end everything that listens."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Have all that listen look whether their callers are still there."""
        with self._changed:
            self._changed.notify_all()

    def statuses(self, request_id: str, wanted: Callable[[], bool]) -> Iterator[RequestStatus]:
        """Yield the status of a request, now and after every change, until its campaign ends.

        Args:
            request_id: the request.
            wanted: whether the caller still listens.

        Raises:
            RequestError: if there is no such request.
            StoreError: if the store cannot be used.
            StoppingError: if the coordinator is stopped.
        """
        with self._watching(request_id):
            turn = self._turn
            with self._store.reading() as db:
                status: RequestStatus | None = find_status(db, request_id)
            while status is not None:
                yield status
                if status.campaign.state.ended:
                    return
                turn, status = self._next_status(request_id, turn, status, wanted)

    def events(
        self, after: int | None, request_id: str, wanted: Callable[[], bool]
    ) -> Iterator[pb.FleetEvent]:
        """Yield what happens, for as long as the caller listens.

        Args:
            after: number of the entry of the audit log to begin after; `None` for the last one.
            request_id: only what is about this request; `""` for all.
            wanted: whether the caller still listens.

        Raises:
            InputError: if the log does not reach that far.
            StoreError: if the store cannot be used.
            StoppingError: if the coordinator is stopped.
        """
        with self._store.reading() as db:
            last = last_sequence(db)
        if after is not None and after > last:
            raise InputError(
                f"Expected the number of an entry of the audit log, which has {last}, but got "
                f"{after}: it is of another coordinator, or of one that was restored from a backup."
            )
        sequence = last if after is None else after
        with self._listening():
            while wanted():
                for event in self._past(sequence, request_id):
                    sequence = event.sequence
                    if event.kind:
                        yield event
                place = self._place(sequence)
                if place is None:
                    continue  # more has happened than is kept
                yield caught_up(sequence)
                for event in self._news(place, wanted):
                    known = event.sequence <= sequence and event.kind not in (ONLINE, OFFLINE)
                    sequence = max(sequence, event.sequence)
                    if not known and request_id in ("", event.request_id):
                        yield event

    @contextmanager
    def _watching(self, request_id: str) -> Iterator[None]:
        with self._changed:
            self._watched[request_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._watched[request_id] -= 1
                if not self._watched[request_id]:
                    del self._watched[request_id]
                    self._statuses.pop(request_id, None)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with self._changed:
            self._listeners += 1
        try:
            yield
        finally:
            with self._changed:
                self._listeners -= 1
                if not self._listeners:
                    self._online = None

    def _next_status(
        self, request_id: str, turn: int, last: RequestStatus, wanted: Callable[[], bool]
    ) -> tuple[int, RequestStatus | None]:
        """Wait for another status than the last, which was read in a turn or later."""
        with self._changed:
            while wanted():
                self._check(turn)
                # That of the same turn may have been read before.
                found = self._statuses.get(request_id)
                if found is not None and found[0] > turn and found[1] != last:
                    return found
                self._changed.wait(_AWAKE_SECONDS)
        return turn, None

    def _past(self, sequence: int, request_id: str) -> Iterator[pb.FleetEvent]:
        """Yield the events in the log after an entry, and at last an empty one with its end."""
        with self._store.reading() as db:
            last = last_sequence(db)
        while sequence < last:
            with self._store.reading() as db:
                entries = entries_after(db, sequence, _AT_ONCE, request_id)
                events = make_events(db, entries)
            yield from (event for event in events if event.sequence <= last)
            sequence = entries[-1].sequence if len(entries) == _AT_ONCE else last
        yield pb.FleetEvent(sequence=last)

    def _place(self, sequence: int) -> int | None:
        """Return the place of the first kept event after an entry; `None` if some are missing."""
        with self._changed:
            if sequence < self._since:
                return None
            later = sum(event.sequence > sequence for event in self._kept)
            return self._dropped + len(self._kept) - later

    def _news(self, place: int, wanted: Callable[[], bool]) -> Iterator[pb.FleetEvent]:
        """Yield the kept events from a place on, until some are missing or nobody listens."""
        turn = self._turn
        while True:
            with self._changed:
                while wanted() and place == self._dropped + len(self._kept):
                    self._check(turn)
                    self._changed.wait(_AWAKE_SECONDS)
                if not wanted() or place < self._dropped:
                    return
                found = [self._kept[i] for i in range(place - self._dropped, len(self._kept))]
                place += len(found)
            yield from found

    def _check(self, turn: int) -> None:
        """Raise what ends a listener that has listened since a turn."""
        if self._stopping.is_set():
            raise StoppingError("Expected a coordinator that goes on, but it is being stopped.")
        if self._failure is not None and self._failure[0] > turn:
            raise StoreError(self._failure[1])

    def _run(self) -> None:
        more = False
        while more or not self._stopping.wait(self._seconds):
            try:
                more = self._poll() and not self._stopping.is_set()
            except DisinheritError as error:
                more = False
                with self._changed:
                    self._failure = self._turn, str(error)
                    self._changed.notify_all()
            except Exception:  # the next turn may succeed
                more = False
                _LOG.exception("what happened cannot be read")

    def _poll(self) -> bool:
        """Read the store once, and return whether there is more to read at once."""
        with self._changed:
            self._turn += 1
            turn, head, watched, listens = (
                self._turn,
                self._head,
                list(self._watched),
                bool(self._listeners),
            )
        online: frozenset[str] | None = None
        with self._store.reading() as db:
            entries = entries_after(db, head, _AT_ONCE)
            events = make_events(db, entries)
            statuses = find_statuses(db, watched)
            if listens and (self._online is None or turn % _PRESENCE_TURNS == 0):
                online = frozenset(find_presence(db, online=True))
        if entries:
            head = entries[-1].sequence
        with self._changed:
            if online is not None:
                if self._online is not None:
                    events += presence_events(self._online, online, head)
                self._online = online
            self._head = head
            self._keep(events)
            for request_id, status in statuses.items():
                if request_id in self._watched:
                    self._statuses[request_id] = turn, status
            if events or statuses:
                self._changed.notify_all()
        if events:
            self._tap(events)
        return len(entries) == _AT_ONCE

    def _keep(self, events: Sequence[pb.FleetEvent]) -> None:
        self._kept.extend(events)
        while len(self._kept) > _KEPT:
            self._since = self._kept.popleft().sequence
            self._dropped += 1
