"""Repeated requests: samples that a root, or a descendant by its change, has forgotten before.

The owner of a root answers with the change that the earlier request made, so that descendants which
did not get it then get it now.  Those that have it keep their weights: changes are added once.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence

from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.own_deltas import own_delta
from disinherit.client.privacy.samples import known_samples
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.deltas.alternatives import by_digests
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import AUTO
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1 import unlearning_pb2 as pb

HAD_BEFORE = "it had this change before"
PARENTS_HAD = "its parents had this change before it was made of them"


Made = tuple[str, str]
"""A change of a root: the name of the root's line of versions, and the request it was made for.

In place of the request, digests name it, of its tensors, or of the root's weights before and after.
They are written with a colon, which no id of a request has.
"""


def changes_before(owner: Owner, record: ModelRecord) -> dict[Made, bool]:
    """Return the changes that are in a version, and whether the request had effect in it.

    Args:
        owner: the owner of the model.
        record: the version.

    Returns:
        For each change several names: by its request, its tensors, and the root's weights.
    """
    found: dict[Made, bool] = {}
    for entry in owner.store.made_by(record.id):
        effective = entry.outcome != pb.OUTCOME_INEFFECTIVE
        for delta in _result(entry).deltas:
            root = line_name(delta.root)
            digests = by_digests(delta.packet, delta.before, delta.after)
            for name in (entry.request_id, *delta.repeats, *digests):
                found[root, name] = found.get((root, name), False) or effective
    return found


def made_for(packet: pb.FisherPacket, request_id: str, had: Mapping[Made, bool]) -> set[Made]:
    """Return which changes are in a packet.

    The same tensors of the same root, or the same weights before and after, are the same change,
    whichever request they come with: its root did not take it then, or it would send another one
    now.

    Args:
        packet: the packet.
        request_id: the present request.
        had: changes that are in the version, of earlier requests.
    """
    root = line_name(packet.sources[0])
    made = {(root, request) for request in packet.delta.repeats or [request_id]}
    if made.isdisjoint(had):
        digests = by_digests(packet.digest, packet.delta.before, packet.delta.after)
        return {(root, name) for name in digests} & had.keys() or made
    return made


def requests_of(changes: Iterable[Made]) -> str:
    """Return the requests that changes were made for, for people to read."""
    named = {name for _, name in changes if ":" not in name}
    return ", ".join(sorted(named)) or "an earlier request"


def got_before(owner: Owner, record: ModelRecord) -> list[tuple[str, pb.AppliedDelta]]:
    """Return (request, change) of all changes that were added to a version, the latest first.

    Args:
        owner: the owner of the model.
        record: the version.
    """
    made = owner.store.made_by(record.id)
    return [(entry.request_id, delta) for entry in made for delta in _result(entry).deltas]


def missing_before(packet: pb.FisherPacket, had: Container[Made]) -> str:
    """Return the requests whose changes a packet takes the place of, and a version has not.

    Args:
        packet: the packet.
        had: changes that are in the version.

    Returns:
        Their ids, for people to read; empty if it has all.
    """
    root = line_name(packet.sources[0])
    return ", ".join(one for one in packet.delta.replaces if (root, one) not in had)


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
        One entry if one is enough, with those that it took the place of; empty if some samples were
        not forgotten, or without effect.
    """
    found: list[LedgerEntry] = []
    left = None if samples is None else set(samples)
    for entry in owner.store.made_by(record.id):
        own = own_delta(owner, entry)
        if entry.outcome == pb.OUTCOME_INEFFECTIVE or own is None:
            continue
        if root_method not in (AUTO, own.root_method):
            continue
        forgotten = entry.forgotten
        if forgotten is None:
            continue
        if not forgotten.samples:  # all that it was trained on
            return _with_replaced(owner, record, [entry])
        if left is None:
            continue
        listed = [SampleDigests(forgotten.salt, forgotten.samples)]
        known = set(known_samples(owner, record, listed))
        assert samples is not None
        if known.issuperset(samples):
            return _with_replaced(owner, record, [entry])
        if known & left:
            left -= known
            found.append(entry)
    return _with_replaced(owner, record, found) if left is not None and not left else ()


def _with_replaced(
    owner: Owner, record: ModelRecord, entries: Sequence[LedgerEntry]
) -> tuple[LedgerEntry, ...]:
    """Return entries and those whose changes theirs took the place of: together they are whole."""
    found: list[LedgerEntry] = []
    wanted = {entry.request_id for entry in entries}
    for entry in owner.store.made_by(record.id):
        if entry.request_id in wanted:
            found.append(entry)
            own = own_delta(owner, entry)
            wanted.update(() if own is None else own.replaces)
    return tuple(found)


def again(
    owner: Owner, record: ModelRecord, entries: Sequence[LedgerEntry], request_digest: str
) -> pb.Delta:
    """Return where the change of earlier requests comes from, when it is sent again.

    Args:
        owner: the owner of the root.
        record: its present version.
        entries: of these requests, latest first.
        request_digest: SHA-256 of what the present request asks for.
    """
    own = own_delta(owner, entries[0])
    repeats = [entry.request_id for entry in entries]
    return pb.Delta(
        before=entries[-1].digest_before,
        after=entries[0].digest_after,
        request_digest=request_digest,
        root_method="" if own is None else own.root_method,
        exact=len(entries) == 1 and _result(entries[0]).remedy == pb.REMEDY_REPLAYED,
        repeats=repeats,
        line=line_of(owner, record),
        again=sent_again(owner, record, repeats),
    )


def made_before(
    owner: Owner, record: ModelRecord, entry: LedgerEntry, request_digest: str
) -> pb.Delta:
    """Return where the change comes from that a request made of a root.

    Args:
        owner: the owner of the root.
        record: the version before the request.
        entry: of the request.
        request_digest: SHA-256 of what it asks for.
    """
    line = {record.id, *(one.model_id for one in owner.store.made_by(record.id))}
    result = _result(entry)
    own = next((one for one in result.deltas if one.root in line), pb.AppliedDelta())
    return pb.Delta(
        before=own.before or entry.digest_before,
        after=own.after or entry.digest_after,
        request_digest=request_digest,
        root_method=own.root_method,
        exact=result.remedy == pb.REMEDY_REPLAYED,
        repeats=own.repeats,
        line=line_of(owner, record),
        replaces=own.replaces,
    )


def sent_again(owner: Owner, record: ModelRecord, requests: Collection[str]) -> list[str]:
    """Return the requests that sent the changes of some others again.

    Args:
        owner: the owner of the root.
        record: its version.
        requests: the others.
    """
    return [
        entry.request_id
        for entry in owner.store.made_by(record.id)
        if any(not {*delta.repeats}.isdisjoint(requests) for delta in _result(entry).deltas)
    ]


def line_of(owner: Owner, record: ModelRecord) -> pb.Line:
    """Return what made a version of a root.

    Args:
        owner: the owner of the root.
        record: the version.
    """
    return pb.Line(requests=[one.request_id for one in reversed(owner.store.made_by(record.id))])


def _result(entry: LedgerEntry) -> pb.ModelResult:
    return pb.ModelResult.FromString(entry.result)
