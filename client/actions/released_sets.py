"""Sample sets of released Fisher packets, and their checks before a release."""

import hmac
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import nn

from disinherit.client.dampening.summaries import class_fishers
from disinherit.client.owner.owner import Batches, Owner, ResolvesSamples
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.client.privacy.release_ledger import Release, Released, ReleaseLedger, TrainingSet
from disinherit.client.privacy.released_cells import Sizes, smallest_cell_of_all
from disinherit.client.privacy.remaining import cleared_classes, cleared_samples
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.client.privacy.samples import split_by_ids
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import take_rows
from disinherit.common.wire.samples import same_id

_CONTEXT = b"disinherit releases v1\0"
_OF_KEY = b"disinherit key of releases v1\0"
_DIGITS = 32
_log = logging.getLogger(__name__)


class ReleasedSets:
    """Sample sets of one model for releases of Fisher information.

    Args:
        owner: the owner of the model.
        record: the version with the Fisher information.
    """

    def __init__(self, owner: Owner, record: ModelRecord) -> None:
        self._owner = owner
        self._record = record
        self._key: bytes | None = None
        self._known_ids: dict[str, list[tuple[str, str]]] = {}

    @cached_property
    def _without(self) -> frozenset[str]:
        """Names of samples that were forgotten before."""
        return self._named(cleared_samples(self._owner, self._record))

    def of_classes(self, counts: Sizes) -> Release:
        """Return the set of all samples of some classes.

        Args:
            counts: class name -> number of its samples.
        """
        sizes = tuple(sorted((label, count) for label, count in counts.items() if count))
        labels = frozenset(label for label, _ in sizes)
        return Release(labels, self._without, frozenset(), sizes)

    def of_samples(self, ids: Iterable[str], counts: Sizes) -> Release:
        """Return the set of some samples, as a set of classes if they are whole classes.

        Args:
            ids: ids of the samples.
            counts: class name -> number of the samples.
        """
        whole = self._whole_classes()
        if all(whole.get(label) == count for label, count in counts.items() if count):
            return self.of_classes(counts)
        sizes = tuple(sorted((label, count) for label, count in counts.items() if count))
        return Release(frozenset(), frozenset(), self._named(ids), sizes)

    def record(self, release: Release, policy: ReleasePolicy) -> None:
        """Record a set in the ledger before its packet is released, or refuse it.

        Args:
            release: the set.
            policy: the conditions.

        Raises:
            WithheldError: if all releases of the owner together would isolate too few samples.
            StoreError: if the ledger cannot be used.
        """

        def allows(known: Sequence[Released], new: Released) -> None:
            versions = dict.fromkeys(one.data.version for one in known)
            classes_of = partial(self._classes_of, versions=tuple(versions))
            cell = smallest_cell_of_all(known, new, classes_of)
            policy.check_cell(self._record.id, cell)

        new = Released(self._data, release)
        key_digest = "" if self._key is None else hmac.digest(self._key, _OF_KEY, "sha256").hex()
        ledger = ReleaseLedger(self._owner.store.root, key_digest)
        ledger.add(new, allows, self._is_former)

    @cached_property
    def _data(self) -> TrainingSet:
        """The version's training set."""
        record = self._record
        made = self._owner.store.made_by(record.id)
        trained = made[-1].model_id if made else record.id  # before anything was forgotten
        ids = self._ids(record)
        names = frozenset(name for name, _ in ids)
        counts = record.provenance.samples_per_class if record.provenance is not None else {}
        if names and len(names) == len(ids) >= sum(counts.values()):
            return TrainingSet.of(names, trained)
        return TrainingSet(_name_of_data(record), trained)

    def _ids(self, record: ModelRecord) -> list[tuple[str, str]]:
        """Return name and id of each training sample; nothing if the owner cannot tell them."""
        owner = self._owner
        if not isinstance(owner, ResolvesSamples):
            return []
        if record.id not in self._known_ids:
            found: list[tuple[str, str]] = []
            try:
                found = [(self._name(id), id) for id in owner.sample_ids(record)]
            except Exception:  # of the owner's code
                _log.exception("Cannot tell the ids of the training samples of model %s", record.id)
            self._known_ids[record.id] = found
        return self._known_ids[record.id]

    def _is_former(self, name: str) -> bool:
        """Whether the ledger once called this training set so; at first, by ids of versions."""
        own = _name_of_data(self._record)
        if name == own:
            return True
        try:
            return _name_of_data(self._owner.store.record(name)) == own
        except DisinheritError:  # not the id of a version
            return False

    def _whole_classes(self) -> Mapping[str, int]:
        """Return class name -> number of remaining samples, as far as the record has them."""
        provenance = self._record.provenance
        if provenance is None:
            return {}
        gone = {self._record.labels[index] for index in cleared_classes(self._owner, self._record)}
        cleared = self._classes_of(self._without) if self._without else Counter[str]()
        if cleared is None:
            return {}
        counts = provenance.samples_per_class
        return {
            label: count - cleared.get(label, 0)
            for label, count in counts.items()
            if label not in gone
        }

    def _named(self, ids: Iterable[str]) -> frozenset[str]:
        """Return the names of samples in the ledger."""
        return frozenset(map(self._name, ids))

    def _name(self, sample: str) -> str:
        key = sample_key(self._owner.store.root) if self._key is None else self._key
        self._key = key  # created with the first sample
        return hmac.digest(key, _CONTEXT + same_id(sample).encode(), "sha256").hex()[:_DIGITS]

    def _classes_of(
        self, samples: frozenset[str], versions: Iterable[str] = ()
    ) -> Counter[str] | None:
        """Return the number of samples of each class; `None` if some samples are gone.

        Args:
            samples: their names; one version was trained on all of them.
            versions: ids of further versions that it may be.
        """
        for version in dict.fromkeys([self._record.id, *versions]):
            try:
                record = self._owner.store.record(version)
                ids = [id for name, id in self._ids(record) if name in samples]
                if len(ids) == len(samples):
                    chosen, _ = split_by_ids(self._owner, record, ids)
                    return Counter(record.labels[index] for _, y in chosen for index in y.tolist())
            except DisinheritError:  # the version is not known any more, or its data is gone
                continue
        return None


def _name_of_data(record: ModelRecord) -> str:
    """Return a name of a version's training data that does not need the ids of its samples."""
    provenance = record.provenance
    if provenance is not None and provenance.sample_set_digest:
        return provenance.sample_set_digest
    return f"data set {'' if provenance is None else provenance.dataset}"


def largest_share(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    names: Sequence[str],
    batches: Batches,
    clip_norm: float,
) -> float:
    """Return the largest share of one sample in a Fisher information, from 0 to 1.

    The share is of the sum over all parameters in scope; it takes a pass for each sample.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module.
        names: parameters in scope.
        batches: the samples.
        clip_norm: bound on each sample's squared gradient; 0 for none.
    """
    sums = []
    for inputs, targets in batches:
        for index in range(len(targets)):
            row = torch.tensor([index])
            one: Batches = [(take_rows(inputs, row), targets[row])]
            fisher = class_fishers(owner, record, network, names, one, clip_norm).total()
            sums.append(sum(float(value.double().sum()) for value in fisher.values.values()))
    total = sum(sums)
    return max(sums, default=0.0) / total if total else 0.0
