"""The store of an owner: versions of models, their Fisher summaries, and the ledger of unlearning.

Layout of the folder::

    lock                          locked while a process reads or writes
    index.db                      model records and ledger (`disinherit.client.store.index`)
    objects/<digest>.safetensors  weights, Fisher summaries and curvature, named by
                                  `weights_digest`, and stacked changes of many models
                                  (`disinherit.client.store.objects`)
    objects/<digest>.shards       digests of the files of something larger than 64 MiB; versions
                                  share files in which nothing changed

**Commit.**  A write takes the lock, makes its objects durable, and changes the index in one
transaction.  The transaction is the commit point: a version and its ledger entry become visible
together.  After a failure, unreferenced objects are removed at the next opening.

**Lock.**  Each operation holds `flock` on `lock`: exclusive for writing and opening, shared for
reading.  So an opening never removes an object before its commit, several processes may open the
same store, and a killed process leaves no lock.  Threads may share a `ModelStore`; after a fork the
child must open its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from disinherit.client.store.checks import (
    check_applicable,
    check_classes,
    check_content,
    check_expected,
    check_last,
    check_not_rolled_back,
    check_present,
    check_same_weights,
    check_successor,
    check_taken_over,
    check_unapplied,
    check_version,
)
from disinherit.client.store.destruction import Destroyed, bury
from disinherit.client.store.ledger import Commit, LedgerEntry, RollBack
from disinherit.client.store.objects import Delta
from disinherit.client.store.stored_models import StoredModels
from disinherit.client.store.structure import Structure
from disinherit.client.store.updates import Update
from disinherit.common.curvature.ekfac import Curvature, as_tensors
from disinherit.common.errors import StoreError
from disinherit.common.files import sync_folder
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.tensors.checkpoints import make_manifest
from disinherit.common.tensors.files import Kind
from disinherit.common.tensors.identity import Manifest, manifest_digest
from disinherit.common.tensors.shards import ShardWriter


class ModelStore(StoredModels):
    """Model versions and ledger of one owner in one folder, with writing.

    Args:
        root: the folder; created if it does not exist.
        owner: owner of the models; the first opening fixes it.

    Raises:
        StoreError: if the folder or its lock cannot be used, or the index is missing, damaged, of a
            newer Disinherit or of another owner.  Every method may raise it for these reasons;
            their docstrings list only further ones.
    """

    def add(
        self,
        record: ModelRecord,
        weights: Mapping[str, Tensor],
        fishers: ClassFishers | None = None,
        fisher_scope: str = "",
    ) -> ModelRecord:
        """Register a version.

        An existing version with the same digest keeps its record.  Its weights file is rewritten,
        which repairs a damaged one, and `fishers`, if given, replace its Fisher summary.

        Args:
            record: the version, with the digest of `weights`.
            weights: parameter name -> weights.
            fishers: per-class Fisher sums, `[C, *shape]` by parameter name.
            fisher_scope: scope of the Fisher sums.

        Returns:
            The stored record, with the digest of its Fisher summary.

        Raises:
            StoreError: if the record has another owner or other weights, or the id is taken by a
                version with other weights.
            FisherError: if `fishers` and the record have different numbers of classes.
        """
        manifest = check_version(self.owner, record, weights)
        with self._writing():
            stored = self._index.find(record.id)
            if stored is None:
                if record.fisher_digest and fishers is None:
                    raise StoreError(
                        f"Expected the Fisher summary of model {record.id!r} itself, but got only "
                        f"its digest {record.fisher_digest}."
                    )
                stored = replace(record, fisher_digest="")
                self._index.insert(stored)
            check_same_weights(record, stored)
            check_present(self._index.destruction(record.id))
            self._put(record.digest, weights, manifest)
            return stored if fishers is None else self._register(stored, fishers, fisher_scope)

    def set_fishers(self, model_id: str, fishers: ClassFishers, scope: str) -> ModelRecord:
        """Register, or replace, the Fisher summary of a version.

        Args:
            model_id: the version.
            fishers: per-class Fisher sums, `[C, *shape]` by parameter name.
            scope: scope of the Fisher sums.

        Returns:
            The record with the digest of the Fisher summary.

        Raises:
            StoreError: if the model does not exist.
            FisherError: if `fishers` and the record have different numbers of classes.
        """
        with self._writing():
            return self._register(self._present(model_id), fishers, scope)

    def set_curvature(self, model_id: str, curvature: Curvature) -> None:
        """Register, or replace, the curvature of a version.  It is destroyed with it.

        Raises:
            StoreError: if the model does not exist.
        """
        tensors = as_tensors(curvature)
        manifest = make_manifest(tensors)
        digest = manifest_digest(manifest)
        with self._writing():
            self._objects.put(digest, tensors, manifest)
            self._index.set_curvature(self._present(model_id).id, digest)

    def set_structure(self, model_id: str, structure: Structure) -> None:
        """Store the structure of a version; its successors inherit it.

        Raises:
            StoreError: if the model does not exist.
        """
        with self._writing():
            self._index.set_structure(self._present(model_id).id, structure)

    def prepare(
        self, request_id: str, model_id: str, weights: Mapping[str, Tensor], origin: bytes
    ) -> str:
        """Keep weights that were made for a request, until it is applied or rolled back.

        A commit may keep them until the version is destroyed.  They are no version.  Weights that
        were kept for the same request before are replaced.

        Args:
            request_id: the request.
            model_id: the version that they were made of.
            weights: parameter name -> weights.
            origin: how they were made.

        Returns:
            Their `weights_digest`.

        Raises:
            StoreError: if the model does not exist, another request was applied to it, or this one
                was rolled back in it.
        """
        manifest = make_manifest(weights)
        digest = manifest_digest(manifest)
        with self._writing():
            self._present(model_id)
            check_not_rolled_back(self._index.roll_back(request_id, model_id))
            check_unapplied(request_id, self._index.entry(model_id))
            self._put(digest, weights, manifest)
            self._index.prepare(request_id, model_id, digest, origin)
        return digest

    def stage(self, kinds: Mapping[str, Kind], model_id: str = "") -> ShardWriter:
        """Return a writer for new weights, to be stored or closed.

        They are no version, and gone when it is closed.

        Args:
            kinds: parameter name -> dtype and shape.
            model_id: version whose files they have where nothing in them changes; `""` for none.

        Raises:
            CheckpointError: if they cannot be written.
            StoreError: if the version does not exist.
        """
        if not model_id:
            return self._objects.stage(kinds)
        with self._locked(exclusive=False):
            digest = self._present(model_id).digest
            part = self._index.part(digest)
            return self._objects.stage(kinds, part.base if part else digest)

    def apply(self, application: Commit) -> LedgerEntry:
        """Commit unlearning in a version: its successor and the ledger entry.

        Both become visible in one step, and the version becomes `superseded`.  If the ledger has
        the entry already, nothing changes.

        Args:
            application: the commit.

        Returns:
            The new or existing entry.

        Raises:
            StoreError: if the model does not exist or has another digest; if another request was
                applied to it, or this one was rolled back in it; if the successor has another owner
                or other weights, or its id is taken by other weights or an inactive version.
            FisherError: if summary and successor have different numbers of classes.
        """
        key = application.request_id, application.expected_digest
        entry = self.applied(*key, application.model_id)
        if entry is not None:
            return entry
        manifest = check_successor(self.owner, application)
        successor = application.successor
        with self._writing():
            entry = self._index.entry(application.model_id)
            if entry is not None and entry.answers(*key):  # another process was faster
                return entry
            check_applicable(application, self._get(application.model_id), entry)
            check_not_rolled_back(
                self._index.roll_back(application.request_id, application.model_id)
            )
            stored = self._index.find(successor.id)
            if stored is None:
                self._index.insert(replace(successor, status=ModelStatus.ACTIVE))
            else:
                check_taken_over(application, stored)
            self._put(successor.digest, application.weights, manifest)
            if application.fishers is not None:
                self._register(successor, application.fishers, application.fisher_scope)
            elif application.keeps_summary:
                digest = self._get(application.model_id).fisher_digest
                scope = self._index.fisher_scope(application.model_id)
                self._index.set_fisher(successor.id, digest, scope)
            curvature = self._index.curvature(application.model_id)
            if application.keeps_curvature and curvature:
                self._index.set_curvature(successor.id, curvature)
            kept = application.request_id if application.keeps_prepared else ""
            self._supersede(application.entry, kept)
        return application.entry

    def apply_changes(self, changes: Sequence[Update]) -> frozenset[str]:
        """Commit unlearning in many versions in one step.

        The changed tensors are written into few files, and all versions become visible together.

        Args:
            changes: one change for each version.

        Returns:
            Ids of the recorded versions.  Versions that `apply` would refuse, or that have an entry
            already, are left out and stay unchanged.

        Raises:
            CheckpointError: if the changed tensors cannot be written; then nothing is recorded.
        """
        with self._writing():
            done = [change for change in changes if self._is_open(change)]
            stacks: dict[object, list[Update]] = {}
            for change in done:
                if change.changed and not self._index.holds(change.successor.digest):
                    kinds = {name: (v.shape, v.dtype) for name, v in change.changed.items()}
                    stacks.setdefault(frozenset(kinds.items()), []).append(change)
                self._insert(change)
            for stack in stacks.values():
                pack = self._objects.put_pack(
                    {n: torch.stack([c.changed[n] for c in stack]) for n in stack[0].changed}
                )
                for place, change in enumerate(stack):
                    self._index.add_part(
                        Delta(change.successor.digest, change.origin.base, pack, place)
                    )
        return frozenset(change.origin.record.id for change in done)

    def _is_open(self, change: Update) -> bool:
        """Whether a change can be recorded; `apply` gives the reason if not."""
        origin, successor = change.origin.record, change.successor
        present = self._index.find(origin.id)
        return (
            present is not None
            and present.digest == origin.digest
            and successor.owner == self.owner
            and self._index.find(successor.id) is None
            and self._index.entry(origin.id) is None
            and self._index.roll_back(change.request_id, origin.id) is None
        )

    def _insert(self, change: Update) -> None:
        """Add the rows of a change, without the delta of its weights."""
        origin, successor = change.origin, change.successor
        if not self._index.holds(successor.fisher_digest):
            self._index.add_part(
                Delta(successor.fisher_digest, origin.fisher_base, cleared=change.cleared)
            )
        self._index.insert(successor)
        self._index.set_fisher(successor.id, successor.fisher_digest, origin.fisher_scope)
        self._supersede(change.entry)

    def _supersede(self, entry: LedgerEntry, kept: str = "") -> None:
        """Record the entry, and replace the version by its successor.

        Weights that were made of it go, but for those of the request `kept`.
        """
        self._index.inherit_structure(entry.successor_id, entry.model_id)
        self._index.drop_prepared(entry.model_id, kept)
        self._index.set_status(entry.model_id, ModelStatus.SUPERSEDED)
        self._index.append(entry)

    def roll_back(
        self, request_id: str, model_id: str, expected_digest: str, request_digest: str = ""
    ) -> RollBack:
        """Roll back a request in a version: it becomes `active`, its successor `retired`.

        Ledger and statuses change in one step; weights do not change.  A request that was not
        applied yet is recorded as well, so that a delayed message changes nothing.  A repeated
        roll-back changes nothing.

        Args:
            request_id: the request.
            model_id: the version.
            expected_digest: its `weights_digest`.
            request_digest: SHA-256 of the request's content; `""` if unknown.

        Returns:
            The recorded roll-back.

        Raises:
            StoreError: if the request's id is known with another digest, the model does not exist
                or has another digest, or a later request was applied to its successor.
            CheckpointError: if its weights are missing or damaged.
        """
        with self._writing():
            check_content(request_id, request_digest, self._index.contents(request_id))
            known = self._index.roll_back(request_id, model_id)
            if known is not None:
                return known
            check_expected(self._get(model_id), expected_digest)
            check_present(self._index.destruction(model_id))
            entry = self._index.entry(model_id)
            retired = ""
            if entry is not None and entry.request_id == request_id:
                retired = entry.successor_id
                check_last(entry, self._index.entry(retired))
                what = f"weights of model {model_id!r}"
                self._objects.verify(expected_digest, what, self._index.part(expected_digest))
                self._index.remove(model_id)
                self._index.set_status(model_id, ModelStatus.ACTIVE)
                self._index.set_status(retired, ModelStatus.RETIRED)
            self._index.drop_prepared(model_id)
            made = RollBack(request_id, model_id, expected_digest, retired, request_digest)
            self._index.append_roll_back(made)
        return made

    def destroy(
        self, request_id: str, expected: Mapping[str, str], request_digest: str = ""
    ) -> Destroyed:
        """Remove weights, Fisher summaries and curvature of versions that a request superseded.

        Their successors are written out first, and all versions are destroyed in one step.  Records
        and ledger stay.  A repeated destruction changes nothing.

        Args:
            request_id: the request.
            expected: model -> its `weights_digest`.
            request_digest: SHA-256 of the request's content; `""` if unknown.

        Returns:
            The results.  A version is refused, and unchanged, if it does not exist, has another
            digest, was not superseded by this request, or has a damaged successor.

        Raises:
            StoreError: if the request's id is known with another digest; nothing is destroyed then.
            CheckpointError: if a successor cannot be written out; nothing is destroyed then.
        """
        with self._locked(exclusive=True):
            with self._index.transaction():
                check_content(request_id, request_digest, self._index.contents(request_id))
                found = bury(self._index, self._objects, request_id, expected, request_digest)
            self._objects.keep_only(self._index.objects())
            sync_folder(self.root / "objects")
        return found

    def _put(self, digest: str, weights: Mapping[str, Tensor], manifest: Manifest) -> None:
        self._objects.put(digest, weights, manifest)
        self._index.written_out(digest)

    def _register(self, record: ModelRecord, fishers: ClassFishers, scope: str) -> ModelRecord:
        check_classes(record, fishers)
        digest = self._objects.put_fishers(fishers)
        self._index.written_out(digest)
        self._index.set_fisher(record.id, digest, scope)
        return replace(record, fisher_digest=digest)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._locked(exclusive=True), self._index.transaction():
            yield
