"""Training of one model: the order, and what it does to the weights."""

import copy
import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from disinherit.common.errors import DataError
from disinherit.simulations.networks.networks import Classifier
from disinherit.simulations.scenario.inheriting import Weights
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import SharedData, TensorBatches, owner_name
from disinherit.simulations.scenario.topology import Layers, model_seed

_PATIENT_STEPS = 50
"""Steps without a lower loss that end no training: an epoch of few samples has few."""


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


def fit_weights(
    settings: Settings,
    data: SharedData,
    index: int,
    fit: Fit,
    start: Weights | None,
    device: torch.device,
) -> tuple[Weights, Tensor]:
    """Train a model on an owner's share of the data.

    What is left out of the training samples is left out of the tuning samples that end it, too.

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
    tuning = data.owned(data.tuning[index], classes, settings.batch_size, space)
    weights = fit_batches(settings, network, batches, start, fit.layers, seed, device, tuning)
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
    tuning: TensorBatches | None = None,
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
        tuning: samples that end the training where the settings have a patience.
    """
    if start is not None:
        network.load_state_dict(start)
    learn = train if layers == "all" else train_head
    learn(network, batches, settings, seed, device, tuning)
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def train_head(
    network: Classifier,
    data: TensorBatches,
    settings: Settings,
    seed: int,
    device: torch.device,
    tuning: TensorBatches | None = None,
) -> None:
    """Train the head in place as `train` does, on features that stay as they are.

    The features are those of eval mode and are computed once; what they are made of, buffers
    included, does not change by a bit.
    """
    network.to(device).eval()
    size = max(settings.batch_size, 256)

    def seen(samples: TensorBatches) -> TensorBatches:
        features = _features(network, samples.inputs.to(device), size)
        return TensorBatches(features, samples.targets, samples.size)

    judged = seen(tuning) if tuning is not None and len(tuning) else None
    train(network.head, seen(data), settings, seed, device, judged)


def train(
    network: nn.Module,
    data: TensorBatches,
    settings: Settings,
    seed: int,
    device: torch.device,
    tuning: TensorBatches | None = None,
) -> None:
    """Train a classifier in place with Adam on the cross-entropy, shuffled by `seed`.

    With a patience, training ends once, for so many epochs and fifty steps, no more tuning
    samples were named rightly and, of equally many, the loss was not lower.  The network has the
    best weights.  Without a tuning sample all epochs are trained.

    On the CPU, the same arguments and number of threads give the same weights, bit for bit. Global
    random state, which dropout uses, is seeded too, and put back after.
    """
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        torch.manual_seed(seed)
        epochs = _epochs(network.to(device).train(), data, settings, seed, device)
        if settings.patience is None or tuning is None or not len(tuning):
            for _ in epochs:
                pass
        else:
            steps = math.ceil(len(data) / settings.batch_size)
            patience = max(settings.patience, math.ceil(_PATIENT_STEPS / steps))
            _train_until(network, epochs, tuning, patience, device)


def _epochs(
    network: nn.Module, data: TensorBatches, settings: Settings, seed: int, device: torch.device
) -> Iterator[None]:
    """Train epoch after epoch, as many as the settings have; yield after each."""
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
        yield


def _train_until(
    network: nn.Module,
    epochs: Iterator[None],
    tuning: TensorBatches,
    patience: int,
    device: torch.device,
) -> None:
    """Train until samples show nothing better any more; leave the best weights, if any."""
    highest, since = (0, -math.inf), 0
    best: dict[str, Tensor] | None = None
    for _ in epochs:
        score = _score(network, tuning, device)
        if score > highest:
            highest, since, best = score, 0, copy.deepcopy(network.state_dict())
        else:
            since += 1
        if since == patience:
            break
    if best is not None:
        network.load_state_dict(best)


@torch.no_grad()
def _score(network: nn.Module, samples: TensorBatches, device: torch.device) -> tuple[int, float]:
    """Return the number of right answers in eval mode, and the cross-entropy times -1.

    The loss alone would end the training on few samples much too soon, as it rises with the
    certainty of the first wrong answers.
    """
    network.eval()
    right, loss = 0, 0.0
    for inputs, targets in samples:
        logits, targets = network(inputs.to(device)), targets.to(device)
        right += int((logits.argmax(1) == targets).sum())
        loss += nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    network.train()
    return right, -loss if math.isfinite(loss) else -math.inf


@torch.no_grad()
def _features(network: Classifier, inputs: Tensor, size: int) -> Tensor:
    return torch.cat([network.features(part) for part in inputs.split(size)])


@functools.cache
def warm_up() -> None:
    """Build an optimizer: a process's first takes seconds to import, which no training took."""
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])
