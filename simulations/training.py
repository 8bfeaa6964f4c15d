"""Training as a Flower message: from the parents' average to a registered model version.

The handler joins the deployment's ClientApp, so that models come to be on the very owners that
later unlearn.  A replay without the data to forget (the exact retraining) is the same message with
those classes left out; its model is evaluated and not kept.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from disinherit.client.client_app import build_client_app
from disinherit.client.evaluating import confusion_counts
from disinherit.common.checkpoints import weights_digest
from disinherit.common.errors import CampaignError
from disinherit.common.graph_formats import record_from_proto, record_to_proto
from disinherit.common.records import ModelRecord, Provenance
from disinherit.common.scope import architecture_fingerprint
from disinherit.simulations.owners import SimulatedOwner, TensorBatches
from disinherit.simulations.settings import Settings
from disinherit.simulations.topology import model_seed
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Fit:
    """An order to train one model.

    Attributes:
        model: its id.
        created_us: creation time, given out by the coordinator.
        without: classes to leave out of the training data.
        keep: whether the owner registers the model; a replay is only evaluated.
    """

    model: str
    created_us: int
    without: tuple[str, ...]
    keep: bool = True

    def message(self, start: Weights | None, node: int, timeout: float) -> Message:
        """Return the Flower message for a node, with the weights to start from."""
        content = RecordDict(
            {
                "fit": ConfigRecord(
                    {
                        "model": self.model,
                        "created_us": self.created_us,
                        "without": json.dumps(self.without),
                        "keep": self.keep,
                    }
                )
            }
        )
        if start is not None:
            content["start"] = ArrayRecord(torch_state_dict=start)
        return Message(content, node, "train.fit", ttl=timeout)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What training gave: the record, the weights, and confusion counts on the evaluation split."""

    record: ModelRecord
    weights: Weights
    confusion: list[list[int]]
    seconds: float

    @classmethod
    def from_reply(cls, model: str, reply: Message | None) -> "Fitted":
        """Read an owner's reply.

        Raises:
            CampaignError: if it did not come, or says that training failed.
        """
        if reply is None:
            raise CampaignError(f"Expected model {model!r} to be trained, but no answer came.")
        if reply.has_error():
            reason = (reply.error.reason or "no reason given").strip().splitlines()[-1]
            raise CampaignError(f"Expected model {model!r} to be trained, but: {reason}")
        values = reply.content["fitted"]
        weights = reply.content["weights"]
        assert isinstance(values, ConfigRecord)
        assert isinstance(weights, ArrayRecord)
        return cls(
            record_from_proto(RecordProto.FromString(_bytes(values["record"]))),
            dict(weights.to_torch_state_dict()),
            json.loads(str(values["confusion"])),
            float(str(values["seconds"])),
        )


def build_simulation_app(settings: Settings, folder: Path) -> ClientApp:
    """Return the deployment's ClientApp for the simulated owners, able to train as well."""

    def open_owner(context: Context) -> SimulatedOwner:
        return SimulatedOwner(settings, int(str(context.node_config["partition-id"])), folder)

    app = build_client_app(open_owner)

    @app.train("fit")
    def _fit(message: Message, context: Context) -> Message:
        order = message.content["fit"]
        start = message.content.get("start")
        assert isinstance(order, ConfigRecord)
        fit = Fit(
            str(order["model"]),
            int(str(order["created_us"])),
            tuple(json.loads(str(order["without"]))),
            bool(order["keep"]),
        )
        weights = None
        if isinstance(start, ArrayRecord):
            weights = dict(start.to_torch_state_dict())
        with open_owner(context) as owner:
            fitted = fit_model(owner, settings, fit, weights)
        content = RecordDict(
            {
                "weights": ArrayRecord(torch_state_dict=fitted.weights),
                "fitted": ConfigRecord(
                    {
                        "record": record_to_proto(fitted.record).SerializeToString(),
                        "confusion": json.dumps(fitted.confusion),
                        "seconds": fitted.seconds,
                    }
                ),
            }
        )
        return Message(content, reply_to=message)

    return app


def fit_model(owner: SimulatedOwner, settings: Settings, fit: Fit, start: Weights | None) -> Fitted:
    """Train a model on its owner's share of the data, and register it unless it is a replay.

    Args:
        owner: the owner.
        settings: of the run.
        fit: what to train.
        start: the parents' average; `None` to start from the federation's initialisation.

    Raises:
        DataError: if the owner has no data left to train on.
    """
    started = time.perf_counter()
    dataset = owner.data.dataset
    network = owner.new_network()
    if start is not None:
        network.load_state_dict(start)
    data = owner.training_share(tuple(c for c in dataset.classes if c not in fit.without))
    train(network, data, settings, model_seed(settings.seed, fit.model), owner.device)
    weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    seconds = time.perf_counter() - started
    counts = torch.bincount(data.targets, minlength=len(dataset.classes)).tolist()
    record = ModelRecord(
        id=fit.model,
        owner=owner.store.owner,
        architecture=architecture_fingerprint(weights),
        labels=dataset.classes,
        digest=weights_digest(weights),
        created_us=fit.created_us,
        provenance=Provenance(dataset.name, dict(zip(dataset.classes, counts, strict=True))),
    )
    if fit.keep:
        record = owner.store.add(record, weights)
    evaluation = owner.evaluation_data(record)
    assert evaluation is not None
    confusion = confusion_counts(network, evaluation, len(dataset.classes), owner.device)
    return Fitted(record, weights, confusion.tolist(), seconds)


def train(
    network: nn.Module, data: TensorBatches, settings: Settings, seed: int, device: torch.device
) -> None:
    """Train a classifier in place with Adam on the cross-entropy, shuffled by `seed`."""
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = data.inputs.to(device), data.targets.to(device)
    for _ in range(settings.epochs):
        order = torch.randperm(len(targets), generator=generator)
        for chosen in order.split(settings.batch_size):
            if len(chosen) == 1 and len(targets) > 1:
                continue  # batch normalisation cannot train on one sample
            optimizer.zero_grad()
            chosen = chosen.to(device)
            loss = nn.functional.cross_entropy(network(inputs[chosen]), targets[chosen])
            loss.backward()
            optimizer.step()


def average(parents: list[Weights]) -> Weights | None:
    """Return the plain average of the parents' weights, or `None` without parents.

    Integer buffers (counters) cannot be averaged and are the first parent's.
    """
    if not parents:
        return None
    return {
        name: torch.stack([weights[name] for weights in parents]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in parents[0].items()
    }


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
