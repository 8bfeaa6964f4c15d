"""The remaining data of an owner: data for a version, without all that it has forgotten.

An owner keeps its data, and an unlearned version is derived from it.  So all reads of data for a
version are made here: Fisher summaries, references, repairs, tuning and retain accuracy.  The
ledger records what was forgotten.  None of it returns, neither as gradients nor as credit for
recognition.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from disinherit.client.owner.owner import Batches, Owner
from disinherit.client.privacy.own_deltas import forgot_everything
from disinherit.client.privacy.samples import known_samples, split_by_ids
from disinherit.client.store.ledger import Forgotten, LedgerEntry
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs, take_rows
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True, eq=False)
class WithoutClasses:
    """Batches without the samples of some classes.

    Attributes:
        batches: inputs and class indices.
        classes: indices of the classes to leave out.
    """

    batches: Batches
    classes: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield each batch without these samples; empty batches are skipped."""
        for inputs, targets in self.batches:
            left_out = torch.tensor(self.classes, dtype=targets.dtype, device=targets.device)
            kept = ~torch.isin(targets, left_out)
            if kept.all():
                yield inputs, targets
            elif kept.any():
                yield take_rows(inputs, kept), targets[kept]


@dataclass(frozen=True, slots=True, eq=False)
class OnlyClasses:
    """Batches with only the samples of some classes.

    Attributes:
        batches: inputs and class indices.
        classes: indices of these classes.
        most: number of samples after which no further batch is read; `None` for all.
    """

    batches: Batches
    classes: frozenset[int]
    most: int | None = None

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield the samples of these classes in each batch; empty batches are skipped."""
        wanted = torch.tensor(sorted(self.classes))
        seen = 0
        for inputs, targets in self.batches:
            if self.most is not None and seen >= self.most:
                return
            kept = torch.isin(targets.cpu(), wanted)
            if kept.any():
                seen += int(kept.sum())
                yield take_rows(inputs, kept), targets[kept.to(targets.device)]


def as_trained(owner: Owner, record: ModelRecord) -> ModelRecord:
    """Return the record of a version with the provenance of the training that it derives from.

    The record of a successor has none, since unlearning trained it on nothing.  With it, its owner
    finds the data of that training.

    Args:
        owner: the owner of the model.
        record: the version.
    """
    made = owner.store.made_by(record.id)
    if not made or record.provenance is not None:
        return record
    return replace(record, provenance=owner.store.record(made[-1].model_id).provenance)


def cleared_classes(
    owner: Owner, record: ModelRecord, *, effective: bool = False
) -> tuple[int, ...]:
    """Return the classes forgotten on the way to a version, as indices in its labels.

    Args:
        owner: the owner of the model.
        record: the version.
        effective: whether to omit classes that a request cleared but the model still recognised.
    """
    cleared: set[int] = set()
    for entry in _entries(owner, record, effective):
        if entry.forgotten is None:
            cleared.update(_classes_from_counts(owner, entry))
        else:
            known = [name for name in entry.forgotten.classes if name in record.labels]
            cleared.update(class_indices(record.labels, known))
    return tuple(sorted(cleared))


def cleared_samples(owner: Owner, record: ModelRecord, *, effective: bool = False) -> list[str]:
    """Return the ids of training samples forgotten on the way to a version.

    Samples that are no longer in the owner's data are omitted.

    Args:
        owner: the owner of the model.
        record: the version.
        effective: as in `cleared_classes`.

    Raises:
        DataError: if there are any, and the owner has no sample ids.
    """
    return known_samples(owner, record, [*_forgotten_samples(owner, record, effective)])


def training_data(owner: Owner, record: ModelRecord, keep: Iterable[int] = ()) -> Batches | None:
    """Return the remaining data of a version's direct training.

    Args:
        owner: the owner of the model.
        record: the version.
        keep: forgotten classes to include nevertheless, to measure them.

    Returns:
        Batches; `None` if the data is gone, or none remains.

    Raises:
        DataError: if the owner cannot leave out samples forgotten on the way to the version.
    """
    batches = owner.training_data(record)
    if batches is None or forgot_everything(owner, record):
        return None
    samples = cleared_samples(owner, record)
    if samples:
        _, batches = split_by_ids(owner, record, samples)
    return _remaining(owner, record, batches, keep)


def tuning_data(owner: Owner, record: ModelRecord, keep: Iterable[int] = ()) -> Batches | None:
    """Return the owner's tuning split for a version, without classes forgotten before.

    The arguments are those of `training_data`.
    """
    return _remaining(owner, record, owner.tuning_data(record), keep)


def evaluation_data(owner: Owner, record: ModelRecord, keep: Iterable[int] = ()) -> Batches | None:
    """Return the owner's evaluation split for a version, without classes forgotten before.

    The arguments are those of `training_data`.
    """
    return _remaining(owner, record, owner.evaluation_data(record), keep)


def split_training_data(
    owner: Owner, record: ModelRecord, samples: Sequence[str]
) -> tuple[Batches, Batches]:
    """Return some training samples of a version, and the remaining ones.

    Args:
        owner: the owner of the model.
        record: the version.
        samples: ids of the samples.

    Raises:
        DataError: if the owner has no sample ids, or cannot provide the samples.
    """
    forget, kept = split_by_ids(owner, record, samples)
    earlier = set(cleared_samples(owner, record)) - set(samples)
    if earlier:
        _, kept = split_by_ids(owner, record, [*samples, *sorted(earlier)])
    return forget, _without(kept, cleared_classes(owner, record))


def without_cleared(owner: Owner, record: ModelRecord, fishers: ClassFishers) -> ClassFishers:
    """Return a version's registered Fisher sums, without classes forgotten on the way to it."""
    left = [index for index in cleared_classes(owner, record) if fishers.counts[index]]
    return fishers.without(left) if left else fishers


def _remaining(
    owner: Owner, record: ModelRecord, batches: Batches | None, keep: Iterable[int]
) -> Batches | None:
    """Return batches without classes that were forgotten before; `None` if none remain."""
    if batches is None:
        return None
    left = _without(batches, cleared_classes(owner, record), keep)
    if isinstance(left, WithoutClasses) and next(iter(left), None) is None:
        return None
    return left


def _without(batches: Batches, classes: Iterable[int], keep: Iterable[int] = ()) -> Batches:
    left_out = tuple(sorted(set(classes) - set(keep)))
    return WithoutClasses(batches, left_out) if left_out else batches


def _entries(owner: Owner, record: ModelRecord, effective: bool) -> Iterator[LedgerEntry]:
    """Yield the ledger entries that led to a version; if `effective`, only those with effect."""
    for entry in owner.store.made_by(record.id):
        if not effective or entry.outcome != pb.OUTCOME_INEFFECTIVE:
            yield entry


def _forgotten_samples(
    owner: Owner, record: ModelRecord, effective: bool
) -> Iterator[SampleDigests]:
    for entry in _entries(owner, record, effective):
        forgotten = entry.forgotten or Forgotten()
        if forgotten.samples:
            yield SampleDigests(forgotten.salt, forgotten.samples)


def _classes_from_counts(owner: Owner, entry: LedgerEntry) -> list[int]:
    """Return the classes that an entry of an older release cleared, from the lost counts."""
    if owner.store.destroyed(entry.model_id) or owner.store.destroyed(entry.successor_id):
        return []
    before, after = owner.store.fishers(entry.model_id), owner.store.fishers(entry.successor_id)
    if before is None or after is None:
        return []
    return ((before[0].counts > 0) & (after[0].counts == 0)).nonzero().flatten().tolist()
