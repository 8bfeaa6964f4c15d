"""An owner whose models have networks of their own, and whose loaders yield what a test wants."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.describing import describe_model
from tests.support.owner import FEATURES, LABELS, SAMPLES, PointsOwner, make_points, trained_on

CLASSES = len(LABELS)
Split = Literal["train", "tuning", "evaluation"]


class NetworkOwner(PointsOwner):
    """An owner of models of any network.

    Attributes:
        builds: model id, without what requests append -> how to make its network.
        batch: what its loaders make of inputs and targets.
    """

    def __init__(self, root: Path, name: str = "anna", **options: Any) -> None:
        super().__init__(root, name, **options)
        self.builds: dict[str, Callable[[], nn.Module]] = {}
        self.batch: Callable[[Tensor, Tensor], Any] = lambda inputs, targets: (inputs, targets)

    def __enter__(self) -> Self:
        return self

    def network(self, record: ModelRecord) -> nn.Module:
        return self.builds[record.id.split("~")[0]]().double()

    def training_data(self, record: ModelRecord) -> Any:
        return self._batches("train", record) if self.keeps_data and trained_on(record) else None

    def tuning_data(self, record: ModelRecord) -> Any:
        return self._batches("tuning", record) if self.tuning else None

    def evaluation_data(self, record: ModelRecord) -> Any:
        return self._batches("evaluation", record) if self.keeps_data else None

    def fit(
        self,
        model_id: str,
        build: Callable[[], nn.Module],
        *,
        start: Mapping[str, Tensor] | None = None,
        labels: tuple[str, ...] = LABELS,
        created_us: int = 1,
        steps: int = 60,
    ) -> ModelRecord:
        """Train a model on the owner's points of all its classes, and add it to the store."""
        self.builds[model_id] = build
        with torch.random.fork_rng():
            torch.manual_seed(5)
            network = build().double()
        if start is not None:
            network.load_state_dict({**network.state_dict(), **start})
        known = [name for name in labels if name in LABELS]
        inputs, targets = make_points(self.name, "train", labels, known)
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(self._called(network, inputs, targets), targets).backward()
            optimizer.step()
        counts = dict.fromkeys(known, SAMPLES["train"])
        record = describe_model(
            model_id,
            network,
            owner=self.name,
            labels=labels,
            created_us=created_us,
            provenance=Provenance("points", counts),
        )
        return self.store.add(record, network.state_dict())

    @torch.no_grad()
    def accuracy(self, model_id: str, classes: tuple[str, ...]) -> float:
        """How often a model names these classes on evaluation points."""
        record = self.store.record(model_id)
        network = self.network(record)
        network.load_state_dict(self.store.weights(model_id))
        inputs, targets = make_points(self.name, "evaluation", record.labels, classes)
        right = self._called(network.eval(), inputs, targets).argmax(1) == targets
        return float(right.double().mean())

    def _called(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> Any:
        item = self.batch(inputs, targets)
        arguments = item[0] if isinstance(item, tuple) else inputs
        return network(*arguments) if isinstance(arguments, tuple) else network(arguments)

    def _batches(self, split: Split, record: ModelRecord) -> list[Any]:
        known = [name for name in record.labels if name in LABELS]
        inputs, targets = make_points(self.name, split, record.labels, known)
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(7))
        return [self.batch(inputs[order], targets[order])]


class Heads(nn.Module):
    """A hidden layer and some heads; a function says what becomes of them."""

    def __init__(
        self, forward: Callable[[Any, Tensor], Tensor], heads: int = 2, classes: int = CLASSES
    ) -> None:
        super().__init__()
        self.body = nn.Linear(FEATURES, 12)
        self.heads = nn.ModuleList(nn.Linear(12, classes) for _ in range(heads))
        self.made = forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self.made(self.heads, torch.relu(self.body(inputs)))


def plain(classes: int = CLASSES) -> nn.Module:
    """The usual network."""
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, classes))


def deeper() -> nn.Module:
    """The usual network, and two layers more."""
    return nn.Sequential(*plain().children(), nn.ReLU(), nn.Linear(CLASSES, CLASSES))
