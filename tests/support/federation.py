"""A federation of Flower over some rounds, whose lineage the recorder makes, with real owners.

Strategies, messages and rounds are Flower's own; only the network between is left out.  Nodes are
`node-1`, `node-2`, ..., and keep their updates and what these started from; the server keeps the
global models.  Nobody has data: training is affine, `T start + b(node, round)` with the T that is
assumed of training, so that what a client contributed can be taken out exactly.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.flower_rounds import CallingGrid  # isort: skip  (first of all of Flower)

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from torch import Tensor

from disinherit.client.store.store import ModelStore
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.planning.coefficients import KEPT_OF_CLIENT
from disinherit.server.recording.flower_updates import DATASET_KEY, SAMPLES_KEY
from disinherit.server.recording.recorder import (
    CREATED_KEY,
    MODEL_KEY,
    LineageRecorder,
    node_name,
)
from disinherit.server.states import Task
from disinherit.server.store.store import CoordinatorStore
from tests.support.owner import LABELS, PointsOwner, make_network

SERVER = "server"
Absent = Collection[tuple[int, int]]
"""Nodes and rounds that they take no part in."""


def fed_avg() -> FedAvg:
    """Plain averages of whoever answers."""
    return FedAvg(fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1)


class NodeOwner(PointsOwner):
    """A node, or the server, without any data: a node can put its updates back to their starts."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root, name, tuning=False, keeps_data=False, evaluates=False)
        self.starts = ModelStore(root.with_name(f"{name}.starts"), name)

    def __enter__(self) -> "NodeOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.starts.close()
        super().__exit__()

    def can_retrain(self, record: ModelRecord) -> bool:
        return record.provenance is not None

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        assert without is None, "all that a client contributed goes"
        return self.starts.weights(line_name(record.id))  # a successor's is its line's


def affine(start: Mapping[str, Tensor], node: int, server_round: int) -> dict[str, Tensor]:
    """What a node's training makes of its start."""
    draw = torch.Generator().manual_seed(100 * server_round + node)
    moves = {
        name: 0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
        for name, value in sorted(start.items())
    }
    return {name: KEPT_OF_CLIENT * value + moves[name] for name, value in start.items()}


class Federation:
    """A recorded federation in a folder.

    Args:
        root: the folder.
        strategy: makes the strategy.
        rounds: of training.
        nodes: the nodes, whose clients have unequal weights in the average.
        absent: who does not answer when.
        lost: global models that the server does not keep.

    Attributes:
        coordinator: of its models.
        store: its store.
        asked: the node of every message to train.
        orders: names of the arrays in these messages.
        trained: the last global arrays.
    """

    def __init__(
        self,
        root: Path,
        strategy: Callable[[], Strategy] = fed_avg,
        rounds: int = 2,
        nodes: Iterable[int] = (1, 2, 3),
        absent: Absent = (),
        lost: Collection[str] = (),
    ) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.nodes = list(nodes)
        self.absent = absent
        self.lost = lost
        self.asked: list[int] = []
        self.orders: set[tuple[str, ...]] = set()
        names = [SERVER, *map(node_name, self.nodes)]
        self.store = CoordinatorStore(root / "coordinator.db")
        self.coordinator = Coordinator(
            self.store,
            DirectTransport({name: partial(NodeOwner, root / name, name) for name in names}),
        )
        made, recorder = self.recorded(strategy())
        random.seed(0)
        result = made.start(self.grid(), packed(make_network().state_dict()), num_rounds=rounds)
        assert recorder.errors == []
        self.trained = unpacked(result.arrays)

    def grid(self, nodes: Iterable[int] | None = None) -> CallingGrid:
        return CallingGrid(self.nodes if nodes is None else nodes, self._client)

    def recorded(self, strategy: Strategy) -> tuple[Strategy, LineageRecorder]:
        """A strategy whose rounds are recorded as those of project `p`."""
        recorder = LineageRecorder(
            self.store, project="p", labels=LABELS, keep=self._keep, announce=True
        )
        return recorder.attach(strategy), recorder

    def leave(self, node: int, request_id: str = "q", **method: Any) -> dict[str, Task]:
        """Forget the contribution of a node, and return the tasks."""
        asked = Method(**{"repair_steps": 0, **method})
        self.coordinator.submit(Request(client=node_name(node), id=request_id, method=asked))
        self.coordinator.run(request_id)
        return self.store.tasks(request_id)

    def weights(self, model: str, *, present: bool = True) -> dict[str, Tensor]:
        """The weights of a version, or of what requests made of it."""
        owner = self.store.records([model])[model].owner
        with ModelStore(self.root / owner, owner) as store:
            return store.weights(store.present(model).id if present else model)

    def _client(self, message: Message) -> RecordDict | None:
        node = message.metadata.dst_node_id
        if message.metadata.message_type == "evaluate":
            return RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        self.asked.append(node)
        arrays, config = message.content["arrays"], message.content["config"]
        assert isinstance(arrays, ArrayRecord)
        assert isinstance(config, ConfigRecord)
        self.orders.add(tuple(arrays))
        server_round = int(str(config["server-round"]))
        if (node, server_round) in self.absent:
            return None
        start = unpacked(arrays)
        weights = affine(start, node, server_round)
        record = ModelRecord(
            id=str(config[MODEL_KEY]),
            owner=node_name(node),
            architecture=architecture_fingerprint(weights),
            labels=LABELS,
            digest=weights_digest(weights),
            created_us=int(str(config[CREATED_KEY])),
            provenance=Provenance("points", {"cat": 10 * node}),
        )
        with NodeOwner(self.root / record.owner, record.owner) as owner:
            owner.store.add(record, weights)
            kept = replace(record, digest=weights_digest(start))
            owner.starts.add(kept, start)
        metrics = MetricRecord({"num-examples": 10 * node})
        data = ConfigRecord({SAMPLES_KEY: [10 * node, 0, 0, 0], DATASET_KEY: "points"})
        return RecordDict({"arrays": packed(weights), "metrics": metrics, "data": data})

    def _keep(self, record: ModelRecord, weights: Mapping[str, Tensor]) -> None:
        if record.id not in self.lost:
            with ModelStore(self.root / SERVER, SERVER) as store:
                store.add(record, weights)


def packed(weights: Mapping[str, Tensor]) -> ArrayRecord:
    """Weights as Flower's arrays."""
    return ArrayRecord({name: Array(value.numpy()) for name, value in weights.items()})


def unpacked(arrays: ArrayRecord) -> dict[str, Tensor]:
    """A copy of Flower's arrays as weights."""
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in arrays.items()}
