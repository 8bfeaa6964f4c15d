"""A Flower grid whose nodes are functions here, and which can lose and mix up messages."""

import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

with warnings.catch_warnings():
    # Flower imports typer, which uses what click has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from flwr.app import ConfigRecord, Error, Message, RecordDict
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.serverapp import Grid
    from flwr.supercore.task_identity import TaskIdentity

# Flower makes messages only where a run is known.
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

Node = Callable[[Message], Message | None]
"""Answers a message; `None` if it never does."""


class FakeGrid(Grid):
    """Nodes by Flower id.

    Args:
        nodes: the nodes.
        missing: what the ids of messages to unknown nodes are in the answer to a push; without it
            they are left out, as in Flower's simulation.

    Attributes:
        keys: node -> its registered public key.
        away: nodes that are offline; they are not listed, and Flower drops the messages to them
            whose replies are looked for.
        activations: node -> how often it has come up.
        pushed: every message that was sent to a node, in order.
        stray: replies that come with every pull although nobody asked for them.
    """

    def __init__(self, nodes: Mapping[int, Node], missing: tuple[Any, ...] = ()) -> None:
        self.nodes = dict(nodes)
        self.missing = missing
        self.keys: dict[int, bytes] = {}
        self.away: set[int] = set()
        self.activations: Counter[int] = Counter()
        self.pushed: list[Message] = []
        self.stray: list[Message] = []
        self._replies: list[Message] = []
        self._held: list[Message] = []

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, *_: Any, **__: Any) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self.nodes if node not in self.away]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [
            NodeInfo(
                node_id=node,
                public_key=self.keys.get(node, b""),
                last_activated_at=f"activation {self.activations[node]}",
            )
            for node in self.get_node_ids()
        ]

    def leave(self, node: int) -> None:
        """Take a node off the network."""
        self.away.add(node)

    def come_back(self, node: int) -> None:
        """Bring a node back; it gets what was sent to it meanwhile."""
        self.away.discard(node)
        self.activations[node] += 1
        held, self._held = self._held, []
        for message in held:
            self._deliver(message)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids: list[Any] = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid.uuid4())
            node = self.nodes.get(message.metadata.dst_node_id)
            if node is None:
                ids.extend(self.missing)
                continue
            ids.append(message.metadata.message_id)
            self.pushed.append(message)
            self._deliver(message)
        return ids

    def _deliver(self, message: Message) -> None:
        node = message.metadata.dst_node_id
        if node in self.away:
            self._held.append(message)
        elif (reply := self.nodes[node](message)) is not None:
            self._replies.append(reply)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Give out one reply at a time, the last one first, and whatever is astray."""
        wanted = set(message_ids)
        lost = [m for m in self.pushed if m.metadata.message_id in wanted and self._gone(m)]
        if lost:
            self._held = [message for message in self._held if message not in lost]
            self._replies += [Message(Error(5, "offline"), reply_to=message) for message in lost]
        found = [r for r in self._replies if r.metadata.reply_to_message_id in wanted][-1:]
        self._replies = [reply for reply in self._replies if reply not in found]
        return [*self.stray, *found]

    def _gone(self, message: Message) -> bool:
        return message.metadata.dst_node_id in self.away


def content(schema: str, data: bytes | str) -> RecordDict:
    """Flower content as `disinherit.common.wire.flower` makes it, or nearly so."""
    return RecordDict({"disinherit": ConfigRecord({"schema": schema, "message": data})})
