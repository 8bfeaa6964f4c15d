"""Messages whose answers may take long: asked once, and picked up by a later pass.

A pass over a campaign holds its lease, and other coordinators of the store reach other owners of
the same campaign.  So a pass does not wait for slow owners: it is told that the answer is awaited,
ends, and the next one asks the same question, to which the answer is then there.

Nothing of this is durable, and need not be: a message whose answer was lost with this process is
asked again, and owners answer a repeated message with what they recorded.

How often the same message goes out is `disinherit.server.transport.pacing`'s.
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
"""How long a question that had to wait keeps its place without being asked again."""

_KEPT_SECONDS = 600.0
"""How long an answer waits to be picked up; its campaign may have been paused meanwhile."""


@dataclass(slots=True)
class _Letter:
    """A message under way, or its answer."""

    owner: str
    answer: Answer | None = None
    arrived: float = field(default_factory=time.monotonic)


class Mailbox:
    """A transport that answers at once, where need be with "not yet".

    Args:
        transport: carries the messages; each message is under way there at most once.
        arrived: called, from another thread, whenever an answer can be picked up.
        wait: seconds that an ask may wait for answers before it says "not yet".
        withheld: seconds until what an owner withheld is asked for again by itself.
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
        self._lines: dict[str, dict[Hashable, float]] = {}
        self._pacing = Pacing(withheld=withheld)
        self._changed = threading.Condition()

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send what is not under way yet, and yield exactly one answer for each message.

        Args:
            asks: at most one message to an owner at a time.
            timeout: seconds after which a missing answer becomes an error.

        Yields:
            The answers that are there, then `awaited` ones for those that are not.
        """
        open_asks = {_key(ask): ask for ask in asks}
        for key, answer in self._standing(open_asks).items():
            del open_asks[key]
            yield answer
        new, waiting = self._sort(open_asks)
        if new:
            self._send([open_asks[key] for key in new], timeout)
        for key in waiting:
            yield _busy(open_asks.pop(key))
        deadline = time.monotonic() + self._wait
        while open_asks:
            found = self._take(open_asks, deadline)
            if not found:
                break
            yield from found
        for ask in open_asks.values():
            yield _awaited(ask)

    def release(self, request_id: str) -> None:
        """Have everything asked again for a request, as a person wishes."""
        with self._changed:
            self._pacing.release(request_id)

    def hear(self, owner: str) -> None:
        """Have an owner asked again that has something new to say."""
        with self._changed:
            self._pacing.hear(owner)

    def _standing(self, asks: Mapping[Hashable, Ask]) -> dict[Hashable, Answer]:
        """Return the last answers to what must not be asked again yet."""
        with self._changed:
            found = {
                key: self._pacing.last(key, ask)
                for key, ask in asks.items()
                if key not in self._letters
            }
        return {key: answer for key, answer in found.items() if answer is not None}

    def _sort(self, asks: Mapping[Hashable, Ask]) -> tuple[list[Hashable], list[Hashable]]:
        """Return which messages are to go out, and which must wait until their owner is free."""
        oldest = time.monotonic() - _KEPT_SECONDS
        new, waiting = [], []
        with self._changed:
            self._letters = {
                key: letter
                for key, letter in self._letters.items()
                if letter.answer is None or letter.arrived > oldest
            }
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
        """Return whether no other question to an owner has waited for longer; else this one waits.

        A campaign with many questions to an owner, each asked as soon as the last one is answered,
        would never let another campaign's through.
        """
        oldest = time.monotonic() - _IN_LINE_SECONDS
        line = self._lines.setdefault(owner, {})
        for other, asked in list(line.items()):
            if asked < oldest:  # nobody asks it any more
                del line[other]
        if line and next(iter(line)) != key:
            self._queue(key, owner)
            return False
        line.pop(key, None)
        return True

    def _queue(self, key: Hashable, owner: str) -> None:
        self._lines.setdefault(owner, {})[key] = time.monotonic()  # keeps its place

    def _send(self, asks: Sequence[Ask], timeout: float) -> None:
        threading.Thread(
            target=carry,
            args=(self._transport, asks, timeout, self._put),
            name="mailbox",
            daemon=True,
        ).start()

    def _put(self, answer: Answer) -> None:
        with self._changed:
            letter = self._letters[_key(answer.ask)]
            letter.answer, letter.arrived = answer, time.monotonic()
            self._pacing.answered(_key(answer.ask), answer)
            self._changed.notify_all()
        self._arrived()

    def _take(self, open_asks: dict[Hashable, Ask], deadline: float) -> list[Answer]:
        """Return what has arrived for some asks, and strike them out; nothing once it is late."""
        found = []
        with self._changed:
            self._changed.wait_for(
                lambda: any(self._letters[key].answer is not None for key in open_asks),
                max(0.0, deadline - time.monotonic()),
            )
            for key in list(open_asks):
                answer = self._letters[key].answer
                if answer is not None:
                    del self._letters[key]
                    found.append(replace(answer, ask=open_asks.pop(key)))
        return found


def _key(ask: Ask) -> Hashable:
    """Return what tells messages apart: all but when they were made, and where the log ended."""
    task = copy.deepcopy(ask.task)
    if isinstance(task, pb.UnlearnTask):
        task.ClearField("created_us")
        task.ClearField("log_head")
    if isinstance(task, pb.FisherTask):
        task.ClearField("log_head")
    data = task.SerializeToString(deterministic=True)
    return ask.owner, ask.action, hashlib.sha256(data).digest()


def _busy(ask: Ask) -> Answer:
    error = f"owner {ask.owner} has not answered an earlier message yet"
    return Answer(ask, error=error, unreachable=True, sent=False)


def _awaited(ask: Ask) -> Answer:
    error = f"owner {ask.owner} has been asked and has not answered yet"
    return Answer(ask, error=error, unreachable=True, awaited=True)
