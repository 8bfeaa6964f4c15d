"""Sessions of visitors: kept in memory only, found by the digest of a random cookie.

A token never leaves this process but to the coordinator, and is gone when the process ends.  Forms
carry a second secret of the session, against requests that another site makes a browser send.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from disinherit.common.errors import InputError
from disinherit.ui.live import FleetWatch
from disinherit.ui.visitors import Visitor
from disinherit.v1 import coordinator_pb2 as pb

IDLE_SECONDS = 3600.0
LONGEST_SECONDS = 12 * 3600.0
MOST_SESSIONS = 1000


@dataclass(slots=True)
class VisitorSession:
    """A visitor who has signed in.

    Attributes:
        visitor: makes the calls.
        name: of the token, as in the coordinator's logs.
        role: viewer, operator, approver, or owner.
        owner: the owner, for the role `owner`; else `""`.
        form_key: goes with every form.
        notice: said once, on the next page.
        watch: tells the visitor's open pages of changes.
    """

    visitor: Visitor
    name: str
    role: str
    owner: str = ""
    form_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notice: str = ""
    started: float = 0.0
    seen: float = 0.0
    watch: FleetWatch = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the watch, which begins with the first page that asks for it."""
        self.watch = FleetWatch(self.visitor)

    def may(self, *roles: str) -> bool:
        """Return whether the role is one of these."""
        return self.role in roles


class Sessions:
    """All sessions.

    Args:
        clock: seconds that only grow.

    Example:
        >>> sessions = Sessions()
        >>> sessions.find("anything") is None
        True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: dict[str, VisitorSession] = {}
        self._guest_key = secrets.token_bytes(32)

    def open(self, session: VisitorSession) -> str:
        """Keep a session, and return the secret for its cookie; the oldest may have to go."""
        secret = secrets.token_urlsafe(32)
        with self._lock:
            session.started = session.seen = self._clock()
            self._drop_old()
            if len(self._sessions) >= MOST_SESSIONS:
                oldest = min(self._sessions, key=lambda key: self._sessions[key].seen)
                del self._sessions[oldest]
            self._sessions[_digest(secret)] = session
        return secret

    def find(self, secret: str) -> VisitorSession | None:
        """Return the session of a cookie; `None` if it ended."""
        with self._lock:
            self._drop_old()
            session = self._sessions.get(_digest(secret))
            if session is not None:
                session.seen = self._clock()
            return session

    def alive(self, session: VisitorSession) -> bool:
        """Return whether a session goes on; a page that stays open does not make it last."""
        with self._lock:
            self._drop_old()
            return any(one is session for one in self._sessions.values())

    def end(self, session: VisitorSession) -> None:
        """Forget a session and its token."""
        with self._lock:
            self._sessions = {key: one for key, one in self._sessions.items() if one is not session}
        session.watch.close("ended")

    def close(self) -> None:
        """Forget all sessions: the dashboard ends."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for one in sessions:
            one.watch.close("closing")

    def guest_key(self, secret: str) -> str:
        """Return the secret for the form of a visitor who has not signed in yet."""
        return hmac.new(self._guest_key, secret.encode(), hashlib.sha256).hexdigest()

    def _drop_old(self) -> None:
        now = self._clock()
        self._sessions = {
            key: one
            for key, one in self._sessions.items()
            if now - one.seen < IDLE_SECONDS and now - one.started < LONGEST_SECONDS
        }


def same(one: str, other: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def introduced(visitor: Visitor) -> VisitorSession:
    """Return the session of a visitor, whom the coordinator was asked about.

    Raises:
        DisinheritError: if the coordinator does not accept the token, or cannot be reached.
    """
    token = visitor.token
    if not token or not token.isascii() or not token.isprintable():
        raise InputError("Expected a token of printable ASCII, but got something else.")
    found = visitor.call(lambda stub: stub.WhoAmI, pb.WhoAmIRequest())
    return VisitorSession(visitor, found.name, found.role, found.owner)
