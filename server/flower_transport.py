"""Owners reached over Flower's message API: few, full messages, answers taken as they arrive.

Flower delivers at most once and makes some errors itself, so answers are matched to messages by the
id they reply to, and whatever has not come back in time is an error of its own.
"""

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.flower_records import pack, unpack
from disinherit.common.records import check_id
from disinherit.server.answers import one_line
from disinherit.server.transport import ACTIONS, Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb

K = TypeVar("K", bound=Hashable)

_POLL_SECONDS = 0.05
_UNREACHABLE = frozenset({3, 5})
"""Flower's error codes for a message that expired or whose node is offline."""


def exchange(
    grid: Grid, messages: Mapping[K, Message], timeout: float
) -> Iterator[tuple[K, Message | None]]:
    """Push messages and yield each one's reply as it arrives.

    Args:
        grid: the way to the nodes.
        messages: what to send, by a key of the caller's.
        timeout: seconds after which missing replies are given up.

    Yields:
        Key and reply, or key and `None` for a message that could not be sent, or whose reply did
        not come.
    """
    sent = set(grid.push_messages(list(messages.values())))
    # A grid leaves out, or leaves empty, the ids of messages to nodes that are gone.  It gives
    # every message its id first, so that is what tells them apart.
    ids = {key: message.metadata.message_id for key, message in messages.items()}
    waiting = {message_id: key for key, message_id in ids.items() if message_id in sent}
    for key, message_id in ids.items():
        if message_id not in sent:
            yield key, None
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        for reply in grid.pull_messages(list(waiting)):
            answered = reply.metadata.reply_to_message_id
            if answered in waiting:
                yield waiting.pop(answered), reply
        if waiting:
            time.sleep(_POLL_SECONDS)
    for key in waiting.values():
        yield key, None


class FlowerTransport:
    """Carries the coordinator's messages to the nodes that hold the owners' models.

    Args:
        grid: Flower's grid of the run.
        expected: number of nodes to wait for before owners are looked up.
        timeout: seconds to wait for nodes and for their names.

    Attributes:
        nodes: owner name -> Flower node id; nodes that do not say whose models they hold are left
            out.

    Raises:
        CampaignError: if no node answers, or two nodes claim the same owner.
    """

    def __init__(self, grid: Grid, expected: int = 1, timeout: float = 120.0) -> None:
        self._grid = grid
        deadline = time.monotonic() + timeout
        while len(found := list(grid.get_node_ids())) < expected and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        messages = {
            node: Message(pack(pb.Identity()), node, "query.identify", ttl=timeout)
            for node in found
        }
        self.nodes: dict[str, int] = {}
        for node, reply in exchange(grid, messages, timeout):
            if reply is None or reply.has_error():
                continue
            try:
                owner = check_id(unpack(reply.content, pb.Identity).owner, "owner name")
            except InputError:
                continue  # some other app's node
            if owner in self.nodes:
                raise CampaignError(
                    f"Expected one node for owner {owner!r}, but two nodes claim it: "
                    f"{self.nodes[owner]} and {node}. Stop one of them."
                )
            self.nodes[owner] = node
        if not self.nodes:
            raise CampaignError(
                f"Expected owners' nodes to be connected, but of {len(found)} none said whose "
                "models it holds. Check that the owners run Disinherit's ClientApp."
            )

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each."""
        messages = {}
        for index, ask in enumerate(asks):
            node = self.nodes.get(ask.owner)
            if node is None:
                yield Answer(ask, error=f"owner {ask.owner} is not connected", unreachable=True)
                continue
            messages[index] = Message(pack(ask.task), node, ask.action, ttl=timeout)
        for index, reply in exchange(self._grid, messages, timeout):
            yield _answer(asks[index], reply, timeout)


def _answer(ask: Ask, reply: Message | None, timeout: float) -> Answer:
    if reply is None:
        error = f"owner {ask.owner} could not be reached or did not answer within {timeout:g} s"
        return Answer(ask, error=error, unreachable=True)
    if reply.has_error():
        lines = (reply.error.reason or "").strip().splitlines() or ["no reason given"]
        return Answer(
            ask,
            error=f"owner {ask.owner} could not handle {ask.action} (Flower error "
            f"{reply.error.code}): {one_line(lines[-1])}",
            unreachable=reply.error.code in _UNREACHABLE,
        )
    try:
        return Answer(ask, reply=unpack(reply.content, ACTIONS[ask.action]))
    except InputError as error:
        return Answer(ask, error=f"owner {ask.owner} answered wrongly: {one_line(str(error))}")
