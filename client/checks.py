"""What a `ModelStore` refuses before it writes."""

from collections.abc import Mapping

from torch import Tensor

from disinherit.client.ledger import Application, LedgerEntry
from disinherit.common.checkpoints import weights_digest
from disinherit.common.errors import FisherError, StoreError
from disinherit.common.fisher import ClassFishers
from disinherit.common.records import ModelRecord, ModelStatus


def check_version(owner: str, record: ModelRecord, weights: Mapping[str, Tensor]) -> None:
    """Refuse a version that is another owner's, or weights that are not its own.

    Args:
        owner: whose store it is for.
        record: the version.
        weights: its weights by parameter name.

    Raises:
        StoreError: if they do not fit.
    """
    if record.owner != owner:
        raise StoreError(
            f"Expected a model of {owner!r}, but got {record.id!r} of {record.owner!r}."
        )
    digest = weights_digest(weights)
    if digest != record.digest:
        raise StoreError(
            f"Expected weights with digest {record.digest} for model {record.id!r}, but got "
            f"{digest}."
        )


def check_same_weights(record: ModelRecord, stored: ModelRecord) -> None:
    """Refuse other weights for an id that is there already.

    Raises:
        StoreError: if the digests differ.
    """
    if record.digest != stored.digest:
        raise StoreError(
            f"Expected new weights under a new id, but got model {record.id!r} with digest "
            f"{record.digest}, and the store has it with {stored.digest}."
        )


def check_successor(owner: str, application: Application) -> None:
    """Refuse a successor that is not a version of its own, yet to be completed.

    Args:
        owner: whose store it is for.
        application: what is to be recorded.

    Raises:
        StoreError: if it is another owner's, does not fit its weights, has the id of its origin, or
            a Fisher digest already.
    """
    successor = application.successor
    check_version(owner, successor, application.weights)
    if successor.fisher_digest:
        raise StoreError(
            f"Expected successor {successor.id!r} without a Fisher digest, but got "
            f"{successor.fisher_digest}. Give its Fisher summary, if there is one."
        )
    if successor.id == application.model_id:
        raise StoreError(f"Expected a new id for the successor of {successor.id!r}.")


def check_taken_over(application: Application, stored: ModelRecord) -> None:
    """Refuse a version that is there already as the successor, unless it is the very same.

    Raises:
        StoreError: if it has other weights, or is not active.
    """
    check_same_weights(application.successor, stored)
    if stored.status is not ModelStatus.ACTIVE:
        raise StoreError(
            f"Expected an active version as successor of {application.model_id!r}, but "
            f"got {stored.id!r}, which is {stored.status.value}."
        )


def check_applicable(
    application: Application, model: ModelRecord, entry: LedgerEntry | None
) -> None:
    """Refuse to record what was made of weights that are no longer the current ones.

    Args:
        application: what is to be recorded; not what `entry` already records.
        model: the version it names, as it stands in the store.
        entry: the ledger entry of that version.

    Raises:
        StoreError: if the version has another digest, or was unlearned in for another request.
    """
    if model.digest != application.expected_digest:
        raise StoreError(
            f"Expected digest {application.expected_digest} of model {model.id!r}, but got "
            f"{model.digest}. Plan the request again on what the owner has."
        )
    if entry is not None:
        # A second successor would not have forgotten what the first one has.
        raise StoreError(
            f"Expected model {model.id!r} with digest {model.digest} not to be unlearned in yet, "
            f"but got {entry.successor_id!r} with digest {entry.digest_after}, made of it by "
            f"request {entry.request_id!r}. Plan request {application.request_id!r} on that."
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
