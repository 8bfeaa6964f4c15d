"""Connected agents, their open tasks, and the answers to them.

A task is kept until it is answered or dropped, even if the connection is lost: an agent that
reconnects gets its open tasks again.  Handlers are idempotent, so repetition is harmless.
"""

import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from disinherit.common.limits import ANSWER
from disinherit.server.store.presence import Details, MeasuredDownload
from disinherit.server.transport.base import too_large
from disinherit.v1 import agents_pb2 as pb

_LOG = logging.getLogger(__name__)
_SILENT = Details()


@dataclass(frozen=True, slots=True)
class Reply:
    """An agent's answer.

    Attributes:
        task_id: the task answered.
        data: the serialised reply.
        error: the reason for a missing reply; empty with a reply.
    """

    task_id: str
    data: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Waiting:
    owner: str
    done: Callable[[Reply], None]
    most_bytes: int


@dataclass(frozen=True, slots=True)
class _Posted:
    """An open task, and blobs that come along, which tasks of other agents share in memory."""

    task: pb.AgentTask
    along: Mapping[str, bytes]

    def message(self) -> pb.AgentTask:
        message = pb.AgentTask(blobs=self.along)
        message.MergeFrom(self.task)
        return message


class Session:
    """One agent on one connection.

    Args:
        owner: the owner of the agent.
        key: SHA-256 of its public key.
        peer: its address, for the log.
        details: what it says of itself.
        wake: called from any thread when there are tasks, or when the session is closed.

    Attributes:
        certificate: SHA-256 of its certificate; `b""` if it has shown none.
        parts: task id -> data received so far.
        replaced: whether another connection of the same owner took over.
        refused: whether its certificate was revoked.
        closed: whether no tasks follow those that `taken` has not returned yet.
    """

    def __init__(
        self,
        owner: str,
        key: str = "",
        peer: str = "",
        details: Details = _SILENT,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self.owner = owner
        self.key = key
        self.peer = peer
        self.details = details
        self._wake = wake
        self._outgoing: dict[str, _Posted] = {}
        self._woken = False
        self.certificate = b""
        self.parts: dict[str, bytearray] = {}
        self.replaced = False
        self.refused = False
        self.closed = False

    def send(self, posted: _Posted) -> None:
        """Queue a task."""
        self._outgoing[posted.task.task_id] = posted
        if not self._woken:
            self._woken = True
            self._wake()

    def close(self) -> None:
        """Have the connection end."""
        self.closed = True
        self._wake()

    def taken(self) -> Iterator[pb.AgentTask]:
        """Yield the queued tasks; `wake` is called for those that come later."""
        self._woken = False
        for task_id in list(self._outgoing):
            posted = self._outgoing.pop(task_id, None)
            if posted is not None:  # nobody withdrew it meanwhile
                yield posted.message()

    def withdraw(self, task_id: str) -> None:
        """Forget a task that is not open any more: also one that the agent never takes."""
        self._outgoing.pop(task_id, None)
        self.parts.pop(task_id, None)


class Hub:
    """Sessions of connected agents, and their open tasks; thread-safe.

    Args:
        arrived: called with the owner's name whenever its agent connects.
    """

    def __init__(self, arrived: Callable[[str], None] = lambda _: None) -> None:
        self._arrived = arrived
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._left: dict[str, float] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._open: defaultdict[str, dict[str, _Posted]] = defaultdict(dict)
        self._downloads: dict[str, MeasuredDownload] = {}
        # The answer of `present`, until it changes.
        self._present: Mapping[str, Details] | None = None

    def away(self, owner: str) -> float:
        """Return the seconds since an owner's agent disconnected; 0 if it is connected."""
        with self._lock:
            if owner in self._sessions:
                return 0.0
            left = self._left.get(owner)
            return float("inf") if left is None else time.monotonic() - left

    def lost(self, seconds: float) -> set[str]:
        """Return the owners whose agents disconnected longer ago, and are not back."""
        before = time.monotonic() - seconds
        with self._lock:
            return {owner for owner, left in self._left.items() if left < before}

    def sessions(self, owners: Iterable[str] | None = None) -> list[Session]:
        """Return the open sessions.

        Args:
            owners: only those of these; `None` for all.
        """
        with self._lock:
            if owners is None:
                return list(self._sessions.values())
            return [self._sessions[owner] for owner in owners if owner in self._sessions]

    def present(self) -> Mapping[str, Details]:
        """Return the owners of connected agents, with what is known of them.

        It is the same object as before if nothing has changed: nobody need compare all agents.
        """
        with self._lock:
            if self._present is None:
                self._present = {
                    owner: self._detailed(session) for owner, session in self._sessions.items()
                }
            return self._present

    def _detailed(self, session: Session) -> Details:
        download = self._downloads.get(session.owner)
        return session.details if download is None else replace(session.details, download=download)

    def measured(self, owner: str, download: MeasuredDownload) -> None:
        """Take in how long an owner's agent took for a long download."""
        with self._lock:
            self._downloads[owner] = download
            self._present = None

    def open_tasks(self) -> int:
        """Return the number of tasks that agents have not answered yet."""
        with self._lock:
            return len(self._waiting)

    def connect(self, session: Session) -> None:
        """Open a session, with the agent's open tasks; it replaces an earlier one of the owner.

        Args:
            session: of the agent.
        """
        with self._lock:
            old = self._sessions.get(session.owner)
            self._sessions[session.owner] = session
            self._left.pop(session.owner, None)
            self._present = None
            for posted in self._open.get(session.owner, {}).values():
                session.send(posted)
        if old is not None:
            old.replaced = True
            old.close()
            # One agent that reconnects logs this once; two competing agents log it for ever.
            _LOG.warning(
                "another agent took over owner=%s peer=%s before=%s key_sha256=%s",
                session.owner,
                session.peer or "unknown",
                old.peer or "unknown",
                session.key or "unknown",
            )
        else:
            _LOG.info(
                "agent connected owner=%s peer=%s release=%s",
                session.owner,
                session.peer or "unknown",
                session.details.release or "unknown",
                extra={"event": "owner_online", "owner": session.owner},
            )
        self._arrived(session.owner)

    def leave(self, session: Session) -> None:
        """End a session; if it was replaced, the new one stays."""
        with self._lock:
            left = self._sessions.get(session.owner) is session
            if left:
                del self._sessions[session.owner]
                self._present = None
                self._left[session.owner] = time.monotonic()
        session.close()
        if left:
            _LOG.info(
                "agent left owner=%s",
                session.owner,
                extra={"event": "owner_offline", "owner": session.owner},
            )

    def refuse(self, session: Session) -> None:
        """End a session with a revoked certificate; its tasks stay open."""
        session.refused = True
        self.leave(session)

    def post(
        self,
        owner: str,
        task: pb.AgentTask,
        done: Callable[[Reply], None],
        most_bytes: int = ANSWER.most,
        along: Mapping[str, bytes] = MappingProxyType({}),
    ) -> str | None:
        """Send a task to an owner's agent.

        Args:
            owner: the owner.
            task: the task, which is given an id.
            done: called once, from another thread, with the answer.
            most_bytes: maximum size of the answer.
            along: SHA-256 -> blobs that come along with it.

        Returns:
            The task's id, or `None` if the agent is not connected; the task is then not kept.
        """
        task.task_id = uuid.uuid4().hex
        posted = _Posted(task, along)
        with self._lock:
            session = self._sessions.get(owner)
            if session is None:
                return None
            self._waiting[task.task_id] = _Waiting(owner, done, most_bytes)
            self._open[owner][task.task_id] = posted
            session.send(posted)
        return task.task_id

    def drop(self, task_id: str) -> None:
        """Drop an open task; a later answer is ignored."""
        with self._lock:
            self._end(task_id)

    def receive(self, session: Session, part: pb.AnswerPart) -> None:
        """Take a part of an answer; parts of unknown tasks, or from other owners, are ignored.

        Args:
            session: the agent's session.
            part: the part.
        """
        with self._lock:
            waiting = self._waiting.get(part.task_id)
            if (
                self._sessions.get(session.owner) is not session
                or waiting is None
                or waiting.owner != session.owner
            ):
                return
            data = session.parts.setdefault(part.task_id, bytearray())
            data += part.data
            if len(data) > waiting.most_bytes:
                error = too_large(waiting.most_bytes)
            elif not part.last:
                return
            else:
                error = part.error
            self._end(part.task_id)
        answer = b"" if error else bytes(data)
        del data  # may be a gigabyte
        waiting.done(Reply(part.task_id, answer, error))

    def _end(self, task_id: str) -> None:
        """Forget an open task; the caller holds the lock."""
        ended = self._waiting.pop(task_id, None)
        if ended is not None:
            tasks = self._open[ended.owner]
            del tasks[task_id]
            if not tasks:
                del self._open[ended.owner]
            session = self._sessions.get(ended.owner)
            if session is not None:
                session.withdraw(task_id)
