"""What an owner of models has to provide so that requests to forget can be served.

The server is an owner like the nodes: it keeps the global models. `forget` is what an operator
calls in a ServerApp's main, in the same run or, where nodes keep their ids, in a later one; so is
`forget_node`, which lets the others train on without a node.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from torch import Tensor, nn

from disinherit import (
    Answer,
    Ask,
    CampaignResult,
    Coordinator,
    CoordinatorStore,
    DirectTransport,
    FlowerTransport,
    Method,
    ModelRecord,
    ModelStore,
    NamedOwners,
    Provenance,
    Request,
    calibrate,
    describe_model,
    record_lineage,
)
from flower_app.task import NUM_CLASSES, Net, load_data

SERVER = "server"
LABELS = tuple(map(str, range(NUM_CLASSES)))
Batches = Iterable[tuple[Tensor, Tensor]]


def folder() -> Path:
    """Return where models are kept; on a real node, a folder of its own disk."""
    path = Path(os.environ.get("FLOWER_APP_MODELS", "models"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def open_lineage() -> CoordinatorStore:
    """Return the database that the inheritance graph is recorded in: a file, or one on a server."""
    database = os.environ.get("FLOWER_APP_DATABASE", folder() / "lineage.db")
    return CoordinatorStore(database, folder() / "packets")


def server_data() -> tuple[Batches, Batches]:
    """Return the server's reference and evaluation data."""
    inputs, targets = map(torch.cat, zip(*load_data(0, 1, 256)[1], strict=True))
    half = len(targets) // 2
    return [(inputs[:half], targets[:half])], [(inputs[half:], targets[half:])]


class DigitsOwner:
    """An owner of digit classifiers: a node with its partition, or the server without any."""

    device = torch.device("cpu")

    def __init__(self, name: str, partition: tuple[int, int] | None = None) -> None:
        self.partition = partition
        self.store = ModelStore(folder() / name, name)
        self.starts = folder() / f"{name}.starts"

    def __enter__(self) -> "DigitsOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the model's architecture."""
        return Net()

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return the partition for updates, and the server's reference data for global models.

        A global model was not trained, only averaged. What its parameters matter for is measured
        on samples of the server's own: half of the test data, of which it evaluates on the other.
        """
        if self.partition is None:
            return server_data()[0]
        return load_data(*self.partition, 256)[0] if record.provenance else None

    def can_retrain(self, record: ModelRecord) -> bool:
        """Say whether an update can be put back to what its training started from."""
        return (self.starts / record.id).exists()

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        """Return the start of an update: a node that leaves takes all that it trained with it."""
        assert without is None, "nodes have no ids of samples"
        start: Mapping[str, Tensor] = torch.load(self.starts / record.id, weights_only=True)
        return start

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return nothing: the default strength applies."""
        return None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return the test data."""
        return server_data()[1] if self.partition is None else load_data(*self.partition, 256)[1]


def open_owner(context: Context) -> DigitsOwner:
    """Open the owner that a node is."""
    config = context.node_config
    partition = int(config["partition-id"]), int(config["num-partitions"])
    return DigitsOwner(f"node-{context.node_id}", partition)


def keep_update(msg: Message, context: Context, model: nn.Module) -> None:
    """Keep a node's update as the very version that the server records."""
    with open_owner(context) as owner:
        config = msg.content.config_records["config"]
        assert owner.partition is not None
        targets = torch.cat([labels for _, labels in load_data(*owner.partition, 256)[0]])
        counts = torch.bincount(targets, minlength=NUM_CLASSES).tolist()
        record = describe_model(
            cast("str", config["disinherit-model"]),
            model,
            owner=owner.store.owner,
            labels=LABELS,
            created_us=cast("int", config["disinherit-created-us"]),
            provenance=Provenance("digits", dict(zip(LABELS, counts, strict=True))),
        )
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        owner.store.add(record, weights)
        owner.starts.mkdir(exist_ok=True)
        start = cast(ArrayRecord, msg.content["arrays"]).to_torch_state_dict()
        torch.save(start, owner.starts / record.id)


def keep_global(record: ModelRecord, weights: Mapping[str, Tensor]) -> None:
    """Keep a global model on the server."""
    with DigitsOwner(SERVER) as owner:
        owner.store.add(record, weights)


class Everyone:
    """Reaches the nodes over Flower, and the server's own models directly."""

    def __init__(self, grid: Grid) -> None:
        self.nodes = FlowerTransport(grid, NamedOwners(grid))
        self.server = DirectTransport({SERVER: lambda: DigitsOwner(SERVER)})

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages and yield exactly one answer for each."""
        yield from self.nodes.ask([ask for ask in asks if ask.owner != SERVER], timeout)
        yield from self.server.ask([ask for ask in asks if ask.owner == SERVER], timeout)


def forget(grid: Grid, request_id: str, digit: str) -> CampaignResult:
    """Forget a digit in every recorded model: the roots are the updates trained on it."""
    store = open_lineage()
    try:
        coordinator = Coordinator(store, Everyone(grid))
        errors = coordinator.register(sorted({m.owner for m in store.graph().models()}), "head")
        assert not errors, errors
        trained = {
            model.id: [digit]
            for model in store.graph().models()
            if model.provenance and model.provenance.samples_per_class.get(digit)
        }
        coordinator.submit(Request(forget=trained, id=request_id, reason="example"))
        return coordinator.run(request_id)
    finally:
        store.close()


def forget_node(grid: Grid, request_id: str, node: int, rounds: int, lr: float) -> Result:
    """Take out all that a node contributed, and let the others train on for some rounds."""
    store = open_lineage()
    try:
        coordinator = Coordinator(store, Everyone(grid))
        errors = coordinator.register(sorted({m.owner for m in store.graph().models()}), "head")
        assert not errors, errors
        method = Method(calibration_rounds=rounds)
        coordinator.submit(Request(client=f"node-{node}", id=request_id, method=method))
        coordinator.run(request_id)
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=1, min_train_nodes=1)
        return calibrate(
            record_lineage(strategy, store, keep=keep_global, announce=True),
            grid,
            store,
            request_id,
            like=ArrayRecord(Net().state_dict()),
            weights_of=global_weights,
            train_config=ConfigRecord({"lr": lr}),
        )
    finally:
        store.close()


def global_weights(record: ModelRecord) -> Mapping[str, Tensor]:
    """Return the weights of a global model."""
    with DigitsOwner(SERVER) as owner:
        return owner.store.weights(record.id)
