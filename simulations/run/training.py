"""Training as a Flower message: from the parents' average to a registered model version.

The handler joins the deployment's ClientApp, so that models come to be on the very owners that
later unlearn.  A replay without the data to forget (the exact retraining) is the same message with
those classes left out; its model is not kept.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from disinherit.client.actions.evaluate import confusion_counts
from disinherit.client.client_app import build_client_app
from disinherit.common.errors import CampaignError, DataError, DisinheritError
from disinherit.common.graph.proto import record_from_proto, record_to_proto
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.devices import pick_device
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.scenario.inheriting import Weights
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import SharedData, TensorBatches, owner_name
from disinherit.simulations.scenario.topology import Layers, model_seed
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto


@dataclass(frozen=True, slots=True)
class Fit:
    """An order to train one model.

    Attributes:
        model: its id.
        created_us: creation time, given out by the coordinator.
        without: classes of the data set to leave out of the training data.
        keep: whether the owner registers the model; a replay is not kept.
        labels: the model's label space; `None` for the data set's classes.
        layers: whether all layers are trained, or only the head on frozen features.
        without_samples: samples to leave out, as indices into the data set's pool.
        run: name of the run, where one app trains for several.
    """

    model: str
    created_us: int
    without: tuple[str, ...]
    keep: bool = True
    labels: tuple[str, ...] | None = None
    layers: Layers = "all"
    without_samples: tuple[int, ...] = ()
    run: str = ""

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
                        "labels": json.dumps(self.labels),
                        "layers": self.layers,
                        "without_samples": list(self.without_samples),
                        "run": self.run,
                    }
                )
            }
        )
        if start is not None:
            content["start"] = ArrayRecord(torch_state_dict=start)
        return Message(content, node, "train.fit", ttl=timeout)

    @classmethod
    def from_message(cls, message: Message) -> "Fit":
        """Read what `message` wrote."""
        order = message.content["fit"]
        assert isinstance(order, ConfigRecord)
        labels = json.loads(str(order["labels"]))
        return cls(
            str(order["model"]),
            int(str(order["created_us"])),
            tuple(json.loads(str(order["without"]))),
            bool(order["keep"]),
            None if labels is None else tuple(labels),
            "head" if order["layers"] == "head" else "all",
            tuple(cast("list[int]", order["without_samples"])),
            str(order["run"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What training gave: the record and the weights."""

    record: ModelRecord
    weights: Weights

    def message(self, order: Message) -> Message:
        """Return the reply to the message that ordered it."""
        content = RecordDict(
            {
                "weights": ArrayRecord(torch_state_dict=self.weights),
                "fitted": ConfigRecord(
                    {"record": record_to_proto(self.record).SerializeToString()}
                ),
            }
        )
        return Message(content, reply_to=order)

    @classmethod
    def from_reply(cls, model: str, reply: Message | None) -> "Fitted":
        """Read an owner's reply.

        Raises:
            CampaignError: if it did not come, or says that training failed.
        """
        if reply is None:
            raise CampaignError(f"Expected model {model!r} to be trained, but no answer came.")
        reason = _failure(reply)
        if reason:
            raise CampaignError(f"Expected model {model!r} to be trained, but: {reason}")
        values = reply.content["fitted"]
        weights = reply.content["weights"]
        assert isinstance(values, ConfigRecord)
        assert isinstance(weights, ArrayRecord)
        record = values["record"]
        assert isinstance(record, bytes)
        return cls(
            record_from_proto(RecordProto.FromString(record)), dict(weights.to_torch_state_dict())
        )


def build_simulation_app(
    settings: Settings, folder: Path, runs: Mapping[str, Settings] | None = None
) -> ClientApp:
    """Return the deployment's ClientApp for the simulated owners, able to train as well.

    Args:
        settings: of the run whose owners answer the coordinator.
        folder: where they keep their models.
        runs: settings of further runs to train for, by name.
    """

    def open_owner(context: Context, settings: Settings = settings) -> SimulatedOwner:
        warm_up()
        return SimulatedOwner(settings, int(str(context.node_config["partition-id"])), folder)

    app = build_client_app(open_owner)

    @app.train("fit")
    def _fit(message: Message, context: Context) -> Message:
        fit = Fit.from_message(message)
        start = message.content.get("start")
        weights = None
        if isinstance(start, ArrayRecord):
            weights = dict(start.to_torch_state_dict())
        own = (runs or {}).get(fit.run, settings)
        try:
            with open_owner(context, own) as owner:
                return fit_model(owner, own, fit, weights).message(message)
        except DisinheritError as error:
            content = RecordDict({"failed": ConfigRecord({"reason": str(error)})})
            return Message(content, reply_to=message)

    return app


def fit_model(owner: SimulatedOwner, settings: Settings, fit: Fit, start: Weights | None) -> Fitted:
    """Train a model on its owner's share of the data, and register it unless it is a replay.

    Args:
        owner: the owner.
        settings: of the run.
        fit: what to train.
        start: the parents' average; `None` to start from the federation's initialisation.

    Returns:
        The record as it is stored, or would be, and the weights on the CPU.

    Raises:
        DataError: if the owner has no data left to train on, or the weights are no longer finite.
        StoreError: if the model cannot be registered.
    """
    labels = owner.data.dataset.classes if fit.labels is None else fit.labels
    weights, targets = fit_weights(settings, owner.data, owner.index, fit, start, owner.device)
    counts = torch.bincount(targets, minlength=len(labels)).tolist()
    record = ModelRecord(
        id=fit.model,
        owner=owner.store.owner,
        architecture=architecture_fingerprint(weights),
        labels=labels,
        digest=weights_digest(weights),
        created_us=fit.created_us,
        provenance=Provenance(owner.data.dataset.name, dict(zip(labels, counts, strict=True))),
    )
    if fit.keep:
        record = owner.store.add(record, weights)
    return Fitted(record, weights)


def fit_weights(
    settings: Settings,
    data: SharedData,
    index: int,
    fit: Fit,
    start: Weights | None,
    device: torch.device,
) -> tuple[Weights, Tensor]:
    """Train a model on an owner's share of the data.

    Args:
        settings: of the run.
        data: of the run.
        index: of the owner.
        fit: what to train.
        start: the parents' average; `None` to start from the scenario's initialisation.
        device: where to compute.

    Returns:
        The weights on the CPU, and the targets of the samples it was trained on.

    Raises:
        DataError: if the owner has no data left to train on, or the weights are no longer finite.
    """
    labels = data.dataset.classes if fit.labels is None else fit.labels
    space = [settings.scenario.aliases.get(label, label) for label in labels]
    classes = [name for name in space if name not in fit.without]
    batches = data.owned(
        data.train[index], classes, settings.batch_size, space, fit.without_samples
    )
    if not len(batches):
        raise DataError(
            f"Expected samples to train model {fit.model!r} on without class "
            f"{', '.join(fit.without)}, but {owner_name(index)} has none. Use fewer owners, or "
            "another partition."
        )
    network = settings.network_spec(data.dataset, len(labels)).build(settings.seed)
    seed = model_seed(settings.seed, fit.model)
    weights = fit_batches(settings, network, batches, start, fit.layers, seed, device)
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise DataError(
            f"Expected finite weights from training model {fit.model!r}, but it diverged with "
            f"learning rate {settings.learning_rate:g}. Choose a lower one."
        )
    return weights, batches.targets


def fit_batches(
    settings: Settings,
    network: Classifier,
    batches: TensorBatches,
    start: Weights | None,
    layers: Layers,
    seed: int,
    device: torch.device,
) -> Weights:
    """Train a network on given samples and return its weights on the CPU.

    Args:
        settings: of the run.
        network: initialised; changed.
        batches: what it is trained on.
        start: weights to start from; `None` for those that it has.
        layers: what is trained.
        seed: of the order of the samples.
        device: where to compute.
    """
    if start is not None:
        network.load_state_dict(start)
    learn = train if layers == "all" else train_head
    learn(network, batches, settings, seed, device)
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def train_head(
    network: Classifier, data: TensorBatches, settings: Settings, seed: int, device: torch.device
) -> None:
    """Train the head in place as `train` does, on features that stay as they are.

    The features are those of eval mode and are computed once; what they are made of, buffers
    included, does not change by a bit.
    """
    network.to(device).eval()
    size = max(settings.batch_size, 256)
    features = _features(network, data.inputs.to(device), size)
    train(network.head, TensorBatches(features, data.targets, data.size), settings, seed, device)


def train(
    network: nn.Module, data: TensorBatches, settings: Settings, seed: int, device: torch.device
) -> None:
    """Train a classifier in place with Adam on the cross-entropy, shuffled by `seed`.

    On the CPU, the same arguments and number of threads give the same weights, bit for bit. Global
    random state, which dropout uses, is seeded too, and put back after.
    """
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        torch.manual_seed(seed)
        _train(network.to(device).train(), data, settings, seed, device)


def _train(
    network: nn.Module, data: TensorBatches, settings: Settings, seed: int, device: torch.device
) -> None:
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = data.inputs.to(device), data.targets.to(device)
    for _ in range(settings.epochs):
        order = torch.randperm(len(targets), generator=generator)
        for chosen in order.split(settings.batch_size):
            if len(chosen) == 1 < min(settings.batch_size, len(targets)):
                continue  # batch normalisation cannot train on the one sample that is left over
            optimizer.zero_grad()
            chosen = chosen.to(device)
            loss = nn.functional.cross_entropy(network(inputs[chosen]), targets[chosen])
            loss.backward()
            optimizer.step()


@torch.no_grad()
def _features(network: Classifier, inputs: Tensor, size: int) -> Tensor:
    return torch.cat([network.features(part) for part in inputs.split(size)])


def confusion(
    settings: Settings, data: SharedData, weights: Weights, space: Sequence[str] | None = None
) -> list[list[int]]:
    """Return confusion counts `[C, C]` of given weights on the evaluation split.

    They are what an owner that holds the weights would answer; row = true class, column =
    predicted class.

    Args:
        settings: of the run.
        data: of the run.
        weights: of a model.
        space: its classes in the order of its head's rows; `None` for those of the data set.
    """
    classes = len(data.dataset.classes if space is None else space)
    network = settings.network_spec(data.dataset, classes).build(settings.seed)
    network.load_state_dict(weights)
    counts = confusion_counts(
        network, data.evaluation(space), classes, pick_device(settings.device)
    )
    rows: list[list[int]] = counts.tolist()
    return rows


def _failure(reply: Message) -> str:
    """Return why training failed; `""` if it did not."""
    if reply.has_error():
        # Flower quotes the client's whole stack trace; the last line says what happened.
        last = (reply.error.reason or "no reason given").strip().splitlines()[-1]
        return last.rpartition("ClientAppException: ")[2].removesuffix("'>")
    failed = reply.content.get("failed")
    return str(failed["reason"]) if isinstance(failed, ConfigRecord) else ""


@functools.cache
def warm_up() -> None:
    """Build an optimizer: a process's first takes seconds to import, which no training took."""
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])
