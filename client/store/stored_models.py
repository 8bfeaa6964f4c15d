"""Reading of an owner's store: versions, Fisher summaries and the ledger.

`disinherit.client.store.store` describes layout, commit and lock.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from torch import Tensor

from disinherit.client.store.checks import check_content, check_present
from disinherit.client.store.index import Index
from disinherit.client.store.index_file import index_errors
from disinherit.client.store.ledger import Destruction, LedgerEntry, RollBack
from disinherit.client.store.objects import Objects
from disinherit.client.store.structure import Structure
from disinherit.client.store.updates import Snapshot
from disinherit.common.curvature.ekfac import Curvature, from_tensors
from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import FolderLock, sync_folder
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.identifiers import check_id
from disinherit.common.graph.records import ModelRecord


class StoredModels:
    """Model versions and ledger of one owner in one folder.

    Args:
        root: the folder; created if it does not exist.
        owner: owner of the models.

    Raises:
        StoreError: if the folder or its lock cannot be used, or the index is missing, damaged, of a
            newer Disinherit or of another owner.  Every method may raise it for these reasons;
            their docstrings list only further ones.
    """

    def __init__(self, root: Path | str, owner: str) -> None:
        self.root = root = Path(root)
        self.owner = check_id(owner, "owner name", InputError)
        objects = root / "objects"
        try:
            objects.mkdir(parents=True, exist_ok=True)
            sync_folder(root)
        except OSError as error:
            raise self._unusable(error) from error
        self._lock = FolderLock(root / "lock")
        self._index_path = root / "index.db"
        self._objects = Objects(objects)
        with self._locked(exclusive=True):
            self._check_index()
            self._index = Index(self._index_path, owner)
            try:
                self._objects.keep_only(self._index.objects())
            except BaseException:
                self._index.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; later operations are refused."""
        self._index.close()

    def record(self, model_id: str) -> ModelRecord:
        """Return the record of a version.

        Raises:
            StoreError: if the model does not exist.
        """
        with self._locked(exclusive=False):
            return self._get(model_id)

    def records(self) -> tuple[ModelRecord, ...]:
        """Return all records, oldest first."""
        with self._locked(exclusive=False):
            return self._index.records()

    def weights(self, model_id: str) -> dict[str, Tensor]:
        """Return the weights of a version, on the CPU, verified by digest.

        Raises:
            StoreError: if the model does not exist.
            CheckpointError: if their file is missing or damaged.
        """
        with self._locked(exclusive=False):
            return self._weights(self._present(model_id).digest, model_id)

    @contextmanager
    def opened(self, model_id: str) -> Iterator[Mapping[str, Tensor]]:
        """Open the weights of a version; each tensor is read and verified when it is asked for.

        Args:
            model_id: the version.

        Yields:
            Parameter name -> weights, on the CPU, another copy each time.

        Raises:
            StoreError: if the model does not exist.
            CheckpointError: if their file is missing or damaged; so may each tensor.
        """
        with self._locked(exclusive=False):
            digest = self._present(model_id).digest
            what = f"weights of model {model_id!r}"
            stored = self._objects.view(digest, what, self._index.part(digest))
        with stored as tensors:  # a file that is removed meanwhile stays readable
            yield tensors

    def fishers(self, model_id: str) -> tuple[ClassFishers, str] | None:
        """Return the registered Fisher summary of a version and its scope, or `None`.

        Raises:
            StoreError: if the model does not exist.
            CheckpointError: if its file is missing or damaged.
        """
        with self._locked(exclusive=False):
            digest = self._present(model_id).fisher_digest
            if not digest:
                return None
            return self._fishers(digest, model_id), self._index.fisher_scope(model_id)

    def curvature(self, model_id: str) -> Curvature | None:
        """Return the registered curvature of a version, or `None`.

        Raises:
            StoreError: if the model does not exist.
            CheckpointError: if its file is missing or damaged.
        """
        with self._locked(exclusive=False):
            digest = self._index.curvature(self._present(model_id).id)
            if not digest:
                return None
            what = f"curvature of model {model_id!r}"
            return from_tensors(self._objects.get(digest, what))

    def has_curvature(self, model_id: str) -> bool:
        """Return whether a version has a registered curvature; nothing is read.

        Raises:
            StoreError: if the model does not exist.
        """
        with self._locked(exclusive=False):
            return self._index.curvature(self._present(model_id).id) != ""

    def structure(self, model_id: str) -> Structure | None:
        """Return the structure of a version; `None` before registration."""
        with self._locked(exclusive=False):
            return self._index.structure(model_id)

    def applied(
        self, request_id: str, digest: str, model_id: str | None = None
    ) -> LedgerEntry | None:
        """Return the ledger entry of a request for weights, or `None` if it was not applied.

        Args:
            request_id: the request.
            digest: digest of the weights of the version before.
            model_id: that version. Required if several versions have the same weights, such as
                the members of a federation after a round: each has its own entry.

        Raises:
            StoreError: if `model_id` is missing and several versions have these weights.
        """
        with self._locked(exclusive=False):
            if model_id is not None:
                entry = self._index.entry(model_id)
                return entry if entry and entry.answers(request_id, digest) else None
            holders = self._index.holders(digest)
            if len(holders) > 1:
                raise StoreError(
                    f"Expected the id of one model with digest {digest}, but got none and "
                    f"{len(holders)} models have it: {holders}."
                )
            return self._index.answer(request_id, digest)

    def made_by(self, model_id: str) -> tuple[LedgerEntry, ...]:
        """Return the ledger entries that led to a version, latest first; empty for an origin."""
        with self._locked(exclusive=False):
            entries: list[LedgerEntry] = []
            while (entry := self._index.maker(model_id)) is not None and entry not in entries:
                entries.append(entry)
                model_id = entry.model_id
            return tuple(entries)

    def check_content(self, request_id: str, digest: str) -> None:
        """Refuse a request if the ledger has its id with another content.

        Args:
            request_id: the request.
            digest: SHA-256 of the request's content; `""` if unknown.

        Raises:
            StoreError: if the content differs.
        """
        with self._locked(exclusive=False):
            check_content(request_id, digest, self._index.contents(request_id))

    def origin(self, model_id: str, request_id: str, names: Collection[str]) -> Snapshot | None:
        """Return the snapshot of a version without unlearning.

        Args:
            model_id: the version.
            request_id: the request.
            names: parameters in scope.

        Returns:
            The snapshot, or `None` if the version has a ledger entry, a roll-back of the request,
            or no Fisher summary.

        Raises:
            StoreError: if the model does not exist.
            CheckpointError: if a file is missing or damaged, or lacks a parameter.
        """
        with self._locked(exclusive=False):
            record = self._get(model_id)
            fresh = self._index.entry(model_id) is None
            if not fresh or self._index.roll_back(request_id, model_id) or not record.fisher_digest:
                return None
            part = self._index.part(record.digest)
            fisher_part = self._index.part(record.fisher_digest)
            scope = self._objects.scope(record.digest, names, part)
            return Snapshot(
                record=record,
                base=part.base if part else record.digest,
                tensors=scope.tensors,
                carried=scope.carried,
                manifest=scope.manifest,
                fishers=self._fishers(record.fisher_digest, model_id),
                fisher_scope=self._index.fisher_scope(model_id),
                fisher_base=fisher_part.base if fisher_part else record.fisher_digest,
                cleared=fisher_part.cleared if fisher_part else (),
            )

    def destroyed(self, model_id: str) -> Destruction | None:
        """Return the tombstone of a version, or `None` if its weights are stored."""
        with self._locked(exclusive=False):
            return self._index.destruction(model_id)

    def standing_in(self, model_id: str) -> ModelRecord:
        """Return a version, or the first successor with weights if it was destroyed.

        Raises:
            StoreError: if the model does not exist.
        """
        with self._locked(exclusive=False):
            record = self._get(model_id)
            while self._index.destruction(record.id) is not None:
                entry = self._index.entry(record.id)
                if entry is None:
                    break
                record = self._get(entry.successor_id)
            return record

    @contextmanager
    def opened_prepared(
        self, request_id: str, model_id: str
    ) -> Iterator[tuple[Mapping[str, Tensor], bytes] | None]:
        """Open what `prepared` returns; each tensor is read and verified when it is asked for.

        Args:
            request_id: the request.
            model_id: the version that the weights were made of.

        Raises:
            CheckpointError: if their file is missing or damaged; so may each tensor.
        """
        with self._locked(exclusive=False):
            found = self._index.prepared(request_id, model_id)
            if found is not None:
                digest, origin = found
                what = f"weights made of model {model_id!r} for request {request_id!r}"
                stored = self._objects.view(digest, what, self._index.part(digest))
        if found is None:
            yield None
        else:
            with stored as tensors:
                yield tensors, origin

    def prepared(self, request_id: str, model_id: str) -> tuple[dict[str, Tensor], bytes] | None:
        """Return weights that were kept for a request, and how they were made; `None` for none.

        Args:
            request_id: the request.
            model_id: the version that they were made of.

        Raises:
            CheckpointError: if their file is missing or damaged.
        """
        with self._locked(exclusive=False):
            found = self._index.prepared(request_id, model_id)
            if found is None:
                return None
            digest, origin = found
            what = f"weights made of model {model_id!r} for request {request_id!r}"
            return self._objects.get(digest, what, self._index.part(digest)), origin

    def present(self, model_id: str, request_id: str = "") -> ModelRecord:
        """Return the version that took a model's place, as it was before a request.

        Args:
            model_id: the model.
            request_id: the request; `""` for the version of now.

        Raises:
            StoreError: if the model does not exist.
        """
        with self._locked(exclusive=False):
            record = self._get(model_id)
            while (entry := self._index.entry(record.id)) and entry.request_id != request_id:
                record = self._get(entry.successor_id)
            return record

    def rolled_back(self, request_id: str, model_id: str) -> RollBack | None:
        """Return the roll-back of a request in a version, or `None`."""
        with self._locked(exclusive=False):
            return self._index.roll_back(request_id, model_id)

    def _check_index(self) -> None:
        """Refuse a new index beside existing objects, since it would remove them all."""
        index = self._index_path
        if (not index.exists() or not index.stat().st_size) and self._objects.any():
            raise StoreError(
                f"Expected the index {index} beside the models of {self.owner!r}, but it is gone. "
                "Restore it, or the whole folder, from a backup."
            )

    def _weights(self, digest: str, model_id: str) -> dict[str, Tensor]:
        what = f"weights of model {model_id!r}"
        return self._objects.get(digest, what, self._index.part(digest))

    def _fishers(self, digest: str, model_id: str) -> ClassFishers:
        what = f"Fisher summary of model {model_id!r}"
        return self._objects.get_fishers(digest, what, self._index.part(digest))

    def _get(self, model_id: str) -> ModelRecord:
        record = self._index.find(model_id)
        if record is None:
            raise StoreError(
                f"Expected a model in the store of {self.owner!r}, but got {model_id!r}, which is "
                "not there. Register it first."
            )
        return record

    def _present(self, model_id: str) -> ModelRecord:
        record = self._get(model_id)
        check_present(self._index.destruction(model_id))
        return record

    @contextmanager
    def _locked(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the lock, and turn errors of SQLite and the file system into a `StoreError`."""
        try:
            with index_errors(self._index_path), self._lock.held(exclusive=exclusive):
                yield
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"Expected a writable folder for the models of {self.owner!r} at {self.root}, but got: "
            f"{error}."
        )
