"""Owners in this process: the same handlers, called directly instead of over a network.

For repeating a request on a finished run, and for tests of the coordinator that need real owners
but no engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from google.protobuf.message import Message

from disinherit.client.handlers import HANDLERS
from disinherit.client.owner.owner import Owner
from disinherit.common.errors import DisinheritError
from disinherit.common.wire.packets import attach_tensors
from disinherit.server.transport.base import Answer, Ask, not_connected


class DirectTransport:
    """Carries the coordinator's messages to owners in this process, one after the other.

    Args:
        owners: owner name -> how to open it for the time of one message.
    """

    def __init__(self, owners: Mapping[str, Callable[[], AbstractContextManager[Owner]]]) -> None:
        self._owners = owners

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Call the handlers and yield exactly one answer for each message.

        Args:
            asks: the messages.
            timeout: of no effect: calls in this process are not given up.
        """
        for ask in asks:
            if ask.owner not in self._owners:
                yield not_connected(ask)
                continue
            try:
                with self._owners[ask.owner]() as owner:
                    reply = HANDLERS[ask.action](owner, _complete(ask))
            except DisinheritError as error:
                yield Answer(ask, error=f"owner {ask.owner}: {error}")
            else:
                yield Answer(ask, reply=reply)


def _complete(ask: Ask) -> Message:
    """Return a message with its tensors in it."""
    if not ask.tensors:
        return ask.task
    task = type(ask.task)()
    task.CopyFrom(ask.task)
    attach_tensors(task, ask.tensors.__getitem__)
    return task
