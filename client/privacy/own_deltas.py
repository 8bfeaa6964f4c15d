"""Changes of a root for what it was to forget itself, among the entries of its owner's ledger."""

from collections.abc import Collection

from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.samples import known_samples
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1 import unlearning_pb2 as pb


def own_delta(owner: Owner, entry: LedgerEntry) -> pb.AppliedDelta | None:
    """Return the change that a request made of a root for what the root was to forget itself.

    Those of roots above it are inherited, and say nothing of its own samples.

    Args:
        owner: the owner of the root.
        entry: the entry of the request.
    """
    line = {entry.model_id, *(one.model_id for one in owner.store.made_by(entry.model_id))}
    deltas = pb.ModelResult.FromString(entry.result).deltas
    own = (one for one in deltas if one.root in line and one.packet)
    return next((one for one in own if one.applied), None)


def own_entries(
    owner: Owner, record: ModelRecord, samples: Collection[str] | None
) -> list[LedgerEntry]:
    """Return the entries by which a root forgot some samples of its own before, latest first.

    Args:
        owner: the owner of the root.
        record: its version, with the provenance of its training.
        samples: ids of the samples; `None` for all.

    Raises:
        DataError: if the owner has no sample ids.
    """
    found = []
    for entry in owner.store.made_by(record.id):
        forgotten = entry.forgotten
        if forgotten is None or own_delta(owner, entry) is None:
            continue
        listed = [SampleDigests(forgotten.salt, forgotten.samples)] if forgotten.samples else []
        if (
            samples is None
            or not listed
            or not set(samples).isdisjoint(known_samples(owner, record, listed))
        ):
            found.append(entry)
    return found


def forgot_everything(owner: Owner, record: ModelRecord) -> bool:
    """Whether a version has forgotten all that it was trained on directly, as where a client left.

    Args:
        owner: the owner of the model.
        record: the version.
    """
    return any(
        entry.forgotten is not None
        and not (entry.forgotten.samples or entry.forgotten.classes)
        and own_delta(owner, entry) is not None
        for entry in owner.store.made_by(record.id)
    )
