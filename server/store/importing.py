"""Imported versions and edges: what a person read from files, on the coordinator's machine.

An import may correct what an import recorded, as long as no request affects the version.  What was
observed or registered stays.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from disinherit.common.errors import GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind, inheritance_details
from disinherit.server.store.graph import find_edges, find_records
from disinherit.server.store.lineage import put_version
from disinherit.server.store.model_rows import find_record, insert_edges, replace_record
from disinherit.server.store.tables import EDGES, TASKS


def put_imported(
    db: Connection, record: ModelRecord, edges: Sequence[Inheritance], actor: str
) -> None:
    """Add an imported version, or change its edges and its unknown weights.

    Args:
        db: a transaction that writes.
        record: the version.
        edges: all edges that lead to it.
        actor: who imports it, for the audit log.

    Raises:
        GraphError: if the graph refuses it, or it is recorded otherwise and not by an import, or a
            request affects it.
        LabelError: if a label mapping does not fit.
    """
    present = find_record(db, record.id)
    known = find_edges(db, EDGES.c.child, [record.id])
    pinned = present is not None and not present.digest and record.digest != ""
    if present is None or not (known or pinned):
        put_version(db, record, edges, actor)
        return
    if not all(edge.source for edge in known):
        raise GraphError(
            f"Expected the inheritance of {record.id!r} to be from an import, but it was observed "
            "or registered; it stays as recorded."
        )
    query = select(TASKS.c.request_id).where(TASKS.c.model_id == record.id).limit(1)
    if (request := db.execute(query).scalar()) is not None:
        raise GraphError(
            f"Expected no request to affect {record.id!r}, but {request!r} does: its edges and "
            "weights stay as they were planned with."
        )
    parents = find_records(db, (edge.parent for edge in edges))
    InheritanceGraph(parents.values()).add(record, edges)
    replace_record(db, record)
    db.execute(delete(EDGES).where(EDGES.c.child == record.id))
    insert_edges(db, edges, actor)
    append(
        db,
        AuditKind.MODEL_COMPLETED,
        actor,
        model_id=record.id,
        owner=record.owner,
        digest_after=record.digest,
        parameters=inheritance_details(edges),
    )
