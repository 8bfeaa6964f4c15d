"""Shares of one data set: which owner of a run has which samples."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.errors import DataError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.data.backdoors import Backdoor
from disinherit.simulations.data.datasets import Dataset, load_dataset
from disinherit.simulations.data.partitions import NATURAL, deal_contributors, partition
from disinherit.simulations.data.splits import Splits, make_splits
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings

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

    if kind == NATURAL:
        train, tuning = _natural(dataset, splits, clients)
    else:
        train, tuning = shares(splits.train, kind), shares(splits.tuning, "iid")
    if backdoor is None:
        return SharedData(dataset, splits, train, tuning)
    dataset, planted = backdoor.planted(dataset, train[backdoor.owner], seed)
    return SharedData(dataset, splits, train, tuning, planted)


def _natural(
    dataset: Dataset, splits: Splits, clients: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return each owner's training and tuning samples: all of some contributors, and no others."""
    if dataset.contributors is None:
        raise DataError(
            f"Expected a data set that says who contributed each sample, such as glyphs, for the "
            f"{NATURAL} partition, but got {dataset.name!r}. Choose another partition."
        )
    sizes = dataset.contributors[splits.train].bincount(minlength=len(dataset.contributor_names))
    owners = torch.tensor(deal_contributors(sizes.tolist(), clients))[dataset.contributors]
    train, tuning = (
        tuple(indices[owners[indices] == owner] for owner in range(clients))
        for indices in (splits.train, splits.tuning)
    )
    for owner, share in enumerate(tuning):
        if not len(share):
            raise DataError(
                f"Expected tuning samples of {owner_name(owner)} in the {NATURAL} partition for "
                f"{clients} owners, but its contributors have none. Use fewer owners."
            )
    return train, tuning


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


def owner_name(index: int) -> str:
    """Return the name of an owner."""
    return f"owner-{index}"
