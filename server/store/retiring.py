"""Retirement of the versions of an owner that has left, after a request for all it contributed."""

from sqlalchemy import Connection

from disinherit.common.errors import RequestError
from disinherit.common.graph.records import ModelStatus
from disinherit.server.states import TaskState
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.model_rows import find_record, put_statuses
from disinherit.server.store.store import CoordinatorStore


def retire_versions(store: CoordinatorStore, owner: str, actor: str) -> list[str]:
    """Retire the exempt versions of an owner that left by a request; return those retired now.

    Args:
        store: the store.
        owner: the owner.
        actor: who says that the versions are out of use, for the audit log.

    Raises:
        RequestError: if no request took out what the owner contributed.
    """
    requests = [id for id in store.requests() if store.request(id).client == owner]
    if not requests:
        raise RequestError(
            f"Expected an owner whose contribution was to be forgotten by a request, but there is "
            f"none for {owner!r}. Ask for that first, or its models are used further on."
        )
    exempt = {
        task.model_id
        for id in requests
        for task in store.tasks(id).values()
        if task.owner == owner and task.state is TaskState.EXEMPT
    }
    with store.writing() as db:
        return [model for model in sorted(exempt) if _retire(db, model, actor)]


def _retire(db: Connection, model: str, actor: str) -> bool:
    record = find_record(db, model)
    if record is None or record.status is ModelStatus.RETIRED:
        return False
    put_statuses(db, [record], ModelStatus.RETIRED)
    append(
        db,
        AuditKind.MODEL_RETIRED,
        actor,
        model_id=model,
        owner=record.owner,
        digest_before=record.digest,
    )
    return True
