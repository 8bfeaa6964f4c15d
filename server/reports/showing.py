"""Transport that exchanges heads of the audit log with owners, to detect lost history.

A coordinator restored from a backup shows an old head.  Owners that have seen a later one refuse
it, and their answers show the later one.  The coordinator then asks no owner any more.
"""

from collections.abc import Iterator, Sequence

from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Answer, Ask, Transport
from disinherit.v1 import unlearning_pb2 as pb


class ShowingTransport:
    """A transport that shows owners the head of the log, and checks the head that they show.

    Args:
        transport: carries the messages.
        store: the store with the log.
    """

    def __init__(self, transport: Transport, store: CoordinatorStore) -> None:
        self._transport = transport
        self._store = store

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each.

        Raises:
            StoreError: if the log does not continue the signed one.
        """
        if any(isinstance(ask.task, pb.FisherTask | pb.UnlearnTask) for ask in asks):
            head = self._store.shown_head()
            for ask in asks:
                if isinstance(ask.task, pb.FisherTask | pb.UnlearnTask):
                    ask.task.log_head.CopyFrom(head)
        for answer in self._transport.ask(asks, timeout):
            if isinstance(answer.reply, pb.FisherReply | pb.UnlearnReply):
                self._store.check_shown(answer.ask.owner, answer.reply.log_head)
            yield answer
