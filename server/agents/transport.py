"""Transport to owners over the streams of their agents."""

import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from google.protobuf.message import DecodeError

from disinherit.common.limits import ALONG
from disinherit.common.text import one_line
from disinherit.common.wire.messages import ACTIONS
from disinherit.server.agents.blobs import Blobs
from disinherit.server.agents.hub import Hub, Reply
from disinherit.server.transport.base import Answer, Ask, not_connected
from disinherit.server.transport.sizes import most_bytes
from disinherit.v1 import agents_pb2 as pb

GRACE_SECONDS = 20.0
"""Time for an agent that disconnected during a task to reconnect."""

_POLL_SECONDS = 0.1


class AgentTransport:
    """Carries the coordinator's messages to connected agents.

    Args:
        hub: the connected agents.
        blobs: Fisher packets for download.
        grace: seconds for an agent that disconnected during a task to reconnect.
    """

    def __init__(self, hub: Hub, blobs: Blobs, grace: float = GRACE_SECONDS) -> None:
        self._hub = hub
        self._blobs = blobs
        self._grace = grace

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each."""
        deadline = time.monotonic() + timeout
        replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        waiting: dict[str, Ask] = {}
        unconnected = []
        with ExitStack() as offers:
            offers.callback(self._drop_all, waiting)
            for ask in asks:
                offers.enter_context(self._blobs.offered(ask.owner, ask.tensors))
                task = pb.AgentTask(
                    action=ask.action,
                    task=ask.task.SerializeToString(deterministic=True),
                )
                along = ask.tensors if _are_small(ask.tensors) else {}
                task_id = self._hub.post(ask.owner, task, replies.put, most_bytes(ask), along)
                if task_id is None:
                    unconnected.append(ask)
                else:
                    waiting[task_id] = ask
            for ask in unconnected:
                yield not_connected(ask)
            while waiting:
                try:
                    left = deadline - time.monotonic()
                    reply = replies.get(timeout=max(0.0, min(left, _POLL_SECONDS)))
                except queue.Empty:
                    for task_id, reason in self._given_up(waiting, deadline, timeout):
                        self._hub.drop(task_id)
                        yield _unreachable(waiting.pop(task_id), reason)
                else:
                    if reply.task_id not in waiting:
                        continue
                    answer = _answer(waiting.pop(reply.task_id), reply)
                    del reply  # may be a gigabyte, also held by the answer
                    yield answer

    def _drop_all(self, waiting: dict[str, Ask]) -> None:
        for task_id in waiting:
            self._hub.drop(task_id)

    def _given_up(
        self, waiting: dict[str, Ask], deadline: float, timeout: float
    ) -> list[tuple[str, str]]:
        if time.monotonic() >= deadline:
            return [(task_id, f"did not answer within {timeout:g} s") for task_id in waiting]
        lost = self._hub.lost(self._grace)
        if not lost:
            return []
        return [
            (task_id, "was lost before it answered")
            for task_id, ask in waiting.items()
            if ask.owner in lost
        ]


def _are_small(blobs: Mapping[str, bytes]) -> bool:
    return sum(map(len, blobs.values())) <= ALONG.most


def _unreachable(ask: Ask, reason: str) -> Answer:
    return Answer(ask, error=f"owner {ask.owner} {reason}", unreachable=True)


def _answer(ask: Ask, reply: Reply) -> Answer:
    if reply.error:
        return Answer(ask, error=f"owner {ask.owner}: {one_line(reply.error)}")
    try:
        return Answer(ask, reply=ACTIONS[ask.action].reply.FromString(reply.data))
    except DecodeError as error:
        expected = ACTIONS[ask.action].reply.DESCRIPTOR.full_name
        reason = f"Expected a well-formed {expected}, but it is damaged: {one_line(str(error))}"
        return Answer(ask, error=f"owner {ask.owner} answered wrongly: {reason}")
