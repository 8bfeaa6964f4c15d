"""Registration of many versions at once, with a few statements for all of them."""

from collections.abc import Sequence

from sqlalchemy import Connection

from disinherit.common.errors import AuditError, InputError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.server.store.audit import append_all
from disinherit.server.store.audit_events import COORDINATOR, AuditKind
from disinherit.server.store.graph import find_records
from disinherit.server.store.lineage import checked_new, register_version, registration_event
from disinherit.server.store.model_rows import insert_edges, insert_records
from disinherit.server.store.registering import any_announced
from disinherit.server.store.shared_transaction import savepoint

Versions = Sequence[tuple[ModelRecord, Sequence[Inheritance]]]
Results = list[tuple[ModelRecord, bool] | InputError]
"""For each version the stored record, and whether it is new; or why it is refused."""


def register_versions(db: Connection, versions: Versions, actor: str) -> Results:
    """Register versions one after the other, each as `register_version` does.

    If all of them are new, as in most messages, what they are is stored by one statement for each
    table.

    Args:
        db: a transaction that writes.
        versions: each version with the edges that lead to it, parents first.
        actor: who registers them, for the audit log.

    Returns:
        For each the stored record, and whether it is new; or why it is refused, of which nothing is
        stored.
    """
    ids = [record.id for record, _ in versions]
    named = {edge.parent for _, edges in versions for edge in edges}
    known = find_records(db, named.union(ids))
    new = len(set(ids)) == len(ids) and known.keys().isdisjoint(ids)
    if new and not any_announced(db, [record.id for record, edges in versions if not edges]):
        try:
            with savepoint(db):
                return _register_new(db, versions, actor, known)
        except AuditError:  # of one of them, which is refused alone
            pass
    return _register_each(db, versions, actor, known)


def _register_new(
    db: Connection, versions: Versions, actor: str, known: dict[str, ModelRecord]
) -> Results:
    known = dict(known)
    results: Results = []
    records: list[ModelRecord] = []
    edges: list[Inheritance] = []
    events = []
    for record, its_edges in versions:
        try:
            complete = checked_new(record, its_edges, actor, known)
            parents = dict.fromkeys(edge.parent for edge in its_edges)
            around = InheritanceGraph([known[parent] for parent in parents if parent in known])
            around.add(complete, its_edges)
        except InputError as error:
            results.append(error)
            continue
        known[complete.id] = complete
        records.append(complete)
        edges += its_edges
        events.append(registration_event(AuditKind.MODEL_REGISTERED, complete, its_edges, actor))
        results.append((complete, True))
    insert_records(db, records)
    insert_edges(db, edges, "" if actor == COORDINATOR else actor)
    append_all(db, events)
    return results


def _register_each(
    db: Connection, versions: Versions, actor: str, known: dict[str, ModelRecord]
) -> Results:
    results: Results = []
    for record, edges in versions:
        try:
            with savepoint(db):
                stored, new = register_version(db, record, edges, actor, known)
        except InputError as error:
            results.append(error)
        else:
            known[stored.id] = stored
            results.append((stored, new))
    return results
