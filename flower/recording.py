"""Strategies that keep what they make: global models, and who inherits from whom.

::

    strategy = unlearnable(FedAvg())

The server is an owner like the nodes are: it has the global models.  Messages of training are what
they were but for the id that an update will have.  What cannot be recorded is logged once and never
stops training.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import ModelRecord
from disinherit.common.text import one_line
from disinherit.flower.finding import find_app
from disinherit.flower.functions import AppFunctions
from disinherit.flower.nodes import KnownNodes
from disinherit.flower.owner_apps import NOT_KEPT, RECORD, OwnerApp
from disinherit.flower.places import SERVER, place_of, records_of
from disinherit.flower.reservations import reservation
from disinherit.server.recording.recorder import LineageRecorder
from disinherit.server.store.store import CoordinatorStore

_log = logging.getLogger("flwr")  # where Flower's own messages of a run go

S = TypeVar("S", bound=Strategy)

_HOOKS = ("configure_train", "aggregate_train", "start")
_MARK = "_disinherit_records"


def unlearnable(strategy: S, app: OwnerApp | None = None) -> S:
    """Make a strategy keep its global models and record who inherits from whom, from its start on.

    Args:
        strategy: a strategy of `flwr.serverapp.strategy`, or one of one's own.
        app: what the nodes run; by default the ClientApp of the Flower app.

    Returns:
        The same strategy.

    Raises:
        InputError: if it is none, or what it aggregates are no weights of a network. Its `start`
            raises it if the ClientApp is no `owner_app`.
    """
    reservation(strategy)
    start = strategy.start

    def recorded(grid: Grid, *arguments: Any, **named: Any) -> Result:
        with recording(strategy, grid, app):
            return start(grid, *arguments, **named)

    vars(strategy)["start"] = recorded
    return strategy


@contextmanager
def recording(strategy: Strategy, grid: Grid, app: OwnerApp | None = None) -> Iterator[None]:
    """Record the rounds of a strategy during the block.

    Args:
        strategy: the strategy.
        grid: Flower's grid of the run.
        app: what the nodes run; by default the ClientApp of the Flower app.

    Raises:
        InputError: if the ClientApp is no `owner_app`, or the strategy's aggregates are no weights.
    """
    if why := reservation(strategy):
        _log.warning(
            "%s: global models also count as derived from those before, since %s",
            type(strategy).__name__,
            why,
        )
    functions = (app or find_app(grid)).functions
    before = {name: vars(strategy)[name] for name in _HOOKS if name in vars(strategy)}
    with opened_store(functions) as store:
        place, earlier = place_of(functions, SERVER), sum(1 for _ in store.graph().models())
        _log.info("models are kept in %s, which has %d of earlier runs", place, earlier)
        nodes = KnownNodes(grid, place / "owners.toml")
        _meeting(strategy, nodes)
        recorder = LineageRecorder(
            store,
            owner=SERVER,
            labels=functions.labels,
            owner_of=nodes.name,
            keep=_keeper(functions),
            announce=True,
        )
        recorder.attach(strategy)
        _mark(strategy, present=True)
        try:
            yield
        finally:
            recorder.flush()
            _mark(strategy, present=False)
            for name in _HOOKS:
                vars(strategy).pop(name, None)
            vars(strategy).update(before)


def is_recorded(strategy: Strategy) -> bool:
    """Whether the rounds of a strategy, or of one that wraps it, are being recorded."""
    return bool(vars(strategy).get(_MARK))


@contextmanager
def opened_store(functions: AppFunctions) -> Iterator[CoordinatorStore]:
    """Open the inheritance graph and the requests of an app, and close them after the block.

    Raises:
        StoreError: if they cannot be opened.
    """
    place_of(functions, SERVER)
    store = CoordinatorStore(records_of(functions.name))
    try:
        yield store
    finally:
        store.close()


def _mark(strategy: Strategy, *, present: bool) -> None:
    """Mark a strategy, and those that it wraps, as being recorded."""
    one: object = strategy
    while isinstance(one, Strategy):
        vars(one)[_MARK] = present
        one = getattr(one, "strategy", None)


def _meeting(strategy: Strategy, nodes: KnownNodes) -> None:
    """Ask the nodes of a round who they are before they train, and log what they did not keep."""
    configure, aggregate = strategy.configure_train, strategy.aggregate_train

    def configure_train(
        server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = list(configure(server_round, arrays, config, grid))
        try:
            nodes.meet({message.metadata.dst_node_id for message in messages})
        except Exception as error:  # training comes first
            _log.warning("the nodes of round %d are not known: %r", server_round, error)
        return messages

    def aggregate_train(
        server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        received = list(replies)
        for reply in received:
            kept = None if reply.has_error() else reply.content.get(RECORD)
            why = kept.get(NOT_KEPT) if isinstance(kept, ConfigRecord) else None
            if why:
                node = reply.metadata.src_node_id
                _log.warning("node %d did not keep its update: %s", node, one_line(str(why)))
        return aggregate(server_round, received)

    vars(strategy).update(configure_train=configure_train, aggregate_train=aggregate_train)


def _keeper(functions: AppFunctions) -> Any:
    """Return what keeps a global model in the store of the server."""

    def keep(record: ModelRecord, weights: Mapping[str, Tensor]) -> None:
        store = ModelStore(place_of(functions, SERVER) / "models", SERVER)
        try:
            store.add(record, weights)
        finally:
            store.close()

    return keep
