"""The owners of a simulated fleet: the client's handlers over a share of one data set."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from disinherit.client.owner import Batches
from disinherit.client.store import ModelStore
from disinherit.common.devices import pick_device
from disinherit.common.errors import DataError
from disinherit.common.records import ModelRecord
from disinherit.simulations.datasets import Dataset, load_dataset
from disinherit.simulations.partitions import partition
from disinherit.simulations.settings import Settings
from disinherit.simulations.splits import Splits, make_splits
from disinherit.simulations.topology import Topology

_EVALUATION_BATCH = 1024


@dataclass(frozen=True, slots=True, eq=False)
class TensorBatches:
    """Samples in memory as batches, as often as they are iterated."""

    inputs: Tensor
    targets: Tensor
    size: int

    def __len__(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches in order."""
        return iter(zip(self.inputs.split(self.size), self.targets.split(self.size), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class SharedData:
    """The data set of a run, its splits, and each owner's share of training and tuning data."""

    dataset: Dataset
    splits: Splits
    train: tuple[Tensor, ...]
    tuning: tuple[Tensor, ...]

    def owned(self, indices: Tensor, classes: tuple[str, ...], size: int) -> TensorBatches:
        """Return the samples at `indices` that belong to some classes."""
        wanted = torch.tensor([name in classes for name in self.dataset.classes])
        kept = indices[wanted[self.dataset.targets[indices]]]
        return TensorBatches(self.dataset.inputs[kept], self.dataset.targets[kept], size)

    def evaluation(self) -> TensorBatches:
        """Return the evaluation split, which is the same for everyone."""
        return self.owned(self.splits.evaluation, self.dataset.classes, _EVALUATION_BATCH)

    def held(self, index: int) -> tuple[str, ...]:
        """Return the classes of which an owner has training samples."""
        present = set(self.dataset.targets[self.train[index]].tolist())
        return tuple(name for i, name in enumerate(self.dataset.classes) if i in present)


def share_out(settings: Settings) -> SharedData:
    """Load, split and share out the data of a run; once per process for the same settings.

    Raises:
        DataError: if the data set cannot be loaded, split or shared out among so many owners.
    """
    return _share_out(
        settings.dataset,
        settings.seed,
        settings.limit,
        settings.clients,
        settings.partition,
        settings.concentration,
    )


@functools.lru_cache(maxsize=2)
def _share_out(
    source: str, seed: int, limit: int | None, clients: int, kind: str, concentration: float
) -> SharedData:
    dataset = load_dataset(source)
    splits = make_splits(dataset, seed, limit=limit)

    def shares(indices: Tensor, kind: str) -> tuple[Tensor, ...]:
        parts = partition(dataset.targets[indices], clients, kind, seed, concentration)
        return tuple(indices[part] for part in parts)

    return SharedData(dataset, splits, shares(splits.train, kind), shares(splits.tuning, "iid"))


def check_shares(settings: Settings, topology: Topology, data: SharedData) -> None:
    """Check that every owner has the data that its models need.

    Raises:
        DataError: if a root's owner has no sample of a class to forget there, or an owner has none
            of the other classes to train a model on.
    """
    sensitive = {name for names in settings.forget.values() for name in names}
    how = f"the {settings.partition} partition of seed {settings.seed} for {settings.clients}"
    advice = "Choose another root or seed, fewer owners, or the iid partition."
    for model in topology.ids:
        index = topology.owner_of(model, settings.clients)
        held = data.held(index)
        got = f"but in {how} it has only class {', '.join(held)}"
        for name in settings.forget.get(model, ()):
            if name not in held:
                raise DataError(
                    f"Expected {owner_name(index)} to have samples of class {name!r}, which enters "
                    f"with its model {model!r}, {got}. {advice}"
                )
        if sensitive.issuperset(held):
            raise DataError(
                f"Expected {owner_name(index)} to have samples of a class that is not to be "
                f"forgotten, to train model {model!r} on, {got}. {advice}"
            )


class SimulatedOwner:
    """One owner of a simulated fleet.

    Args:
        settings: of the run.
        index: which owner, from 0.
        folder: the run's folder; the owner keeps its models in a folder of its own below it.

    Attributes:
        store: its models, summaries and ledger.
        device: where it computes.
    """

    def __init__(self, settings: Settings, index: int, folder: Path) -> None:
        self._settings = settings
        self._index = index
        self.data = share_out(settings)
        self.device = pick_device(settings.device)
        self.store = ModelStore(folder / "owners" / owner_name(index), owner_name(index))

    def __enter__(self) -> "SimulatedOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the run's network."""
        return self.new_network()

    def new_network(self) -> nn.Module:
        """Return the network that all models of a federation start from."""
        return self._settings.network_spec(self.data.dataset).build(self._settings.seed)

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the classes the model was trained on directly."""
        data = self.training_share(_trained_on(record))
        return data if len(data) else None

    def training_share(self, classes: tuple[str, ...]) -> TensorBatches:
        """Return the owner's share of the training split, restricted to some classes."""
        return self.data.owned(self.data.train[self._index], classes, self._settings.batch_size)

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the tuning split, of classes that it held."""
        classes, size = _trained_on(record), self._settings.batch_size
        data = self.data.owned(self.data.tuning[self._index], classes, size)
        return data if len(data) else None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return the evaluation split; a successor is evaluated on the same samples."""
        return self.data.evaluation()


def owner_name(index: int) -> str:
    """Return the name of an owner."""
    return f"owner-{index}"


def _trained_on(record: ModelRecord) -> tuple[str, ...]:
    if record.provenance is None:
        return ()
    return tuple(name for name, count in record.provenance.samples_per_class.items() if count)
