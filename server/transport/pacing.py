"""Intervals between equal asks: exponential backoff after answers without progress.

A pass asks for open tasks, and an answer starts the next pass.  Without intervals, an owner that
refuses at once would be asked in an endless loop.  Intervals double from one second to five
minutes: at most six asks in the first minute.  Until the next ask is due, the last answer counts,
so that state and reason do not change.  Withheld Fisher information is not requested again
automatically.  Three events allow one ask at once: a person resumes the request, or the owner
registers a model or reconnects, for instance after a change of its configuration.  After a partial
answer, the remaining ask is a different one and is sent at once; its interval keeps growing.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb

_FIRST, _LONGEST = 1.0, 300.0
_KEPT = 600.0
"""Seconds after which an overdue ask is forgotten."""

_SPARED = 60.0
"""Minimum seconds between two news of an owner that take effect."""

_KEPT_BYTES = 64 * 1024
_BY_HAND = ("query.identify", "query.register", "evaluate.preview")
"""Actions outside passes: at a start, or by a person."""


@dataclass(slots=True)
class _Asked:
    """The history of equal asks.

    Attributes:
        request_id: the request; `""` without one.
        due: time of the next ask, in monotonic seconds.
        answer: the last answer, if any.
    """

    request_id: str
    due: float = 0.0
    answer: Answer | None = None


class Pacing:
    """Sent asks and their next due times; not thread-safe.

    Args:
        clock: monotonic seconds.
        withheld: seconds until withheld Fisher information is requested again automatically.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, withheld: float = float("inf")
    ) -> None:
        self._clock = clock
        self._withheld = withheld
        # Of each owner: whatever concerns one owner takes no longer with more of them.
        self._asked: defaultdict[str, dict[Hashable, _Asked]] = defaultdict(dict)
        self._counts: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
        self._heard: dict[str, float] = {}
        self._news: set[str] = set()
        self._tidied = clock()

    def last(self, key: Hashable, ask: Ask) -> Answer | None:
        """Return the last answer to an ask that is not due yet; `None` if it may be sent.

        Args:
            key: identity of the ask.
            ask: the ask.
        """
        if ask.owner in self._news:
            self.hear(ask.owner)
        asked = self._asked.get(ask.owner, {}).get(key)
        if asked is None or asked.answer is None or asked.due <= self._clock():
            return None
        return replace(asked.answer, ask=ask)

    def sent(self, key: Hashable, ask: Ask) -> None:
        """Record a sent ask."""
        if ask.action in _BY_HAND:
            return
        now = self._clock()
        if now - self._tidied > _KEPT:
            self._tidied = now
            for owner in list(self._asked):
                self._tidy(owner, now)
        self._tidy(ask.owner, now)
        request_id = str(getattr(ask.task, "request_id", ""))
        of_kind = (request_id, ask.action)
        counts = self._counts[ask.owner]
        count = counts.get(of_kind, 0)
        counts[of_kind] = min(count + 1, 30)
        asked = self._asked[ask.owner].setdefault(key, _Asked(request_id))
        asked.due = now + min(_FIRST * 2**count, _LONGEST)

    def answered(self, key: Hashable, answer: Answer) -> None:
        """Record an answer; an unreachable owner is asked again as soon as it is reachable."""
        owner, asked = answer.ask.owner, self._asked.get(answer.ask.owner, {})
        if answer.unreachable:
            forgotten = asked.pop(key, None)
            if forgotten is not None:
                self._counts.get(owner, {}).pop((forgotten.request_id, answer.ask.action), None)
        elif key in asked:
            asked[key].answer = _kept(answer)
            if _withheld(answer):
                asked[key].due = self._clock() + self._withheld

    def release(self, request_id: str) -> None:
        """Allow all asks of a request at once, after a person resumed it."""
        for owner, asked in self._asked.items():
            self._asked[owner] = {k: o for k, o in asked.items() if o.request_id != request_id}
        for owner, counts in self._counts.items():
            self._counts[owner] = {of: n for of, n in counts.items() if of[0] != request_id}

    def hear(self, owner: str) -> None:
        """Allow all asks to an owner after news from it: now, or a minute after the last news."""
        now = self._clock()
        if now - self._heard.get(owner, -_SPARED) < _SPARED:
            self._news.add(owner)
            return
        self._heard[owner] = now
        self._news.discard(owner)
        for one in self._asked.get(owner, {}).values():
            one.due = now

    def _tidy(self, owner: str, now: float) -> None:
        """Forget asks to an owner that are long overdue, and what was counted of them."""
        asked = {k: one for k, one in self._asked.get(owner, {}).items() if one.due + _KEPT > now}
        requests = {one.request_id for one in asked.values()}
        counts = {of: n for of, n in self._counts.get(owner, {}).items() if of[0] in requests}
        self._asked.pop(owner, None)
        self._counts.pop(owner, None)
        if asked:
            self._asked[owner], self._counts[owner] = asked, counts


def _withheld(answer: Answer) -> bool:
    reply = answer.reply
    return (
        isinstance(reply, pb.FisherReply)
        and bool(reply.roots)
        and all(root.withheld or root.permanent for root in reply.roots)
    )


def _kept(answer: Answer) -> Answer:
    """Return an answer to keep, without megabytes of useless content."""
    reply = answer.reply
    if reply is None or reply.ByteSize() <= _KEPT_BYTES:
        return replace(answer, ask=replace(answer.ask, tensors={}))
    error = (
        f"owner {answer.ask.owner}: its last answer, of {reply.ByteSize():,} bytes, was not usable "
        "(see the coordinator's log); it is asked again later"
    )
    return Answer(replace(answer.ask, tensors={}), error=error)
