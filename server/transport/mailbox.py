"""Transport for slow owners: a message is sent once, and a later pass picks its answer up.

A pass holds the lease of its campaign, while other coordinators of the store reach other owners of
it.  So a pass does not wait for slow owners: it gets an "awaited" answer and ends.  The next pass
sends an equal ask, and gets the answer that has arrived meanwhile.

The mailbox is not durable: if an answer is lost with this process, the message is sent again, and
owners answer a repeated message from their records.

`disinherit.server.transport.pacing` sets the intervals between equal messages.
"""

import copy
import hashlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.server.transport.pacing import Pacing
from disinherit.server.transport.routing import carry
from disinherit.v1 import unlearning_pb2 as pb

_IN_LINE_SECONDS = 30.0
"""How long a waiting ask keeps its place in line without being repeated."""

_LONGEST_WAIT = 10
"""How many times the wait for one answer a pass takes in answers at most."""

_SENT_MEANWHILE = 1000
"""Messages that leave, at least, while a pass waits for one answer."""

_KEPT_SECONDS = 600.0
"""How long an answer is kept; its campaign may be paused meanwhile."""


@dataclass(slots=True)
class _Letter:
    """A sent message, or its answer."""

    owner: str
    answer: Answer | None = None
    arrived: float = field(default_factory=time.monotonic)


class Mailbox:
    """A transport that answers at once, if necessary with "awaited".

    Args:
        transport: carries the messages; each message is open there at most once.
        arrived: called from another thread whenever an answer has arrived.
        wait: seconds to wait for the next answer before an "awaited" one; as long again for each
            thousand messages.
        withheld: seconds until withheld Fisher information is requested again automatically.
    """

    def __init__(
        self,
        transport: Transport,
        arrived: Callable[[], None],
        wait: float = 0.0,
        withheld: float = float("inf"),
    ) -> None:
        self._transport = transport
        self._arrived = arrived
        self._wait = wait
        self._letters: dict[Hashable, _Letter] = {}
        self._answered: dict[Hashable, None] = {}  # in the order in which they came
        self._lines: dict[str, dict[Hashable, float]] = {}
        self._pacing = Pacing(withheld=withheld)
        self._changed = threading.Condition()

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send messages that are not open yet, and yield exactly one answer for each.

        Args:
            asks: at most one message to an owner at a time.
            timeout: seconds after which a missing answer becomes an error.

        Yields:
            The answers that have arrived, then `awaited` ones for the rest.
        """
        open_asks = {_key(ask): ask for ask in asks}
        for key, answer in self._last_answers(open_asks).items():
            del open_asks[key]
            yield answer
        new, waiting = self._sort(open_asks)
        if new:
            self._send({key: open_asks[key] for key in new}, timeout)
        for key in waiting:
            yield _busy(open_asks.pop(key))
        # They leave one after the other, and the first may be answered before the last has left.
        wait = self._wait * (1 + len(open_asks) / _SENT_MEANWHILE)
        now = time.monotonic()
        deadline, latest = now + wait, now + _LONGEST_WAIT * wait
        while open_asks:
            found = self._take(open_asks, deadline)
            if not found:
                break
            yield from found
            deadline = min(time.monotonic() + wait, latest)
        for ask in open_asks.values():
            yield _awaited(ask)

    def release(self, request_id: str) -> None:
        """Allow all asks of a request at once, after a person resumed it."""
        with self._changed:
            self._pacing.release(request_id)

    def hear(self, owner: str) -> None:
        """Allow all asks to an owner at once, after news from it."""
        with self._changed:
            self._pacing.hear(owner)

    def _last_answers(self, asks: Mapping[Hashable, Ask]) -> dict[Hashable, Answer]:
        """Return the last answers to asks that are not due yet."""
        with self._changed:
            found = {
                key: self._pacing.last(key, ask)
                for key, ask in asks.items()
                if key not in self._letters
            }
        return {key: answer for key, answer in found.items() if answer is not None}

    def _sort(self, asks: Mapping[Hashable, Ask]) -> tuple[list[Hashable], list[Hashable]]:
        """Return the messages to send, and those that must wait for an open one to their owner."""
        oldest = time.monotonic() - _KEPT_SECONDS
        new, waiting = [], []
        with self._changed:
            self._letters = {
                key: letter
                for key, letter in self._letters.items()
                if letter.answer is None or letter.arrived > oldest
            }
            self._answered = {key: None for key in self._answered if key in self._letters}
            busy = {letter.owner for letter in self._letters.values() if letter.answer is None}
            for key, ask in asks.items():
                if key in self._letters:
                    continue
                if ask.owner in busy:
                    self._queue(key, ask.owner)
                    waiting.append(key)
                elif not self._is_next(key, ask.owner):
                    waiting.append(key)
                else:
                    self._letters[key] = _Letter(ask.owner)
                    self._pacing.sent(key, ask)
                    new.append(key)
        return new, waiting

    def _is_next(self, key: Hashable, owner: str) -> bool:
        """Return whether no other ask to an owner has waited longer; otherwise queue this one.

        Without the queue, a campaign that asks an owner again after each answer would block all
        other campaigns.
        """
        oldest = time.monotonic() - _IN_LINE_SECONDS
        line = self._lines.setdefault(owner, {})
        for other, asked in list(line.items()):
            if asked < oldest:  # abandoned
                del line[other]
        if line and next(iter(line)) != key:
            self._queue(key, owner)
            return False
        line.pop(key, None)
        return True

    def _queue(self, key: Hashable, owner: str) -> None:
        self._lines.setdefault(owner, {})[key] = time.monotonic()  # keeps its place

    def _send(self, asks: Mapping[Hashable, Ask], timeout: float) -> None:
        keys = {id(ask): key for key, ask in asks.items()}
        threading.Thread(
            target=carry,
            args=(
                self._transport,
                list(asks.values()),
                timeout,
                lambda answer: self._put(keys[id(answer.ask)], answer),
            ),
            name="mailbox",
            daemon=True,
        ).start()

    def _put(self, key: Hashable, answer: Answer) -> None:
        with self._changed:
            letter = self._letters[key]
            letter.answer, letter.arrived = answer, time.monotonic()
            self._answered[key] = None
            self._pacing.answered(key, answer)
            self._changed.notify_all()
        self._arrived()

    def _take(self, open_asks: dict[Hashable, Ask], deadline: float) -> list[Answer]:
        """Wait for answers until the deadline; return them, and remove their asks."""
        found = []
        with self._changed:
            self._changed.wait_for(
                lambda: not open_asks.keys().isdisjoint(self._answered.keys()),
                max(0.0, deadline - time.monotonic()),
            )
            for key in [key for key in self._answered if key in open_asks]:
                answer = self._letters.pop(key).answer
                del self._answered[key]
                assert answer is not None
                found.append(replace(answer, ask=open_asks.pop(key)))
        return found


def _key(ask: Ask) -> Hashable:
    """Return the identity of a message: everything except creation time and log head."""
    task = ask.task
    if isinstance(task, pb.UnlearnTask | pb.FisherTask):
        task = copy.deepcopy(task)
        task.ClearField("log_head")
    if isinstance(task, pb.UnlearnTask):
        task.ClearField("created_us")
    data = task.SerializeToString(deterministic=True)
    return ask.owner, ask.action, hashlib.sha256(data).digest()


def _busy(ask: Ask) -> Answer:
    error = f"owner {ask.owner} has not answered an earlier message yet"
    return Answer(ask, error=error, unreachable=True, sent=False)


def _awaited(ask: Ask) -> Answer:
    error = f"owner {ask.owner} has been asked and has not answered yet"
    return Answer(ask, error=error, unreachable=True, awaited=True)
