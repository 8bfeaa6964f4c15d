"""Calibration: a federation goes on for some rounds without the client that left it.

A request took the client's contribution out of the global model to first order.  Some rounds of the
same strategy with the same ClientApp, but without the client's nodes, mend what that costs::

    coordinator.run("north-leaves")
    strategy = record_lineage(FedAvg(), store, project="ward", keep=keep)
    calibrate(strategy, grid, store, "north-leaves", like=arrays, weights_of=weights_of)

A request names the rounds (`calibration_rounds`), and they are a call of the Flower app: only the
app knows its strategy and what its clients are told, and no coordinator can run them.  They are
recorded like all others, as descendants of the version that the request made.
"""

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore.run import Run
from torch import Tensor

from disinherit.common.errors import InputError, RequestError
from disinherit.common.graph.records import ModelRecord
from disinherit.server.recording.flower_updates import innermost
from disinherit.server.recording.recorder import node_name
from disinherit.server.store.store import CoordinatorStore

_STATE = ("current_arrays", "momentum_vector", "m_t", "v_t")
"""Attributes of Flower's strategies that hold what earlier rounds left."""

_LEAST = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
"""Attributes of Flower's strategies that make it wait for so many nodes."""


def calibrate(
    strategy: Strategy,
    grid: Grid,
    store: CoordinatorStore,
    request_id: str,
    *,
    like: ArrayRecord,
    weights_of: Callable[[ModelRecord], Mapping[str, Tensor]],
    rounds: int | None = None,
    owner: str = "server",
    owner_of: Callable[[int], str] = node_name,
    train_config: ConfigRecord | None = None,
    evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    timeout: float = 3600.0,
) -> Result:
    """Run some more rounds of a federation without a client whose contribution was taken out.

    They start from the youngest global model that the request unlearned.

    Args:
        strategy: a new strategy of the federation; with `record_lineage`, the rounds are recorded.
        grid: the grid of the running Flower app.
        store: the coordinator's store, with the request.
        request_id: a request about a client that was carried out.
        like: any arrays of the app's network, whose order clients may rely on, for instance
            `ArrayRecord(network.state_dict())`.
        weights_of: returns a version's weights, for instance
            `lambda record: model_store.weights(record.id)`.
        rounds: so many, at least 1; `None` for those that the request named.
        owner: the owner of the global models.
        owner_of: Flower node id -> name of its owner, as for `record_lineage`.
        train_config: what clients are told, as in the app.
        evaluate_fn: evaluates the global model after each round, as in the app.
        timeout: seconds to wait for a round's replies.

    Returns:
        Flower's result, with the last global arrays.

    Raises:
        RequestError: if the request is unknown, is about no client, or unlearned no global model.
        InputError: if the strategy has a state in which the client's updates are, the arrays have
            other names than the model, an owner of a connected node is not known in the graph, or
            too few nodes are left.
    """
    request = store.request(request_id)
    client = request.client
    if rounds is None:
        rounds = request.method.calibration_rounds
    if not client:
        raise RequestError(
            f"Expected a request about a client to calibrate after, but {request_id!r} is about "
            "classes or samples, whose owners go on taking part. Train on as usual."
        )
    if rounds < 1:
        raise InputError(
            f"Expected at least 1 round of calibration, as the request or the call names them, but "
            f"got {rounds}."
        )
    held = [name for name in _STATE if getattr(innermost(strategy), name, None) is not None]
    if held:
        raise InputError(
            f"Expected a new strategy, but {type(innermost(strategy)).__name__} has {held[0]} of "
            f"earlier rounds, with updates of {client!r} in it. Make another one."
        )
    record = _unlearned(store, request_id, owner)
    remaining = _Remaining(grid, _check_nodes(strategy, grid, store, client, owner_of))
    return strategy.start(
        remaining,
        _arrays(record, weights_of(record), like),
        num_rounds=rounds,
        timeout=timeout,
        train_config=train_config,
        evaluate_fn=evaluate_fn,
    )


def _arrays(record: ModelRecord, weights: Mapping[str, Tensor], like: ArrayRecord) -> ArrayRecord:
    """Return weights as arrays, in the order of others: that of stored weights is arbitrary."""
    if odd := sorted(weights.keys() ^ like.keys()):
        where = "only the model has" if odd[0] in weights else "the model does not have"
        raise InputError(
            f"Expected arrays with the names of model {record.id!r}, but {where} {odd[0]!r}. Give "
            "those of the app's network."
        )
    return ArrayRecord({name: Array(weights[name].numpy()) for name in like})


def _unlearned(store: CoordinatorStore, request_id: str, owner: str) -> ModelRecord:
    """Return the version that a request made of the youngest global model."""
    made = {
        model: task.successor.id
        for model, task in store.tasks(request_id).items()
        if task.owner == owner and task.successor is not None and not task.state.undone
    }
    before, after = store.records(made), store.records(made.values())
    known = [model for model, id in made.items() if model in before and id in after]
    if not known:
        raise RequestError(
            f"Expected a model of {owner!r} that request {request_id!r} unlearned, but it has "
            "none. Run its campaign first, or name the owner of the global models."
        )
    youngest = max(known, key=lambda model: (before[model].created_us, model))
    return after[made[youngest]]


def _check_nodes(
    strategy: Strategy,
    grid: Grid,
    store: CoordinatorStore,
    client: str,
    owner_of: Callable[[int], str],
) -> frozenset[int]:
    """Return the connected nodes that are not the client's."""
    owners = {record.owner for record in store.graph().models()}
    remaining = set()
    for node in grid.get_node_ids():
        name = owner_of(node)
        if name not in owners:
            raise InputError(
                f"Expected nodes of owners in the graph, so that none is of {client!r} by another "
                f"name, but node {node} is of {name!r}. Give owner_of as for record_lineage."
            )
        if name != client:
            remaining.add(node)
    needed = max(1, *(getattr(innermost(strategy), name, 1) for name in _LEAST))
    if len(remaining) < needed:
        raise InputError(
            f"Expected at least {needed} nodes without those of {client!r}, as the strategy waits "
            f"for so many, but got {len(remaining)}. Wait for others, or lower its min_..._nodes."
        )
    return frozenset(remaining)


class _Remaining(Grid):
    """A grid that shows some of its nodes only.

    Args:
        grid: the grid.
        nodes: the nodes to show, as far as they are connected.
    """

    def __init__(self, grid: Grid, nodes: frozenset[int]) -> None:
        self._grid = grid
        self._nodes = nodes

    @property
    def run(self) -> Run:
        return self._grid.run

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self._grid.get_node_ids() if node in self._nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self._grid.send_and_receive(messages, timeout=timeout)
