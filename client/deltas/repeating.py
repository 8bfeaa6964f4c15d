"""Repeated requests: samples that a root, or a descendant by its change, has forgotten before.

The owner of a root answers with the change that the earlier request made, so that descendants which
did not get it then get it now.  Those that have it keep their weights: changes are added once.
"""

from collections.abc import Sequence

from torch import Tensor

from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.samples import known_samples
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.deltas.changes import Ties, difference
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import AUTO
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1 import unlearning_pb2 as pb

HAD_BEFORE = "it had this change before"


def changes_before(owner: Owner, record: ModelRecord) -> dict[str, bool]:
    """Return the requests whose changes are in a version, and whether each had effect in it.

    Args:
        owner: the owner of the model.
        record: the version.
    """
    found: dict[str, bool] = {}
    for entry in owner.store.made_by(record.id):
        effective = entry.outcome != pb.OUTCOME_INEFFECTIVE
        for delta in _result(entry).deltas:
            for request in (entry.request_id, *delta.repeats):
                found[request] = found.get(request, False) or effective
    return found


def made_for(packet: pb.FisherPacket, request_id: str) -> set[str]:
    """Return the requests for which the change in a packet was made.

    Args:
        packet: the packet.
        request_id: the present request.
    """
    return {*packet.delta.repeats} or {request_id}


def forgotten_before(
    owner: Owner, record: ModelRecord, samples: Sequence[str] | None, root_method: str
) -> tuple[LedgerEntry, ...]:
    """Return the entries of earlier requests that made a root forget all of some samples.

    Args:
        owner: the owner of the root.
        record: its present version, with the provenance of its training.
        samples: ids of the samples; `None` for all direct training data.
        root_method: the root method asked for; another than theirs is a new way to forget.

    Returns:
        One entry if one is enough; empty if some samples were not forgotten, or without effect.
    """
    found: list[LedgerEntry] = []
    left = None if samples is None else set(samples)
    for entry in owner.store.made_by(record.id):
        result = _result(entry)
        own = [one for one in result.deltas if one.applied and one.packet]
        if entry.outcome == pb.OUTCOME_INEFFECTIVE or not own:
            continue
        if root_method not in (AUTO, own[0].root_method):
            continue
        forgotten = entry.forgotten
        if forgotten is None:
            continue
        if not forgotten.samples:  # all that it was trained on
            return (entry,)
        if left is None:
            continue
        listed = [SampleDigests(forgotten.salt, forgotten.samples)]
        known = set(known_samples(owner, record, listed))
        assert samples is not None
        if known.issuperset(samples):
            return (entry,)
        if known & left:
            left -= known
            found.append(entry)
    return tuple(found) if left is not None and not left else ()


def again(entries: Sequence[LedgerEntry], request_digest: str) -> pb.Delta:
    """Return where the change of earlier requests comes from, when it is sent again.

    Args:
        entries: of these requests, latest first.
        request_digest: SHA-256 of what the present request asks for.
    """
    results = [_result(entry) for entry in entries]
    return pb.Delta(
        before=entries[-1].digest_before,
        after=entries[0].digest_after,
        request_digest=request_digest,
        root_method=results[0].deltas[0].root_method,
        exact=len(entries) == 1 and results[0].remedy == pb.REMEDY_REPLAYED,
        repeats=[entry.request_id for entry in entries],
    )


def change_again(owner: Owner, entries: Sequence[LedgerEntry], ties: Ties) -> dict[str, Tensor]:
    """Return the change that earlier requests made of a root, if its owner still has the weights.

    Args:
        owner: the owner of the root.
        entries: of these requests.
        ties: names of tied parameters.

    Returns:
        Name -> change; empty if weights are gone, or the changes of other roots are in them.
    """
    total: dict[str, Tensor] = {}
    for entry in entries:
        versions = entry.model_id, entry.successor_id
        if len(_result(entry).deltas) > 1 or any(map(owner.store.destroyed, versions)):
            return {}
        before, after = map(owner.store.weights, versions)
        for name, value in difference(before, after, ties).items():
            total[name] = total[name] + value if name in total else value
    return total


def _result(entry: LedgerEntry) -> pb.ModelResult:
    return pb.ModelResult.FromString(entry.result)
