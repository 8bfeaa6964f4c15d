"""Flower's grid with the nodes in this process: real apps and messages, no engine.

`install` puts it in the engine's place, so that a whole federated run takes a second or two::

    grids = install(monkeypatch)
    run_scenario(settings, folder)
    grids[0].pushed  # every message, in order

Import it before anything of Flower: what Flower itself imports may warn.
"""

import uuid
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from flwr.app import Context, Error, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

import disinherit.simulations.run.run

# Messages are made outside a run here, where Flower would know them.
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

R = TypeVar("R")

Interfere = Callable[[Message], None]
"""Called with each message before its client is."""


class DirectGrid(Grid):
    """Calls the app when a message is pushed, and hands the replies out when they are pulled.

    Args:
        app: what every node runs.
        clients: number of nodes; node `i` has id `i + 1` and partition `i`.
        interfere: may damage something, or raise in the client's place.

    Attributes:
        pushed: every message, in order.
        silent: ids of nodes that never answer.
    """

    def __init__(self, app: ClientApp, clients: int, interfere: Interfere = lambda _: None) -> None:
        self._app = app
        self._interfere = interfere
        self._contexts = {i + 1: _context(i, clients) for i in range(clients)}
        self._replies: dict[str, Message] = {}
        self.pushed: list[Message] = []
        self.silent: set[int] = set()

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            id = numbered(message).metadata.message_id
            self.pushed.append(message)
            ids.append(id)
            node = message.metadata.dst_node_id
            if node in self.silent:
                continue
            try:
                self._interfere(message)
                self._replies[id] = self._app(message, self._contexts[node])
            except Exception as error:  # as Flower does
                self._replies[id] = failure(message, str(error))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(id) for id in message_ids if id in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError


def install(
    monkeypatch: pytest.MonkeyPatch,
    interfere: Interfere = lambda _: None,
    module: ModuleType = disinherit.simulations.run.run,
) -> list[DirectGrid]:
    """Let `run_scenario` run on a `DirectGrid`; return the list the grids will be in.

    `module` is where the engine's `simulate` is looked up.
    """
    grids: list[DirectGrid] = []

    def simulate(main: Callable[[Grid], R], app: ClientApp, clients: int, device: str) -> R:
        grids.append(DirectGrid(app, clients, interfere))
        return main(grids[-1])

    monkeypatch.setattr(module, "simulate", simulate)
    return grids


def numbered(message: Message) -> Message:
    """Give a message the id that it gets when it is sent."""
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return message


def failure(message: Message, reason: str) -> Message:
    """What Flower answers in the place of a client that raised."""
    return Message(Error(2, reason), reply_to=message)


def _context(index: int, clients: int) -> Context:
    return Context(
        run_id=1,
        node_id=index + 1,
        node_config={"partition-id": index, "num-partitions": clients},
        state=RecordDict(),
        run_config={},
    )
