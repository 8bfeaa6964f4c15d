"""Registration of versions and edges, each in one transaction.

Every rule of the graph concerns a version and its parents only.  So a change is checked against
these, and its cost does not depend on the size of the graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import Connection, select

from disinherit.common.audit.chain import AuditEvent
from disinherit.common.errors import GraphError, InputError, RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.server.now import now_us
from disinherit.server.store.audit import append, append_all, make_event
from disinherit.server.store.audit_events import (
    COORDINATOR,
    AuditKind,
    inheritance_details,
    owner_actor,
    scale_details,
)
from disinherit.server.store.graph import find_edges, find_records
from disinherit.server.store.model_rows import (
    delete_record,
    find_record,
    insert_edges,
    insert_records,
    replace_record,
)
from disinherit.server.store.registering import (
    Announced,
    check_first_word,
    check_foreign_parents,
    check_kinds,
    check_label_count,
    check_name_space,
    check_new_name,
    drop_announced,
    find_announced,
)
from disinherit.server.store.tables import EDGES, TASKS


def put_version(
    db: Connection,
    record: ModelRecord,
    edges: Sequence[Inheritance],
    actor: str = COORDINATOR,
    read: Mapping[str, ModelRecord] | None = None,
) -> None:
    """Add a version with its edges, or complete the record of a known one.

    A known version keeps its edges; if it has none yet, it gets `edges`.  An announced version gets
    its start as parent.  Its owner may register once the weights that it keeps, which may differ
    from what it sent.

    Args:
        db: a transaction that writes.
        record: the version.
        edges: the edges that lead to it.
        actor: who registers it, for the audit log.
        read: the records of the version and its parents that exist, if this transaction read them.

    Raises:
        GraphError: if the graph refuses the version or an edge, or a known version has other edges.
        LabelError: if a label mapping does not fit.
    """
    find = partial(find_record, db) if read is None else read.get
    present = find(record.id)
    if present is None:
        check_name_space(db, record)
    known = [] if present is None else find_edges(db, EDGES.c.child, [record.id])
    announced = None if edges else find_announced(db, record.id, record.owner)
    if announced is not None:
        edges = [] if known else _start(db, announced)
        find = partial(find_record, db)
    if known and edges and not _are(known, edges):
        raise GraphError(
            f"Expected the inheritance of model {record.id!r} to stay as recorded, from "
            f"{', '.join(edge.parent for edge in known)}, but got another, from "
            f"{', '.join(edge.parent for edge in edges)}."
        )
    new = [] if known else list(edges)
    parents = [find(parent) for parent in dict.fromkeys(edge.parent for edge in new)]
    neighbours = InheritanceGraph([parent for parent in parents if parent is not None])
    neighbours.add(record, new)
    if present is None:
        insert_records(db, [record])
    else:
        sent = present
        if announced is not None:  # the record describes what the owner sent
            sent = replace(present, architecture=record.architecture, digest=record.digest)
        _check_imported(sent, record, known)
        InheritanceGraph([sent]).replace(record)
        replace_record(db, record)
    seen = actor == COORDINATOR or announced is not None
    insert_edges(db, new, "" if seen else actor)
    if announced is not None:
        drop_announced(db, record.id)
    if present == record and not new:
        return
    kind = AuditKind.MODEL_REGISTERED if present is None else AuditKind.MODEL_COMPLETED
    append_all(db, [registration_event(kind, record, new or known, actor)])


def registration_event(
    kind: AuditKind, record: ModelRecord, edges: Sequence[Inheritance], actor: str
) -> AuditEvent:
    """Return the event for the log that a version was registered or completed.

    Args:
        kind: which of both.
        record: the version.
        edges: the edges that lead to it.
        actor: who did it.
    """
    return make_event(
        kind,
        actor,
        model_id=record.id,
        owner=record.owner,
        digest_after=record.digest,
        parameters={**inheritance_details(edges), **scale_details(record)},
        fishers=(record.fisher_digest,) if record.fisher_digest else (),
    )


def _check_imported(
    present: ModelRecord, record: ModelRecord, known: Sequence[Inheritance]
) -> None:
    """Refuse what an import recorded of other files; the owner's version of an adapter is one."""
    read = bool(known) and all(edge.source for edge in known)
    if read and record.digest and present.digest not in ("", record.digest):
        raise GraphError(
            f"Expected model {record.id!r} with the tensors that an import read from its files, "
            "but its owner has others, as it has of an adapter, with those of its base: withdraw "
            f"what was imported (`disinherit model withdraw {record.id}`), register {record.id!r} "
            "first, and import again."
        )


def _start(db: Connection, announced: Announced) -> list[Inheritance]:
    """Return the edge from an announced version's start, if the start is recorded."""
    if find_record(db, announced.start) is None:
        return []
    return [Inheritance(announced.start, announced.model_id, InheritanceKind.INCREMENTAL)]


def register_version(
    db: Connection,
    record: ModelRecord,
    edges: Sequence[Inheritance],
    actor: str,
    read: Mapping[str, ModelRecord] | None = None,
) -> tuple[ModelRecord, bool]:
    """Add a version as of now, or complete the record of a known one, which keeps its status.

    Args:
        db: a transaction that writes, so that no other version is added meanwhile.
        record: the version, with any time and status.
        edges: the edges that lead to it.
        actor: who registers it, for the audit log.
        read: the records of the version and its parents that exist, if this transaction read them.

    Returns:
        The stored record, and whether the version is new.

    Raises:
        InputError: if another owner has a version with this id.
        GraphError: if the graph refuses the version or an edge, or a known version has other edges.
        LabelError: if a label mapping does not fit.
    """
    named = [record.id, *(edge.parent for edge in edges)]
    if read is None:
        read = find_records(db, named)
    present = {id: read[id] for id in named if id in read}
    known = present.get(record.id)
    own = actor == owner_actor(record.owner)
    if known is None:
        complete = checked_new(record, edges, actor, present)
    else:
        if known.owner != record.owner:  # the message must not name the other owner
            raise InputError(f"Expected a model id that is not taken, but got {record.id!r}.")
        complete = replace(record, created_us=known.created_us, status=known.status)
        complete = check_first_word(known, complete)
        if edges and not own and not find_edges(db, EDGES.c.child, [record.id]):
            raise GraphError(
                f"Expected the parents of model {record.id!r}, which is known without any, from "
                f"its owner {record.owner!r}, but got them from {actor}. Have its owner register "
                "them with its own token."
            )
        _check_edges(complete, edges, own, present)
    put_version(db, complete, edges, actor, present)
    return complete, known is None


def checked_new(
    record: ModelRecord,
    edges: Sequence[Inheritance],
    actor: str,
    known: Mapping[str, ModelRecord],
) -> ModelRecord:
    """Return the record of a new version as of now, if it may be registered.

    Args:
        record: the version, with any time and status.
        edges: the edges that lead to it.
        actor: who registers it.
        known: has its parents, as far as they exist.

    Raises:
        InputError: if it may not.
    """
    check_new_name(record.id)
    parents = {edge.parent: known[edge.parent] for edge in edges if edge.parent in known}
    youngest = max((one.created_us for one in parents.values()), default=0)
    complete = replace(record, created_us=max(now_us(), youngest + 1))
    _check_edges(complete, edges, actor == owner_actor(record.owner), parents)
    return complete


def _check_edges(
    record: ModelRecord, edges: Sequence[Inheritance], own: bool, present: Mapping[str, ModelRecord]
) -> None:
    find = partial(_found, present)
    if own:
        check_foreign_parents(record, edges, find)
    check_kinds(record, edges, find, own)
    check_label_count(record, [p for p in present.values() if p.owner == record.owner or not own])


def _are(known: Sequence[Inheritance], edges: Sequence[Inheritance]) -> bool:
    """Whether edges are the known ones; without a recipe, they leave it open."""
    given = sorted(edges, key=lambda edge: edge.parent)
    if not any(edge.recipe for edge in given):
        known = [replace(edge, recipe=None, place=0) for edge in known]
    return list(known) == given


def withdraw_version(db: Connection, model_id: str, owner: str, actor: str) -> ModelRecord:
    """Take back the registration of a version that nothing depends on.

    Its id is free again.  The audit log keeps the entries about it.

    Args:
        db: a transaction that writes.
        model_id: the version.
        owner: the owner that the version must have; `""` for any.
        actor: who withdraws it, for the audit log.

    Returns:
        The withdrawn record.

    Raises:
        GraphError: if there is no such version, or it has another owner.
        RequestError: if something was derived from it, unlearning made it, or a request affects it.
    """
    record = find_record(db, model_id)
    # One message for both: whether an id of another owner exists is not the caller's to know.
    if record is None or owner not in ("", record.owner):
        whose = f" of {owner!r}" if owner else ""
        raise GraphError(
            f"Expected the id of a registered model{whose}, but got {model_id!r}. "
            "`disinherit model list` shows them."
        )
    parents = find_edges(db, EDGES.c.child, [model_id])
    if any(edge.kind is InheritanceKind.UNLEARNED for edge in parents):
        raise RequestError(
            f"Expected a model that was registered, but unlearning made {model_id!r}. Roll its "
            "request back instead."
        )
    if find_edges(db, EDGES.c.parent, [model_id]):
        raise RequestError(
            f"Expected nothing to be derived from {model_id!r}, but something was: it stays, so "
            "that requests reach what was derived from it."
        )
    query = select(TASKS.c.request_id).where(TASKS.c.model_id == model_id)
    if (request := db.execute(query.limit(1)).scalar()) is not None:
        raise RequestError(
            f"Expected no request to affect {model_id!r}, but {request!r} does: what became of it "
            "is part of that request's record."
        )
    delete_record(db, model_id)
    append(
        db,
        AuditKind.MODEL_WITHDRAWN,
        actor,
        model_id=model_id,
        owner=record.owner,
        digest_before=record.digest,
        parameters=inheritance_details(parents),
    )
    return record


def _found(present: Mapping[str, ModelRecord], id: str) -> ModelRecord:
    if id not in present:
        raise GraphError(f"Expected the id of a known model, but got {id!r}.")
    return present[id]
