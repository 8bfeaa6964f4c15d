"""Transport to owners over Flower's message API: few large messages, answers as they arrive."""

import threading
from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from disinherit.common.errors import InputError
from disinherit.common.text import one_line
from disinherit.common.wire.flower import as_array, pack, size_of, unpack
from disinherit.common.wire.messages import ACTIONS
from disinherit.server.flower.exchange import POLL_SECONDS, error_line, exchange
from disinherit.server.flower.owners import Directory
from disinherit.server.transport.base import Answer, Ask, not_connected, too_large
from disinherit.server.transport.sizes import most_bytes

_UNREACHABLE = frozenset({3, 5})
"""Flower's error codes for an expired message and for an offline node."""


class FlowerTransport:
    """Carries the coordinator's messages to the nodes of owners; thread-safe.

    Args:
        grid: Flower's grid of the run.
        owners: the owners' nodes.
        poll_seconds: interval of polling for replies.
    """

    def __init__(self, grid: Grid, owners: Directory, poll_seconds: float = POLL_SECONDS) -> None:
        self._grid = grid
        self._owners = owners
        self._poll_seconds = poll_seconds
        self._turn = threading.Lock()

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each.

        Args:
            asks: at most one message to an owner at a time.
            timeout: seconds after which a missing answer becomes an error.
        """
        messages = {}
        arrays = {
            digest: as_array(data)
            for digest, data in {d: b for ask in asks for d, b in ask.tensors.items()}.items()
        }
        for index, ask in enumerate(asks):
            node = self._owners.node(ask.owner)
            if node is None:
                yield not_connected(ask)
                continue
            content = pack(ask.task, {digest: arrays[digest] for digest in ask.tensors})
            messages[index] = Message(content, node, ask.action, ttl=timeout)
        replies = exchange(
            self._grid,
            messages,
            timeout,
            self._owners.presence,
            self._poll_seconds,
            self._turn,
        )
        for index, reply in replies:
            yield _answer(asks[index], reply, timeout)


def _answer(ask: Ask, reply: Message | None, timeout: float) -> Answer:
    if reply is None:
        error = f"owner {ask.owner} could not be reached or did not answer within {timeout:g} s"
        return Answer(ask, error=error, unreachable=True)
    if reply.has_error():
        return Answer(
            ask,
            error=f"owner {ask.owner} could not handle {ask.action}: {error_line(reply)}",
            unreachable=reply.error.code in _UNREACHABLE,
        )
    most = most_bytes(ask)
    if size_of(reply.content) > most:
        return Answer(ask, error=f"owner {ask.owner}: {too_large(most)}")
    try:
        return Answer(ask, reply=unpack(reply.content, ACTIONS[ask.action].reply))
    except InputError as error:
        return Answer(ask, error=f"owner {ask.owner} answered wrongly: {one_line(str(error))}")
