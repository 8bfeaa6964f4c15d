"""The owners of a case as the client's handlers know owners: stores in a folder, data in memory."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.client.privacy.sample_keys import KEY_FILE
from disinherit.client.store.store import ModelStore
from disinherit.common.files import write_private
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.models.content import content_id
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights

_BATCH = 256


class CaseOwner:
    """One owner of a case.

    Args:
        case: the case.
        name: of the owner.
        folder: of its store.
        release: its conditions on what it lets out.
        curvature: whether it registers the curvature of its models.

    Attributes:
        release_policy: the same.
    """

    def __init__(
        self,
        case: MethodCase,
        name: str,
        folder: Path,
        release: ReleasePolicy = OPEN,
        curvature: bool = False,
    ) -> None:
        self._case = case
        self._curvature = curvature
        self.release_policy = release
        self.device = torch.device("cpu")
        self.store = ModelStore(folder, name)
        self._known: dict[str, dict[str, int]] = {}

    def __enter__(self) -> "CaseOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the model's network."""
        return self._subject(record).build()

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return what the model was trained on directly."""
        samples = trained_on(self._subject(record))
        return samples.batches(_BATCH) if len(samples) else None

    def sample_ids(self, record: ModelRecord) -> list[str]:
        """Return the ids of what the model was trained on directly (`ids_in`)."""
        return list(self._places(record))

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Return some of what the model was trained on directly, and the rest."""
        everything = trained_on(self._subject(record))
        chosen = torch.zeros(len(everything), dtype=torch.bool)
        chosen[self._positions(record, samples)] = True
        return everything[chosen].batches(_BATCH), everything[~chosen].batches(_BATCH)

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return whether the model can be trained again: a case keeps all that it takes."""
        return record.id in self._case.subjects

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Weights:
        """Return the model trained again as it was, without some of its samples."""
        positions = None if without is None else self._positions(record, without)
        return self._case.retrain(self._subject(record).id, positions)

    def keeps_curvature(self, record: ModelRecord) -> bool:
        """Return whether to register the curvature of the model: that of roots can be used."""
        return self._curvature and record.id in self._case.roots

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return the model's tuning split."""
        samples = self._subject(record).tuning
        return samples.batches(_BATCH) if len(samples) else None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return nothing: a method has no held-out samples, and evaluation is not on its clock."""
        return None

    def _positions(self, record: ModelRecord, samples: Iterable[str]) -> list[int]:
        places = self._places(record)
        return [places[id] for id in samples]

    def _places(self, record: ModelRecord) -> dict[str, int]:
        """Return the id of each sample that a model was trained on directly -> its position."""
        if record.id not in self._known:
            ids = ids_in(self._subject(record))
            self._known[record.id] = {id: position for position, id in enumerate(ids)}
        return self._known[record.id]

    def _subject(self, record: ModelRecord) -> MethodSubject:
        return self._case.subjects[record.id]


def trained_on(subject: MethodSubject) -> Samples:
    """Return all samples that a subject was trained on directly."""
    parts = [part for part in (subject.forget, subject.retain) if len(part)]
    return Samples.joined(parts) if parts else subject.retain


def ids_in(subject: MethodSubject) -> list[str]:
    """Return what a subject's owner calls the samples that it was trained on directly, in order.

    An id is that of a sample's content, so it is one sample's in all models of the owner; of the
    same content, the second is another sample, `ID.2`.
    """
    samples, ids = trained_on(subject), []
    times: dict[str, int] = {}
    for inputs, target in zip(samples.inputs, samples.targets.tolist(), strict=True):
        id = content_id(subject.labels[target], [inputs])
        times[id] = times.get(id, 0) + 1
        ids.append(id if times[id] == 1 else f"{id}.{times[id]}")
    return ids


def samples_to_forget(subject: MethodSubject) -> list[str]:
    """Return what a subject's owner calls the samples that it must forget, trained on directly."""
    return ids_in(subject)[: len(subject.forget)]


def owners_of(
    case: MethodCase, folder: Path, release: ReleasePolicy = OPEN, curvature: bool = False
) -> dict[str, Callable[[], CaseOwner]]:
    """Put the models of a case into stores, and return how to open each owner.

    Args:
        case: the case.
        folder: where the stores go.
        release: conditions of every owner on what it lets out.
        curvature: whether owners register the curvature of roots.
    """
    owners: dict[str, Callable[[], CaseOwner]] = {}
    for subject in case.subjects.values():
        if subject.owner not in owners:
            place = folder / f"owner-{len(owners)}"
            owners[subject.owner] = partial(
                CaseOwner, case, subject.owner, place, release, curvature
            )
            place.mkdir()
            # The same digests and noise whenever the case is measured.
            write_private(place / KEY_FILE, hashlib.sha256(subject.owner.encode()).digest())
    for created_us, subject in enumerate(_by_age(case), start=len(case.unaffected)):
        with owners[subject.owner]() as owner:
            owner.store.add(record_of(subject, created_us), subject.original)
    return owners


def graph_of(
    case: MethodCase, *, all_roots: bool = False
) -> Iterator[tuple[ModelRecord, list[Inheritance]]]:
    """Yield the records of all models and their edges, parents first.

    Args:
        case: the case.
        all_roots: whether to add an edge from every root to every model that no root comes from: a
            graph in which there is one group, as the published way of merging has it.
    """
    subjects = case.subjects.values()
    origins = _origins(case)
    for created_us, (name, weights) in enumerate(case.unaffected.items()):
        child = next(subject for subject in subjects if name in subject.parents)
        yield (
            ModelRecord(
                id=name,
                owner="somebody-else",
                architecture=architecture_fingerprint(weights),
                labels=child.labels,
                digest=weights_digest(weights),
                created_us=created_us,
            ),
            [],
        )
    for created_us, subject in enumerate(_by_age(case), start=len(case.unaffected)):
        parents = list(subject.parents)
        if all_roots and subject.id not in origins:
            parents += [root for root in case.roots if root not in parents]
        share = 1.0 / len(parents) if parents else 1.0
        kind = InheritanceKind.FEDERATED if len(parents) > 1 else InheritanceKind.TRANSFER
        edges = [Inheritance(parent, subject.id, kind, share) for parent in parents]
        yield record_of(subject, created_us), edges


def _by_age(case: MethodCase) -> list[MethodSubject]:
    """Return the subjects, parents first, and no root after a model that it does not come from."""
    origins = _origins(case)
    return sorted(case.subjects.values(), key=lambda subject: subject.id not in origins)


def _origins(case: MethodCase) -> set[str]:
    """Return the roots and whatever they come from, among a case's subjects."""
    found: set[str] = set()
    waiting = [root for root in case.roots if root in case.subjects]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.add(model)
            waiting += [p for p in case.subjects[model].parents if p in case.subjects]
    return found


def record_of(subject: MethodSubject, created_us: int) -> ModelRecord:
    """Return the record of a subject, with what it was trained on."""
    counts = torch.bincount(trained_on(subject).targets, minlength=len(subject.labels)).tolist()
    return ModelRecord(
        id=subject.id,
        owner=subject.owner,
        architecture=architecture_fingerprint(subject.original),
        labels=subject.labels,
        digest=weights_digest(subject.original),
        created_us=created_us,
        provenance=Provenance("case", dict(zip(subject.labels, counts, strict=True))),
    )
