"""The store of an owner: versions of models, their Fisher summaries, and the ledger of unlearning.

Layout of the folder::

    lock                          locked while a process reads or writes
    index.db                      model records and ledger (`disinherit.client.store.index`)
    objects/<digest>.safetensors  weights and Fisher summaries, named by `weights_digest`, and what
                                  changed in many models at once (`disinherit.client.store.objects`)

**Commit.**  A write takes the lock, makes its objects durable, and changes the index in one
transaction.  The transaction is the commit point: a version and its ledger entry become visible
together, or unreferenced objects are left, which the next opening removes.

**Lock.**  `flock` on `lock` is held for *each operation*, exclusively to write and to open, shared
to read.  So an opening never takes an object on its way into the index for a leftover, several
processes may keep the same store open, and a killed process leaves no lock behind.  Threads may
share a `ModelStore`; after a fork the child must open its own.
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
    check_version,
)
from disinherit.client.store.destruction import Destroyed, bury
from disinherit.client.store.ledger import Commit, LedgerEntry, RollBack
from disinherit.client.store.objects import Delta
from disinherit.client.store.stored_models import StoredModels
from disinherit.client.store.structure import Structure
from disinherit.client.store.updates import Update
from disinherit.common.errors import StoreError
from disinherit.common.files import sync_folder
from disinherit.common.fisher.diagonal import ClassFishers
from disinherit.common.graph.records import ModelRecord, ModelStatus

__all__ = ["Commit", "LedgerEntry", "ModelStore", "RollBack"]


class ModelStore(StoredModels):
    """Model versions and ledger of one owner, in one folder, to be read and written.

    Takes and raises what `StoredModels` does.
    """

    def add(
        self,
        record: ModelRecord,
        weights: Mapping[str, Tensor],
        fishers: ClassFishers | None = None,
        fisher_scope: str = "",
    ) -> ModelRecord:
        """Register a version.

        One that is there already with the same digest keeps its record; its weights file is written
        again, which repairs a damaged one, and `fishers`, if given, replace its Fisher summary.

        Args:
            record: the version; its digest is that of `weights`.
            weights: its weights by parameter name.
            fishers: per-class Fisher sums, `[C, *shape]` by parameter name.
            fisher_scope: the scope they were computed in.

        Returns:
            The record as it now stands in the store, with the digest of its Fisher summary.

        Raises:
            StoreError: if the record is another owner's, does not fit the weights, or its id is
                taken by a version with other weights.
            FisherError: if `fishers` has another number of classes than the record.
        """
        check_version(self.owner, record, weights)
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
            self._put(record.digest, weights)
            return stored if fishers is None else self._register(stored, fishers, fisher_scope)

    def set_fishers(self, model_id: str, fishers: ClassFishers, scope: str) -> ModelRecord:
        """Register, or replace, the Fisher summary of a version.

        Args:
            model_id: the version.
            fishers: per-class Fisher sums, `[C, *shape]` by parameter name.
            scope: the scope they were computed in.

        Returns:
            The record with the digest of the Fisher summary.

        Raises:
            StoreError: if there is no such model.
            FisherError: if `fishers` has another number of classes than the record.
        """
        with self._writing():
            return self._register(self._present(model_id), fishers, scope)

    def set_structure(self, model_id: str, structure: Structure) -> None:
        """Keep what is known of a version's structure; its successors inherit it.

        Raises:
            StoreError: if there is no such model.
        """
        with self._writing():
            self._index.set_structure(self._present(model_id).id, structure)

    def apply(self, application: Commit) -> LedgerEntry:
        """Record that a version was unlearned in: its successor, and the entry in the ledger.

        Both become visible in one step, in which the version becomes `superseded`.  If the ledger
        has the entry already, nothing is changed.

        Args:
            application: what was done.

        Returns:
            The new entry, or the one that was there.

        Raises:
            StoreError: if there is no such model or it has another digest than expected, if another
                request was applied to it, if this one was rolled back in it, if the successor is
                another owner's, does not fit its weights, or its id is taken by other weights or by
                a version that is not active.
            FisherError: if the Fisher summary has another number of classes than the successor.
        """
        key = application.request_id, application.expected_digest
        entry = self.applied(*key, application.model_id)
        if entry is not None:
            return entry
        check_successor(self.owner, application)
        successor = application.successor
        with self._writing():
            entry = self._index.entry(application.model_id)
            if entry is not None and entry.answers(*key):  # by another process, meanwhile
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
            self._put(successor.digest, application.weights)
            if application.fishers is not None:
                self._register(successor, application.fishers, application.fisher_scope)
            self._supersede(application.entry)
        return application.entry

    def apply_changes(self, changes: Sequence[Update]) -> frozenset[str]:
        """Record that many versions were unlearned in: like `apply` of each, but all in one step.

        What changed is written as few files, and all become visible and durable together.

        Args:
            changes: what was done, once for each version.

        Returns:
            Ids of the versions for which it is recorded now.  Left out are those which `apply`
            would refuse, or that have an entry already; nothing is changed in them.

        Raises:
            CheckpointError: if the changed tensors cannot be written; nothing is recorded then.
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
        """Whether a change can be recorded as it is; `apply` knows the reason if not."""
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
        """Add the rows of a change, but for what its weights are made of."""
        origin, successor = change.origin, change.successor
        if not self._index.holds(successor.fisher_digest):
            self._index.add_part(
                Delta(successor.fisher_digest, origin.fisher_base, cleared=change.cleared)
            )
        self._index.insert(successor)
        self._index.set_fisher(successor.id, successor.fisher_digest, origin.fisher_scope)
        self._supersede(change.entry)

    def _supersede(self, entry: LedgerEntry) -> None:
        """Put the successor of a version, which is in the index, in its place."""
        self._index.inherit_structure(entry.successor_id, entry.model_id)
        self._index.set_status(entry.model_id, ModelStatus.SUPERSEDED)
        self._index.append(entry)

    def roll_back(
        self, request_id: str, model_id: str, expected_digest: str, request_digest: str = ""
    ) -> RollBack:
        """Undo a request in a version: it is `active` again, and what was made of it `retired`.

        Ledger and statuses change in one step, and no weights do.  A request that was not applied
        yet is noted all the same, so that a message of it that comes later changes nothing.  What
        was undone already stays as it is.

        Args:
            request_id: the request.
            model_id: the version to put back.
            expected_digest: its `weights_digest`.
            request_digest: SHA-256 of what the request asks for; `""` if nobody said.

        Returns:
            What is recorded of it now.

        Raises:
            StoreError: if the request's id is known with another digest, there is no such model, it
                has another digest than expected, or what the request made of it was unlearned in
                since.
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
                self._weights(expected_digest, model_id)
                self._index.remove(model_id)
                self._index.set_status(model_id, ModelStatus.ACTIVE)
                self._index.set_status(retired, ModelStatus.RETIRED)
            made = RollBack(request_id, model_id, expected_digest, retired, request_digest)
            self._index.append_roll_back(made)
        return made

    def destroy(
        self, request_id: str, expected: Mapping[str, str], request_digest: str = ""
    ) -> Destroyed:
        """Remove the weights and the Fisher summaries of versions that a request superseded.

        What is made of them is written out first, and all of them are destroyed in one step.  Their
        records stay, and so does the ledger.  What was destroyed already stays so.

        Args:
            request_id: the request.
            expected: model -> its `weights_digest`.
            request_digest: SHA-256 of what the request asks for; `""` if nobody said.

        Returns:
            What became of each; one that is not there, has another digest, was not superseded by
            this request, or whose successor is damaged is refused and left as it is.

        Raises:
            StoreError: if the request's id is known with another digest; nothing is destroyed then.
            CheckpointError: if something cannot be written out; nothing is destroyed then.
        """
        with self._locked(exclusive=True):
            with self._index.transaction():
                check_content(request_id, request_digest, self._index.contents(request_id))
                found = bury(self._index, self._objects, request_id, expected, request_digest)
            self._objects.keep_only(self._index.objects())
            sync_folder(self.root / "objects")
        return found

    def _put(self, digest: str, weights: Mapping[str, Tensor]) -> None:
        self._objects.put(digest, weights)
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
