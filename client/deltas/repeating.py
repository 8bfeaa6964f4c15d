"""Repeated requests: samples that a root, or a descendant by its change, has forgotten before.

The owner of a root answers with the change that the earlier request made, so that descendants which
did not get it then get it now.  Those that have it keep their weights: changes are added once.
"""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.samples import known_samples
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.deltas.changes import Ties, difference
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import AUTO
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1 import unlearning_pb2 as pb

HAD_BEFORE = "it had this change before"


Made = tuple[str, str]
"""A change of a root: the name of the root's line of versions, and the request it was made for.

In place of the request, the digest of its tensors names it, after `_TENSORS`.
"""

_TENSORS = "tensors:"
"""No id of a request has a colon."""


def changes_before(owner: Owner, record: ModelRecord) -> dict[Made, bool]:
    """Return the changes that are in a version, and whether the request had effect in it.

    Args:
        owner: the owner of the model.
        record: the version.

    Returns:
        For each change two names, one by its request and one by its tensors.
    """
    found: dict[Made, bool] = {}
    for entry in owner.store.made_by(record.id):
        effective = entry.outcome != pb.OUTCOME_INEFFECTIVE
        for delta in _result(entry).deltas:
            root = line_name(delta.root)
            for name in (entry.request_id, *delta.repeats, _by_tensors(delta.packet)):
                found[root, name] = found.get((root, name), False) or effective
    return found


def made_for(packet: pb.FisherPacket, request_id: str, had: Mapping[Made, bool]) -> set[Made]:
    """Return which changes are in a packet.

    The same tensors of the same root are the same change, whichever request they come with: its
    root did not take it then, or it would send another one now.

    Args:
        packet: the packet.
        request_id: the present request.
        had: changes that are in the version, of earlier requests.
    """
    root = line_name(packet.sources[0])
    same = root, _by_tensors(packet.digest)
    made = {(root, request) for request in packet.delta.repeats or [request_id]}
    return {same} if same in had and made.isdisjoint(had) else made


def requests_of(changes: Iterable[Made]) -> str:
    """Return the requests that changes were made for, for people to read."""
    named = {name for _, name in changes if not name.startswith(_TENSORS)}
    return ", ".join(sorted(named)) or "an earlier request"


def _by_tensors(digest: str) -> str:
    return f"{_TENSORS}{digest}"


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
        own = _own_change(owner, entry)
        if entry.outcome == pb.OUTCOME_INEFFECTIVE or own is None:
            continue
        if root_method not in (AUTO, own.root_method):
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


def again(owner: Owner, entries: Sequence[LedgerEntry], request_digest: str) -> pb.Delta:
    """Return where the change of earlier requests comes from, when it is sent again.

    Args:
        owner: the owner of the root.
        entries: of these requests, latest first.
        request_digest: SHA-256 of what the present request asks for.
    """
    own = _own_change(owner, entries[0])
    return pb.Delta(
        before=entries[-1].digest_before,
        after=entries[0].digest_after,
        request_digest=request_digest,
        root_method="" if own is None else own.root_method,
        exact=len(entries) == 1 and _result(entries[0]).remedy == pb.REMEDY_REPLAYED,
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
        added = [one for one in _result(entry).deltas if one.applied]
        if len(added) > 1 or any(map(owner.store.destroyed, versions)):
            return {}
        before, after = map(owner.store.weights, versions)
        for name, value in difference(before, after, ties).items():
            total[name] = total[name] + value if name in total else value
    return total


def _own_change(owner: Owner, entry: LedgerEntry) -> pb.AppliedDelta | None:
    """Return the change that a request made of a root for what the root was to forget itself.

    Those of roots above it are inherited, and say nothing of its own samples.
    """
    line = {entry.model_id, *(one.model_id for one in owner.store.made_by(entry.model_id))}
    own = (one for one in _result(entry).deltas if one.root in line and one.packet)
    return next((one for one in own if one.applied), None)


def _result(entry: LedgerEntry) -> pb.ModelResult:
    return pb.ModelResult.FromString(entry.result)
