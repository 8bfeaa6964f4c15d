"""Flower rounds without an engine: a grid that calls a function in place of every node's client.

Import it before anything of Flower: what Flower itself imports may warn.
"""

import random
import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy
    from flwr.supercore.task_identity import TaskIdentity

# Messages are made outside a run here, where Flower would know them.
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

RUN = 5
CLASSES = 3
Client = Callable[[Message], RecordDict | Error | None]


class CallingGrid(Grid):
    """Calls a client for every message: it may reply, fail with an error, or not answer at all."""

    def __init__(self, nodes: Iterable[int], client: Client) -> None:
        self.nodes = list(nodes)
        self.client = client
        self.sent: list[Message] = []

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=RUN)

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes

    def get_nodes(self) -> Any:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = []
        for message in sorted(messages, key=lambda message: message.metadata.dst_node_id):
            self.sent.append(message)
            answer = self.client(message)
            if isinstance(answer, Error) or answer is not None:
                replies.append(Message(answer, reply_to=message))
        return replies


def initial_arrays() -> ArrayRecord:
    """A layer, a counter and a head with `CLASSES` rows."""
    draw = np.random.default_rng(0)
    return ArrayRecord(
        array_dict=dict(
            ArrayRecord(
                [
                    draw.normal(size=(4, 2)).astype(np.float32),
                    draw.normal(size=(CLASSES, 4)).astype(np.float32),
                    draw.normal(size=CLASSES).astype(np.float32),
                ]
            )
        )
    )


def examples(node: int) -> int:
    """How many examples a node says it has."""
    return 10 * node


def train_reply(message: Message, **extra: Any) -> RecordDict:
    """What a node's client replies: every array moved by the node, the more the higher its id."""
    node = message.metadata.dst_node_id
    arrays = cast(ArrayRecord, message.content["arrays"])
    moved = ArrayRecord([array.numpy() + np.float32(0.1 * node) for array in arrays.values()])
    metrics = MetricRecord({"num-examples": examples(node), "train_loss": 1.0 / node})
    return RecordDict({"arrays": moved, "metrics": metrics, **extra})


def client(message: Message) -> RecordDict:
    """A client that always answers."""
    if message.metadata.message_type == "evaluate":
        return RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": 0.5})})
    return train_reply(message)


def run(
    strategy: Strategy, client: Client = client, nodes: Iterable[int] = (1, 2, 3), rounds: int = 3
) -> dict[str, bytes]:
    """Run a strategy as a ServerApp does, with fixed seeds; return the bytes of the last arrays."""
    random.seed(0)
    np.random.seed(0)
    result = strategy.start(CallingGrid(nodes, client), initial_arrays(), num_rounds=rounds)
    return {name: array.numpy().tobytes() for name, array in result.arrays.items()}
