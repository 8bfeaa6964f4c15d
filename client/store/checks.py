"""Checks of a `ModelStore` before it writes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from disinherit.client.store.ledger import Commit, Destruction, LedgerEntry, RollBack
from disinherit.common.errors import FisherError, StoreError
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.tensors.identity import Manifest, manifest_digest
from disinherit.common.tensors.stored import manifest_of


def check_version(owner: str, record: ModelRecord, weights: Mapping[str, Tensor]) -> Manifest:
    """Refuse a version of another owner, or weights with another digest.

    Args:
        owner: owner of the store.
        record: the version.
        weights: its weights by parameter name.

    Returns:
        The manifest of the weights.

    Raises:
        StoreError: if they do not fit.
    """
    if record.owner != owner:
        raise StoreError(
            f"Expected a model of {owner!r}, but got {record.id!r} of {record.owner!r}."
        )
    manifest = manifest_of(weights)
    digest = manifest_digest(manifest)
    if digest != record.digest:
        raise StoreError(
            f"Expected weights with digest {record.digest} for model {record.id!r}, but got "
            f"{digest}."
        )
    return manifest


def check_same_weights(record: ModelRecord, stored: ModelRecord) -> None:
    """Refuse other weights for an existing id.

    Raises:
        StoreError: if the digests differ.
    """
    if record.digest != stored.digest:
        raise StoreError(
            f"Expected new weights under a new id, but got model {record.id!r} with digest "
            f"{record.digest}, and the store has it with {stored.digest}."
        )


def check_successor(owner: str, application: Commit) -> Manifest:
    """Refuse an invalid successor.

    Args:
        owner: owner of the store.
        application: the commit.

    Returns:
        The manifest of its weights.

    Raises:
        StoreError: if owner or weights differ, or it has its origin's id or a Fisher digest.
    """
    successor = application.successor
    manifest = check_version(owner, successor, application.weights)
    if successor.fisher_digest:
        raise StoreError(
            f"Expected successor {successor.id!r} without a Fisher digest, but got "
            f"{successor.fisher_digest}. Give its Fisher summary instead."
        )
    if successor.id == application.model_id:
        raise StoreError(f"Expected a new id for the successor of {successor.id!r}.")
    return manifest


def check_taken_over(application: Commit, stored: ModelRecord) -> None:
    """Refuse an existing version as the successor, unless it is identical.

    Raises:
        StoreError: if it has other weights, or is not active.
    """
    check_same_weights(application.successor, stored)
    if stored.status is not ModelStatus.ACTIVE:
        raise StoreError(
            f"Expected an active version as successor of {application.model_id!r}, but "
            f"got {stored.id!r}, which is {stored.status.value}."
        )


def check_applicable(application: Commit, model: ModelRecord, entry: LedgerEntry | None) -> None:
    """Refuse a commit on weights that are no longer current.

    Args:
        application: the commit, which `entry` does not record.
        model: the stored record of its version.
        entry: the ledger entry of that version.

    Raises:
        StoreError: if the version has another digest, or another request was applied to it.
    """
    check_expected(model, application.expected_digest)
    check_unapplied(application.request_id, entry)


def check_unapplied(request_id: str, entry: LedgerEntry | None) -> None:
    """Refuse a version that unlearning made a successor of.

    Args:
        request_id: the request that is to be applied.
        entry: the ledger entry of the version.

    Raises:
        StoreError: if there is one: a second successor would not have forgotten the data of the
            first request.
    """
    if entry is not None:
        raise StoreError(
            f"Expected model {entry.model_id!r} with digest {entry.digest_before} without a "
            f"successor, but got {entry.successor_id!r} with digest {entry.digest_after} from "
            f"request {entry.request_id!r}. Plan request {request_id!r} on that."
        )


def check_expected(model: ModelRecord, digest: str) -> None:
    """Refuse a version with other weights than expected.

    Raises:
        StoreError: if its digest is another one.
    """
    if model.digest != digest:
        raise StoreError(
            f"Expected digest {digest} of model {model.id!r}, but got {model.digest}. Plan the "
            "request again on what the owner has."
        )


def check_not_rolled_back(roll_back: RollBack | None) -> None:
    """Refuse a request that was rolled back in a version, such as a delayed task.

    Args:
        roll_back: the roll-back; `None` if there was none.

    Raises:
        StoreError: if the request was rolled back.
    """
    if roll_back is not None:
        raise StoreError(
            f"Expected a request that was not rolled back, but {roll_back.request_id!r} was in "
            f"model {roll_back.model_id!r}. Submit it again under another id."
        )


def check_content(request_id: str, digest: str, known: Sequence[str]) -> None:
    """Refuse a request if its id belongs to another one in the ledger.

    A coordinator restored from a backup may reuse an id.  The result of the first request must not
    be taken for that of the second.

    Args:
        request_id: the request.
        digest: SHA-256 of the request's content; `""` if unknown.
        known: digests of this id in the ledger.

    Raises:
        StoreError: if the digest is not among them.
    """
    if digest and known and digest not in known:
        raise StoreError(
            f"Expected a new request id, but this owner did something else for {request_id!r}: "
            f"that request has the digest {known[0]}, this one {digest}. Submit it under another "
            "id."
        )


def check_last(entry: LedgerEntry, later: LedgerEntry | None) -> None:
    """Refuse to roll back an entry if its successor has a successor.

    Args:
        entry: the entry to roll back.
        later: the ledger entry of its successor.

    Raises:
        StoreError: if a later request was applied to the successor.
    """
    if later is not None:
        raise StoreError(
            f"Expected nothing to be built upon {entry.successor_id!r}, which request "
            f"{entry.request_id!r} made, but request {later.request_id!r} made "
            f"{later.successor_id!r} of it. Roll that request back first."
        )


def check_classes(record: ModelRecord, fishers: ClassFishers) -> None:
    """Refuse a Fisher summary for another label space.

    Raises:
        FisherError: if it has another number of classes than the version.
    """
    if fishers.num_classes != len(record.labels):
        raise FisherError(
            f"Expected Fisher sums of {len(record.labels)} classes for model {record.id!r}, "
            f"but got {fishers.num_classes}."
        )


def check_present(destruction: Destruction | None) -> None:
    """Refuse a version with destroyed weights.

    Args:
        destruction: its tombstone, if any.

    Raises:
        StoreError: if it has a tombstone.
    """
    if destruction is not None:
        raise StoreError(
            f"Expected the weights of model {destruction.model_id!r}, but they were destroyed when "
            f"the retention window of request {destruction.request_id!r} had passed. Only the "
            "successor is left."
        )


def check_superseded(model_id: str, request_id: str, entry: LedgerEntry | None) -> LedgerEntry:
    """Refuse to destroy a version that the request did not supersede, or that was rolled back.

    Args:
        model_id: the version.
        request_id: the request.
        entry: the version's ledger entry.

    Raises:
        StoreError: if the entry is not of the request.
    """
    if entry is None or entry.request_id != request_id:
        what = "no request" if entry is None else f"request {entry.request_id!r}"
        raise StoreError(
            f"Expected a model that request {request_id!r} superseded, to destroy it, but "
            f"{model_id!r} is superseded by {what}."
        )
    return entry
