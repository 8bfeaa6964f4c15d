"""The owners of a simulated fleet: the client's handlers over a share of one data set."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from disinherit.client.owner import Batches
from disinherit.client.store import ModelStore
from disinherit.common.checkpoints import weights_digest
from disinherit.common.devices import pick_device
from disinherit.common.errors import DataError
from disinherit.common.records import ModelRecord
from disinherit.simulations.backdoors import Backdoor
from disinherit.simulations.datasets import Dataset, load_dataset
from disinherit.simulations.label_spaces import label_spaces
from disinherit.simulations.networks import Classifier
from disinherit.simulations.partitions import partition
from disinherit.simulations.settings import Settings
from disinherit.simulations.splits import Splits, make_splits

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


@dataclass(frozen=True, eq=False)
class SharedData:
    """The data set of a run, its splits, and each owner's share of training and tuning data."""

    dataset: Dataset
    splits: Splits
    train: tuple[Tensor, ...]
    tuning: tuple[Tensor, ...]
    planted: Tensor | None = None
    """Training samples with a backdoor in them, if there is one."""

    def owned(
        self,
        indices: Tensor,
        classes: Sequence[str],
        size: int,
        space: Sequence[str] | None = None,
        without: Sequence[int] = (),
    ) -> TensorBatches:
        """Return the samples at `indices` that belong to some classes.

        Args:
            indices: of samples in the pool.
            classes: of the data set, to keep.
            size: of a batch.
            space: classes of the data set in the order of the targets wanted, which has all of
                `classes`; `None` for the data set's own order.
            without: samples to leave out.
        """
        kept = self.chosen(indices, classes, without)
        targets = self.dataset.targets[kept]
        if space is not None:
            rows = {name: row for row, name in enumerate(space)}
            targets = torch.tensor([rows.get(name, -1) for name in self.dataset.classes])[targets]
        return TensorBatches(self.dataset.inputs[kept], targets, size)

    def chosen(
        self, indices: Tensor, classes: Sequence[str], without: Sequence[int] = ()
    ) -> Tensor:
        """Return those of `indices` that belong to some classes and are not to be left out."""
        wanted = torch.tensor([name in classes for name in self.dataset.classes])
        kept = indices[wanted[self.dataset.targets[indices]]]
        if not without:
            return kept
        return kept[~torch.isin(kept, torch.tensor(list(without)))]

    def evaluation(self, space: Sequence[str] | None = None) -> TensorBatches:
        """Return the evaluation split, or its samples of some classes, numbered in their order."""
        classes = self.dataset.classes if space is None else space
        return self.owned(self.splits.evaluation, classes, _EVALUATION_BATCH, space)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all samples, of their splits, and of who has which."""
        shares = {f"train {i}": share for i, share in enumerate(self.train)}
        shares |= {f"tuning {i}": share for i, share in enumerate(self.tuning)}
        pool = {"inputs": self.dataset.inputs, "targets": self.dataset.targets}
        return weights_digest({**pool, **shares, "evaluation": self.splits.evaluation})

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
        settings.classes_per_client,
        settings.backdoor,
    )


@functools.lru_cache(maxsize=8)
def _share_out(
    source: str,
    seed: int,
    limit: int | None,
    clients: int,
    kind: str,
    concentration: float,
    classes_per_client: int,
    backdoor: Backdoor | None,
) -> SharedData:
    dataset = load_dataset(source)
    splits = make_splits(dataset, seed, limit=limit)

    def shares(indices: Tensor, kind: str) -> tuple[Tensor, ...]:
        parts = partition(
            dataset.targets[indices], clients, kind, seed, concentration, classes_per_client
        )
        return tuple(indices[part] for part in parts)

    train, tuning = shares(splits.train, kind), shares(splits.tuning, "iid")
    if backdoor is None:
        return SharedData(dataset, splits, train, tuning)
    dataset, planted = backdoor.planted(dataset, train[backdoor.owner], seed)
    return SharedData(dataset, splits, train, tuning, planted)


def check_shares(settings: Settings, data: SharedData) -> None:
    """Check that every owner has the data that its models need.

    Raises:
        DataError: if a root's owner has no sample of a class to forget there, or an owner has none
            of the other classes to train a model on.
    """
    spaces = label_spaces(settings.scenario, data.dataset)
    sensitive = spaces.sensitive(settings.forget)
    everywhere = {name for names in sensitive.values() for name in names}
    how = f"the {settings.partition} partition of seed {settings.seed} for {settings.clients}"
    advice = "Choose another root or seed, fewer owners, or the iid partition."
    for model in settings.scenario.ids:
        index = settings.scenario.owner_of(model, settings.clients)
        held = data.held(index)
        got = f"but in {how} it has only class {', '.join(held)}"
        for name in sensitive.get(model, ()):
            if name not in held:
                raise DataError(
                    f"Expected {owner_name(index)} to have samples of class {name!r}, which enters "
                    f"with its model {model!r}, {got}. {advice}"
                )
        if everywhere.issuperset(set(held) & set(spaces.held[model])):
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
        index: which owner it is.
    """

    def __init__(self, settings: Settings, index: int, folder: Path) -> None:
        self._settings = settings
        self.index = index
        self.data = share_out(settings)
        self.device = pick_device(settings.device)
        self.store = ModelStore(folder / "owners" / owner_name(index), owner_name(index))

    def __enter__(self) -> "SimulatedOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the run's network."""
        return self.new_network(len(record.labels))

    def new_network(self, classes: int | None = None) -> Classifier:
        """Return the network that all models of a scenario with so many classes start from."""
        return self._settings.network_spec(self.data.dataset, classes).build(self._settings.seed)

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the classes the model was trained on directly."""
        classes, size = self._trained_on(record), self._settings.batch_size
        data = self.data.owned(self.data.train[self.index], classes, size, self._space(record))
        return data if len(data) else None

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return the owner's share of the tuning split, of classes that it held."""
        classes, size = self._trained_on(record), self._settings.batch_size
        data = self.data.owned(self.data.tuning[self.index], classes, size, self._space(record))
        return data if len(data) else None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return the evaluation split of the model's classes; a successor gets the same samples."""
        return self.data.evaluation(self._space(record))

    def _space(self, record: ModelRecord) -> list[str]:
        """Return the data set's classes in the order of a model's labels."""
        aliases = self._settings.scenario.aliases
        return [aliases.get(label, label) for label in record.labels]

    def _trained_on(self, record: ModelRecord) -> list[str]:
        """Return the data set's classes that a model was trained on directly."""
        if record.provenance is None:
            return []
        aliases = self._settings.scenario.aliases
        counts = record.provenance.samples_per_class
        return [aliases.get(label, label) for label, count in counts.items() if count]


def owner_name(index: int) -> str:
    """Return the name of an owner."""
    return f"owner-{index}"
