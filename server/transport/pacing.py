"""Intervals between asks: an answer that is of no use makes the next one wait.

A pass asks for what is left, and an answer starts the next pass.  So an owner that refuses at once
would be asked again at once, for ever.  The first asks are one, two, four seconds apart and so on
to five minutes: at most six in the first minute.  Until the next one is due, the last answer
stands, so that state and reason stay what they are.  What an owner's policy withholds is not asked
for again by itself.  Something new ends the wait: a person resumes the request, or the owner
registers a model or connects anew, as after a change of its configuration; then it is asked once
at once.  A question of which a part was answered is another one, and goes out at once, too; it
waits no less before it is repeated.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb

_FIRST, _LONGEST = 1.0, 300.0
_KEPT = 600.0
"""Seconds after which an ask that was due is forgotten."""

_SPARED = 60.0
"""Seconds between two times that an owner's news are listened to."""

_KEPT_BYTES = 64 * 1024
_BY_HAND = ("query.identify", "query.register", "evaluate.preview")
"""What a person or a start asks for, and no pass."""


@dataclass(slots=True)
class _Asked:
    """The same ask, so far.

    Attributes:
        owner: who is asked.
        request_id: the request that it is about; `""` for none.
        due: when it may go out again, in monotonic seconds.
        answer: the last one; `None` as long as there is none.
    """

    owner: str
    request_id: str
    due: float = 0.0
    answer: Answer | None = None


class Pacing:
    """Knows which asks went out, and when they may again.  To be used by one thread at a time.

    Args:
        clock: monotonic seconds.
        withheld: seconds until what was withheld is asked for again by itself.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, withheld: float = float("inf")
    ) -> None:
        self._clock = clock
        self._withheld = withheld
        self._asked: dict[Hashable, _Asked] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._heard: dict[str, float] = {}
        self._news: set[str] = set()

    def last(self, key: Hashable, ask: Ask) -> Answer | None:
        """Return the answer that stands for an ask that is not due yet, or `None` if it may go out.

        Args:
            key: the same for the same ask.
            ask: the ask.
        """
        if ask.owner in self._news:
            self.hear(ask.owner)
        asked = self._asked.get(key)
        if asked is None or asked.answer is None or asked.due <= self._clock():
            return None
        return replace(asked.answer, ask=ask)

    def sent(self, key: Hashable, ask: Ask) -> None:
        """Note that an ask goes out."""
        if ask.action in _BY_HAND:
            return
        now = self._clock()
        self._asked = {k: one for k, one in self._asked.items() if one.due + _KEPT > now}
        open_asks = {(one.owner, one.request_id) for one in self._asked.values()}
        self._counts = {of: n for of, n in self._counts.items() if of[:2] in open_asks}
        request_id = str(getattr(ask.task, "request_id", ""))
        of_kind = (ask.owner, request_id, ask.action)
        count = self._counts.get(of_kind, 0)
        self._counts[of_kind] = min(count + 1, 30)
        asked = self._asked.setdefault(key, _Asked(ask.owner, request_id))
        asked.due = now + min(_FIRST * 2**count, _LONGEST)

    def answered(self, key: Hashable, answer: Answer) -> None:
        """Note what came back; an owner that could not be reached is asked as soon as it can be."""
        if answer.unreachable:
            asked = self._asked.pop(key, None)
            if asked is not None:
                self._counts.pop((asked.owner, asked.request_id, answer.ask.action), None)
        elif key in self._asked:
            asked = self._asked[key]
            asked.answer = _kept(answer)
            if _withheld(answer):
                asked.due = self._clock() + self._withheld

    def release(self, request_id: str) -> None:
        """Have everything asked again for a request, as a person wishes."""
        self._asked = {k: one for k, one in self._asked.items() if one.request_id != request_id}
        self._counts = {of: n for of, n in self._counts.items() if of[1] != request_id}

    def hear(self, owner: str) -> None:
        """Have an owner asked again that has something new to say: now, or a minute after that."""
        now = self._clock()
        if now - self._heard.get(owner, -_SPARED) < _SPARED:
            self._news.add(owner)
            return
        self._heard[owner] = now
        self._news.discard(owner)
        for one in self._asked.values():
            if one.owner == owner:
                one.due = now


def _withheld(answer: Answer) -> bool:
    reply = answer.reply
    return (
        isinstance(reply, pb.FisherReply)
        and bool(reply.roots)
        and all(root.withheld or root.permanent for root in reply.roots)
    )


def _kept(answer: Answer) -> Answer:
    """Return an answer as it is kept: not with megabytes that nobody has a use for."""
    reply = answer.reply
    if reply is None or reply.ByteSize() <= _KEPT_BYTES:
        return replace(answer, ask=replace(answer.ask, tensors={}))
    error = (
        f"owner {answer.ask.owner}: its last answer, of {reply.ByteSize():,} bytes, was of no use, "
        "as the coordinator's log says; it is asked again later"
    )
    return Answer(replace(answer.ask, tensors={}), error=error)
