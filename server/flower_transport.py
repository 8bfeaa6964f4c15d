"""Owners reached over Flower's message API: few, full messages, answers taken as they arrive.

Flower delivers at most once and makes some errors itself, so answers are matched to messages by the
id they reply to, and whatever has not come back in time is an error of its own.
"""

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from disinherit.common.errors import CampaignError, DisinheritError
from disinherit.common.flower_records import pack, unpack
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
        Key and reply, or key and `None` for a reply that did not come.
    """
    keys = list(messages)
    ids = list(grid.push_messages([messages[key] for key in keys]))
    waiting = dict(zip(ids, keys, strict=True))
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        for reply in grid.pull_messages(list(waiting)):
            key = waiting.pop(reply.metadata.reply_to_message_id, None)
            if key is not None:
                yield key, reply
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
        nodes: owner name -> Flower node id.

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
            owner = unpack(reply.content, pb.Identity).owner
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
        error = f"owner {ask.owner} did not answer within {timeout:g} s"
        return Answer(ask, error=error, unreachable=True)
    if reply.has_error():
        code, reason = reply.error.code, (reply.error.reason or "no reason given").strip()
        return Answer(
            ask,
            error=f"owner {ask.owner} could not handle {ask.action} (Flower error {code}): "
            f"{reason.splitlines()[-1]}",
            unreachable=code in _UNREACHABLE,
        )
    try:
        return Answer(ask, reply=unpack(reply.content, ACTIONS[ask.action]))
    except DisinheritError as error:
        return Answer(ask, error=f"owner {ask.owner} answered wrongly: {error}")
